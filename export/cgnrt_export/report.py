"""The parity report: what an export measured. It is stored in the plan and printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """How far one way of computing a picture is from torch in float32, over all samples of the report.

    Attributes:
      precision: "fp32", "bf16" or "fp16".
      measured: what computed it: an engine's name, or "emulated: torch bfloat16" where no engine on the
        exporting machine has that precision.
      max_abs_error: the largest difference to the module in float32, as it was trained.
      max_abs_error_float64: the largest difference to the module in float64; None where that does not run.
      psnr_db: of the difference to float32, for the picture's value range; None where there is no difference.
    """

    precision: str
    measured: str
    max_abs_error: float
    max_abs_error_float64: float | None
    psnr_db: float | None


@dataclass(frozen=True)
class MechanismReport:
    """What the inference form of one mechanism saves, and how exact it is.

    Attributes:
      rewrites: how often each rewrite was applied.
      macs_before, macs_after: multiply-adds for one picture, as trained and as exported.
      torch_error_float64: the largest difference between the module in float32 and in float64: the rounding
        that was there before any export.
    """

    rewrites: Mapping[str, int]
    macs_before: int
    macs_after: int
    torch_error_float64: float | None
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class ParityReport:
    """Each mechanism and the composite (Eq. 2) of a written plan against the torch modules, on random inputs.

    Attributes:
      precision: the plan's default precision.
      reason: why it is.
      engines: version by name of every engine that is installed.
      torch: version.
      seed: of the random inputs.
      batch_sizes: run one after another; together the number of samples.
      mechanisms: by name.
      composite: of the composed pictures.
      not_measured: what refused to run, and why.
    """

    precision: str
    reason: str
    engines: Mapping[str, str]
    torch: str
    seed: int
    batch_sizes: tuple[int, ...]
    mechanisms: Mapping[str, MechanismReport]
    composite: tuple[Measure, ...]
    not_measured: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; the composite stands beside the mechanisms."""
        values = asdict(self)
        values["samples"] = sum(self.batch_sizes)
        values["batch_sizes"] = list(self.batch_sizes)
        values["composite"] = [asdict(measure) for measure in self.composite]
        for name, mechanism in self.mechanisms.items():
            values["mechanisms"][name]["measures"] = [asdict(measure) for measure in mechanism.measures]
        return values

    def worst_psnr(self, precision: str) -> float | None:
        """The lowest PSNR of the composite at a precision; None if every way to compute it is exact."""
        found = [m.psnr_db for m in self.composite if m.precision == precision and m.psnr_db is not None]
        return min(found, default=None)

    def table(self) -> str:
        """The report for people, as lines of text."""
        header = ["picture", "precision", "measured by", "max error", "to float64", "PSNR dB"]
        rows = [
            [
                name,
                m.precision,
                m.measured,
                _number(m.max_abs_error),
                _number(m.max_abs_error_float64),
                _psnr(m.psnr_db),
            ]
            for name, measures in [
                *((name, mechanism.measures) for name, mechanism in self.mechanisms.items()),
                ("composite", self.composite),
            ]
            for m in measures
        ]
        macs = [
            [
                name,
                f"{mechanism.macs_before / 1e6:.2f}",
                f"{mechanism.macs_after / 1e6:.2f}",
                ", ".join(f"{count} {what}" for what, count in mechanism.rewrites.items() if count) or "none",
            ]
            for name, mechanism in self.mechanisms.items()
        ]
        before = sum(mechanism.macs_before for mechanism in self.mechanisms.values())
        after = sum(mechanism.macs_after for mechanism in self.mechanisms.values())
        macs.append(["all", f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", ""])
        # OpenVINO's version goes on with a commit and a branch.
        engines = ", ".join(f"{name} {version.split('-')[0]}" for name, version in self.engines.items())
        lines = [
            *columns([["mechanism", "MMAC as trained", "as exported", "rewrites"], *macs], right={1, 2}),
            "",
            *columns([header, *rows], right={3, 4, 5}),
            "",
            f"{sum(self.batch_sizes)} samples in batches of {', '.join(map(str, self.batch_sizes))}, "
            f"seed {self.seed}; torch {self.torch}, {engines}",
            *(f"not measured: {what}: {why}" for what, why in self.not_measured.items()),
            f"default precision: {self.precision} ({self.reason})",
        ]
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _psnr(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def columns(rows: list[list[str]], right: set[int]) -> list[str]:
    """Cells as lines of text; the columns in `right` end flush."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
