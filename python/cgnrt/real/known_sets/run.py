"""`cgnrt.real.in9` and `cue_conflict`: ask a classifier about the pictures of a test set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgnrt._support.pictures import PictureError
from cgnrt._support.prefetch import Prefetch
from cgnrt._support.terminal import steady_progress
from cgnrt._support.values import is_int
from cgnrt.auditing.asking import Asker, Classifier, check_request, highest, prepared
from cgnrt.auditing.rates import Rate
from cgnrt.real.files import read_photo
from cgnrt.real.known_sets.folders import Pictures, find_cue_conflict, find_in9
from cgnrt.real.known_sets.groups import (
    CUE_CONFLICT,
    IMAGENET,
    IN9,
    NONE,
    Decide,
    Groups,
    by_highest_class,
    by_mean_probability,
)
from cgnrt.real.known_sets.results import CueConflictAudit, CueRates, In9Audit

_AHEAD = 2  # batches that are read while the classifier works


def in9(
    classifier: Classifier,
    folder: str | os.PathLike[str],
    *,
    sets: Sequence[str] | None = None,
    n: int | None = None,
    classes: int | None = None,
    size: int = 224,
    batch_size: int = 64,
    confidence: float = 0.95,
    inputs: str | None = None,
    progress: bool = True,
) -> In9Audit:
    """Measure a classifier on ImageNet-9 (Xiao et al., Noise or Signal, 2020): how much does it need the background?

    The answer for a picture is the group of the best of ImageNet's 1,000 classes, as in the authors' code. An answer
    whose class has no group, as 630 have none, is wrong.

    Args:
      classifier: a torch module, which is asked in evaluation mode and on the device of its first parameter, and is
        then put back into its mode. Or a function. It gets float32 images (m, 3, size, size) in [0, 1], as tensors or
        as NumPy arrays, and must not change them; normalisation is its own work. It returns logits (m, 1000) of
        ImageNet's classes in torchvision's order, or (m, 9) of ImageNet-9's groups; or labels (m,), with `classes`.
      folder: with the sets as the Backgrounds Challenge has them: `mixed_same/val/00_dog/` and so on.
      sets: names of sets, such as "mixed_same". None takes all that are in the folder.
      n: the number of pictures of each set, spread over its groups; None takes all.
      classes: 1000 or 9; None takes it from the first logits. Needed for labels.
      size: the side that pictures are cropped and scaled to; they have 224 pixels.
      batch_size: images in one call of the classifier. The last one of a set may be smaller, and counts as it is.
      confidence: of the intervals, between 0 and 1.
      inputs: what the classifier takes: "numpy", or "torch" for tensors on the CPU, without gradients. None is "torch"
        for a module and "numpy" for a function.
      progress: show a bar on stderr; where that is not a terminal, a line now and then if it takes more than seconds.
    Returns:
      An In9Audit. It is the same for every batch size.
    Raises:
      TypeError, ValueError: an argument is not as above; the folder lacks a set or a group; a picture cannot be read;
        an answer has the wrong shape or number of classes, is NaN or not a class; the classifier changes its images.
        Messages name the file.
      MissingDependencyError: `inputs` is "torch" and torch is not installed.
      An error that the classifier raises is not changed.
    """
    request = _Request(n, classes, size, batch_size, confidence, inputs, progress)
    with ExitStack() as stack:
        asker = _GroupAsker(stack, classifier, request, IN9, by_highest_class)
        pictures = {name: found.some(n) for name, found in find_in9(Path(folder), sets).items()}
        answers = _answers(asker, pictures, request)

    def rate(happened: np.ndarray) -> Rate:
        return Rate.of(int(happened.sum()), len(happened), confidence)

    right = {name: answers[name] == found.labels for name, found in pictures.items()}
    return In9Audit(
        classes=asker.classes,
        confidence=confidence,
        accuracy={name: rate(hits) for name, hits in right.items()},
        outside={name: rate(found == NONE) for name, found in answers.items()},
        by_group={
            name: {
                group: rate(hits[pictures[name].labels == number]) for number, group in enumerate(IN9.names)
            }
            for name, hits in right.items()
        },
    )


def cue_conflict(
    classifier: Classifier,
    folder: str | os.PathLike[str],
    *,
    n: int | None = None,
    classes: int | None = None,
    size: int = 224,
    batch_size: int = 64,
    confidence: float = 0.95,
    inputs: str | None = None,
    progress: bool = True,
) -> CueConflictAudit:
    """Measure a classifier's shape bias on Cue Conflict (Geirhos et al., 2019; Table 3): does it see shape or texture?

    The answer for a picture is the category whose ImageNet classes have the highest mean probability, as in the
    authors' code. Pictures whose shape and texture are of one category are left out.

    Args:
      classifier: as for `in9`; it returns logits (m, 1000) of ImageNet's classes in torchvision's order, or their
        probabilities (rows of 0 or more that sum to 1); or logits (m, 16) of the categories in alphabetical order; or
        labels (m,) of these, with `classes=16`.
      folder: with a sub-folder for each category, whose files are called as `airplane1-bicycle2.png`: the shape's
        category, then the texture's.
      n: the number of pictures, spread over the categories; None takes all.
      classes: 1000 or 16; None takes it from the first logits. Needed for labels.
      size, batch_size, confidence, inputs, progress: as for `in9`.
    Returns:
      A CueConflictAudit. It is the same for every batch size.
    Raises:
      As for `in9`; also ValueError: no picture has a conflict.
    """
    request = _Request(n, classes, size, batch_size, confidence, inputs, progress)
    with ExitStack() as stack:
        asker = _GroupAsker(stack, classifier, request, CUE_CONFLICT, by_mean_probability)
        every = find_cue_conflict(Path(folder))
        pictures = every.conflicting()
        left_out = len(every) - len(pictures)
        if not len(pictures):
            raise ValueError(
                f"read '{folder}': pictures whose texture is of another category than their shape are missing, "
                "expected at least 1."
            )
        pictures = pictures.some(n)
        answers = _answers(asker, {"pictures": pictures}, request)["pictures"]

    def rates(rows: np.ndarray) -> CueRates:
        shape, texture = (
            int((answers == labels)[rows].sum()) for labels in (pictures.labels, pictures.textures)
        )
        total = int(rows.sum())
        return CueRates(
            *(
                Rate.of(count, of, confidence)
                for count, of in ((shape, total), (texture, total), (shape, shape + texture))
            )
        )

    overall = rates(np.ones(len(pictures), bool))
    return CueConflictAudit(
        shape=overall.shape,
        texture=overall.texture,
        shape_bias=overall.shape_bias,
        classes=asker.classes,
        confidence=confidence,
        left_out=left_out,
        by_category={
            name: rates(pictures.labels == number) for number, name in enumerate(CUE_CONFLICT.names)
        },
    )


@dataclass(frozen=True)
class _Request:
    """How a classifier is asked. See `in9`."""

    n: int | None
    classes: int | None
    size: int
    batch_size: int
    confidence: float
    inputs: str | None
    progress: bool

    def __post_init__(self) -> None:
        if not is_int(self.size):
            raise TypeError(f"audit: size is {self.size!r}, expected an int.")
        if self.size < 1:
            raise ValueError(f"audit: size is {self.size}, expected at least 1.")


class _GroupAsker:
    """A classifier as a function of images that returns the groups of its answers.

    Args:
      decide: the groups of answers of ImageNet's classes.
    """

    def __init__(
        self, stack: ExitStack, classifier: Classifier, request: _Request, groups: Groups, decide: Decide
    ) -> None:
        function, taken = prepared(stack, classifier, request.inputs)
        check_request(
            function, 1 if request.n is None else request.n, request.batch_size, request.confidence, taken
        )
        self._groups, self._decide = groups, decide
        self._sizes = (IMAGENET, len(groups.names))
        if request.classes is not None and request.classes not in self._sizes:
            raise ValueError(f"audit: classes is {request.classes!r}, expected {self._expected}, or None.")
        self._asker = Asker(
            "classifier",
            function,
            taken,
            k=request.classes,
            whose="the number of classes",
            advice="Leave classes out, and it is taken from the logits.",
        )

    @property
    def classes(self) -> int:
        """The number of classes that the classifier answers with, once it has been asked."""
        assert self._asker.k is not None
        return self._asker.k

    def __call__(self, images: np.ndarray, files: Sequence[Path]) -> np.ndarray:
        def name(row: int) -> str:
            return f"picture '{files[row]}'"

        scores = self._asker.unchanged_scores(images, name)
        if self._asker.k is None:
            raise ValueError(
                "audit: answer of the classifier is labels, which do not tell the number of classes. "
                f"Pass classes={self._sizes[0]} or classes={self._sizes[1]}."
            )
        if self._asker.k not in self._sizes:
            raise ValueError(
                f"audit: number of logits of the classifier is {self._asker.k}, expected {self._expected}. "
                "Let the classifier return one of these."
            )
        return self._decide(self._groups, scores, name) if self._asker.k == IMAGENET else highest(scores)

    @property
    def _expected(self) -> str:
        return f"{IMAGENET} (ImageNet's classes) or {self._sizes[1]} ({self._groups.title})"


def _answers(asker: _GroupAsker, pictures: dict[str, Pictures], request: _Request) -> dict[str, np.ndarray]:
    """The groups that the classifier sees in each picture of each set, int64."""
    answers = {name: np.full(len(found), NONE, np.int64) for name, found in pictures.items()}
    total = sum(map(len, pictures.values()))
    with steady_progress("audit", total, "pictures", shown=request.progress) as bar:
        for name, found in pictures.items():
            with Prefetch(_batches(found, request), depth=_AHEAD) as batches:
                for rows, images in batches:
                    answers[name][rows] = asker(images, found.files[rows])
                    bar.update(len(images))
    return answers


def _batches(pictures: Pictures, request: _Request) -> Iterator[tuple[slice, np.ndarray]]:
    """Images with their place in the set, float32 (m, 3, size, size) in [0, 1]. The last batch may be smaller."""
    for first in range(0, len(pictures), request.batch_size):
        rows = slice(first, first + request.batch_size)
        files = pictures.files[rows]
        images = np.empty((len(files), 3, request.size, request.size), np.float32)
        for image, file in zip(images, files, strict=True):
            image[...] = _pixels(file, request.size).transpose(2, 0, 1)
        images /= np.float32(255)
        yield rows, images


def _pixels(file: Path, size: int) -> np.ndarray:
    try:
        return read_photo(file, size)[0]
    except PictureError as error:
        raise ValueError(f"read '{file}': {error}") from error
