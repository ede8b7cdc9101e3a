"""`cgnrt audit`: audit a classifier that is named as module:function, on a plan's images or on photos."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.machine import keep_freed_memory
from cgnrt._support.reading import read_file
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.terminal import say
from cgnrt._support.values import is_int
from cgnrt.cli.arguments import Commands, add_generator, add_place, open_generator
from cgnrt.cli.classifiers import current_folder_first, guarded, load_classifier
from cgnrt.cli.photos import Photos, add_photo_options, check_photo_options, read_photos
from cgnrt.request.place import read_place

if TYPE_CHECKING:
    from cgnrt.auditing.result import Audit
    from cgnrt.real import PhotoAudit

# Options that only go with one of the two, and the defaults of those that have one.
_OF_PLANS: dict[str, Any] = {
    "device": "auto",
    "precision": "auto",
    "truncation": None,
    "distinct": False,
    "place": [],
    "mask_classifier": None,
}
_LARGEST_LABELS = 1 << 24  # bytes of the file
_OF_PHOTOS = ("masks", "saliency", "labels", "sheet")


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "audit", help="what a classifier's answers follow, on a plan's images or on photos"
    )
    add_generator(parser)
    parser.stands_for("--photos", "plan")
    parser.add_argument(
        "classifier",
        metavar="MODULE:FUNCTION",
        help="from a batch of images (m, 3, h, w), in [-1, 1] of a plan and in [0, 1] of photos, to logits (m, k) or "
        "labels (m,), or a torch module; it is imported from the current folder, or from what is installed, so its "
        "code runs",
    )
    parser.add_argument(
        "-n", type=int, help="images of each kind (10000 of a plan, which has five kinds; one for each photo)"
    )
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (0)")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images in a call (256 of a plan, 64 of photos)"
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
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Audit, print the table, write what was asked for.

    Raises:
      CgnrtError: the classifier is not there, or raised (its traceback is on stderr).
      ValueError: options do not go together.
    """
    _check(arguments)
    result = _audit_plan(arguments) if arguments.photos is None else _audit_photos(arguments)
    if arguments.output is not None:
        with written_beside(arguments.output, force=arguments.force) as beside:
            beside.write_text(result.to_json(), encoding="utf-8")
    if arguments.plot is not None:
        result.plot(arguments.plot, force=arguments.force)
    say(result)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse all that can be refused before the long work."""
    given = "--photos" if arguments.photos is not None else "a plan"
    wrong = (
        [name for name, default in _OF_PLANS.items() if getattr(arguments, name) != default]
        if arguments.photos is not None
        else [name for name in _OF_PHOTOS if getattr(arguments, name) is not None]
    )
    if wrong:
        raise ValueError(
            f"audit: --{wrong[0].replace('_', '-')} is not supported with {given}. Leave it out."
        )
    if arguments.photos is not None:
        if arguments.plan is not None:
            raise ValueError(
                f"audit: plan is '{arguments.plan}' beside --photos, expected one of the two. Leave one out."
            )
        if arguments.masks is None and arguments.saliency is None:
            raise ValueError(
                "audit: masks of the photos are missing. Give --masks FOLDER or --saliency PLAN."
            )
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


def _loaded(stack: ExitStack, arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """The named classifier as a function, until the stack ends, and what it takes."""
    from cgnrt.auditing.modules import classifying, is_module

    stack.enter_context(current_folder_first())
    classifier, inputs = load_classifier(arguments.classifier), arguments.inputs
    if is_module(classifier) and inputs != "numpy":
        classifier, inputs = stack.enter_context(classifying(classifier)), "torch"
    return guarded(arguments.classifier, classifier), inputs


def _audit_plan(arguments: argparse.Namespace) -> Audit:
    from cgnrt.auditing.run import audit

    with ExitStack() as stack:
        classifier, inputs = _loaded(stack, arguments)
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


def _audit_photos(arguments: argparse.Namespace) -> PhotoAudit:
    from cgnrt import real

    keep_freed_memory()  # of one batch for the next, which is as large
    with ExitStack() as stack:
        classifier, inputs = _loaded(stack, arguments)
        photos = read_photos(arguments, [arguments.photos])
        labels, classes = _labels(arguments, photos)
        result = real.audit(
            classifier,
            photos.images,
            photos.masks,
            labels,
            n=arguments.n,
            batch_size=64 if arguments.batch is None else arguments.batch,
            seed=arguments.seed,
            confidence=arguments.confidence,
            inputs=inputs,
            classes=classes,
            names=[str(file) for file in photos.files],
            places=not arguments.no_places,
            threads=arguments.threads or 0,
        )
    if arguments.sheet is not None:
        if result.examples:
            result.sheet(arguments.sheet, force=arguments.force)
        else:
            say(
                f"no sheet: no photo is right and lost when something else changes ({arguments.sheet})",
                sys.stderr,
            )
    return result


def _labels(arguments: argparse.Namespace, photos: Photos) -> tuple[list[int], list[str] | dict[int, str]]:
    """The class of each photo as a number of the classifier's answers, and the names of the classes.

    Raises:
      ValueError: the file of --labels does not have a photo's class, or has another form.
    """
    if arguments.labels is None:
        names = sorted(set(photos.classes))
        return [names.index(name) for name in photos.classes], names
    numbers = _read_labels(arguments.labels)
    for file, name in zip(photos.files, photos.classes, strict=True):
        if name not in numbers:
            raise ValueError(
                f"audit '{arguments.labels}': class '{name}' of photo '{file}' is missing, expected a number for each "
                f"sub-folder of '{arguments.photos}'.{did_you_mean(name, numbers)}"
            )
    return [numbers[name] for name in photos.classes], {number: name for name, number in numbers.items()}


def _read_labels(path: Path) -> dict[str, int]:
    """Numbers by the names of classes."""
    try:
        content = json.loads(read_file(path, _LARGEST_LABELS))
    except FileNotFoundError:
        raise ValueError(f"audit '{path}': file is missing, expected a .json. Check the path.") from None
    except ValueError as error:
        raise ValueError(
            f"audit '{path}': content is not JSON ({error}), expected numbers of classes."
        ) from error
    if isinstance(content, list):
        content = {name: number for number, name in reversed(list(enumerate(content)))}
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and is_int(number) and number >= 0 for name, number in content.items()
    ):
        raise ValueError(
            f"audit '{path}': content is not an object from names to numbers of 0 or more, or a list of names. "
            'Write {"cat": 281, "dog": 207}, for example.'
        )
    return content
