"""Classifiers that are named on the command line as MODULE:FUNCTION."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

from cgnrt._support.terminal import say_traceback
from cgnrt.errors import CgnrtError


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Modules of the current folder can be imported, as with `python -m`, while the classifier runs, too."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed the list
            sys.path.remove(folder)


def opened_classifier(stack: ExitStack, name: str, inputs: str | None) -> tuple[Any, str | None]:
    """The named classifier as a function, until the stack ends, and what it takes.

    Raises:
      ValueError, CgnrtError: as `load_classifier`.
    """
    from cgnrt.auditing.modules import classifying, is_module

    stack.enter_context(current_folder_first())
    classifier = load_classifier(name)
    if is_module(classifier) and inputs != "numpy":
        classifier, inputs = stack.enter_context(classifying(classifier)), "torch"
    return guarded(name, classifier), inputs


def load_classifier(name: str) -> Any:
    """What a name stands for.

    Raises:
      ValueError: the name has another form.
      CgnrtError: there is no such module or function, or the module's code raised (its traceback is on stderr).
    """
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


def guarded(name: str, classifier: Any) -> Any:
    """The classifier; what it raises is told apart from our own errors."""
    if not callable(classifier) or getattr(classifier, "training", False) is True:
        return classifier  # which `audit` refuses

    def call(images: Any) -> Any:
        try:
            return classifier(images)
        except Exception as error:
            error.add_note(f"audit: it was asked about {images.dtype} of shape {tuple(images.shape)}.")
            raise _raised(name, error) from error

    return call


def _raised(name: str, error: Exception) -> CgnrtError:
    say_traceback(error)
    return CgnrtError(
        f"audit '{name}': the classifier's code raised {type(error).__name__} (above), expected an answer."
    )
