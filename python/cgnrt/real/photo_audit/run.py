"""`cgnrt.real.audit`: ask a classifier about photos, and about photos of which one part is another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

import numpy as np

from cgnrt._support.prefetch import Prefetch
from cgnrt._support.terminal import steady_progress
from cgnrt.auditing.asking import Asker, Classifier, check_request, highest, prepared, spread
from cgnrt.real.parts import Grids, Parts
from cgnrt.real.photo_audit.answers import Answers
from cgnrt.real.photo_audit.kinds import SWAPS, Kind, PhotoKinds
from cgnrt.real.photo_audit.naming import Classes, Naming
from cgnrt.real.photo_audit.rates import Example, PhotoRates
from cgnrt.real.photo_audit.result import PhotoAudit
from cgnrt.real.photos import read_labels, read_masks, read_pictures
from cgnrt.sampling import resolve_seed

_AHEAD = 2  # batches that are made while the classifier works


def audit(
    classifier: Classifier,
    photos: Any,
    masks: Any,
    labels: Any,
    *,
    n: int | None = None,
    batch_size: int = 64,
    seed: int | None = 0,
    confidence: float = 0.95,
    inputs: str | None = None,
    range: Sequence[float] | None = None,
    classes: Classes | None = None,
    names: Sequence[str] | None = None,
    places: bool = True,
    examples: int = 8,
    threads: int = 0,
    progress: bool = True,
) -> PhotoAudit:
    """Measure what a classifier's answers about real photos lean on: object, texture, background, place or size.

    For each photo the classifier sees the photo itself; its object on the background of another photo of the same
    class, on one of another class, and on grey; its background alone, with the object filled in (`fill_object`); and
    its object with a patch grid (App. C.2) of another class's object as texture. With `places` it also sees the object
    over its own filled background, in each cell of a 3 x 3 grid, and at 1/4 to 4 times its area: 20 images in all.
    They are made by a thread while the classifier works.

    Args:
      classifier: a torch module, which is asked in evaluation mode and on the device of its first parameter, and is
        then put back into its mode. Or a function. It gets float32 images (m, 3, h, w) in [0, 1], as tensors or as
        NumPy arrays, and must not change them. It returns logits (m, k) or labels (m,). The answer for an image must
        not depend on the other images.
      photos, masks, range: as for `counterfactuals`.
      labels: (N,) integers, the photos' classes, in the numbers of the classifier's answers. Two photos of each class
        are needed, and two classes.
      n: the number of images of each kind; None means one for each photo. Fewer are spread over the photos. With more,
        photos come again, and intervals are narrower than they should be.
      batch_size: images in one call of the classifier; about four times as many are in memory.
      seed: of the draws of photos that give backgrounds and textures. None draws a seed, which is in the result.
      confidence: of the intervals, between 0 and 1.
      inputs: what the classifier takes: "numpy", or "torch" for tensors on the CPU, without gradients. None is "torch"
        for a module and "numpy" for a function.
      classes: the names of the classes. A sequence has one for each of the classifier's classes; a mapping from
        numbers may have some.
      names: of the photos, for messages, the result and the sheet; None counts them.
      places: whether objects are moved and scaled, too.
      examples: how many photos the result keeps for its sheet: those that the classifier has right, and loses most.
      threads: the largest number of threads that make images; 0 chooses by size.
      progress: show a bar on stderr; where that is not a terminal, a line now and then if it takes more than seconds.
    Returns:
      A PhotoAudit. It is the same for every batch size.
    Raises:
      TypeError, ValueError: an argument is not as above; a photo or a mask is not as `counterfactuals` takes them; an
        answer has the wrong shape, is NaN or not a class; the classifier changes its images. Messages name the photo.
      MissingDependencyError: `inputs` is "torch" and torch is not installed.
      An error that the classifier raises is not changed.
    """
    with ExitStack() as stack:
        function, taken = prepared(stack, classifier, inputs)
        pictures = read_pictures(photos, "audit", range)
        count = check_request(function, len(pictures) if n is None else n, batch_size, confidence, taken)
        targets = read_labels(labels, len(pictures), "audit")
        naming = Naming(targets, names, classes)
        read = read_masks(masks, len(pictures), pictures.size, "audit")
        parts = Parts(pictures, read, Grids(), filled=True, operation="audit")
        chosen = resolve_seed(seed)
        kinds = PhotoKinds(parts, targets, naming, chosen, places=places, threads=threads)
        asker = Asker(
            "classifier",
            function,
            taken,
            k=naming.k,
            whose="the number of classes",
            advice="The labels of photos are numbers of the classifier's classes.",
        )
        where = np.arange(count) if count >= len(parts) else spread(count, len(parts))
        answers = Answers(
            kinds.kinds, targets[where % len(parts)], targets[kinds.texture_donors(where)], confidence
        )
        with steady_progress("audit", count * len(kinds.kinds), "images", shown=progress) as bar:
            for kind, rows, images in _made_ahead(kinds, where, batch_size):
                answers.of[kind.name][rows] = _ask(asker, kind, where[rows], images, naming)
                naming.check_labels(asker.k)
                bar.update(len(images))
    return PhotoAudit(
        **_fields(answers.rates(np.ones(count, bool))),
        photos=len(parts),
        n=count,
        seed=chosen,
        confidence=confidence,
        by_class=_by_class(answers, naming),
        clipped=_clipped(kinds, where % len(parts)),
        examples=tuple(_example(kinds, answers, naming, where, row) for row in answers.worst(examples)),
    )


def _made_ahead(
    kinds: PhotoKinds, where: np.ndarray, batch_size: int
) -> Iterator[tuple[Kind, slice, np.ndarray]]:
    """Batches of one kind each, with their place among the samples, made by a thread. The last ones may be smaller."""

    def made() -> Iterator[tuple[Kind, slice, np.ndarray]]:
        for first in range(0, len(where), batch_size):
            rows = slice(first, first + batch_size)
            for kind in kinds.kinds:
                yield kind, rows, kinds.make(kind, where[rows])

    with Prefetch(made(), depth=_AHEAD) as batches:
        yield from batches


def _ask(asker: Asker, kind: Kind, samples: np.ndarray, images: np.ndarray, naming: Naming) -> np.ndarray:
    """Checked answers, after a check that the classifier left the images as they were."""

    def name(row: int) -> str:
        return f"{naming.photo(int(samples[row]) % len(naming))} ({kind.title})"

    return highest(asker.unchanged_scores(images, name))


def _fields(rates: PhotoRates) -> dict[str, Any]:
    return {field.name: getattr(rates, field.name) for field in fields(PhotoRates)}


def _by_class(answers: Answers, naming: Naming) -> dict[str, PhotoRates]:
    labels = [int(label) for label in np.unique(answers.labels)]
    return {
        name: answers.rates(answers.labels == label)
        for label, name in zip(labels, naming.different(labels), strict=True)
    }


def _clipped(kinds: PhotoKinds, photos: np.ndarray) -> dict[float, int]:
    return {size: int(kinds.clipped(size)[photos].sum()) for size in kinds.sizes}


def _example(kinds: PhotoKinds, answers: Answers, naming: Naming, where: np.ndarray, row: int) -> Example:
    images = {kind.name: kinds.make(kind, where[[row]])[0] for kind in SWAPS}
    return Example(
        name=naming.name(int(where[row]) % len(naming)),
        label=naming.label(int(answers.labels[row])),
        answers={kind.name: naming.label(int(answers.of[kind.name][row])) for kind in SWAPS},
        images={
            name: np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8) for name, image in images.items()
        },
    )
