"""What is measured of a trained classifier, each measure apart: its settings are kept beside what it found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

import cgnrt
from cgnrt.real import audit as audit_photos

from ...ensemble.measure import accuracies, answers_of
from ...ensemble.model import Answers, Ensemble
from ...ensemble.sources import open_generator, places_of, usable_photos
from ...ensemble.testsets import SETS, TestSets
from ...photos.pack import Photos
from ...runs.loop import progress_bar
from ..cells import plan_digest

AUDITED = (
    "mean",
    "shape+texture",
    "shape",
    "texture",
    "background",
)  # "mean-logits" names the same class as "mean"
_AUDIT_SEED = 1 << 20  # no training stream has it
_PLACES_SEED = 0  # of nothing that is counted: objects are moved over their own backgrounds

Found: TypeAlias = dict[str, dict[str, float]]  # answer -> name of a column -> value
Asked: TypeAlias = Callable[[Tensor], Tensor]  # images in [-1, 1] -> (n, classes) on the CPU


class Measure(Protocol):
    """One measure.

    Attributes:
      name: its key in a cell's file.
      settings: all that changes what it finds, as plain values.
    """

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    def __call__(self, model: Ensemble) -> Found: ...


@dataclass(frozen=True)
class SetAccuracies:
    """Accuracies on the four sets of Table 4, and the BG-gap."""

    sets: TestSets
    photos: Photos
    name = "sets"

    @property
    def settings(self) -> dict[str, Any]:
        return {"photos": self.photos.fingerprint, **self.sets.sizes()}

    def __call__(self, model: Ensemble) -> Found:
        found: Found = {answer: {} for answer in answers_of(model)}
        for kind in SETS:
            for answer, value in accuracies(model, self.sets.parts(kind)).items():
                found[answer][kind] = value
        for values in found.values():
            values["bg_gap"] = values["mixed_same"] - values["mixed_rand"]
        return found


@dataclass(frozen=True)
class PlanAudit:
    """What answers follow on a plan's counterfactuals, and their shape bias, by `cgnrt.audit`."""

    plan: Path
    photos: Photos
    samples: int
    device: torch.device
    name = "audit"

    @property
    def settings(self) -> dict[str, Any]:
        return {"plan": plan_digest(self.plan), "samples": self.samples}

    def __call__(self, model: Ensemble) -> Found:
        generator = open_generator(self.plan, self.photos.size, self.device)
        # The answers are indices of the photos' classes, the audit's those of the plan's.
        order, *_ = places_of(generator, self.photos.classes)
        columns = torch.from_numpy(order)
        result: Found = {}
        for answer, asked in _asked(model, self.name):

            def classify(images: Tensor, asked: Asked = asked) -> Tensor:
                return asked(images)[:, columns]

            found = cgnrt.audit(
                classify, generator, self.samples, seed=_AUDIT_SEED, inputs="torch", progress=False
            )
            follows, changes = found.follows, found.changes
            result[answer] = {
                "shape_bias": shape_bias(follows.shape.count, follows.texture.count),
                **{f"follows_{name}": rate.value for name, rate in follows._asdict().items()},
                **{f"changes_{name}": rate.value for name, rate in changes._asdict().items()},
            }
        return result


@dataclass(frozen=True)
class PlaceAudit:
    """Centre and size bias of photos' objects, by `cgnrt.real.audit`.

    Attributes:
      photos: with masks; those of them are asked about that have an object and background beside it.
      n: how many objects are moved and scaled, spread over all.
    """

    photos: Photos
    n: int
    name = "places"

    @property
    def settings(self) -> dict[str, Any]:
        return {"photos": self.photos.fingerprint, "n": self.n}

    def __call__(self, model: Ensemble) -> Found:
        chosen = usable_photos(self.photos)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(self.n, len(chosen))).round().astype(np.int64)]
        assert self.photos.masks is not None
        images, masks = self.photos.images[chosen], self.photos.masks[chosen]
        labels = np.asarray(self.photos.labels)[chosen]
        result: Found = {}
        for answer, asked in _asked(model, self.name):

            def classify(images: Tensor, asked: Asked = asked) -> Tensor:
                return asked(2 * images - 1)

            found = audit_photos(
                classify,
                images,
                masks,
                labels,
                seed=_PLACES_SEED,
                inputs="torch",
                classes=self.photos.classes,
                examples=0,
                threads=torch.get_num_threads(),
                progress=False,
            )
            # What is unknown is left out: nothing was right in the centre, or at the object's own size.
            centre = {} if found.centre_bias is None else {"centre_bias": found.centre_bias}
            sizes = {f"size_bias_{size:g}": value for size, value in found.size_bias.items() if size != 1}
            result[answer] = centre | sizes
        return result


def shape_bias(shape: int, texture: int) -> float:
    """Of the answers that are the shape's or the texture's label, the share that is the shape's (Geirhos et al., 2019).

    The counts are of images with independent labels, and include the few images whose two labels agree. Without such an
    answer it is 0.5.
    """
    return shape / (shape + texture) if shape + texture else 0.5


def _asked(model: Ensemble, title: str) -> Iterator[tuple[str, Asked]]:
    """The answers that audits ask for, as functions of images."""
    answers = {name: answer for name, answer in answers_of(model).items() if name in AUDITED}
    logits = _Remembered(model)
    with progress_bar(len(answers), 0, title) as progress:
        for name, answer in answers.items():

            def asked(images: Tensor, answer: Answers = answer) -> Tensor:
                return answer.of(logits(images))

            yield name, asked
            progress.update()


class _Remembered:
    """An ensemble's logits, on the CPU. Audits ask each answer about the same batches: one is worked out once."""

    def __init__(self, model: Ensemble) -> None:
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        key = hashlib.sha256(images.cpu().contiguous().numpy().data).digest()
        if key not in self._known:
            given = images.to(self._device, memory_format=torch.channels_last)
            self._known[key] = self._model(given).cpu()
        return self._known[key]
