"""From a mechanism's graph to a serialised engine, and how far that is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.files import written_beside
from cgnrt.backends.tensorrt.library import Library, log
from cgnrt.backends.tensorrt.target import Batches
from cgnrt.backends.typed import typed_graph
from cgnrt.errors import BackendError, CgnrtError
from cgnrt.plan import Network, external_initializers
from cgnrt.plan.onnx.model import parse_model

# Steps done, steps known so far, and what is under way.
Progress = Callable[[int, int, str], None]


def build_engine(
    mechanism: Network,
    precision: str,
    batches: Batches,
    library: Library,
    architecture: str,
    *,
    fp32_layers: Collection[str] = (),
    timing_cache: Path | None = None,
    workspace_bytes: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Build one mechanism's engine; takes seconds to many minutes.

    The full TensorRT tunes on the current device, which must have `architecture`; TensorRT for RTX needs none.

    Args:
      mechanism: of an open plan.
      precision: "fp32", "fp16" or "bf16".
      batches: the optimisation profile.
      library: what to build with.
      architecture: "sm_90".
      fp32_layers: as for `typed_graph`.
      timing_cache: file of measured tactics, which are not measured again; made or extended. TensorRT for RTX
        measures none.
      workspace_bytes: most scratch memory that a tactic may take; None is all of the device.
      progress: told of each step.
    Raises:
      BackendError: the library refuses the graph, or fails.
      BaseException: what `progress` raised, which stops the build.
    """
    operation = f"build the engine of mechanism '{mechanism.name}'"
    with library.errors() as errors:
        try:
            builder = library.api.Builder(library.logger)
        except Exception as error:
            raise BackendError(
                f"{operation}: {library.name} makes no builder ({_reason(errors, error)}). Check the driver: nvidia-smi"
            ) from error
        network, _alive = parse(mechanism, precision, library, builder, fp32_layers)
        config = builder.create_builder_config()
        config.add_optimization_profile(_profile(builder, mechanism, network, batches))
        # Where a graph says float32 it gets float32.
        config.clear_flag(library.api.BuilderFlag.TF32)
        if workspace_bytes is not None:
            config.set_memory_pool_limit(library.api.MemoryPoolType.WORKSPACE, workspace_bytes)
        if library.is_rtx:
            config.num_compute_capabilities = 1
            config.set_compute_capability(library.capability(architecture), 0)
        elif timing_cache is not None:
            _read_timings(config, timing_cache)
        monitor = make_monitor(library.api, progress, mechanism.name)
        if monitor is not None:
            config.progress_monitor = monitor
        built = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.error is not None:
            raise monitor.error
        if built is None:
            raise BackendError(f"{operation}: {library.name} {library.version} failed: {_reason(errors)}")
        if not library.is_rtx and timing_cache is not None:
            _write_timings(config, timing_cache)
        return bytes(memoryview(built))


def parse(
    mechanism: Network,
    precision: str,
    library: Library,
    builder: Any,
    fp32_layers: Collection[str] = (),
) -> tuple[Any, Any]:
    """A mechanism's network in the library's own form, and what must live as long as it.

    Raises:
      BackendError: the parser refuses the graph; the message says which node and why.
    """
    graph, weights = typed_graph(mechanism, precision, fp32_layers)
    network = builder.create_network(library.network_flags())
    parser = library.api.OnnxParser(network, library.logger)
    loaded = parser.load_model_proto(graph)
    if loaded and weights is not None:
        address = np.frombuffer(weights, np.uint8).ctypes.data
        for piece in external_initializers(parse_model(graph)):
            loaded = loaded and parser.load_initializer(piece.name, address + piece.offset, piece.length)
    if not loaded or not parser.parse_model_proto():
        found = [parser.get_error(k) for k in range(parser.num_errors)]
        words = "; ".join(f"node {error.node()}: {error.desc()}" for error in found) or "no reason given"
        raise BackendError(
            f"build the engine of mechanism '{mechanism.name}': {library.name} {library.version} refuses the graph: "
            f"{words}"
        )
    return network, (parser, weights)


def _profile(builder: Any, mechanism: Network, network: Any, batches: Batches) -> Any:
    profile = builder.create_optimization_profile()
    sizes = {spec.name: spec.shape[1:] for spec in mechanism.spec.inputs}
    for k in range(network.num_inputs):
        name = network.get_input(k).name
        profile.set_shape(name, *((n, *sizes[name]) for n in batches.sizes))
    return profile


def _read_timings(config: Any, path: Path) -> None:
    """The library refuses timings of another version or card, or damaged ones, and then measures again."""
    known = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timings(config: Any, path: Path) -> None:
    try:
        with written_beside(path, force=True) as beside:
            beside.write_bytes(memoryview(config.get_timing_cache().serialize()))
    except CgnrtError as error:
        log.warning("the timing cache was not kept: %s", error)


def _reason(errors: list[str], error: Exception | None = None) -> str:
    return "; ".join(dict.fromkeys(errors)) or str(error or "no reason given")


def make_monitor(api: Any, progress: Progress | None, subject: str) -> Any:
    """The library's progress monitor for a callback; None without one.

    The library may call it from threads of its own. An exception must not leave it, which would end the process: one
    that the callback raises, such as Ctrl-C, stops the build and is kept in `error`.
    """
    if progress is None:
        return None
    tell = progress

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._lock = threading.Lock()
            self._done = 0
            self._known = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._known += num_steps
            self._tell(f"{subject}: {phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._done += 1
            self._tell(f"{subject}: {phase_name}")
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            pass

        def _tell(self, words: str) -> None:
            try:
                tell(self._done, self._known, words)
            except BaseException as error:
                self.error = error

    return Monitor()


@contextlib.contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr, silent if that is not a terminal."""
    from cgnrt._support.terminal import progress_bar

    with progress_bar(unit="step", leave=False) as shown:

        def show(done: int, known: int, words: str) -> None:
            shown.total = known
            shown.set_description(words, refresh=False)
            shown.update(done - shown.n)

        yield show
