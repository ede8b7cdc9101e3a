"""The folder of a training run: its settings, its log of scalars, its sheets, its checkpoints.

A run may be killed at any moment. Whatever is in the folder was written beside its place and then renamed, and a run
that goes on from the last checkpoint drops the scalars of the steps that it does again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from cgnrt._support.files import open_own, written_beside
from cgnrt._support.reading import read_text
from cgnrt._support.terminal import say
from cgnrt.errors import CheckpointError

from .. import checkpoints
from ..settings import differences, from_dict, to_dict
from .pictures import Sheet, save_png
from .state import State

Settings = TypeVar("Settings")

_UNFINISHED = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")  # as `written_beside` names its files


class RunFolder:
    """A run's folder, opened by `RunFolder.open`."""

    def __init__(self, path: Path, *, resume: bool, state_file: str, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.resumes = resume
        self._state = path / state_file
        self._scalars = path / "scalars.jsonl"
        self._samples = path / "samples"

    @classmethod
    def open(
        cls,
        path: Path,
        settings: Any,
        *,
        resume: bool,
        force: bool,
        may_change: Sequence[str] = ("steps",),
        state_file: str = "resume.pt",
        writes: bool = True,
    ) -> RunFolder:
        """Make the folder of a new run, or check on resume that it is the folder of this very run.

        Args:
          settings: a dataclass; goes into `config.json`.
          resume: go on with the run in the folder.
          force: start anew over the run in the folder.
          may_change: settings, or `section.`, that may differ on resume.
          state_file: the checkpoint that the run goes on from.
          writes: False in all but the first process of a run of several: such a folder is neither checked nor
            changed, it is only read.
        Raises:
          ValueError, CheckpointError: as `check_folder`.
        """
        folder = cls(path, resume=resume, state_file=state_file, writes=writes)
        if not writes:
            return folder
        check_folder(path, settings, resume=resume, force=force, may_change=may_change)
        path.mkdir(parents=True, exist_ok=True)
        if force:  # first of all what a later --resume must not mistake for the new run's
            for old in (folder._state, folder._scalars, *folder.sheets()):
                old.unlink(missing_ok=True)
        for left in path.rglob(".*.tmp"):  # of a run that was killed while it wrote
            if _UNFINISHED.fullmatch(left.name):
                left.unlink(missing_ok=True)
        write_text(path / "config.json", json.dumps(to_dict(settings), indent=2) + "\n")
        return folder

    def sheets(self) -> list[Path]:
        """The sheets of the run so far, in the order of their steps."""
        return sorted(self._samples.glob("step-*.png"))

    def restore(self, state: State, log: TextIO | None = None) -> None:
        """On resume, take up the last checkpoint, if the run came to one.

        Raises:
          CheckpointError: it is damaged or does not fit.
        """
        if not self.resumes:
            return
        if self._state.exists():
            state.restore(checkpoints.load_tensors(self._state), str(self._state))
        if self.writes:
            self._trim(state.step)
            say(f"resume '{self.path}' at step {state.step}", log or sys.stderr)

    def save(self, state: State, about: Mapping[str, Any], weights: str | None = None) -> None:
        """Write the checkpoint to go on from.

        Args:
          about: entries that say what it is (format, settings).
          weights: name of a second, light file of `about`, `step` and the part `model` alone.
        Raises:
          CheckpointError: the disk refused; the last checkpoint stays.
        """
        if not self.writes:
            return
        content = {**about, **state.to_dict()}
        # The state comes last: a run that goes on from it has all that belongs to it, or writes it again.
        if weights is not None:
            checkpoints.save({key: content[key] for key in (*about, "step", "model")}, self.path / weights)
        checkpoints.save(content, self._state)

    def add_sheet(self, step: int, sheet: Sheet, zoom: int = 2) -> None:
        """Write a step's sheet as `samples/step-000012.png`."""
        save_png(sheet, self._samples / f"step-{step:06d}.png", zoom)

    def add_scalars(self, step: int, values: Mapping[str, float], board: Any = None) -> None:
        """Append a step's losses and other numbers to `scalars.jsonl`, and show them on a TensorBoard."""
        if not self.writes:
            return
        handle = open_own(self._scalars, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | {k: round(v, 6) for k, v in values.items()}) + "\n")
        if board is not None:
            for name, value in values.items():
                board.add_scalar(name, value, step)

    @contextmanager
    def tensorboard(self, state: State, log: TextIO) -> Iterator[Any]:
        """A TensorBoard writer, or None if tensorboard is not installed or this process only reads."""
        if not self.writes:
            yield None
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "tensorboard":
                raise
            say("TensorBoard: off, not installed. Run: pip install 'cgnrt[train]'", log)
            yield None
            return
        # A resumed run does the steps after its checkpoint again: TensorBoard drops what it had of them.
        purge = state.step + 1 if state.step else 0
        with SummaryWriter(str(self.path / "tensorboard"), purge_step=purge) as writer:
            yield writer

    def _trim(self, step: int) -> None:
        """Drop the scalars of steps that are about to be done again, and a line that a kill cut short."""
        if self._scalars.exists():
            lines = [line for line in read_text(self._scalars).splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_text(self._scalars, "".join(f"{line}\n" for line in kept))


def check_folder(
    path: Path, settings: Any, *, resume: bool, force: bool, may_change: Sequence[str] = ("steps",)
) -> None:
    """Check that a run may be kept in a folder; the arguments are those of `RunFolder.open`.

    Raises:
      ValueError: the folder holds a run and neither `resume` nor `force` is given, or on resume one of other
        settings.
      CheckpointError: on resume, `config.json` cannot be read.
    """
    if resume:
        stored = stored_settings(path, type(settings))
        changed = [text for text in differences(stored, settings) if not text.startswith(tuple(may_change))]
        if changed:
            raise ValueError(
                f"resume '{path}': settings are changed: {', '.join(changed)}, expected the run's own. "
                f"Leave them, or start anew in another folder."
            )
    elif (path / "config.json").exists() and not force:
        raise ValueError(f"train '{path}': the folder already has a run. Use --resume, --force or another.")


def stored_settings(folder: Path, kind: type[Settings]) -> Settings:
    """The settings in a run folder's `config.json`.

    Raises:
      CheckpointError: the file is missing or damaged.
    """
    path = folder / "config.json"
    try:
        return from_dict(kind, json.loads(read_text(path)))
    except OSError as error:
        raise CheckpointError(
            f"resume '{folder}': config.json is unreadable ({error.strerror}), expected a run. Start without "
            f"--resume."
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"resume '{path}': content is damaged ({error}), expected a run's settings. Start anew."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file beside `path`, then rename it, so that `path` is never half-written.

    Raises:
      CgnrtError: the disk refused; an older file at `path` is left as it was.
    """
    with written_beside(path, force=True) as beside:
        beside.write_text(text, encoding="utf-8")
