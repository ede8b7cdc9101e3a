"""Ready TensorRT engines for a plan: built on a card, compared there with float32, and put into the file.

Needs no torch: a plan that exists is all that it starts from.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt import cuda, ops
from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.backends import choose, load_engine
from cgnrt.backends.base import Device
from cgnrt.backends.tensorrt import TensorRtBackend, library
from cgnrt.backends.tensorrt.build import bar, build_engine
from cgnrt.backends.tensorrt.cache import timing_cache
from cgnrt.backends.tensorrt.engine import TensorRtEngine, Workspace
from cgnrt.backends.tensorrt.ready import ReadyEngines
from cgnrt.backends.tensorrt.target import Batches, Target, graph_digest, usual_batches
from cgnrt.backends.typed import planned_fp32_layers
from cgnrt.errors import BackendError
from cgnrt.plan import MECHANISMS, Mechanism, Plan, write_plan
from cgnrt_export.errors import ExportError

# Below it an engine does not draw what the plan draws: float16 overflowed, or the library computes something else.
MIN_PSNR_DB = 30.0
_SAMPLES = 32
_LARGE, _LARGE_SAMPLES = 128 * 128, 2  # pixels from which float32 on the CPU takes seconds a picture

Pictures = dict[str, np.ndarray]


@dataclass(frozen=True)
class EnginesReport:
    """What was built, and how far it is from float32.

    Attributes:
      seconds: to build, by mechanism.
      size: bytes, by mechanism.
      reference: what computed float32, on the CPU.
      samples: compared.
      measures: "max_abs_error" and "psnr_db" (None where there is no difference), by mechanism and "composite".
    """

    target: Target
    precision: str
    batches: Batches
    seconds: Mapping[str, float]
    size: Mapping[str, int]
    reference: str
    samples: int
    seed: int
    measures: Mapping[str, Mapping[str, float | None]]

    def parity(self) -> dict[str, Any]:
        """What the plan keeps of it."""
        return {
            "reference": self.reference,
            "samples": self.samples,
            "seed": self.seed,
            **{name: dict(measure) for name, measure in self.measures.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """The report as JSON keeps it in a plan."""
        return {
            "target": vars(self.target),
            "precision": self.precision,
            "batches": list(self.batches.sizes),
            "seconds": dict(self.seconds),
            "size": dict(self.size),
            "parity": self.parity(),
        }

    def table(self) -> str:
        """The report for people, as lines of text."""
        lines = [
            f"{name:<12}{_cell(self.seconds, name, '.1f')} s  {_cell(self.size, name, ',')} bytes  "
            f"max error {measure['max_abs_error']:.1e}  {_decibels(measure['psnr_db'])}"
            for name, measure in self.measures.items()
        ]
        return "\n".join(
            [
                f"{self.precision} engines for batches of {self.batches}: {self.target}",
                *lines,
                f"against {self.reference}, {self.samples} samples, seed {self.seed}",
            ]
        )


def check_card(device: str, precision: str) -> Device:
    """The card to build on.

    Raises:
      BackendError: no engine can be built there; the message says why.
      ValueError: no device.
    """
    where = Device.parse(device)
    refusal: str | None = "it runs on CUDA devices"
    if where.kind == "cuda":
        refusal = TensorRtBackend().refusal(where, precision)
    if refusal is not None:
        raise BackendError(
            f"build engines: device is {where}, expected one for TensorRT: {refusal.rstrip('.')}."
        )
    return where


def add_engines(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: str = "auto",
    batches: Sequence[int] | None = None,
    device: str = "cuda:0",
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> EnginesReport:
    """Build the engines of a plan's mechanisms, compare them with float32, and write the plan with them.

    Args:
      source: a plan. Engines for other cards, versions or precisions that it has stay in it.
      output: the plan to write; may be `source`, with `force`. It appears only if everything went well.
      precision: "fp32", "fp16", "bf16", or "auto": the plan's default.
      batches: one to three sizes: smallest, usual, largest; None is what suits the plan's resolution.
      device: the card to build for and to measure on.
      seed: of the samples that are compared.
      force: replace an existing file.
      progress: called with a line for each step.
    Raises:
      BackendError: the card, the library or a graph does not allow it.
      ExportError: an engine is further than `MIN_PSNR_DB` from float32.
      ValueError: an argument is not as above.
      CgnrtError: the file exists and `force` is off, or cannot be written.
    """
    asked = None if batches is None else Batches.of(batches)
    target_path = Path(output)
    refuse_existing(target_path, force=force)
    with Plan.open(source) as plan:
        chosen = plan.manifest.precision if precision == "auto" else precision
        where = check_card(device, chosen)
        target = Target.of(library.load(), where.index)
        profile = asked or usual_batches(*plan.manifest.resolution)
        engines, seconds = _build(plan, chosen, profile, target, where, progress)
        progress(f"compare with float32 on {target.device}")
        report = EnginesReport(
            target=target,
            precision=chosen,
            batches=profile,
            seconds=seconds,
            size={name: len(data) for name, data in engines.items()},
            seed=seed,
            **_compare(plan, engines, profile, where, seed),
        )
        _check(report)
        ready = ReadyEngines(
            target,
            chosen,
            profile,
            {name: graph_digest(mechanism) for name, mechanism in plan.networks.items()},
            report.parity(),
        )
        members: dict[str, bytes | memoryview] = {
            name: plan.member(name) for name in plan.members if not name.startswith(f"{ready.folder}/")
        }
        with written_beside(target_path, force=force) as beside:
            write_plan(beside, plan.manifest, {**members, **ready.members(engines)})
    return report


def _build(
    plan: Plan,
    precision: str,
    batches: Batches,
    target: Target,
    where: Device,
    progress: Callable[[str], None],
) -> tuple[dict[str, bytes], dict[str, float]]:
    engines, seconds = {}, {}
    for name, mechanism in plan.networks.items():
        progress(f"build the {precision} engine of {name}")
        start = time.perf_counter()
        with cuda.on_device(where.index), bar() as steps:
            engines[name] = build_engine(
                mechanism,
                precision,
                batches,
                library.load(),
                target.architecture,
                fp32_layers=planned_fp32_layers(plan.manifest, name, precision),
                timing_cache=timing_cache(target),
                progress=steps,
            )
        seconds[name] = round(time.perf_counter() - start, 2)
    return engines, seconds


def _compare(
    plan: Plan, engines: Mapping[str, bytes], batches: Batches, where: Device, seed: int
) -> dict[str, Any]:
    """The report's comparison: both run one mechanism after the other, so that one at a time is in memory."""
    mechanisms = plan.networks
    reference = choose("parity", device="cpu", precision="fp32", networks=list(mechanisms.values()))
    height, width = plan.manifest.resolution
    most = _LARGE_SAMPLES if height * width >= _LARGE else _SAMPLES
    sizes = sorted({batches.minimum, max(batches.minimum, min(batches.maximum, most))})
    drawn = {name: list(_draw(plan, mechanism, sizes, seed)) for name, mechanism in mechanisms.items()}
    expected: list[Pictures] = [{} for _ in sizes]
    got: list[Pictures] = [{} for _ in sizes]
    stream, workspace = cuda.module().Stream(where.index), Workspace()
    for name, mechanism in mechanisms.items():
        picture = mechanism.spec.outputs[0].name
        exact = load_engine(mechanism, backend=reference.backend.name, device="cpu", precision="fp32")
        engine = TensorRtEngine(mechanism, engines[name], library.load(), where, workspace, graphs=0)
        for k, inputs in enumerate(drawn[name]):
            expected[k][name] = exact.run(inputs)[picture].copy()
            got[k][name] = _run_on_card(engine, mechanism, inputs, stream)[picture]
        del exact, engine
    widths = {name: m.spec.range[1] - m.spec.range[0] for name, m in mechanisms.items()}
    measures = {
        name: _measure([p[name] for p in got], [p[name] for p in expected], w) for name, w in widths.items()
    }
    measures["composite"] = _measure(
        [_composite(pictures) for pictures in got],
        [_composite(pictures) for pictures in expected],
        widths["texture"],
    )
    return {
        "reference": f"fp32 by {reference.backend.name} {reference.backend.version().split('-')[0]}",
        "samples": sum(sizes),
        "measures": measures,
    }


def _draw(
    plan: Plan, mechanism: Mechanism, sizes: Sequence[int], seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Random inputs, of each batch size; classes and noise of a mechanism's own."""
    rng = np.random.default_rng([seed, sum(map(ord, mechanism.name))])
    truncation = plan.manifest.truncation
    for n in sizes:
        noise = rng.standard_normal((n, mechanism.spec.noise.size))
        while (
            mechanism.spec.noise.distribution == "truncated_normal" and (outside := np.abs(noise) > 2).any()
        ):
            noise[outside] = rng.standard_normal(int(outside.sum()))
        labels = rng.integers(0, len(mechanism.classes), n)
        drawn = {"noise": noise.astype(np.float32), "class_embedding": mechanism.embedding[labels]}
        if truncation is not None:
            factor = rng.uniform(truncation.minimum, truncation.maximum, (n, 1)).astype(np.float32)
            drawn["noise"] *= factor
            if any(spec.name == "truncation" for spec in mechanism.spec.inputs):
                drawn["truncation"] = factor
        yield drawn


def _run_on_card(
    engine: TensorRtEngine, mechanism: Mechanism, inputs: Mapping[str, np.ndarray], stream: Any
) -> Pictures:
    array = cuda.module().DeviceArray
    n = len(inputs["noise"])
    given = {}
    for name, values in inputs.items():
        given[name] = array.empty(values.shape, "float32", stream)
        given[name].upload(np.ascontiguousarray(values))
    made = {
        spec.name: array.empty((n, *spec.shape[1:]), "float32", stream) for spec in mechanism.spec.outputs
    }
    engine.run(given, made, stream)
    stream.synchronize()
    return {name: np.asarray(values.numpy()) for name, values in made.items()}


def _composite(pictures: Pictures) -> np.ndarray:
    return np.asarray(ops.compose(*(pictures[name] for name in MECHANISMS)))


def _measure(
    got: Sequence[np.ndarray], expected: Sequence[np.ndarray], width: float
) -> dict[str, float | None]:
    differences = np.concatenate(
        [(g.astype(np.float64) - e).ravel() for g, e in zip(got, expected, strict=True)]
    )
    if not np.isfinite(differences).all():
        raise ExportError(
            "build engines: pictures have values that are not finite, expected numbers: the precision's range is too "
            "small for this plan. Choose bf16 or fp32."
        )
    square = float(np.square(differences).mean())
    return {
        "max_abs_error": float(f"{np.abs(differences).max():.3e}"),
        "psnr_db": round(10 * math.log10(width**2 / square), 2) if square else None,
    }


def _check(report: EnginesReport) -> None:
    psnr = report.measures["composite"]["psnr_db"]
    if psnr is not None and psnr < MIN_PSNR_DB:
        raise ExportError(
            f"build engines: PSNR of the composite in {report.precision} is {psnr:.1f} dB against float32, expected "
            f"at least {MIN_PSNR_DB:g}. Choose another precision. Nothing was written."
        )


def _cell(values: Mapping[str, Any], name: str, form: str) -> str:
    return f"{format(values[name], form) if name in values else '':>10}"


def _decibels(psnr: float | None) -> str:
    return "equal" if psnr is None else f"{psnr:.1f} dB"
