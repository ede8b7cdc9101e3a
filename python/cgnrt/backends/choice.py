"""Every backend, and the choice of one, of a device and of a precision for the networks of a plan.

A new backend is a module with a class that has the protocol of `base.Backend`, and a line in `BACKENDS`. "auto" takes
the fastest that is installed and can run on the device; one that is asked for by name and cannot run is an error,
never a quiet fallback.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cgnrt import _core, cuda
from cgnrt._support.forking import cached_property
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import check_threads
from cgnrt.backends.base import (
    AMD_DRIVER,
    KINDS,
    PRECISIONS,
    TENSORRT_PACKAGES,
    Backend,
    Candidate,
    Device,
    Engine,
    EngineOptions,
    Setup,
)
from cgnrt.errors import BackendError, MissingDependencyError
from cgnrt.plan import Network, Plan


@dataclass(frozen=True)
class Registration:
    """One backend.

    Attributes:
      name: what a caller asks for it by.
      make: imports its module and makes the backend.
      extras: the kinds of device that it runs on, each with the extra of cgnrt that installs it there; None for a
        backend that comes with cgnrt.
      packages: import names, any one of which is enough; none where it comes with cgnrt.
      fp32_is_faster: whether its fp32 is faster on this machine's CPU than lower precisions are in any backend that is
        tried beside it.
      by_name_only: kinds of device on which "auto" never takes it.
      needs_kernels: whether it runs on CUDA devices only beside `cgnrt._cuda`.
      may_run_on: whether "auto" is to import it for a kind of device, as far as can be told without that.
      flags: those of the `EngineOptions` that it understands and others may not.
    """

    name: str
    make: Callable[[], Backend]
    extras: Mapping[str, str | None]
    packages: tuple[str, ...] = ()
    fp32_is_faster: Callable[[], bool] = lambda: False
    by_name_only: frozenset[str] = frozenset()
    needs_kernels: bool = True
    may_run_on: Callable[[str], bool] = lambda kind: True
    flags: frozenset[str] = frozenset()

    @cached_property
    def backend(self) -> Backend:
        """The backend itself, whose module is imported at the first use."""
        return self.make()

    def installed(self) -> bool:
        """Whether its package is there, told without importing it."""
        return not self.packages or any(importlib.util.find_spec(name) for name in self.packages)

    def version(self) -> str:
        """The version of the engine library, which is imported."""
        return self.backend.version()


def _native() -> Backend:
    from cgnrt.backends.native import NativeBackend

    return NativeBackend()


def _openvino() -> Backend:
    from cgnrt.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


def _tensorrt() -> Backend:
    from cgnrt.backends.tensorrt import TensorRtBackend

    return TensorRtBackend()


def _onnxruntime() -> Backend:
    from cgnrt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend()


def _torch() -> Backend:
    from cgnrt.backends.torch.backend import TorchBackend

    return TorchBackend()


def _torch_may_run_on(kind: str) -> bool:
    if kind == "cuda" and not cuda.finds_driver() and not os.path.exists(AMD_DRIVER):
        return False
    from cgnrt.backends.torch.probe import may_run_on

    return may_run_on(kind)


def has_amx() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware."""
    return "amx_bf16" in _core.build_info()["cpu"]["features"]


# On each kind of device "auto" tries them in this order: the fastest first (docs/performance.md for the CPU).
# That order is not measured yet on other devices.
BACKENDS: dict[str, Registration] = {
    entry.name: entry
    for entry in (
        Registration("native", _native, {"cpu": None}, fp32_is_faster=lambda: not has_amx()),
        Registration("openvino", _openvino, {"cpu": "cpu"}, ("openvino",)),
        Registration("tensorrt", _tensorrt, {"cuda": "tensorrt"}, TENSORRT_PACKAGES),
        Registration(
            "torch",
            _torch,
            dict.fromkeys(KINDS, "torch"),
            ("torch",),
            by_name_only=frozenset({"cpu"}),
            needs_kernels=False,
            may_run_on=_torch_may_run_on,
            flags=frozenset({"compile", "tf32"}),
        ),
        Registration("onnxruntime", _onnxruntime, {"cpu": "cpu", "cuda": "gpu"}, ("onnxruntime",)),
    )
}


def backends_for(kind: str) -> list[Registration]:
    """Every backend that "auto" may take on a kind of device, installed or not, the fastest first."""
    return [entry for entry in BACKENDS.values() if kind in entry.extras and kind not in entry.by_name_only]


@dataclass(frozen=True)
class Choice:
    """What will run a plan on this machine, and why.

    Attributes:
      backend: the one that was chosen.
      candidates: the networks that were asked for, by name, as the backend has examined them.
    """

    backend: Registration
    device: Device
    precision: str
    reason: str
    candidates: Mapping[str, Candidate] = field(default_factory=dict, repr=False)

    def load(self, network: str, threads: int | None = None, stream: Any = None) -> Engine:
        """Load one of the networks; arguments and errors as in `Candidate.load`."""
        return self.candidates[network].load(threads, stream)


def choose(
    subject: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    default_precision: str = "fp32",
    networks: Sequence[Network] = (),
    plan: Plan | None = None,
    options: EngineOptions | None = None,
) -> Choice:
    """Pick backend, device and precision for a plan.

    Args:
      subject: what is loaded, for messages.
      backend: "auto" or a name in `BACKENDS`.
      device: "auto", or as `Device.parse` takes it. "auto" is cuda:0 where there is one and a backend for it that
        runs the plan, else the CPU.
      precision: "auto", "fp32", "bf16" or "fp16". "auto" is `default_precision`, or fp32 where the device cannot
        run that, or not fast: on a CPU without AMX the native engine in fp32 is faster than the libraries in bf16. On
        a GPU whose backend has no bf16, fp16 is tried instead: as fast, and with three more bits.
      default_precision: the plan's.
      networks: what is to be run, since a backend may not support a graph.
      plan, options: where they are from, and what the caller said of engines on a GPU.
    Raises:
      ValueError: an unknown name.
      MissingDependencyError: the backend asked for, or every backend, is not installed.
      BackendError: what was asked for cannot run here.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(
            f"load {subject}: precision is {precision!r}, expected 'auto' or one of {', '.join(PRECISIONS)}."
            f"{did_you_mean(precision, PRECISIONS)}"
        )
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(
            f"load {subject}: backend is {backend!r}, expected 'auto' or one of {', '.join(BACKENDS)}."
            f"{did_you_mean(backend, BACKENDS)}"
        )
    wanted = [precision] if precision != "auto" else list(dict.fromkeys([default_precision, "fp32"]))
    search = _Search(subject, backend, wanted, networks, plan, options or EngineOptions())
    if device == "auto" and backend != "auto" and "cpu" not in BACKENDS[backend].extras:
        device = "cuda"
    if device != "auto":
        where = Device.parse(device)
        if (reason := search.unusable(where)) is not None:
            raise BackendError(f"load {subject}: device is {where}, expected one that can be used: {reason}.")
        return search.on(where)
    gpu = Device("cuda", 0)
    reason = search.reason_against(gpu)
    if reason is None:
        try:
            return search.on(gpu)
        except BackendError as error:
            reason = str(error).removeprefix(f"load {subject}: ")
    choice = search.on(Device())
    # The reason without its next steps.
    return replace(choice, reason=f"{choice.reason}; not on {gpu}: {reason.partition('. ')[0].rstrip('.')}")


def load_engine(
    network: Network,
    *,
    backend: str = "auto",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> Engine:
    """Compile one network; arguments and errors as in `choose`."""
    choice = choose(
        f"mechanism '{network.name}'",
        backend=backend,
        device=device,
        precision=precision,
        networks=[network],
    )
    return choice.load(network.name, check_threads(threads))


def supports(backend: str, precision: str, *, device: str = "cpu", networks: Sequence[Network] = ()) -> bool:
    """Whether a backend is installed and runs a precision, and the networks given, on this machine."""
    try:
        choose("", backend=backend, device=device, precision=precision, networks=networks)
    except BackendError:
        return False
    return True


@dataclass(frozen=True)
class _Search:
    """What is looked for, on one device after the other."""

    subject: str
    asked: str  # a backend's name, or "auto"
    wanted: Sequence[str]  # precisions, the preferred one first
    networks: Sequence[Network]
    plan: Plan | None
    options: EngineOptions

    def reason_against(self, gpu: Device) -> str | None:
        """Why "auto" does not try the GPU; None where it does."""
        if self.asked != "auto" and "cuda" not in BACKENDS[self.asked].extras:
            return f"{self.asked} runs on the CPU"
        if (reason := self.unusable(gpu)) is not None:
            return reason
        return None if self._entries(gpu) else "no engine for it is installed"

    def unusable(self, where: Device) -> str | None:
        """Why no backend that is looked for can use a device; None where one can, or none is installed for it."""
        reason = cuda.refusal(where.index) if where.kind == "cuda" else None
        if where.kind == "cpu" or (where.kind == "cuda" and reason is None):
            return None
        entries = [e for e in self._entries(where) if where.kind in e.extras and not e.needs_kernels]
        said = {entry.name: entry.backend.refusal(where, "fp32") for entry in entries}
        if None in said.values():
            return None
        if reason is None or self.asked in said:
            return next(iter(said.values()), None)
        return "; ".join([reason, *(f"{name}: {why}" for name, why in said.items())])

    def on(self, where: Device) -> Choice:
        """The first backend that runs a wanted precision, the first such precision, on one device."""
        entries, wanted = self._entries(where), list(self.wanted)
        if where.kind == "cuda" and wanted == ["bf16", "fp32"]:
            wanted = ["bf16", "fp16", "fp32"]
        refusals: list[str] = []
        # Each is examined once, as that may compile the graphs.
        examined: dict[tuple[str, str], dict[str, Candidate] | str] = {}

        def examine(entry: Registration, precision: str) -> dict[str, Candidate] | str:
            key = (entry.name, precision)
            if key not in examined:
                examined[key] = self._examine(entry, where, precision)
            return examined[key]

        asks = where.kind == "cpu" and len(wanted) > 1
        ahead = next((entry for entry in entries if asks and entry.fp32_is_faster()), None)
        if ahead is not None and not isinstance(examine(ahead, "fp32"), str):
            refusals.append(f"{wanted[0]}: fp32 on {ahead.name} is faster on this machine")
            wanted = wanted[1:]
        for precision in wanted:
            for entry in entries:
                found = examine(entry, precision)
                if not isinstance(found, str):
                    reason = self._reason(where, entries, refusals)
                    return Choice(entry, where, precision, reason, found)
                refusals.append(f"{precision} on {entry.name}: {found}")
        raise self._failure(where, entries, refusals)

    def _entries(self, where: Device) -> list[Registration]:
        """The backends to try."""
        if self.asked == "auto":
            found = [entry for entry in backends_for(where.kind) if entry.installed()]
            return [entry for entry in found if entry.may_run_on(where.kind)]
        entry = BACKENDS[self.asked]
        if not entry.installed():
            extra = entry.extras.get(where.kind) or next(iter(entry.extras.values()))
            raise MissingDependencyError(
                f"load {self.subject}: backend '{self.asked}' is not installed. Run: pip install 'cgnrt[{extra}]'"
            )
        return [entry]

    def _examine(self, entry: Registration, where: Device, precision: str) -> dict[str, Candidate] | str:
        """Every network as the backend examined it, or why it does not run them."""
        if where.kind not in entry.extras:
            kinds = "on the CPU" if "cpu" in entry.extras else "on CUDA devices"
            return f"it runs {kinds}, not on {where}"
        for flag in sorted({flag for other in BACKENDS.values() for flag in other.flags}):
            if getattr(self.options, flag) and flag not in entry.flags:
                return f"it has no option {flag}"
        backend = entry.backend
        if (reason := backend.refusal(where, precision)) is not None:
            return reason
        setup = Setup(where, precision, self.plan, self.options)
        try:
            return {network.name: backend.examine(network, setup) for network in self.networks}
        except BackendError as error:
            return str(error)

    def _reason(self, where: Device, entries: Sequence[Registration], refusals: Sequence[str]) -> str:
        if self.asked != "auto":
            reason = "asked for by name"
        else:  # speeds are measured on CPUs only
            order = "the fastest of" if where.kind == "cpu" else "the first that runs it of"
            reason = f"{order} {', '.join(entry.name for entry in entries)}"
        return "; ".join([reason, *(f"not {refusal}" for refusal in refusals)])

    def _failure(
        self, where: Device, entries: Sequence[Registration], refusals: Sequence[str]
    ) -> BackendError:
        extras = dict.fromkeys(
            extra for entry in backends_for(where.kind) if (extra := entry.extras[where.kind]) is not None
        )
        install = " or ".join(f"pip install 'cgnrt[{extra}]'" for extra in extras)
        if not entries:
            return MissingDependencyError(
                f"load {self.subject}: no engine for {where} is installed. Run: {install}"
            )
        if self.asked == "auto" and not any(entry.packages for entry in entries):
            names = " and ".join(entry.name for entry in entries)
            return MissingDependencyError(
                f"load {self.subject}: only the {names} engine is installed, and it cannot run the plan: "
                f"{'; '.join(refusals)}. Run: {install}"
            )
        return BackendError(f"load {self.subject}: no engine can run it as asked: {'; '.join(refusals)}.")
