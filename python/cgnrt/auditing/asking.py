"""Asks a classifier about images, and checks what it answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np

from cgnrt._support.extras import missing_dependency
from cgnrt._support.values import host_array, is_int
from cgnrt.auditing.modules import classifying, is_module
from cgnrt.sampling import check_index

Classifier = Callable[[Any], Any]
Name = Callable[[int], str]  # of an image of a batch, for messages


class Asker:
    """A classifier as a function of images that returns checked answers.

    Args:
      name: of the argument that the classifier is.
      inputs: "numpy" or "torch", what it takes.
      k: the number of classes; None takes it from the first logits.
      whose: what the classes are of, for messages.
      advice: what to do if the number of classes is another one.
    """

    def __init__(
        self, name: str, classifier: Classifier, inputs: str, *, k: int | None, whose: str, advice: str
    ) -> None:
        self._name, self._classifier = name, classifier
        self._torch = _import_torch() if inputs == "torch" else None
        self.k, self._whose, self._advice = k, whose, advice

    @property
    def takes_tensors(self) -> bool:
        """Whether it takes torch tensors."""
        return self._torch is not None

    def __call__(self, images: Any, name: Name) -> np.ndarray:
        """The answers for images in the form that the classifier takes: class indices, int64 (m,).

        Args:
          name: what a message calls an image.
        Raises:
          TypeError, ValueError: an answer has the wrong shape or type, is NaN, or is not a class.
        """
        return highest(self.scores(images, name))

    def scores(self, images: Any, name: Name) -> np.ndarray:
        """What the classifier returns for images: logits (m, k) or int64 labels (m,), checked as `__call__` checks."""
        m = len(images)
        no_gradients: AbstractContextManager[Any] = (
            nullcontext() if self._torch is None else self._torch.no_grad()
        )
        with no_gradients:
            try:
                answer = self._classifier(images)
            except Exception as error:
                # What a network of other sizes raises does not say what it was given.
                error.add_note(
                    f"audit: the {self._name} was asked about {images.dtype} of shape {tuple(images.shape)}."
                )
                raise
            found = _to_numpy(self._name, answer)
        if found.ndim not in (1, 2) or len(found) != m:
            raise ValueError(
                f"audit: answer of the {self._name} has shape {found.shape}, expected {self._expected(m)} "
                f"({name(0)} and those after it)."
            )
        return self._logits(found, name) if found.ndim == 2 else self._labels(found, name)

    def unchanged_scores(self, images: np.ndarray, name: Name) -> np.ndarray:
        """`scores` for an array, after a check that the classifier leaves it as it is.

        Raises:
          ValueError: the classifier changes its images.
        """
        before = images.copy()
        found = self.scores(self.tensor(images), name)
        if not np.array_equal(images, before):
            row = int((images != before).any(axis=(1, 2, 3)).argmax())
            raise ValueError(
                f"audit: the {self._name} changed the pixels of {name(row)}, expected images to stay as they are. "
                "Let it work on a copy."
            )
        return found

    def tensor(self, images: np.ndarray) -> Any:
        """An array as the classifier takes it."""
        return images if self._torch is None else self._torch.from_numpy(images)

    def _expected(self, m: int) -> str:
        return f"logits ({m}, {'k' if self.k is None else self.k}) or integer labels ({m},)"

    def _logits(self, found: np.ndarray, name: Name) -> np.ndarray:
        if self.k is None:
            self.k = found.shape[1]
        if found.shape[1] != self.k or not self.k:
            raise ValueError(
                f"audit: number of logits of the {self._name} is {found.shape[1]}, expected {self.k or 'some'}, "
                f"{self._whose}. {self._advice}"
            )
        if found.dtype.kind not in "fiu":
            raise TypeError(
                f"audit: answer of the {self._name} is {found.dtype}, expected {self._expected(len(found))}."
            )
        wrong = np.isnan(found).any(axis=1) if found.dtype.kind == "f" else np.zeros(len(found), bool)
        if wrong.any():
            raise ValueError(
                f"audit: logits of the {self._name} for {name(int(wrong.argmax()))} are NaN, expected numbers."
            )
        nothing = found.max(axis=1) == -np.inf
        if nothing.any():
            raise ValueError(
                f"audit: logits of the {self._name} for {name(int(nothing.argmax()))} are all -inf, expected at least "
                "one number: no class is the answer."
            )
        return found

    def _labels(self, found: np.ndarray, name: Name) -> np.ndarray:
        if found.dtype.kind not in "iu":
            raise TypeError(
                f"audit: answer of the {self._name} is {found.dtype} {found.shape}, expected "
                f"{self._expected(len(found))}."
            )
        wrong = found < 0 if self.k is None else (found < 0) | (found >= self.k)
        if wrong.any():
            rule = "0 or more" if self.k is None else f"0..{self.k - 1}"
            raise ValueError(
                f"audit: labels of the {self._name} are {found.min()}..{found.max()}, expected {rule}, {self._whose} "
                f"({name(int(wrong.argmax()))})."
            )
        return found.astype(np.int64)


def highest(scores: np.ndarray) -> np.ndarray:
    """The classes of what `Asker.scores` gives, int64 (m,): the highest logit, the first of equal ones."""
    found: np.ndarray = scores.argmax(axis=1).astype(np.int64) if scores.ndim == 2 else scores
    return found


def prepared(stack: ExitStack, classifier: Any, inputs: str | None) -> tuple[Any, str]:
    """The classifier as a function, until the stack ends, and what it takes."""
    if is_module(classifier) and inputs in (None, "torch"):
        return stack.enter_context(classifying(classifier)), "torch"
    return classifier, "numpy" if inputs is None else inputs


def check_request(classifier: Any, n: Any, batch_size: Any, confidence: Any, inputs: Any) -> int:
    """Check what audits have in common.

    Returns:
      n as an int.
    Raises:
      TypeError, ValueError: an argument is not what `audit` takes.
    """
    check_callable("classifier", classifier)
    if getattr(classifier, "training", False) is True:
        raise ValueError(
            "audit: classifier is a module in training mode, expected evaluation mode. Call classifier.eval()."
        )
    for name, value in (("n", n), ("batch_size", batch_size)):
        if not is_int(value):
            raise TypeError(f"audit: {name} is {value!r}, expected an int.")
        if value < 1:
            raise ValueError(f"audit: {name} is {value}, expected at least 1.")
    if isinstance(confidence, bool) or not isinstance(confidence, float) or not 0 < confidence < 1:
        raise ValueError(f"audit: confidence is {confidence!r}, expected a number between 0 and 1.")
    if inputs not in ("numpy", "torch"):
        raise ValueError(f"audit: inputs is {inputs!r}, expected 'numpy' or 'torch'.")
    return check_index("n", n)


def spread(n: int, total: int) -> np.ndarray:
    """n of the numbers 0..total-1, spread over all, since the pictures of a folder are sorted by class; at most all."""
    return np.arange(min(n, total)) * total // min(n, total)


def check_callable(name: str, classifier: Any) -> None:
    """Refuse what cannot be called, by the name of the argument that it is."""
    if not callable(classifier):
        raise TypeError(f"audit: {name} is {type(classifier).__name__}, expected a callable.")


def _to_numpy(name: str, found: Any) -> np.ndarray:
    """A classifier's answer as an array. Does not import torch."""
    if callable(getattr(found, "detach", None)) and str(found.dtype) == "torch.bfloat16":
        found = found.float()  # NumPy does not have it
    try:
        array = host_array("audit", f"answer of the {name}", found)
    except TypeError as error:
        why = f" ({error.__cause__})" if error.__cause__ else ""
        raise TypeError(
            f"audit: answer of the {name} is {type(found).__name__}{why}, expected an array."
        ) from error
    if array.dtype.kind == "O":
        raise TypeError(f"audit: answer of the {name} is {type(found).__name__}, expected an array.")
    return array


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise missing_dependency("audit, inputs 'torch'", error) from error
    return torch
