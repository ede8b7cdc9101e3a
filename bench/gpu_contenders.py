"""Our engines and precisions against each other: which are there, how far from float32, how fast at which batch."""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_results import NotRunError, Recorder, first_line
from gpu_setting import Setting

from cgnrt import Generator
from cgnrt.errors import CgnrtError
from cgnrt.plan import Plan

# The form in which a classifier takes images.
FORM: dict[str, Any] = {"dtype": "float16"}
RESERVE_S = 100  # for what a section measures after it has scanned


@dataclass(frozen=True)
class Contender:
    """A Generator of one engine and precision, open."""

    engine: str
    precision: str
    generator: Generator

    @property
    def name(self) -> str:
        return name_of(self.engine, self.precision)

    def new(self) -> Callable[[int], object]:
        """Of a batch size: new images at every call, which torch's stream waits for."""
        seeds = itertools.count(1)
        return lambda n: self.generator.sample(n, seed=next(seeds)).torch()


@dataclass(frozen=True)
class Best:
    """The batch size of the fewest seconds an image."""

    name: str
    batch: int
    seconds: float


@dataclass(frozen=True)
class Choice:
    """What the best of ours was."""

    engine: str
    precision: str
    batch: int


def name_of(engine: str, precision: str) -> str:
    return f"cgnrt {engine} {precision}"


def opened(setting: Setting, plan: Path, engine: str, precision: str, **form: Any) -> Contender:
    """A Generator whose engines are ready.

    Raises:
      NotRunError: there is none; the reason.
    """
    with Plan.open(plan, verify=False) as found:
        reason = setting.refusal(engine, precision, list(found.mechanisms.values()))
    if reason is not None:
        raise NotRunError(reason)
    try:
        generator = Generator(plan, device=str(setting.device), backend=engine, precision=precision, **form)
        generator.sample(1, seed=0)
    except (CgnrtError, MemoryError) as error:
        raise NotRunError(first_line(error)) from error
    return Contender(engine, precision, generator)


def chosen(setting: Setting, plan: Path, **form: Any) -> tuple[Contender, Choice]:
    """What the imagenet section found fastest; without that, the first that there is.

    Raises:
      NotRunError: no engine runs the plan at a precision that counts.
    """
    fact = setting.earlier.get("chosen")
    choices = [Choice(**fact)] if fact else []
    batch = setting.sizes.compiled_batch
    choices += [Choice(engine, low, batch) for engine in setting.engines for low in setting.low]
    reasons = []
    for choice in choices:
        try:
            return opened(setting, plan, choice.engine, choice.precision, **form), choice
        except NotRunError as reason:
            reasons.append(f"{choice.engine} {choice.precision}: {reason}")
    raise NotRunError(f"no engine: {'; '.join(reasons)}")


def scan(
    setting: Setting, recorder: Recorder, name: str, call: Callable[[int], object], batches: Sequence[int]
) -> Best:
    """Time each batch size by itself, up to one that does not fit into memory or time.

    Raises:
      NotRunError: the first does not.
    """
    found: list[Best] = []
    for batch in batches:
        what = f"{name}, batch {batch}"
        reason = None
        try:
            setting.budget.require(RESERVE_S + 20, what)
            times = setting.turns({"call": lambda batch=batch: call(batch)}, limit_s=6, rounds=9)["call"]
        except (NotRunError, CgnrtError, MemoryError, torch.cuda.OutOfMemoryError) as error:
            reason = first_line(error)
        if reason is not None:
            setting.release()  # here, for the exception kept what it was raised amid
            recorder.skipped(what, reason)
            if not found:
                raise NotRunError(reason)
            break
        seconds = statistics.median(times)
        recorder.row(what, times, rate=batch / seconds, unit="images/s")
        found.append(Best(name, batch, seconds / batch))
    return min(found, key=lambda best: best.seconds)


def best_of_ours(
    setting: Setting,
    recorder: Recorder,
    plan: Path,
    batches: Sequence[int],
    decibels: Callable[[Contender], float],
    *,
    precisions: Sequence[str],
    counting: Sequence[str],
) -> Choice:
    """The fastest engine, precision and batch size, of those that count and are near enough to float32.

    Args:
      decibels: the PSNR of a contender's images.
      precisions: in the order in which they are measured, each by every engine.
      counting: those that do; the others have rows alone.
    Raises:
      NotRunError: there is none; the reason has what each lacks.
    """
    found: list[tuple[float, Choice]] = []
    reasons: list[str] = []
    for precision, engine in itertools.product(precisions, setting.engines):
        try:
            best = _judged(setting, recorder, plan, engine, precision, batches, decibels)
        except NotRunError as reason:
            recorder.skipped(name_of(engine, precision), reason)
            if precision in counting:
                reasons.append(f"{engine} {precision}: {reason}")
        else:
            if precision in counting:
                found.append((best.seconds, Choice(engine, precision, best.batch)))
        gc.collect()  # one is closed before the next is opened
        setting.release()
    if not found:
        raise NotRunError(f"no engine counts: {'; '.join(reasons)}")
    return min(found, key=lambda pair: pair[0])[1]


def _judged(
    setting: Setting,
    recorder: Recorder,
    plan: Path,
    engine: str,
    precision: str,
    batches: Sequence[int],
    decibels: Callable[[Contender], float],
) -> Best:
    setting.budget.require(RESERVE_S + 60, "its engines")
    contender = opened(setting, plan, engine, precision, **FORM)
    level = decibels(contender)
    recorder.row(f"{contender.name}, PSNR", figures={"psnr_db": level})
    check_level(setting, level)
    return scan(setting, recorder, contender.name, contender.new(), batches)


def check_level(setting: Setting, decibels: float) -> None:
    """Raise a NotRunError where images are too far from float32 to count."""
    if decibels < setting.min_psnr:
        raise NotRunError(f"its images are less than {setting.min_psnr:g} dB from float32")
