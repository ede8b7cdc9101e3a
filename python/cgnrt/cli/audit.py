"""`cgnrt audit`: audit a classifier that is named as module:function."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.terminal import say, say_traceback
from cgnrt.cli.arguments import Commands, add_generator, open_generator
from cgnrt.errors import CgnrtError


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("audit", help="what a classifier's answers follow")
    add_generator(parser)
    parser.add_argument(
        "classifier",
        metavar="MODULE:FUNCTION",
        help="from a batch of images (m, 3, h, w) in [-1, 1] to logits (m, k) or labels (m,), or a torch module; it is "
        "imported from the current folder, or from what is installed, so its code runs",
    )
    parser.add_argument("-n", type=int, default=10_000, help="images of each kind; five kinds (10000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (0)")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="images in a call (256)")
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
    parser.add_argument(
        "--masks",
        metavar="MODULE:FUNCTION",
        help="also count how many masks show their label: a classifier of masks (m, 1, h, w) in [0, 1], such as one of "
        "white digits on black, named as the other one",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="a .json to write; the table is printed all the same"
    )
    parser.add_argument("--plot", type=Path, help="a .png to write; needs matplotlib")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Audit, print the table, write what was asked for.

    Raises:
      CgnrtError: the classifier is not there, or raised (its traceback is on stderr).
    """
    from cgnrt.auditing.modules import classifying, is_module
    from cgnrt.auditing.run import audit

    # All that can be refused is refused before the long work.
    for target, suffix in ((arguments.output, ".json"), (arguments.plot, ".png")):
        if target is not None:
            if target.suffix != suffix:
                raise ValueError(f"audit: output is '{target}', expected a name that ends in {suffix}.")
            refuse_existing(target, force=arguments.force)
    if arguments.plot is not None:
        from cgnrt.auditing.plot import import_figure

        import_figure()
    with _current_folder_first(), ExitStack() as stack:
        classifier, inputs = _load(arguments.classifier), arguments.inputs
        if is_module(classifier) and inputs != "numpy":
            classifier, inputs = stack.enter_context(classifying(classifier)), "torch"
        masks = None
        if arguments.masks is not None:
            masks = _mask_classifier(stack, arguments.masks)
        if inputs == "torch" and arguments.device == "auto":
            arguments.device = "cpu"  # where a classifier is that says nothing else
        result = audit(
            _guarded(arguments.classifier, classifier),
            open_generator(arguments),
            arguments.n,
            batch_size=arguments.batch,
            seed=arguments.seed,
            confidence=arguments.confidence,
            inputs=inputs,
            truncation=arguments.truncation,
            distinct=arguments.distinct,
            mask_classifier=masks,
        )
    result = replace(result, classifier=arguments.classifier)
    if arguments.output is not None:
        with written_beside(arguments.output, force=arguments.force) as beside:
            beside.write_text(result.to_json(), encoding="utf-8")
    if arguments.plot is not None:
        result.plot(arguments.plot, force=arguments.force)
    say(result)


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Modules of the current folder can be imported, as with `python -m`, while the classifier runs, too."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed the list
            sys.path.remove(folder)


def _load(name: str) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"audit: classifier is '{name}', expected MODULE:FUNCTION, as my_model:classify.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _raised(name, error) from error
        raise CgnrtError(
            f"audit '{name}': module '{error.name}' is missing, expected one in the current folder or an "
            "installed one."
        ) from error
    except Exception as error:
        raise _raised(name, error) from error
    try:
        return attrgetter(attribute)(module)
    except AttributeError as error:
        raise CgnrtError(
            f"audit '{name}': '{attribute}' is missing in module '{module_name}', expected a function."
        ) from error


def _mask_classifier(stack: ExitStack, name: str) -> Any:
    """A classifier of masks as a function of arrays, until the stack ends."""
    from cgnrt.auditing.modules import classifying, is_module

    found = _load(name)
    if not is_module(found):
        return _guarded(name, found)
    import torch

    function = stack.enter_context(classifying(found))

    def call(masks: Any) -> Any:
        with torch.no_grad():
            return function(torch.from_numpy(masks))

    return _guarded(name, call)


def _guarded(name: str, classifier: Any) -> Any:
    """The classifier; what it raises is told apart from our own errors."""
    if not callable(classifier) or getattr(classifier, "training", False) is True:
        return classifier  # which `audit` refuses

    def call(images: Any) -> Any:
        try:
            return classifier(images)
        except Exception as error:
            raise _raised(name, error) from error

    return call


def _raised(name: str, error: Exception) -> CgnrtError:
    say_traceback(error)
    return CgnrtError(
        f"audit '{name}': the classifier's code raised {type(error).__name__} (above), expected an answer."
    )
