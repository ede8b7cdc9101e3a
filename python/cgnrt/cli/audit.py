"""`cgnrt audit`: audit a classifier, named as module:function, on a plan's images, on photos or on a test set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.machine import keep_freed_memory
from cgnrt._support.terminal import say
from cgnrt.cli.arguments import Commands, add_generator, add_place, open_generator
from cgnrt.cli.audit_photos import audit_photos
from cgnrt.cli.classifiers import guarded, load_classifier, opened_classifier
from cgnrt.cli.photos import add_photo_options, check_photo_options
from cgnrt.request.place import read_place

if TYPE_CHECKING:
    from cgnrt.auditing.result import Audit
    from cgnrt.real import CueConflictAudit, In9Audit

T = TypeVar("T")

# What is asked about, by the option that stands for the plan.
_FOLDERS = ("photos", "in9", "cue_conflict")
# Options that only go with some of these ("plan" is a plan); all others go with each.
_ONLY = {
    ("plan",): ("device", "precision", "truncation", "distinct", "place", "mask_classifier"),
    ("plan", "photos"): ("seed", "backend", "threads"),
    ("photos",): ("labels", "sheet", "no_places", "masks", "saliency", "min_object", "max_object", "strict"),
    ("in9",): ("sets",),
    ("in9", "cue_conflict"): ("classes",),
    _FOLDERS: ("size",),
}


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "audit", help="what a classifier's answers follow, on a plan's images or on photos"
    )
    add_generator(parser)
    for name in _FOLDERS:
        parser.stands_for(_option(name), "plan")
    parser.add_argument(
        "classifier",
        metavar="MODULE:FUNCTION",
        help="from a batch of images (m, 3, h, w), in [-1, 1] of a plan and in [0, 1] of pictures, to logits (m, k) or "
        "labels (m,), or a torch module; it is imported from the current folder, or from what is installed, so its "
        "code runs",
    )
    parser.add_argument(
        "-n",
        type=int,
        help="images of each kind (10000 of a plan, which has five kinds; one for each photo), or pictures of a test "
        "set (all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (0)")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images in a call (256 of a plan, 64 of pictures)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument(
        "--inputs", choices=("numpy", "torch"), help="what it takes (numpy; torch for a torch module)"
    )
    parser.add_argument("--truncation", type=float, help="for plans that have it")
    parser.add_argument(
        "--distinct",
        action="store_true",
        help="counterfactuals and interventions never have texture and background of one class (off)",
    )
    add_place(parser)
    parser.add_argument(
        "--mask-classifier",
        metavar="MODULE:FUNCTION",
        help="also count how many of a plan's masks show their label: a classifier of masks (m, 1, h, w) in [0, 1], "
        "such as one of white digits on black, named as the other one",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="a .json to write; the table is printed all the same"
    )
    parser.add_argument("--plot", type=Path, help="a .png to write; needs matplotlib")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    photos = parser.add_argument_group("photos, in place of a plan")
    photos.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="a folder of photos with a sub-folder for each class"
    )
    photos.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a .json with the number of each class among the classifier's answers: an object from names of "
        "sub-folders to numbers, or the list of all names (sub-folders in the order of their names)",
    )
    photos.add_argument(
        "--sheet", type=Path, help="a .png to write, with the photos that are lost most often"
    )
    photos.add_argument(
        "--no-places",
        action="store_true",
        help="do not move and scale objects: 6 images of a photo instead of 20",
    )
    add_photo_options(photos, size=224, required=False)
    known = parser.add_argument_group("test sets of others, in place of a plan")
    known.add_argument(
        "--in9",
        type=Path,
        metavar="FOLDER",
        help="ImageNet-9 (Xiao et al., 2020): a folder with original, mixed_same, mixed_rand and so on",
    )
    known.add_argument(
        "--sets",
        metavar="A,B,...",
        help="names of ImageNet-9's sets, as mixed_same,mixed_rand (all in the folder)",
    )
    known.add_argument(
        "--cue-conflict",
        type=Path,
        metavar="FOLDER",
        help="Cue Conflict (Geirhos et al., 2019): a folder with airplane, bear and 14 more",
    )
    known.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="of a classifier that returns labels: 1000 or 9 for --in9, 16 for --cue-conflict (taken from the logits)",
    )
    parser.set_defaults(run=_run, defaults=parser.get_default)


def _run(arguments: argparse.Namespace) -> None:
    """Audit, print the table, write what was asked for.

    Raises:
      CgnrtError: the classifier is not there, or raised (its traceback is on stderr).
      ValueError: options do not go together.
    """
    source = _source(arguments)
    _check(arguments, source)
    result = _AUDITS[source](arguments)
    if arguments.output is not None:
        with written_beside(arguments.output, force=arguments.force) as beside:
            beside.write_text(result.to_json(), encoding="utf-8")
    if arguments.plot is not None:
        result.plot(arguments.plot, force=arguments.force)
    say(result)


def _source(arguments: argparse.Namespace) -> str:
    """What is asked about.

    Raises:
      ValueError: several are given.
    """
    given = [name for name in ("plan", *_FOLDERS) if getattr(arguments, name) is not None]
    if len(given) > 1:
        first, other = given[:2]
        raise ValueError(
            f"audit: {first if first == 'plan' else _option(first)} is '{getattr(arguments, first)}' beside "
            f"{_option(other)}, expected one of the two. Leave one out."
        )
    return given[0]


def _check(arguments: argparse.Namespace, source: str) -> None:
    """Refuse all that can be refused before the long work."""
    for sources, names in _ONLY.items():
        for name in names:
            if source not in sources and getattr(arguments, name) != arguments.defaults(name):
                given = "a plan" if source == "plan" else _option(source)
                raise ValueError(f"audit: {_option(name)} is not supported with {given}. Leave it out.")
    if source == "photos" and arguments.masks is None and arguments.saliency is None:
        raise ValueError(
            "audit: masks of the photos are missing. Give --masks FOLDER or --saliency PLAN, which cgnrt-export makes "
            "of U2-Net's weights."
        )
    if source in _FOLDERS:
        check_photo_options(arguments)
    targets = ((arguments.output, ".json"), (arguments.plot, ".png"), (arguments.sheet, ".png"))
    for target, suffix in targets:
        if target is not None:
            if target.suffix != suffix:
                raise ValueError(f"audit: output is '{target}', expected a name that ends in {suffix}.")
            refuse_existing(target, force=arguments.force)
    if arguments.plot is not None:
        from cgnrt.auditing.plot import import_figure

        import_figure()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _audit_plan(arguments: argparse.Namespace) -> Audit:
    from cgnrt.auditing.run import audit

    with ExitStack() as stack:
        classifier, inputs = opened_classifier(stack, arguments.classifier, arguments.inputs)
        masks = None
        if arguments.mask_classifier is not None:
            masks = _mask_classifier(stack, arguments.mask_classifier)
        if inputs == "torch" and arguments.device == "auto":
            arguments.device = "cpu"  # where a classifier is that says nothing else
        result = audit(
            classifier,
            open_generator(arguments),
            10_000 if arguments.n is None else arguments.n,
            batch_size=256 if arguments.batch is None else arguments.batch,
            seed=arguments.seed,
            confidence=arguments.confidence,
            inputs=inputs,
            truncation=arguments.truncation,
            distinct=arguments.distinct,
            place=read_place(arguments.place),
            mask_classifier=masks,
        )
    return replace(result, classifier=arguments.classifier)


def _mask_classifier(stack: ExitStack, name: str) -> Any:
    """A classifier of masks as a function of arrays, until the stack ends."""
    from cgnrt.auditing.modules import classifying, is_module

    found = load_classifier(name)
    if not is_module(found):
        return guarded(name, found)
    import torch

    function = stack.enter_context(classifying(found))

    def call(masks: Any) -> Any:
        with torch.no_grad():
            return function(torch.from_numpy(masks))

    return guarded(name, call)


def _audit_in9(arguments: argparse.Namespace) -> In9Audit:
    from cgnrt import real

    sets = None if arguments.sets is None else [name.strip() for name in arguments.sets.split(",")]
    return _audit_known(arguments, real.in9, arguments.in9, sets=sets)


def _audit_cue_conflict(arguments: argparse.Namespace) -> CueConflictAudit:
    from cgnrt import real

    return _audit_known(arguments, real.cue_conflict, arguments.cue_conflict)


def _audit_known(arguments: argparse.Namespace, audit: Callable[..., T], folder: Path, **options: Any) -> T:
    """The result of `real.in9` or `real.cue_conflict`."""
    keep_freed_memory()  # of one batch for the next, which is as large
    with ExitStack() as stack:
        classifier, inputs = opened_classifier(stack, arguments.classifier, arguments.inputs)
        return audit(
            classifier,
            folder,
            n=arguments.n,
            classes=arguments.classes,
            size=arguments.size,
            batch_size=64 if arguments.batch is None else arguments.batch,
            confidence=arguments.confidence,
            inputs=inputs,
            **options,
        )


_AUDITS: Mapping[str, Callable[[argparse.Namespace], Any]] = {
    "plan": _audit_plan,
    "photos": audit_photos,
    "in9": _audit_in9,
    "cue_conflict": _audit_cue_conflict,
}
