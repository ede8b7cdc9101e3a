"""`cgnrt.audit`: ask a classifier about counterfactuals and interventions from a plan, and count its answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.extras import missing_dependency
from cgnrt._support.values import host_array, is_int
from cgnrt.auditing.modules import classifying, is_module
from cgnrt.auditing.rates import ByMechanism, Rate
from cgnrt.auditing.result import Audit
from cgnrt.batch import Batch
from cgnrt.generator import Generator
from cgnrt.plan import Plan
from cgnrt.sampling import MECHANISMS, Labels, check_index, resolve_seed

Classifier = Callable[[Any], Any]


def audit(
    classifier: Classifier,
    plan: str | os.PathLike[str] | Plan | Generator,
    n: int = 10_000,
    *,
    batch_size: int = 256,
    seed: int | None = 0,
    confidence: float = 0.95,
    inputs: str | None = None,
    truncation: float | None = None,
    progress: bool = False,
) -> Audit:
    """Measure which mechanisms a classifier's answers follow (Sec. 2.2, 4.3).

    The classifier sees 5n images, a batch at a time: n counterfactuals with independent labels; for each of the three
    mechanisms the same n with that mechanism's label replaced by another class; and n images whose labels agree.

    Args:
      classifier: a torch module, which is asked in evaluation mode and on the device of its first parameter, and is
        then put back into its mode. Or a function of a batch of images (m, 3, h, w). Either returns logits (m, k) or
        labels (m,), as a NumPy array or a torch tensor on any device; k is the number of classes of the plan. The
        answer is the highest logit, and the first one where several are equal. The answer for an image must not
        depend on the other images.
      plan: a plan file or a Plan: images are float32 in [-1, 1]. Or a Generator, made with the dtype, layout and
        range or normalisation that the classifier was trained with.
      n: the number of images of each of the five kinds; at least 1. Intervals shrink with its square root.
      batch_size: images in one call of the classifier; five times as many are in memory.
      seed: of the stream. A seed always makes the same images, whatever the batch size. None draws a seed.
      confidence: of the intervals, between 0 and 1.
      inputs: what the classifier takes: "numpy", or "torch" for tensors on the CPU (those of a Generator are on its
        device), without gradients. None is "torch" for a module and "numpy" for a function. With "torch" one image
        comes first, alone: a classifier that does not take the plan's images fails before the work.
      truncation: for plans that have it.
      progress: show a bar on stderr, if that is a terminal.
    Returns:
      An Audit. A mechanism whose classes all look alike (the background of colored MNIST) shows no change.
    Raises:
      ValueError, TypeError: an argument is not as above, the mechanisms have different numbers of classes, or the
        classifier's answer has the wrong shape, the wrong number of classes, NaN, or -inf for every class.
      PlanError, BackendError: as for Generator.
      MissingDependencyError: `inputs` is "torch" and torch is not installed.
      An error that the classifier raises is not changed; for the first image it has a note that says what was given.
    """
    prepared: AbstractContextManager[Classifier] = nullcontext(classifier)
    if is_module(classifier) and inputs in (None, "torch"):
        prepared, inputs = classifying(classifier), "torch"
    inputs = "numpy" if inputs is None else inputs
    with prepared as function:
        count, seed = _check(function, n, batch_size, confidence, inputs), resolve_seed(seed)
        generator = _generator(plan, inputs)
        ask = _Asker(function, len(_classes(generator)), inputs)
        if inputs == "torch":
            _try_one(ask, generator, seed, truncation)
        totals = _count(ask, generator, count, batch_size, seed, truncation, progress)
    return totals.audit(generator, _classes(generator), count, seed, confidence)


def _try_one(ask: _Asker, generator: Generator, seed: int, truncation: float | None) -> None:
    """Ask about the first image."""
    batch = generator.sample(1, seed=seed, truncation=truncation)
    try:
        ask(batch)
    except Exception as error:
        error.add_note(
            f"audit: the classifier was given images {tuple(batch.images.shape)} {generator.dtype} of "
            f"'{generator.plan.path}'. For another form pass Generator(plan, dtype=, layout=, range= or normalize=)."
        )
        raise


def _count(
    ask: _Asker,
    generator: Generator,
    n: int,
    batch_size: int,
    seed: int,
    truncation: float | None,
    progress: bool,
) -> _Totals:
    """Ask about all images."""
    from cgnrt._support.terminal import progress_bar

    classes = _classes(generator)
    totals = _Totals(len(classes))
    with progress_bar(5 * n, unit="image", shown=progress) as bar:
        for indices, others in _parts(n, batch_size, len(classes), seed):
            related = generator.related(seed=seed, indices=indices, truncation=truncation)
            labels = related.labels
            changed = [
                _changed(generator, labels, mechanism, others[:, column])
                for column, mechanism in enumerate(MECHANISMS)
            ]
            # Noise and rolls are the same in all five kinds: only 8 of the 15 network runs differ.
            fact, *interventions, agreeing = related.render([labels, *changed, related.shared_labels])
            answer = ask(fact)
            totals.add_fact(answer, labels)
            bar.update(len(indices))
            for column, intervention in enumerate(interventions):
                totals.add_intervention(column, answer, ask(intervention), intervention.labels[column])
                bar.update(len(indices))
            totals.shared += int((ask(agreeing) == agreeing.labels.shape).sum())
            bar.update(len(indices))
    return totals


def _changed(generator: Generator, labels: Labels, mechanism: str, steps: np.ndarray) -> Labels:
    """An intervention on a mechanism; on all that go together, where one follows another."""
    following = generator.plan.following
    leader = following.get(mechanism, mechanism)
    moved = (getattr(labels, leader) + steps) % len(_classes(generator))
    return labels._replace(
        **dict.fromkeys([leader, *(m for m, of in following.items() if of == leader)], moved)
    )


class _Totals:
    """The counts so far."""

    def __init__(self, k: int) -> None:
        self.follows, self.changes, self.moves = (np.zeros(3, np.int64) for _ in range(3))
        self.seen, self.right = np.zeros(k, np.int64), np.zeros(k, np.int64)
        self.shared = 0

    def add_fact(self, answer: np.ndarray, labels: tuple[np.ndarray, ...]) -> None:
        hits = [answer == label for label in labels]
        self.follows += [int(hit.sum()) for hit in hits]
        self.seen += np.bincount(labels[0], minlength=len(self.seen))
        self.right += np.bincount(labels[0][hits[0]], minlength=len(self.seen))

    def add_intervention(self, column: int, before: np.ndarray, after: np.ndarray, label: np.ndarray) -> None:
        self.changes[column] += int((before != after).sum())
        self.moves[column] += int((after == label).sum())

    def audit(
        self, generator: Generator, classes: tuple[str, ...], n: int, seed: int, confidence: float
    ) -> Audit:
        def rate(count: int | np.integer[Any], n: int | np.integer[Any] = n) -> Rate:
            return Rate.of(int(count), int(n), confidence)

        return Audit(
            plan=Path(generator.plan.path).name,
            digest=generator.plan.digest,
            n=n,
            seed=seed,
            confidence=confidence,
            classes=classes,
            follows=ByMechanism(*map(rate, self.follows)),
            changes=ByMechanism(*map(rate, self.changes)),
            moves=ByMechanism(*map(rate, self.moves)),
            shared=rate(self.shared),
            by_class=tuple(map(rate, self.right, self.seen)),
        )


class _Asker:
    """The classifier as a function of a Batch that returns checked answers: class indices, int64 (m,)."""

    def __init__(self, classifier: Classifier, k: int, inputs: str) -> None:
        self._classifier, self._k = classifier, k
        self._torch = _import_torch() if inputs == "torch" else None

    def __call__(self, batch: Batch) -> np.ndarray:
        images = batch.numpy().images if self._torch is None else batch.torch().images
        no_gradients: AbstractContextManager[Any] = (
            nullcontext() if self._torch is None else self._torch.no_grad()
        )
        with no_gradients:
            found = self._classifier(images)
        return self._answers(_to_numpy(found), len(batch))

    def _answers(self, found: np.ndarray, m: int) -> np.ndarray:
        k = self._k
        expected = f"logits ({m}, {k}) or integer labels ({m},)"
        if found.ndim not in (1, 2) or len(found) != m:
            raise ValueError(f"audit: answer of the classifier has shape {found.shape}, expected {expected}.")
        if found.ndim == 2:
            if found.shape[1] != k:
                raise ValueError(
                    f"audit: number of logits is {found.shape[1]}, expected {k}, the classes of the plan. "
                    "Map the classifier's outputs to the plan's classes (cgnrt inspect)."
                )
            if found.dtype.kind not in "fiu":
                raise TypeError(f"audit: answer of the classifier is {found.dtype}, expected {expected}.")
            if found.dtype.kind == "f" and np.isnan(found).any():
                row = int(np.isnan(found).any(axis=1).argmax())
                raise ValueError(f"audit: logits of image {row} of a batch are NaN, expected numbers.")
            nothing = found.max(axis=1) == -np.inf
            if nothing.any():
                raise ValueError(
                    f"audit: logits of image {int(nothing.argmax())} of a batch are all -inf, expected at least one "
                    "number: no class is the answer."
                )
            highest: np.ndarray = found.argmax(axis=1)
            return highest.astype(np.int64)
        if found.dtype.kind not in "iu":
            raise TypeError(
                f"audit: answer of the classifier is {found.dtype} {found.shape}, expected {expected}."
            )
        if m and not 0 <= found.min() <= found.max() < k:
            raise ValueError(
                f"audit: labels of the classifier are {found.min()}..{found.max()}, expected 0..{k - 1}, "
                "the classes of the plan."
            )
        return found.astype(np.int64)


def _to_numpy(found: Any) -> np.ndarray:
    """The classifier's answer as an array. Does not import torch."""
    if callable(getattr(found, "detach", None)) and str(found.dtype) == "torch.bfloat16":
        found = found.float()  # NumPy does not have it
    try:
        array = host_array("audit", "answer of the classifier", found)
    except TypeError as error:
        why = f" ({error.__cause__})" if error.__cause__ else ""
        raise TypeError(
            f"audit: answer of the classifier is {type(found).__name__}{why}, expected an array."
        ) from error
    if array.dtype.kind == "O":
        raise TypeError(f"audit: answer of the classifier is {type(found).__name__}, expected an array.")
    return array


def _parts(n: int, batch_size: int, k: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each batch the stream indices (m,), and the steps from labels to those that replace them: (m, 3), 1..k-1."""
    # One float for each step, in order, so that the steps of a seed do not depend on the batch size.
    random = np.random.default_rng(seed)
    for start in range(0, n, batch_size):
        m = min(batch_size, n - start)
        yield np.arange(start, start + m), 1 + (random.random((m, 3)) * (k - 1)).astype(np.int64)


def _check(classifier: Any, n: Any, batch_size: Any, confidence: Any, inputs: Any) -> int:
    if not callable(classifier):
        raise TypeError(f"audit: classifier is {type(classifier).__name__}, expected a callable.")
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


def _generator(plan: Any, inputs: str) -> Generator:
    if isinstance(plan, Generator):
        return plan
    # Only a generator says where its tensors are: the classifier may be on any device.
    device = "cpu" if inputs == "torch" else "auto"
    return Generator(plan, device=device)


def _classes(generator: Generator) -> tuple[str, ...]:
    """The names of the shape's classes, after a check that answers can be compared with every mechanism's labels."""
    sizes = {name: len(generator.classes[name]) for name in MECHANISMS}
    if len(set(sizes.values())) > 1 or min(sizes.values()) < 2:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"audit '{generator.plan.path}': classes are {found}, expected the same number for all, at least 2: "
            "an answer is compared with the label of each mechanism."
        )
    return generator.classes["shape"]


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise missing_dependency("audit, inputs 'torch'", error) from error
    return torch
