"""One classifier of Tables 3 and 4: trained once, and measured by whatever measure its file lacks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from cgnrt._support.terminal import say
from cgnrt.errors import CgnrtError

from ...checkpoints import save
from ...ensemble.config import EnsembleConfig
from ...ensemble.files import about, load_ensemble
from ...ensemble.model import Ensemble
from ...ensemble.train import Inputs, train
from ...runs.folder import write_text
from ...settings import differences
from ..workers import read_result
from .measures import Found, Measure


@dataclass(frozen=True)
class Cells:
    """Trains and measures classifiers.

    A cell is `<name>.pt`, the weights, and `<name>.json`: how it was trained, and for each measure its settings and
    what it found. It is done when both are there, with all measures.

    Attributes:
      inputs: what to train on; nothing judges meanwhile.
      measures: what is asked for.
    """

    folder: Path
    inputs: Inputs
    device: torch.device
    measures: Sequence[Measure]
    log: TextIO

    def done(self, name: str, record: Mapping[str, Any]) -> bool:
        """Whether nothing of a cell is missing."""
        return self._weights(name).exists() and not self._missing(name, record)

    def answers(self, name: str, record: Mapping[str, Any]) -> Found:
        """What the measures found of a cell that is done, together."""
        joined: Found = {}
        for measure in self.measures:
            for answer, values in self._stored(name, record)[measure.name]["answers"].items():
                joined.setdefault(answer, {}).update(values)
        return joined

    def complete(self, name: str, config: EnsembleConfig, folder: Path) -> dict[str, Any]:
        """Do what is missing of a cell; each step is kept as soon as it is done.

        Raises:
          ValueError: the weights are of other settings.
          CgnrtError: the cell's files are damaged; also what `train` raises.
        """
        begin = time.perf_counter()
        if self._weights(name).exists():
            path = self.folder / f"{name}.json"
            record = read_result(path) if path.exists() else {}
            model = self._load(name, config)
        else:
            model, record = self._train(name, config)
        record["measures"] = self._stored(name, record)
        for measure in self._missing(name, record):
            say(f"{name}: measuring {measure.name}", self.log)
            record["measures"][measure.name] = {"settings": measure.settings, "answers": measure(model)}
            self._keep(name, record)
        return record | {"wall_s": round(record.get("wall_s", 0.0) + time.perf_counter() - begin, 1)}

    def _train(self, name: str, config: EnsembleConfig) -> tuple[Ensemble, dict[str, Any]]:
        begin = time.perf_counter()
        inputs = replace(self.inputs, judged=None)
        model, result = train(config, inputs, None, log=self.log, device=self.device)
        record = {"steps": result["steps"], "train_s": round(time.perf_counter() - begin, 1)}
        (self.folder / f"{name}.json").unlink(missing_ok=True)  # of other weights
        photos = inputs.photos
        weights = about(config, photos.classes, photos.size, inputs.sources)
        save(weights | {"step": result["steps"], "model": model.state_dict()}, self._weights(name))
        self._keep(name, record)
        return model, record

    def _load(self, name: str, config: EnsembleConfig) -> Ensemble:
        path = self._weights(name)
        loaded = load_ensemble(path)
        changed = [text for text in differences(loaded.config, config) if not text.startswith("log.")]
        if loaded.classes != self.inputs.photos.classes:
            changed.append("classes")
        if changed:
            raise ValueError(
                f"measure '{path}': settings are changed: {', '.join(changed)}, expected those of this command. Remove "
                "it to train again, or take another folder."
            )
        if loaded.step != (steps := config.steps(len(self.inputs.photos))):
            raise ValueError(
                f"measure '{path}': number of steps is {loaded.step}, expected {steps}. Train to the end, or remove it."
            )
        model: Any = loaded.model
        moved: Ensemble = model.to(self.device, memory_format=torch.channels_last)
        return moved.eval()

    def _weights(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _keep(self, name: str, record: Mapping[str, Any]) -> None:
        write_text(self.folder / f"{name}.json", json.dumps(record, indent=2) + "\n")

    def _missing(self, name: str, record: Mapping[str, Any]) -> list[Measure]:
        stored = self._stored(name, record)
        return [m for m in self.measures if stored.get(m.name, {}).get("settings") != m.settings]

    def _stored(self, name: str, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The measures in a cell's record, by name; a record without any is one that was not measured."""
        stored = record.get("measures", {})
        if not isinstance(stored, dict) or not all(
            isinstance(found, dict) and isinstance(found.get("answers"), dict) for found in stored.values()
        ):
            raise CgnrtError(
                f"load '{self.folder / name}.json': measures are damaged, expected settings and answers of each. "
                "Remove the file to measure again."
            )
        return stored
