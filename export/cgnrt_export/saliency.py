"""A network that finds the objects of photos as a plan of its own, for `cgnrt.real.Saliency`."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cgnrt
from cgnrt._support.files import written_beside
from cgnrt.backends import backends_for, load_engine, supports
from cgnrt.errors import BackendError
from cgnrt.plan import SaliencyNetwork, SaliencyPlan, write_plan
from cgnrt.plan.limits import FORMAT_VERSION
from cgnrt_export.causes import first_cause
from cgnrt_export.errors import ExportError
from cgnrt_export.half_storage import HalfWeights, check_store, report_storage, storable, store_in_half
from cgnrt_export.inference import InferenceForm, inference_form
from cgnrt_export.onnx_writer import OnnxGraph, write_onnx
from cgnrt_export.report import Measure, StorageReport, columns

RESOLUTION = (320, 320)  # of the official code
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_SIZES = (1, 3)
PRECISIONS = ("fp32", "bf16")
FP32_TOLERANCE = 1e-4  # of masks in [0, 1]
AUTO_PSNR_DB = 40.0


@dataclass(frozen=True)
class SaliencyReport:
    """The masks of a written plan against the torch module's, on random photos.

    Attributes:
      precision: the plan's default precision.
      rewrites: how often each rewrite of the inference form was applied.
      macs_before, macs_after: multiply-adds for one photo, as trained and as exported.
      measures: of every engine at every precision that it has on the exporting machine.
      engines: version by name.  torch: version.  seed: of the photos.  batch_sizes: run one after another.
      storage: of weights in half precision, which the measures are of; None where they are stored in full.
    """

    precision: str
    rewrites: Mapping[str, int]
    macs_before: int
    macs_after: int
    measures: tuple[Measure, ...]
    engines: Mapping[str, str]
    torch: str
    seed: int
    batch_sizes: tuple[int, ...]
    storage: StorageReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        values = asdict(self) | {
            "batch_sizes": list(self.batch_sizes),
            "measures": [asdict(measure) for measure in self.measures],
        }
        del values["storage"]
        return values if self.storage is None else values | {"storage": self.storage.to_json()}

    def table(self) -> str:
        """The report for people, as lines of text."""
        rows = [["precision", "measured by", "max error", "PSNR dB"]]
        for m in self.measures:
            psnr = "equal" if m.psnr_db is None else f"{m.psnr_db:.1f}"
            rows.append([m.precision, m.measured, f"{m.max_abs_error:.1e}", psnr])
        rewrites = ", ".join(f"{count} {what}" for what, count in self.rewrites.items() if count) or "none"
        lines = [
            f"MMAC as trained {self.macs_before / 1e6:.1f}, as exported {self.macs_after / 1e6:.1f}; "
            f"rewrites: {rewrites}",
            "",
            *columns(rows, right={2, 3}),
            "",
            f"{sum(self.batch_sizes)} random photos, seed {self.seed}; default precision: {self.precision}",
            *([] if self.storage is None else [self.storage.line()]),
        ]
        return "\n".join(lines)


def export_saliency(
    path: str | os.PathLike[str],
    module: nn.Module,
    *,
    family: str,
    resolution: tuple[int, int] = RESOLUTION,
    divide_by: str = "maximum",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    stretch: bool = True,
    precision: str = "auto",
    store: str = "fp32",
    sources: Sequence[Mapping[str, str]] = (),
    training_data: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> SaliencyReport:
    """Write a network that finds objects as a plan of kind "saliency", and prove that the plan computes the same.

    Args:
      path: the plan to write. It appears only if everything went well.
      module: photos (n, 3, h, w) -> masks (n, 1, h, w) in [0, 1]; left as it is.
      family: what kind of network it is, in a word; information for people.
      resolution: (height, width) that it takes.
      divide_by, mean, std, stretch: how photos go in and masks come out (docs/plan-format.md); the defaults are those
        of U2-Net's official code.
      precision: the plan's default: "fp32", "bf16", or "auto": bf16 if an engine here has it with at least 40 dB.
      store, sources, training_data, seed, force, progress: as for `export_plan`.
    Returns:
      The parity report, which is in the plan's manifest too.
    Raises:
      ExportError: the module cannot be written as ONNX, or an engine's fp32 differs from it by more than 1e-4, or, with
        `store="fp16"`, the masks have less than 40 dB.
      PlanError, CgnrtError: as for `export_plan`.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"export '{path}': precision is {precision!r}, expected one of auto, fp32, bf16.")
    check_store(path, store)
    with written_beside(Path(path), force=force) as beside:
        progress("rewrite and convert the network")
        reference = copy.deepcopy(module).float().cpu().eval().requires_grad_(False)
        example = {"image": torch.zeros(3, 3, *resolution)}
        form, written = _convert(path, reference, example)
        layers = storable(form.module)
        half = store_in_half(written, layers) if store == "fp16" else None
        members = _members(written, half)
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "kind": "saliency",
            "family": family,
            "exported_by": f"cgnrt {cgnrt.__version__}",
            "resolution": list(resolution),
            "precision": "fp32",
            "saliency": {
                "graph": "mechanisms/saliency.onnx",
                "weights": "mechanisms/saliency.weights" if len(members) > 1 else None,
                "storage": None if half is None else half.storage,
                "inputs": [{"name": "image", "shape": ["n", 3, *resolution], "dtype": "float32"}],
                "outputs": [{"name": "mask", "shape": ["n", 1, *resolution], "dtype": "float32"}],
                "divide_by": divide_by,
                "mean": list(mean),
                "std": list(std),
                "stretch": stretch,
            },
            "sources": [dict(source) for source in sources],
            "training_data": training_data,
            "parity": {},
        }
        write_plan(beside, manifest, members)
        with SaliencyPlan.open(beside) as plan:
            network = plan.network
            measures = _measure(network, reference, resolution, seed, PRECISIONS, progress)
            if half is None:
                _check_fp32(path, measures)
            else:
                exact = replace(network, external=half.exact)
                _check_fp32(path, _measure(exact, reference, resolution, seed, ("fp32",), progress))
        report = SaliencyReport(
            precision=_choose(path, precision, measures),
            rewrites=form.rewrites,
            macs_before=form.macs_before,
            macs_after=form.macs_after,
            measures=tuple(measures),
            engines={e.name: e.version() for e in backends_for("cpu") if supports(e.name, "fp32")},
            torch=torch.__version__,
            seed=seed,
            batch_sizes=BATCH_SIZES,
            storage=_storage(path, half, layers, measures) if store == "fp16" else None,
        )
        manifest |= {"precision": report.precision, "parity": report.to_json()}
        write_plan(beside, manifest, members, force=True)
    return report


def _convert(
    path: str | os.PathLike[str], module: nn.Module, example: Mapping[str, Tensor]
) -> tuple[InferenceForm, OnnxGraph]:
    try:
        form = inference_form(module, example)
    except Exception as error:
        raise ExportError(f"export '{path}': torch.export cannot trace it: {first_cause(error)}.") from error
    try:
        return form, write_onnx(form.module, example, ["mask"], weights_name="saliency.weights")
    except ExportError as error:
        raise ExportError(f"export '{path}': {error}.") from error


def _members(written: OnnxGraph, half: HalfWeights | None) -> dict[str, bytes]:
    members = {"mechanisms/saliency.onnx": written.graph if half is None else half.graph}
    weights = written.weights if half is None else half.member
    if weights is not None:
        members["mechanisms/saliency.weights"] = weights
    return members


def _storage(
    path: str | os.PathLike[str], half: HalfWeights | None, layers: Sequence[str], measures: Sequence[Measure]
) -> StorageReport:
    halves = {} if half is None else {"saliency": half}
    try:
        return report_storage(halves, {"saliency": layers}, {"mask": measures})
    except ExportError as error:
        raise ExportError(f"export '{path}': {error}") from error


def _measure(
    network: SaliencyNetwork,
    module: nn.Module,
    resolution: tuple[int, int],
    seed: int,
    precisions: Sequence[str],
    progress: Callable[[str], None],
) -> list[Measure]:
    """Every engine at every precision that it has here, on random photos."""
    generator = np.random.default_rng(seed)
    batches = [_photos(generator, n, resolution) for n in BATCH_SIZES]
    with torch.no_grad():
        expected = [module(torch.from_numpy(batch)).numpy() for batch in batches]
    measures = []
    for precision in precisions:
        for name in (entry.name for entry in backends_for("cpu")):
            if not supports(name, precision, networks=[network]):
                continue
            progress(f"parity: {precision} by {name}")
            try:
                engine = load_engine(network, backend=name, precision=precision)
                got = [engine.run({"image": batch})["mask"].copy() for batch in batches]
            except BackendError as error:
                raise ExportError(f"{name} does not run it: {error} Nothing was written.") from error
            difference = np.concatenate([(a - b).ravel() for a, b in zip(got, expected, strict=True)])
            square = float(np.mean(np.square(difference, dtype=np.float64)))
            psnr = round(-10 * math.log10(square), 2) if square else None
            largest = float(f"{np.abs(difference).max():.3e}")
            measures.append(Measure(precision, name, largest, None, psnr))
    return measures


def _photos(generator: np.random.Generator, n: int, resolution: tuple[int, int]) -> np.ndarray:
    """Smooth random pictures with the statistics of normalised photos: noise of several sizes."""
    photos = torch.zeros(n, 3, *resolution)
    for cells in (2, 5, 12, 40):
        noise = torch.from_numpy(generator.standard_normal((n, 3, cells, cells)).astype(np.float32))
        photos += nn.functional.interpolate(noise, size=resolution, mode="bicubic") / 2
    return photos.numpy()


def _check_fp32(path: str | os.PathLike[str], measures: Sequence[Measure]) -> None:
    single = [measure for measure in measures if measure.precision == "fp32"]
    if not single:
        raise ExportError("no installed engine runs it, expected one. Run: pip install 'cgnrt[cpu]'")
    for measure in single:
        if not measure.max_abs_error <= FP32_TOLERANCE:  # also where it is NaN
            raise ExportError(
                f"export '{path}': the largest fp32 error by {measure.measured} is {measure.max_abs_error:.3g}, "
                f"expected at most {FP32_TOLERANCE:g} against torch. Nothing was written."
            )


def _choose(path: str | os.PathLike[str], asked: str, measures: Sequence[Measure]) -> str:
    half = [measure for measure in measures if measure.precision == "bf16"]
    if asked == "bf16" and not half:
        raise ExportError(
            f"export '{path}': precision is bf16, expected one that an engine has on this machine. Choose another."
        )
    good = bool(half) and all(m.psnr_db is None or m.psnr_db >= AUTO_PSNR_DB for m in half)
    return asked if asked != "auto" else "bf16" if good else "fp32"
