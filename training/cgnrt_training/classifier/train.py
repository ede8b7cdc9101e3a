"""Train a classifier: the whole loop, and what is measured at its end."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgnrt import Generator
from cgnrt._support.prefetch import Prefetch

from ..mnist.data import VariantMnist
from ..runs.folder import RunFolder, write_text
from ..runs.loop import check_losses, progress_bar
from ..runs.state import Part, State
from ..settings import to_dict
from .config import ClassifierConfig
from .methods import method_of
from .model import Classifier, save_classifier
from .sources import (
    HELD_OUT_SEED,
    Inputs,
    Pictures,
    environments,
    labels_of,
    open_batches,
    open_domain,
    open_generator,
    with_cues,
)

N_JUDGED = 10_000  # train images that accuracy is measured on
N_HELD_OUT = 2_000  # counterfactuals
_EVALUATION_BATCH = 500
_AHEAD = 16  # batches; a pool is made while those before it are trained on


class Run:
    """The networks and their optimizer; `state` is what a checkpoint holds of them."""

    def __init__(self, config: ClassifierConfig, device: torch.device | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device or torch.device("cpu")
        self.model = Classifier().to(self.device)
        self.method = method_of(config, self.model).to(self.device)
        parameters = [*self.model.parameters(), *self.method.parameters()]
        self.optimizer = torch.optim.Adam(parameters, config.lr, fused=True)
        # No random state: batches are functions of the step, and nothing else here is random.
        parts: dict[str, Part] = {"model": self.model, "method": self.method, "optimizer": self.optimizer}
        self.state = State(parts, {"seconds": 0.0})

    def set_learning_rate(self) -> None:
        """Up linearly to the configured rate, then down to nothing on a cosine."""
        progress, warmup = (self.state.step + 1) / (self.config.steps + 1), self.config.warmup
        if progress < warmup:
            factor = progress / warmup
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        self.optimizer.param_groups[0]["lr"] = self.config.lr * factor


def train(
    config: ClassifierConfig,
    inputs: Inputs,
    output: Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """Train a classifier and measure it.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU, with
    one number of threads).

    Args:
      output: a folder for `classifier.pt`, `resume.pt` and `result.json`; None keeps nothing.
      resume: go on from `output/resume.pt`.
      force: start anew over the run in `output`.
      log: where notes go; stderr by default.
      device: what to train and measure on; None is the CPU.
    Returns:
      The classifier in evaluation mode, on the CPU, and the result: `train` accuracy on the row's own training domain,
      `train_domain` accuracy on the fully correlated one, `test` accuracy, `counterfactual` accuracy where a plan is
      given, `seconds` of training, `settings`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings, on resume).
      ValueError, CgnrtError: an input is missing or damaged.
    """
    log = log or sys.stderr
    data = open_domain(config.variant, inputs, "train")
    batches = open_batches(config, data, inputs, device)
    run = Run(config, device)
    state = run.state
    folder = None
    if output is not None:
        folder = RunFolder.open(output, config, resume=resume, force=force)
        folder.restore(state, log)
    run.model.train()
    started = time.perf_counter() - state.values["seconds"]
    about = {"config": to_dict(config)}
    with (
        Prefetch(map(batches, range(state.step, config.steps)), depth=_AHEAD) as prefetched,
        progress_bar(config.steps, state.step, config.row) as progress,
    ):
        for batch in prefetched:
            run.set_learning_rate()
            losses = run.method.losses(run.model, batch.to(run.device), state.step / config.steps)
            run.optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            values = check_losses(losses, state.step, output or config.row)
            run.optimizer.step()
            state.step += 1
            state.values["seconds"] = time.perf_counter() - started
            progress.update()
            if folder and (state.step % config.checkpoint_every == 0 or state.step == config.steps):
                folder.add_scalars(state.step, values)
                folder.save(state, about)
    result = measure(run.model.eval(), config, data, inputs)
    result |= {"seconds": round(state.values["seconds"], 3), "settings": about["config"]}
    if output is not None:
        save_classifier(run.model, about["config"], output / "classifier.pt")
        write_text(output / "result.json", json.dumps(result, indent=2) + "\n")
    return run.model.cpu(), result


def measure(
    model: Classifier, config: ClassifierConfig, data: VariantMnist, inputs: Inputs
) -> dict[str, Any]:
    """Accuracies of a classifier in evaluation mode, as fractions; the label asked for is `config.label`.

    Args:
      data: the train domain.
    """
    domains = environments(config, data)
    share = N_JUDGED // len(domains)
    own = [accuracy_on(model, domain, config.label, share) for domain in domains]
    same = len(own) == 1 and config.row != "oracle"
    result: dict[str, Any] = {
        "train": sum(own) / len(own),
        "train_domain": own[0]
        if same
        else accuracy_on(model, with_cues(data, 1.0, config.seed), config.label),
        "test": accuracy_on(
            model,
            open_domain(config.variant, inputs, "test"),
            config.label,
        ),
    }
    if inputs.plan is not None:
        generator = open_generator(inputs.plan, next(model.parameters()).device)
        result["counterfactual"] = counterfactual_accuracy(model, generator, config.label)
        result["plan"] = generator.plan.digest
    return result


def accuracy_on(model: Classifier, data: Pictures, label: str = "shape", n: int = N_JUDGED) -> float:
    """The share of at most n images, evenly spread over a domain, whose label the classifier names."""
    count = min(n, len(data))
    indices = np.arange(count, dtype=np.int64) * len(data) // count

    def parts() -> Iterable[tuple[Tensor, NDArray[np.int64]]]:
        for start in range(0, count, _EVALUATION_BATCH):
            batch = data.batch(indices[start : start + _EVALUATION_BATCH])
            yield torch.from_numpy(batch.images), labels_of(batch, label)

    return _accuracy(model, parts())


def counterfactual_accuracy(
    model: Classifier, generator: Generator, label: str = "shape", n: int = N_HELD_OUT
) -> float:
    """The share of n counterfactuals, of a stream that no training sees, whose label the classifier names."""

    def parts() -> Iterable[tuple[Tensor, NDArray[np.int64]]]:
        for start in range(0, n, _EVALUATION_BATCH):
            count = min(_EVALUATION_BATCH, n - start)
            batch = generator.sample(count, seed=HELD_OUT_SEED, start=start)
            yield batch.torch().images, getattr(batch.labels, label)

    return _accuracy(model, parts())


@torch.no_grad()
def _accuracy(model: Classifier, parts: Iterable[tuple[Tensor, NDArray[np.int64]]]) -> float:
    right = total = 0
    device = next(model.parameters()).device
    for images, labels in parts:
        pictures = images.to(device).contiguous(memory_format=torch.channels_last)
        answers = model(pictures).argmax(dim=1).cpu().numpy()
        right += int((answers == labels).sum())
        total += len(labels)
    return right / total
