"""OpenVINO: the fastest engine on x86 CPUs (fp32, and bf16 where the processor has it)."""

from __future__ import annotations

import functools
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.forking import ForkLock, before_fork
from cgnrt._support.machine import available_cores
from cgnrt.backends.base import Device, Setup, deliver
from cgnrt.errors import BackendError
from cgnrt.plan import Network
from cgnrt.plan.onnx.graph import relocate

# OpenVINO's ONNX reader takes the offset of an initializer at this location for an address in memory.
_MEMORY_LOCATION = "*/_ORT_MEM_ADDR_/*"
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_PATIENCE_S = 1.0  # for threads that end before a fork; others are waited for once

# Held while the core is used, unless an engine's lock is: the process does not fork meanwhile.
_core_lock = ForkLock()


@functools.cache
def _library() -> Any:
    """The package without its telemetry, which forks the process from a thread to send data."""
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # to import it fails
    try:
        import openvino
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018  two threads with its first array wait for each other
    return openvino


@functools.cache
def _open_core() -> Any:
    return _library().Core()


def _core() -> Any:
    with _core_lock:  # the first two threads would open two
        return _open_core()


class OpenVinoEngine:
    def __init__(self, network: Network, precision: str, threads: int | None) -> None:
        self._name = network.name
        self._graph = network.model.data
        # The engine may read the weights where they are mapped, so the mapping must outlive it.
        self._weights = network.weights
        if self._weights is not None:
            address = np.frombuffer(self._weights, np.uint8).ctypes.data
            self._graph = relocate(network.model, _MEMORY_LOCATION, address)
        self._config = {
            # Never left to the library: where there is AMX it would compute in bf16 unasked.
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or available_cores(),
            "NUM_STREAMS": 1,
        }
        self._outputs = [spec.name for spec in network.spec.outputs]
        self._inputs: set[str] = set()
        self._request: Any = None
        self._lock = ForkLock()
        with self._lock:
            self._open()
            _engines.add(self)

    def _open(self) -> Any:
        try:
            model = _compile(self._graph, self._config)
            # OpenVINO drops an input that nothing reads, and would refuse a value for it.
            self._inputs = {name for port in model.inputs for name in port.names}
            self._request = model.create_infer_request()
        except Exception as error:
            raise BackendError(
                f"load mechanism '{self._name}': OpenVINO refused the graph: {_first_line(error)}"
            ) from error
        return self._request

    def close(self) -> None:
        """Let go of the library; the next run opens it again."""
        self._request = None

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        with self._lock:
            request = self._request or self._open()
            try:
                taken = {name: array for name, array in inputs.items() if name in self._inputs}
                # On a thread of the library: `infer` would make this thread one that its pool waits for (see below).
                request.start_async(taken, share_inputs=True)
                request.wait()
            except Exception as error:
                raise BackendError(f"run: OpenVINO failed: {_first_line(error)}") from error
            produced = {name: request.get_tensor(name).data for name in self._outputs}
            return deliver(produced, outputs)


def _compile(graph: bytes, config: Mapping[str, Any]) -> Any:
    """Compile a graph on a thread that ends with it: whoever compiles keeps the library's pool of threads alive."""
    core, compiled, errors = _core(), [], []

    def work() -> None:
        try:
            compiled.append(core.compile_model(core.read_model(model=graph), "CPU", config))
        except Exception as error:
            errors.append(error)

    # An executor would not do: a fork takes the lock of all executors before it waits for this engine's.
    thread = threading.Thread(target=work, name="cgnrt-compile")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return compiled[0]


_engines: weakref.WeakSet[OpenVinoEngine] = weakref.WeakSet()
_strangers: set[int] = set()  # threads that did not end with the library


def _close_before_fork() -> None:
    """Leave no OpenVINO for a forked child to inherit.

    The process shares one pool of threads (TBB's). A child would take the parent's for its own and wait, now and then
    for ever, for threads that are not there. The pool ends when the core, the engines and every thread that computed
    with it are gone; so no thread of the user's does. Both sides open new ones on their next run. No engine runs or
    opens meanwhile: the fork holds their locks. OpenVINO used elsewhere keeps the pool.
    """
    if not _open_core.cache_info().currsize:
        return
    running = _foreign_threads()
    for engine in list(_engines):
        engine.close()
    _open_core.cache_clear()
    # The threads end a little later, and one of them may hold a lock of its allocator's until then.
    patience = time.monotonic() + _PATIENCE_S
    while ending := (running & _foreign_threads()) - _strangers:
        if time.monotonic() > patience:
            _strangers.update(ending)  # never waited for again
        else:
            time.sleep(0.0002)


def _foreign_threads() -> set[int]:
    """Ids of the threads of this process that Python did not start; none where the system does not list them."""
    tasks = Path("/proc/self/task")
    running = {int(task.name) for task in tasks.iterdir()} if tasks.is_dir() else set()
    return running - {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


before_fork(_close_before_fork)


@dataclass(frozen=True)
class OpenVinoCandidate:
    """A network, which OpenVINO compiles when it is loaded."""

    network: Network
    precision: str

    def load(self, threads: int | None = None, stream: Any = None) -> OpenVinoEngine:
        return OpenVinoEngine(self.network, self.precision, threads)


class OpenVinoBackend:
    def version(self) -> str:
        with _core_lock:
            return str(_library().__version__)

    def refusal(self, device: Device, precision: str) -> str | None:
        if precision not in _HINTS:
            return f"it has no {precision} on the CPU"
        if precision == "bf16" and not _has_bf16():
            return "this processor has no bf16 instructions, where OpenVINO would quietly compute in fp32"
        return None

    def examine(self, network: Network, setup: Setup) -> OpenVinoCandidate:
        return OpenVinoCandidate(network, setup.precision)


def _has_bf16() -> bool:
    with _core_lock:
        return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
