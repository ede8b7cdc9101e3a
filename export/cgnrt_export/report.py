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
      measured: what computed it: an engine's name, or "emulated: bfloat16 layers" where no engine on the
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
        that existed before any export.
    """

    rewrites: Mapping[str, int]
    macs_before: int
    macs_after: int
    torch_error_float64: float | None
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class FrontierPoint:
    """What a share of the multiply-adds in bfloat16 costs.

    Attributes:
      bf16_share: of the multiply-adds in layers, 0..1.
      psnr_db: of the composite against float32; None where there is no difference.
    """

    bf16_share: float
    psnr_db: float | None


@dataclass(frozen=True)
class PrecisionPlan:
    """Which layers stay in float32 so that the composite keeps a PSNR; the others may be bfloat16.

    Attributes:
      min_psnr_db: the floor that was asked for.
      psnr_db: what the plan has, on samples that had no part in the choice; None where there is no difference.
      bf16_share: of the multiply-adds in layers, 0..1.
      fp32_layers: by mechanism, the weights of the layers that stay, by their names in the ONNX graph.
      fp32_groups: the same for people: mechanism and size of the layers' pictures.
      frontier: what each share costs, from none to all.
      int8_psnr_db: of the composite with int8 in place of bfloat16; None where there is no difference.
      samples: measured for the choice, and as many again for `psnr_db`.
    """

    min_psnr_db: float
    psnr_db: float | None
    bf16_share: float
    fp32_layers: Mapping[str, tuple[str, ...]]
    fp32_groups: tuple[str, ...]
    frontier: tuple[FrontierPoint, ...]
    int8_psnr_db: float | None
    samples: int

    @property
    def int8_holds(self) -> bool:
        """Whether int8 would keep the floor too."""
        return self.int8_psnr_db is None or self.int8_psnr_db >= self.min_psnr_db

    def lines(self) -> list[str]:
        """The plan for people."""
        points = [[f"{point.bf16_share:.0%}", _psnr(point.psnr_db)] for point in self.frontier]
        kept = ", ".join(self.fp32_groups) or "none"
        return [
            *columns([["MACs in bf16", "PSNR dB"], *points], right={0, 1}),
            "",
            f"precision plan: {self.bf16_share:.0%} of the multiply-adds in bf16 keep {_psnr(self.psnr_db)} dB "
            f"(asked for: {self.min_psnr_db:g} dB; {self.samples} + {self.samples} samples)",
            f"in fp32: {kept}",
            *(
                [f"int8 would keep {_psnr(self.int8_psnr_db)} dB"]
                if self.bf16_share and self.int8_holds
                else []
            ),
        ]


@dataclass(frozen=True)
class StorageReport:
    """What weights in half precision save and cost.

    Attributes:
      min_psnr_db: the floor of every picture in fp32 against torch.
      psnr_db: the lowest that there is; None where there is no difference.
      weights_bytes, stored_bytes: of the graphs' weights, widened and in the file.
      fp32_layers: by mechanism, the weights of layers that are stored in full, by their names in the ONNX graph.
    """

    min_psnr_db: float
    psnr_db: float | None
    weights_bytes: int
    stored_bytes: int
    fp32_layers: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {
            "fp32_layers": {name: list(layers) for name, layers in self.fp32_layers.items()}
        }

    def line(self) -> str:
        """The report for people."""
        kept = sum(map(len, self.fp32_layers.values()))
        return (
            f"weights in half precision: {self.stored_bytes:,} bytes for {self.weights_bytes:,}, "
            f"{f'{kept} layers in full, ' if kept else ''}no picture below {_psnr(self.psnr_db)} dB in fp32 "
            f"(at least {self.min_psnr_db:g} dB)"
        )


@dataclass(frozen=True)
class ParityReport:
    """Each mechanism and the composite (Eq. 2) of a written plan against the torch modules, on random inputs.

    Attributes:
      precision: the plan's default precision.
      reason: why it is.
      engines: version by name of every engine that runs here, on the CPU.
      torch: version.
      seed: of the random inputs.
      batch_sizes: run one after another; together the number of samples.
      mechanisms: by name.
      composite: of the composed pictures.
      not_measured: what refused to run, and why.
      precision_plan: the layers that stay in float32, where a floor was asked for.
      storage: of weights in half precision, which every measure above is of; None where they are stored in full.
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
    precision_plan: PrecisionPlan | None = None
    storage: StorageReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; the composite stands beside the mechanisms."""
        values = asdict(self)
        values["samples"] = sum(self.batch_sizes)
        values["batch_sizes"] = list(self.batch_sizes)
        values["composite"] = [asdict(measure) for measure in self.composite]
        for name, mechanism in self.mechanisms.items():
            values["mechanisms"][name]["measures"] = [asdict(measure) for measure in mechanism.measures]
        del values["storage"]
        if self.storage is not None:
            values["storage"] = self.storage.to_json()
        plan = values.pop("precision_plan")
        if plan is not None:
            plan["fp32_layers"] = {name: list(layers) for name, layers in plan["fp32_layers"].items()}
            plan["fp32_groups"], plan["frontier"] = list(plan["fp32_groups"]), list(plan["frontier"])
            values["precision_plan"] = plan
        return values

    @property
    def pictures(self) -> dict[str, tuple[Measure, ...]]:
        """The measures of every picture: each mechanism's, and the composite."""
        return {
            **{name: mechanism.measures for name, mechanism in self.mechanisms.items()},
            "composite": self.composite,
        }

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
            for name, measures in self.pictures.items()
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
            *([] if self.storage is None else [self.storage.line()]),
            *([] if self.precision_plan is None else ["", *self.precision_plan.lines()]),
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
