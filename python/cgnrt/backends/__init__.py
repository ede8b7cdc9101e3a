"""Engine libraries behind one protocol, and the choice between them.

`auto` takes the fastest that is installed and can run on the device; one that is asked for by name and cannot run
is an error, never a quiet fallback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cgnrt import cuda
from cgnrt._support.machine import has_amx
from cgnrt.backends.base import PRECISIONS, Backend, Device, DeviceBackend, Engine, EngineOptions
from cgnrt.backends.native import NativeBackend
from cgnrt.backends.onnxruntime import OnnxRuntimeBackend
from cgnrt.backends.openvino import OpenVinoBackend
from cgnrt.backends.tensorrt import TensorRtBackend
from cgnrt.errors import BackendError, MissingDependencyError
from cgnrt.plan import Mechanism, Plan

__all__ = [
    "BACKENDS",
    "CANDIDATES",
    "Backend",
    "Choice",
    "Device",
    "DeviceBackend",
    "Engine",
    "EngineOptions",
    "choose",
    "load_engine",
    "supports",
]

BACKENDS: dict[str, Backend] = {
    b.name: b for b in (NativeBackend(), OpenVinoBackend(), OnnxRuntimeBackend(), TensorRtBackend())
}

# What "auto" tries on each kind of device, the fastest first (docs/performance.md for the CPU).
CANDIDATES: dict[str, tuple[str, ...]] = {
    "cpu": ("native", "openvino", "onnxruntime"),
    "cuda": ("tensorrt", "onnxruntime"),
}


@dataclass(frozen=True)
class Choice:
    """What will run a plan on this machine, and why."""

    backend: Backend
    device: Device
    precision: str
    reason: str


def choose(
    subject: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    default_precision: str = "fp32",
    mechanisms: Sequence[Mechanism] = (),
    plan: Plan | None = None,
    options: EngineOptions | None = None,
) -> Choice:
    """Pick backend, device and precision for a plan.

    Args:
      subject: what is loaded, for messages.
      backend: "auto" or a name in `BACKENDS`.
      device: "auto", "cpu", "cuda" or "cuda:<index>". "auto" is cuda:0 where there is one and an engine of the GPU's
        that runs the plan, else the CPU.
      precision: "auto", "fp32", "bf16" or "fp16". "auto" is `default_precision`, or fp32 where the device cannot
        run that, or not fast: on a CPU without AMX the native engine's fp32 is ahead of the libraries' bf16. On a GPU
        whose engine has no bf16, fp16 is tried in its place: as fast, and with three more bits.
      default_precision: the plan's.
      mechanisms: what is to be run, since a backend may refuse a graph.
      plan, options: where they are from and what was said of its engines, for backends of GPUs.
    Raises:
      ValueError: an unknown name.
      MissingDependencyError: the backend asked for, or every backend, is not installed.
      BackendError: what was asked for cannot run here.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(
            f"load {subject}: precision is {precision!r}, expected 'auto' or one of {PRECISIONS}."
        )
    options = options or EngineOptions()
    wanted = [precision] if precision != "auto" else list(dict.fromkeys([default_precision, "fp32"]))
    gpu_only = backend in CANDIDATES["cuda"] and backend not in CANDIDATES["cpu"]
    if device != "auto" or (gpu_only and backend in BACKENDS):
        where = Device.parse("cuda" if device == "auto" else device)
        if where.kind == "cuda" and (reason := cuda.refusal(where.index)) is not None:
            raise BackendError(f"load {subject}: device is {where}, expected one that can be used: {reason}.")
        return _choose_on(where, subject, backend, wanted, mechanisms, plan, options)
    gpu = Device("cuda", 0)
    reason = _no_gpu(gpu, subject, backend)
    if reason is None:
        try:
            return _choose_on(gpu, subject, backend, wanted, mechanisms, plan, options)
        except BackendError as error:
            reason = str(error).removeprefix(f"load {subject}: ")
    choice = _choose_on(Device(), subject, backend, wanted, mechanisms, plan, options)
    # The reason without its next steps.
    return replace(choice, reason=f"{choice.reason}; not on {gpu}: {reason.partition('. ')[0].rstrip('.')}")


def _no_gpu(gpu: Device, subject: str, backend: str) -> str | None:
    """Why "auto" does not try the GPU; None where it does."""
    if backend in BACKENDS and backend not in CANDIDATES["cuda"]:
        return f"{backend} runs on the CPU"
    if (reason := cuda.refusal(gpu.index)) is not None:
        return reason
    return None if _candidates(subject, backend, gpu) else "no engine for it is installed"


def _choose_on(
    where: Device,
    subject: str,
    backend: str,
    wanted: list[str],
    mechanisms: Sequence[Mechanism],
    plan: Plan | None,
    options: EngineOptions,
) -> Choice:
    """The first backend that runs a wanted precision, the first such precision, on one device."""
    candidates = _candidates(subject, backend, where)
    if where.kind == "cuda" and wanted == ["bf16", "fp32"]:
        wanted = ["bf16", "fp16", "fp32"]
    refusals = []
    verdicts: dict[tuple[str, str], str | None] = {}

    def refusal_of(candidate: Backend, asked: str) -> str | None:
        key = (candidate.name, asked)
        if key not in verdicts:
            verdict = candidate.refusal(where, asked, mechanisms)
            if (
                verdict is None
                and plan is not None
                and where.kind == "cuda"
                and isinstance(candidate, DeviceBackend)
            ):
                verdict = candidate.plan_refusal(plan, where, asked, options)
            verdicts[key] = verdict
        return verdicts[key]

    native = next((candidate for candidate in candidates if candidate.name == "native"), None)
    on_cpu = where.kind == "cpu"
    if on_cpu and len(wanted) > 1 and native and not has_amx() and refusal_of(native, "fp32") is None:
        refusals.append(f"{wanted[0]}: without AMX native fp32 is faster")
        wanted = wanted[1:]
    for asked in wanted:
        for candidate in candidates:
            refusal = refusal_of(candidate, asked)
            if refusal is None:
                return Choice(candidate, where, asked, _reason(backend, candidates, candidate, refusals))
            refusals.append(f"{asked} on {candidate.name}: {refusal}")
    if not candidates:
        raise MissingDependencyError(
            f"load {subject}: engines for {where} are none, expected one. "
            "Run: pip install 'cgnrt[tensorrt]' or pip install 'cgnrt[gpu]'"
        )
    if backend == "auto" and candidates == [native] and on_cpu:
        raise MissingDependencyError(
            f"load {subject}: only the native engine is there, and it cannot: {'; '.join(refusals)}. "
            "Run: pip install 'cgnrt[cpu]'"
        )
    raise BackendError(f"load {subject}: no engine can run it as asked: {'; '.join(refusals)}.")


def load_engine(
    mechanism: Mechanism,
    *,
    backend: str = "auto",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> Engine:
    """Compile one mechanism; arguments and errors as in `choose`."""
    choice = choose(
        f"mechanism '{mechanism.name}'",
        backend=backend,
        device=device,
        precision=precision,
        mechanisms=[mechanism],
    )
    return choice.backend.load(mechanism, choice.device, choice.precision, threads)


def supports(
    backend: str, precision: str, *, device: str = "cpu", mechanisms: Sequence[Mechanism] = ()
) -> bool:
    """Whether a backend is installed and runs a precision, and the mechanisms given, on this machine."""
    candidate = BACKENDS[backend]
    return candidate.installed() and candidate.refusal(Device.parse(device), precision, mechanisms) is None


def _candidates(subject: str, name: str, where: Device) -> list[Backend]:
    if name == "auto":
        known = [BACKENDS[candidate] for candidate in CANDIDATES[where.kind] if candidate in BACKENDS]
        return [candidate for candidate in known if candidate.installed()]
    if name not in BACKENDS:
        raise ValueError(
            f"load {subject}: backend is {name!r}, expected 'auto' or one of {', '.join(BACKENDS)}."
        )
    candidate = BACKENDS[name]
    if not candidate.installed():
        extra = "gpu" if where.kind == "cuda" and candidate.extra == "cpu" else candidate.extra
        raise MissingDependencyError(
            f"load {subject}: backend '{name}' is not installed. Run: pip install 'cgnrt[{extra}]'"
        )
    return [candidate]


def _reason(asked: str, candidates: list[Backend], chosen: Backend, refusals: list[str]) -> str:
    if asked != "auto":
        reason = "asked for by name"
    else:
        reason = f"the fastest of {', '.join(candidate.name for candidate in candidates)}"
    return "; ".join([reason, *(f"not {refusal}" for refusal in refusals)])
