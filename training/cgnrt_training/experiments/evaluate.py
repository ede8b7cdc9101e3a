"""How good a plan's counterfactuals are: effectiveness, minimality and composition (Monteiro et al., 2023).

As in the counterfactual-generation benchmark of Melistas et al. (2024), whose distances and weights minimality has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgnrt import Generator
from cgnrt.sampling import MECHANISMS

from ..checkpoints import load_tensors
from ..classifier import model as digits
from ..ensemble import files as ensembles
from ..ensemble.model import HEADS
from ..ensemble.sources import places_of
from ..features.efficientnet_lite import EfficientNetLite
from ..runs.loop import progress_bar
from . import evaluate_text
from .cells import write_experiment

_BATCH = 50
_WEIGHTS = (0.8, 0.2)  # of the two probabilities of minimality; the benchmark's

Predictor = Callable[[Tensor], NDArray[np.int64]]  # images in [-1, 1] -> classes, as the plan numbers them


def load_predictors(paths: Sequence[Path], generator: Generator) -> dict[str, Predictor]:
    """What says which shape, texture and background an image shows.

    Args:
      paths: one `ensemble.pt` with three heads, or three `classifier.pt` of digits: for shape, texture and background.
    Raises:
      CheckpointError: a file is unreadable or of another kind.
      ValueError: the number of files is not one or three, or classes or heads are not as needed.
    """
    kinds = [_kind(path) for path in paths]
    if len(paths) == 1 and kinds[0] != digits.FORMAT:
        loaded = ensembles.load_ensemble(paths[0])
        if loaded.model.names != HEADS:
            raise ValueError(f"evaluate: '{paths[0]}' has one head, expected three. Give one of another row.")
        # The heads' answers are indices of the photos' classes.
        places = dict(zip(MECHANISMS, places_of(generator, loaded.classes), strict=True))
        return {name: _answer(loaded.model.answering(name), np.argsort(places[name])) for name in MECHANISMS}
    if len(paths) != 3 or any(kind == ensembles.FORMAT for kind in kinds):
        raise ValueError(
            f"evaluate: --predictors are {len(paths)} files, expected one ensemble.pt or three classifier.pt, for "
            "shape, texture and background."
        )
    for name in MECHANISMS:
        if len(generator.classes[name]) != 10:
            raise ValueError(
                f"evaluate: {name} has {len(generator.classes[name])} classes, expected 10, as the classifiers have."
            )
    same = np.arange(10)
    return {
        name: _answer(digits.load_classifier(path), same)
        for name, path in zip(MECHANISMS, paths, strict=True)
    }


def evaluate(
    generator: Generator,
    predictors: Mapping[str, Predictor],
    features: EfficientNetLite,
    *,
    samples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure counterfactuals: n images with independent labels, and each with one label replaced at a time.

    Args:
      features: whose pooled features distances are measured between.
    Returns:
      `effectiveness`: mechanism that was replaced -> mechanism -> the share of counterfactuals that show the label that
        this one has then, by its predictor; `before` likewise for the images themselves, which bounds it.
      `minimality`: mechanism -> mean of log(0.8 exp(p) + 0.2 exp(q)), the less the better: p is the share of images
        with the new label that are as near to the image as its counterfactual is, q of those with the old label that
        are at least as far. Between 0 and 1; about 0.5 for an image drawn at random.
      `composition`: the largest difference between images and those drawn again from their own noise and labels: 0.
    Raises:
      ValueError: a mechanism has one class, or `samples` is below 2.
    """
    if samples < 2:
        raise ValueError(f"evaluate: --samples is {samples}, expected >= 2.")
    counts = {name: len(generator.classes[name]) for name in MECHANISMS}
    if min(counts.values()) < 2:
        raise ValueError(f"evaluate: classes are {counts}, expected at least 2 of each mechanism.")
    seen: dict[str, list[Any]] = {name: [] for name in ("before", *MECHANISMS)}
    labels: dict[str, list[Any]] = {name: [] for name in ("before", *MECHANISMS)}
    hits: dict[str, list[Any]] = {name: [] for name in ("before", *MECHANISMS)}
    worst = 0.0
    with progress_bar(4 * samples, 0, "evaluate") as progress:
        for name, images, columns, again in _images(generator, counts, samples, seed):
            labels[name].append(columns)
            hits[name].append([predictors[m](images) == columns[k] for k, m in enumerate(MECHANISMS)])
            seen[name].append(_pooled(features, images))
            if again is not None:
                worst = max(worst, float((images - again).abs().max()))
            progress.update(len(images))
    right = {
        name: dict(zip(MECHANISMS, np.concatenate(parts, 1).mean(1).tolist(), strict=True))
        for name, parts in hits.items()
    }
    before, drawn = np.concatenate(seen["before"]), np.concatenate(labels["before"], 1)
    return {
        "samples": samples,
        "before": right.pop("before"),
        "effectiveness": right,
        "minimality": {
            name: minimality(before, drawn[k], np.concatenate(seen[name]), np.concatenate(labels[name], 1)[k])
            for k, name in enumerate(MECHANISMS)
        },
        "composition": worst,
    }


def write_evaluation(
    output: Path,
    plan: Path,
    found: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    seed: int,
    command: Sequence[str],
    seconds: float,
) -> Path:
    """Write `evaluate.json`, whose results are `found` by the plan's name, and `evaluate.md`.

    Returns:
      The path of the JSON file.
    """
    results = {plan.stem: found}
    output.mkdir(parents=True, exist_ok=True)
    return write_experiment(
        output,
        "evaluate",
        results,
        evaluate_text.table(results),
        settings=settings,
        seeds=[seed],
        command=[f"{plan.parent.name}/{plan.name}" if word == str(plan) else word for word in command],
        seconds=seconds,
    )


def minimality(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    counterfactuals: NDArray[np.float32],
    new_labels: NDArray[np.int64],
) -> float:
    """The mean score of counterfactuals, from features (n, c) and the replaced mechanism's labels (n,); see `evaluate`.

    An image is compared with the others, not with itself. NaN where no image has another one of both labels.
    """
    scores = []
    for k, (image, moved) in enumerate(zip(images, counterfactuals, strict=True)):
        distances = np.abs(images - image).mean(1)
        distance = np.abs(moved - image).mean()
        others = np.arange(len(images)) != k
        new, old = distances[others & (labels == new_labels[k])], distances[others & (labels == labels[k])]
        if len(new) and len(old):
            p, q = (new <= distance).mean(), (old >= distance).mean()
            scores.append(math.log(_WEIGHTS[0] * math.exp(p) + _WEIGHTS[1] * math.exp(q)))
    return float(np.mean(scores)) if scores else math.nan


def _images(
    generator: Generator, counts: Mapping[str, int], samples: int, seed: int
) -> Iterator[tuple[str, Tensor, NDArray[np.int64], Tensor | None]]:
    """What was replaced, images, their labels (3, n); for the images themselves also what their noise gives again."""
    random = np.random.default_rng(seed)
    for start in range(0, samples, _BATCH):
        indices = np.arange(start, min(samples, start + _BATCH))
        related = generator.related(seed=seed, indices=indices)
        drawn = related.labels
        variants = [drawn]
        for k, name in enumerate(MECHANISMS):
            steps = random.integers(1, counts[name], len(indices))
            variants.append(drawn._replace(**{name: (drawn[k] + steps) % counts[name]}))
        for name, variant, batch in zip(
            ("before", *MECHANISMS), variants, related.render(variants), strict=True
        ):
            again = None
            if name == "before":
                found = generator(*variant, noise=batch.noise)
                again = found.torch().images
            yield name, batch.torch().images, np.stack(variant), again


@torch.no_grad()
def _pooled(features: EfficientNetLite, images: Tensor) -> NDArray[np.float32]:
    device = next(features.parameters()).device
    *_, last = features(images.to(device), features.MAPS)
    found: NDArray[np.float32] = features.pool(last).cpu().numpy()
    return found


def _answer(model: torch.nn.Module, places: NDArray[np.int64]) -> Predictor:
    """A classifier's answers; `places` has the plan's class of each of its own."""
    model.eval()

    @torch.no_grad()
    def answer(images: Tensor) -> NDArray[np.int64]:
        found: NDArray[np.int64] = places[model(images.cpu()).argmax(1).numpy()]
        return found

    return answer


def _kind(path: Path) -> object:
    content = load_tensors(path)
    return content.get("format") if isinstance(content, Mapping) else None
