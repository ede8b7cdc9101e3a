"""`cgnrt.audit`: ask a classifier about counterfactuals and interventions from a plan, and count its answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cgnrt.auditing.asking import Asker, Classifier, check_callable, check_request, prepared
from cgnrt.auditing.rates import ByMechanism, Rate
from cgnrt.auditing.result import Audit, Masks
from cgnrt.batch import Batch
from cgnrt.generator import Generator
from cgnrt.plan import Plan
from cgnrt.request.place import Place, require_drawn
from cgnrt.request.resolver import ClassNames
from cgnrt.sampling import MECHANISMS, Labels, resolve_seed


class _Ask(Protocol):
    def __call__(self, batch: Batch, pictures: str = "images") -> np.ndarray: ...


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
    distinct: bool = False,
    place: Place | None = None,
    mask_classifier: Classifier | None = None,
    progress: bool = True,
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
      distinct: counterfactuals and interventions never have texture and background of one class, by name, where the
        shape can hardly be seen. Images whose labels agree are as without it.
      place: where the objects are put, the same in all five kinds; as for `Generator.sample`.
      mask_classifier: names the class that a mask shows, such as a classifier of white digits on black: a torch module,
        or a function from masks (m, 1, h, w), float32 in [0, 1], to what `classifier` returns. It is asked about the
        masks of the counterfactuals, as tensors or arrays by the rule of `inputs`. None leaves `Audit.masks` out.
      progress: show a bar on stderr; where that is not a terminal, a line now and then if it takes more than seconds.
    Returns:
      An Audit. A mechanism whose classes all look alike (the background of colored MNIST) shows no change.
    Raises:
      ValueError, TypeError: an argument is not as above, the mechanisms have different numbers of classes (or with
        `distinct` no class is left), or a classifier's answer has the wrong shape, the wrong number of classes, NaN, or
        -inf for every class.
      PlanError, BackendError: as for Generator.
      MissingDependencyError: `inputs` is "torch" and torch is not installed.
      An error that the classifier raises is not changed; for the first image it has a note that says what was given.
    """
    with ExitStack() as stack:
        function, inputs = prepared(stack, classifier, inputs)
        count, seed = check_request(function, n, batch_size, confidence, inputs), resolve_seed(seed)
        require_drawn("audit", place)
        generator = _generator(plan, inputs)
        classes = _classes(generator)
        ask = _asking("classifier", function, len(classes), inputs)
        read: _Ask | None = None
        if mask_classifier is not None:
            reader, reads = prepared(stack, mask_classifier, None)
            check_callable("mask_classifier", reader)
            read = _asking("mask_classifier", reader, len(classes), reads)
        job = Job(generator, classes, count, batch_size, seed, truncation, distinct, place)
        if inputs == "torch":
            _try_one(ask, job)
        totals = job.count(ask, read, progress)
    name = str(getattr(classifier, "__qualname__", type(classifier).__name__))
    return totals.audit(job, confidence, name)


def _asking(name: str, classifier: Classifier, k: int, inputs: str) -> _Ask:
    """A classifier as a function of a Batch, and of which pictures of it; answers are class indices, int64 (m,)."""
    asker = Asker(
        name,
        classifier,
        inputs,
        k=k,
        whose="the classes of the plan",
        advice="Map its outputs to the plan's classes (cgnrt inspect).",
    )

    def ask(batch: Batch, pictures: str = "images") -> np.ndarray:
        given = getattr(batch.torch() if asker.takes_tensors else batch.numpy(), pictures)
        return asker(given, lambda row: f"image {row} of a batch")

    return ask


def _try_one(ask: _Ask, job: Job) -> None:
    """Ask about the first image."""
    batch = job.generator.sample(1, seed=job.seed, truncation=job.truncation, place=job.place)
    try:
        ask(batch)
    except Exception as error:
        error.add_note(
            f"audit: the classifier was given images {tuple(batch.images.shape)} {job.generator.dtype} of "
            f"'{job.generator.plan.path}'. "
            "For another form pass Generator(plan, dtype=, layout=, range= or normalize=)."
        )
        raise


@dataclass(frozen=True)
class Job:
    """Which images are asked about."""

    generator: Generator
    classes: tuple[str, ...]
    n: int
    batch_size: int
    seed: int
    truncation: float | None
    distinct: bool
    place: Place | None

    def count(self, ask: _Ask, read: _Ask | None, progress: bool) -> _Totals:
        """Ask about all of them."""
        from cgnrt._support.terminal import steady_progress

        totals = _Totals(len(self.classes), masks=read is not None)
        with steady_progress("audit", 5 * self.n, "images", shown=progress) as bar:
            for indices, random in _parts(self.n, self.batch_size, self.seed):
                related = self.generator.related(
                    seed=self.seed,
                    indices=indices,
                    truncation=self.truncation,
                    distinct=self.distinct,
                    place=self.place,
                )
                labels = related.labels
                changed = [
                    self.changed(labels, mechanism, random[:, column])
                    for column, mechanism in enumerate(MECHANISMS)
                ]
                # Noise and rolls are the same in all five kinds: only 8 of the 15 network runs differ.
                fact, *interventions, agreeing = related.render(
                    [labels, *changed, related.shared_labels], parts=read is not None
                )
                answer = ask(fact)
                totals.add_fact(answer, labels)
                if read is not None:
                    totals.add_masks(read(fact, "mask"), answer, labels.shape)
                bar.update(len(indices))
                for column, intervention in enumerate(interventions):
                    totals.add_intervention(column, answer, ask(intervention), intervention.labels[column])
                    bar.update(len(indices))
                totals.shared += int((ask(agreeing) == agreeing.labels.shape).sum())
                bar.update(len(indices))
        return totals

    def changed(self, labels: Labels, mechanism: str, random: np.ndarray) -> Labels:
        """Another class for a mechanism, each as likely, by random numbers (m,) in [0, 1); for all that go together."""
        following = self.generator.plan.following
        leader = following.get(mechanism, mechanism)
        together = [leader, *(name for name, of in following.items() if of == leader)]
        k, old = len(self.classes), getattr(labels, leader)
        step = 1 + (random * (k - 1)).astype(np.int64)
        moving = [name for name in ("texture", "background") if name in together]
        if self.distinct and len(moving) == 1:
            # Without the class of the other one's name, where there is one: not the old class, as labels are distinct.
            other = "texture" if moving == ["background"] else "background"
            names = ClassNames(self.generator.classes)
            left_out = names.same(moving[0], other, getattr(labels, other))
            known = left_out >= 0
            if k < 3 and known.any():
                raise ValueError(
                    f"audit: distinct is on, but {moving[0]} has {k} classes, expected at least 3: a label is "
                    f"replaced by one that is neither the old one nor that of the {other}."
                )
            fewer = 1 + (random * (k - 2)).astype(np.int64)
            fewer += fewer >= (left_out - old) % k
            step = np.where(known, fewer, step)
        return labels._replace(**dict.fromkeys(together, (old + step) % k))


class _Totals:
    """The counts so far."""

    def __init__(self, k: int, masks: bool) -> None:
        self.follows, self.changes, self.moves = (np.zeros(3, np.int64) for _ in range(3))
        self.seen, self.right = np.zeros(k, np.int64), np.zeros(k, np.int64)
        self.shared = 0
        self._masks = masks
        self.shown, self.follows_shown = np.zeros(k, np.int64), 0

    def add_fact(self, answer: np.ndarray, labels: tuple[np.ndarray, ...]) -> None:
        hits = [answer == label for label in labels]
        self.follows += [int(hit.sum()) for hit in hits]
        self.seen += np.bincount(labels[0], minlength=len(self.seen))
        self.right += np.bincount(labels[0][hits[0]], minlength=len(self.seen))

    def add_masks(self, read: np.ndarray, answer: np.ndarray, label: np.ndarray) -> None:
        shown = read == label
        self.shown += np.bincount(label[shown], minlength=len(self.shown))
        self.follows_shown += int((answer == label)[shown].sum())

    def add_intervention(self, column: int, before: np.ndarray, after: np.ndarray, label: np.ndarray) -> None:
        self.changes[column] += int((before != after).sum())
        self.moves[column] += int((after == label).sum())

    def audit(self, job: Job, confidence: float, classifier: str) -> Audit:
        def rate(count: int | np.integer[Any], n: int | np.integer[Any] = job.n) -> Rate:
            return Rate.of(int(count), int(n), confidence)

        masks = None
        if self._masks:
            shown = self.shown.sum()
            masks = Masks(
                rate(shown), tuple(map(rate, self.shown, self.seen)), rate(self.follows_shown, shown)
            )
        return Audit(
            plan=Path(job.generator.plan.path).name,
            digest=job.generator.plan.digest,
            n=job.n,
            seed=job.seed,
            confidence=confidence,
            classes=job.classes,
            follows=ByMechanism(*map(rate, self.follows)),
            changes=ByMechanism(*map(rate, self.changes)),
            moves=ByMechanism(*map(rate, self.moves)),
            shared=rate(self.shared),
            by_class=tuple(map(rate, self.right, self.seen)),
            distinct=job.distinct,
            place=job.place,
            masks=masks,
            classifier=classifier,
        )


def _parts(n: int, batch_size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each batch the stream indices (m,), and random numbers that say what labels are replaced by: (m, 3)."""
    # In order, so that what a seed draws does not depend on the batch size.
    random = np.random.default_rng(seed)
    for start in range(0, n, batch_size):
        m = min(batch_size, n - start)
        yield np.arange(start, start + m), random.random((m, 3))


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
