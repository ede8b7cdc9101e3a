"""Run a written plan against the torch modules it came from, on random inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from cgnrt.backends import backends_for, supports
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism, Plan
from cgnrt_export.causes import first_cause
from cgnrt_export.errors import ExportError
from cgnrt_export.inference import InferenceForm
from cgnrt_export.mechanism import CheckedMechanism
from cgnrt_export.report import Measure, MechanismReport, ParityReport
from cgnrt_export.runners import (
    AUTO_PRECISIONS,
    Floats,
    Inputs,
    Pictures,
    Runner,
    choose_batch_sizes,
    composite,
    composite_float64,
    draw_inputs,
    fp32_engines,
    is_large,
    run_in_turn,
    run_torch,
    runners,
)

# One alone, one that is not a multiple of a vector, and enough for statistics.
BATCH_SIZES = (1, 7, 32)
FP32_TOLERANCE = 1e-4  # for pictures in [-1, 1]; in proportion for other ranges
LARGE_TOLERANCE = (
    1e-3  # of networks that draw large pictures: hundreds of layers, sums of thousands of products
)
# Two computations in float32 cannot agree better than each agrees with float64; a network may amplify rounding.
_OWN_ERRORS = 4.0
AUTO_PSNR_DB = 40.0
_OVERFLOWN = 65504.0  # stands for infinity and NaN, so that they count and a report has finite numbers only


class _Error:
    """Differences of one picture, gathered over batches."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.largest_float64: float | None = None
        self.squares = 0.0
        self.count = 0

    def add(self, got: Floats, expected: Floats, truth: Floats | None) -> None:
        got = np.nan_to_num(got.astype(np.float64), nan=_OVERFLOWN, posinf=_OVERFLOWN, neginf=-_OVERFLOWN)
        difference = got - expected
        self.largest = max(self.largest, float(np.abs(difference).max()))
        self.squares += float(np.square(difference).sum())
        self.count += difference.size
        if truth is not None:
            self.largest_float64 = max(self.largest_float64 or 0.0, float(np.abs(got - truth).max()))

    def measure(self, runner: Runner, width: float) -> Measure:
        mean_square = self.squares / self.count
        psnr = 10 * math.log10(width**2 / mean_square) if mean_square else None
        return Measure(
            runner.precision,
            runner.measured,
            _rounded(self.largest),
            None if self.largest_float64 is None else _rounded(self.largest_float64),
            None if psnr is None else round(psnr, 2),
        )


def measure_parity(
    plan: Plan,
    mechanisms: Mapping[str, CheckedMechanism],
    forms: Mapping[str, InferenceForm],
    references: Mapping[str, nn.Module],
    *,
    precision: str,
    seed: int,
    exact: Mapping[str, Mechanism] | None = None,
    batch_sizes: Sequence[int] | None = None,
    truncation: tuple[float, float] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> ParityReport:
    """Compare every engine on this machine, at every precision that it has, with the torch modules.

    Args:
      plan: the plan as written, open.
      mechanisms, forms: what the plan was written from; the forms have the plan's own weights.
      references: the modules as trained, on the CPU, float32, eval mode, by mechanism.
      precision: "auto" or the plan's default precision; one that is asked for must be measurable.
      seed: of the inputs.
      exact: the plan's mechanisms with the weights from before they were rounded, where they were: these are held
        against the tolerance, not the plan.
      batch_sizes: run one after another; of small pictures the last is repeated until every class (256 at most) has
        been seen. None is `BATCH_SIZES`, or a few samples of large pictures.
      truncation: (minimum, maximum) to draw from, where the plan has it; both ends are among the samples.
    Raises:
      ExportError: an engine fails on the plan, its fp32 differs from torch by more than the tolerance (1e-4; of large
        pictures 1e-3; or four times what torch's own fp32 differs from float64, if that is more), or the precision
        asked for cannot run.
    """
    resolution = mechanisms["shape"].resolution
    classes = max(len(mechanism.classes) for mechanism in mechanisms.values())
    sizes = choose_batch_sizes(batch_sizes, BATCH_SIZES, resolution, classes)
    batches = list(draw_inputs(mechanisms, sizes, seed, truncation))
    progress(f"parity: {sum(sizes)} samples by torch")
    expected = [run_torch(references, inputs, torch.float32) for inputs in batches]
    # Of large pictures, one batch tells how much the network amplifies rounding.
    truth = _run_float64(references, batches[:1] if is_large(resolution) else batches)
    own = {name: _torch_error(name, expected, truth) for name in mechanisms}
    own["composite"] = _composite_error(batches, expected, truth)
    tolerance = LARGE_TOLERANCE if is_large(resolution) else FP32_TOLERANCE
    measures: dict[str, list[Measure]] = {name: [] for name in (*mechanisms, "composite")}
    not_measured: dict[str, str] = {}
    low, high = mechanisms["texture"].range
    widths = {name: m.range[1] - m.range[0] for name, m in mechanisms.items()} | {"composite": high - low}
    if exact is not None:
        before: dict[str, list[Measure]] = {name: [] for name in measures}
        for runner in fp32_engines(exact):
            progress(f"parity: weights as trained by {runner.measured}")
            errors = _compare(_run(runner, batches), batches, expected, truth)
            for name, gathered in errors.items():
                before[name].append(gathered.measure(runner, widths[name]))
        _check_fp32(before, widths, tolerance, own)
    for runner in runners(plan.networks, forms, precision):
        progress(f"parity: {runner.precision} by {runner.measured}")
        try:
            errors = _compare(_run(runner, batches), batches, expected, truth)
        except RuntimeError as error:
            # The emulation, which is torch, lacks a kernel for an operation.
            not_measured[f"{runner.precision} by {runner.measured}"] = first_cause(error)
            continue
        for name, gathered in errors.items():
            measures[name].append(gathered.measure(runner, widths[name]))
    if exact is None:
        _check_fp32(measures, widths, tolerance, own)
    chosen, reason = _choose(precision, measures["composite"], not_measured)
    return ParityReport(
        precision=chosen,
        reason=reason,
        engines={e.name: e.version() for e in backends_for("cpu") if supports(e.name, "fp32")},
        torch=torch.__version__,
        seed=seed,
        batch_sizes=sizes,
        mechanisms={
            name: MechanismReport(
                forms[name].rewrites,
                forms[name].macs_before,
                forms[name].macs_after,
                own[name],
                tuple(measures[name]),
            )
            for name in mechanisms
        },
        composite=tuple(measures["composite"]),
        not_measured=not_measured,
    )


def _run(runner: Runner, batches: Sequence[Inputs]) -> list[Pictures]:
    try:
        return runner.run(batches)
    except BackendError as error:
        raise ExportError(f"{runner.measured} does not run it: {error} Nothing was written.") from error


def _compare(
    pictures: Sequence[Pictures],
    batches: Sequence[Inputs],
    expected: Sequence[Pictures],
    truth: Sequence[Pictures] | None,
) -> dict[str, _Error]:
    errors = {name: _Error() for name in (*expected[0], "composite")}
    for k, inputs in enumerate(batches):
        got, right = pictures[k], expected[k]
        true = None if truth is None or k >= len(truth) else truth[k]
        for name, picture in got.items():
            errors[name].add(picture, right[name], None if true is None else true[name])
        errors["composite"].add(
            composite(got, inputs.rolls),
            composite(right, inputs.rolls),
            None if true is None else composite_float64(true, inputs.rolls),
        )
    return errors


def _run_float64(references: Mapping[str, nn.Module], batches: Sequence[Inputs]) -> list[Pictures] | None:
    """The pictures in float64; None where a module insists on another dtype inside."""
    try:
        return run_in_turn(references, lambda module: copy.deepcopy(module).double(), batches, torch.float64)
    except RuntimeError:
        return None


def _check_fp32(
    measures: Mapping[str, Sequence[Measure]],
    widths: Mapping[str, float],
    tolerance: float,
    own: Mapping[str, float | None],
) -> None:
    for name, found in measures.items():
        single = [measure for measure in found if measure.precision == "fp32"]
        if not single:
            raise ExportError("no installed engine runs it, expected one. Run: pip install 'cgnrt[cpu]'")
        allowed = max(tolerance * max(1.0, widths[name] / 2), _OWN_ERRORS * (own[name] or 0.0))
        for measure in single:
            if measure.max_abs_error > allowed:
                raise ExportError(
                    f"the largest fp32 error of the {name} by {measure.measured} is "
                    f"{measure.max_abs_error:.3g}, expected at most {allowed:.3g} against torch. "
                    "Nothing was written."
                )


def _choose(asked: str, found: Sequence[Measure], not_measured: Mapping[str, str]) -> tuple[str, str]:
    """The plan's default precision, and why."""
    lowest = {
        precision: min(
            (math.inf if m.psnr_db is None else m.psnr_db for m in found if m.precision == precision),
            default=None,
        )
        for precision in ("fp32", "bf16", "fp16")
    }
    if asked != "auto":
        if lowest[asked] is None:
            raise ExportError(
                f"precision is {asked}, expected one that can be measured here: "
                f"{'; '.join(f'{what}: {why}' for what, why in not_measured.items()) or 'no engine has it'}. "
                "Choose another."
            )
        return asked, f"asked for; {_decibels(lowest[asked])}"
    for precision in AUTO_PRECISIONS:
        psnr = lowest[precision]
        if psnr is not None and psnr >= AUTO_PSNR_DB:
            return precision, f"the fastest with at least {AUTO_PSNR_DB:g} dB; it has {_decibels(psnr)}"
    tried = ", ".join(f"{p} has {_decibels(lowest[p])}" for p in AUTO_PRECISIONS)
    return "fp32", f"no faster one has {AUTO_PSNR_DB:g} dB: {tried}"


def _decibels(psnr: float | None) -> str:
    if psnr is None:
        return "not been measured"
    return "no error" if psnr == math.inf else f"{psnr:.1f} dB"


def _torch_error(name: str, expected: Sequence[Pictures], truth: Sequence[Pictures] | None) -> float | None:
    if truth is None:
        return None
    pairs = zip(expected, truth, strict=False)  # the truth may be known of the first batches only
    return _rounded(max(float(np.abs(single[name] - double[name]).max()) for single, double in pairs))


def _composite_error(
    batches: Sequence[Inputs], expected: Sequence[Pictures], truth: Sequence[Pictures] | None
) -> float | None:
    if truth is None:
        return None
    errors = [
        float(np.abs(composite(single, inputs.rolls) - composite_float64(double, inputs.rolls)).max())
        for inputs, single, double in zip(batches, expected, truth, strict=False)
    ]
    return _rounded(max(errors))


def _rounded(value: float) -> float:
    """Four digits: what follows is noise, and would differ from one machine to the next."""
    return float(f"{value:.3e}")
