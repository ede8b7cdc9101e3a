"""ONNX Runtime on a CUDA device: bound to device memory, enqueued on a stream, nothing waited for."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import re
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgnrt import cuda
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import is_int
from cgnrt.backends.base import Device
from cgnrt.backends.onnxruntime.session import Provider, open_session
from cgnrt.backends.typed import typed_graph
from cgnrt.errors import BackendError, one_line
from cgnrt.plan import Network

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

# Operators of ours for which the CUDA provider has fp16 kernels and no bf16 ones (1.31).
_NO_BF16 = frozenset({"ConvTranspose", "LeakyRelu", "MaxPool", "Resize"})

_NO_GRAPH = "-1"  # of `gpu_graph_id`: neither capture nor replay
_WANTED_BYTES = re.compile(r"(?:requested buffer of size|requested bytes of) (\d+)")


def refusal(device: Device, precision: str, provider: str = "cuda") -> str | None:
    """Why ONNX Runtime cannot run `precision` on a CUDA device; None where it can."""
    if (reason := cuda.refusal(device.index)) is not None:
        return reason
    if cuda.is_emulated():
        return "it has no bf16 kernels on an emulated device" if precision == "bf16" else None
    return _library_refusal(provider)


def check_operators(network: Network, precision: str) -> None:
    """Refuse a network with operators that the CUDA provider does not have at a precision.

    Raises:
      BackendError: it has some.
    """
    missing = {node.op for node in network.model.nodes} & _NO_BF16 if precision == "bf16" else set()
    if missing:
        raise BackendError(
            f"mechanism '{network.name}': the CUDA provider does not support {', '.join(sorted(missing))} in bf16; "
            "fp16 can be asked for by name"
        )


@functools.cache
def _library_refusal(provider: str) -> str | None:
    """What this installation of ONNX Runtime lacks."""
    import onnxruntime

    found = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in found:
        return (
            f"the package installed is for other devices (its providers: {', '.join(found)}). "
            "Run: pip uninstall -y onnxruntime; pip install 'cgnrt[gpu]'"
        )
    if hasattr(onnxruntime, "preload_dlls"):
        # From the nvidia-* packages, where there are any. What it cannot find it prints.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    if missing := _missing_libraries(str(getattr(onnxruntime, "cuda_version", ""))):
        return (
            f"its libraries {', '.join(missing)} cannot be loaded. Run: pip install 'onnxruntime-gpu[cuda,cudnn]', "
            "or install CUDA and cuDNN 9"
        )
    return None


def _missing_libraries(cuda_version: str) -> list[str]:
    """Those of the CUDA provider's libraries that the loader does not find (Linux; elsewhere its own error must do)."""
    if not sys.platform.startswith("linux"):
        return []
    major = cuda_version.partition(".")[0]
    names = ["libcudnn.so.9"]
    if major.isdecimal():
        names = [f"{name}.so.{major}" for name in ("libcudart", "libcublas", "libcublasLt")] + names
    missing = []
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


class _Static(NamedTuple):
    """Memory that does not move, and what is bound to it."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any
    options: Any


class OnnxRuntimeCudaEngine:
    """One network on a device; float32 device arrays in and out, any n from 1 up, at any address.

    ONNX Runtime ties a session to one stream. It is `stream`, or one of the engine's own; a run asked for on another
    stream waits for that one and is waited for by it, on the device. `run` returns when everything is enqueued; but a
    replayed CUDA graph ONNX Runtime waits for.

    Args:
      provider: "cuda", or "tensorrt" for ONNX Runtime's TensorRT provider (TensorRT 10.x; it builds an engine when the
        session is opened, kept in `cache`).
      stream: a `cgnrt.cuda.Stream`; None makes one.
      batches: sizes for which a CUDA graph is captured, at once and by the calling thread. Runs of these sizes by that
        thread replay it: inputs and outputs are copied to and from memory that stays. Nothing else may use the
        device while the engine is made. With "tensorrt": sizes that its engine is tuned for.
      times_algorithms: whether cuDNN times all its algorithms for a convolution at every new batch size, which takes
        seconds each; else it chooses by a rule. None: where `batches` are given, which come again.
      memory_limit: bytes that the session's arena may take of the device; None is all.
      cache: folder of the TensorRT provider's engines and timings.
      fp32_layers: as for `typed_graph`.
    Raises:
      BackendError: the graph is refused, or the provider cannot be started.
    """

    def __init__(
        self,
        network: Network,
        device: Device,
        precision: str,
        threads: int | None = None,
        *,
        provider: str = "cuda",
        stream: Any = None,
        batches: Sequence[int] = (),
        times_algorithms: bool | None = None,
        memory_limit: int | None = None,
        cache: Path | None = None,
        fp32_layers: Collection[str] = (),
    ) -> None:
        if provider not in PROVIDERS:
            raise ValueError(
                f"load: provider is {provider!r}, expected one of {', '.join(PROVIDERS)}."
                f"{did_you_mean(provider, PROVIDERS)}"
            )
        if any(not is_int(n) or n < 1 for n in batches):
            raise ValueError(f"load: batches are {batches!r}, expected ints of at least 1.")
        self._cuda = cuda.module()
        self._device = device
        self._name = network.name
        self._specs = (network.spec.inputs, network.spec.outputs)
        own = self._cuda.Stream(device.index) if stream is None else stream
        # Where an emulation runs "device" code, device memory is the host's.
        self._emulated = cuda.is_emulated()
        self._memory = ("cpu", 0) if self._emulated else ("cuda", device.index)
        captures = provider == "cuda" and bool(batches)
        timed = captures if times_algorithms is None else times_algorithms
        options = _cuda_options(own, device, precision, captures, timed, memory_limit)
        providers: list[Provider] = [(PROVIDERS["cuda"], options)]
        if provider == "tensorrt":
            more = _tensorrt_options(network, own, device, precision, batches, cache)
            providers.insert(0, (PROVIDERS["tensorrt"], more))
        if self._emulated:
            providers = [("CPUExecutionProvider", {})]
        graph: bytes | None = None
        self._weights: bytes | memoryview | None = network.weights
        if precision != "fp32":
            graph, self._weights = typed_graph(network, precision, fp32_layers)
        with cuda.on_device(device.index):  # ONNX Runtime leaves its device the thread's current one
            self._session = open_session(
                network,
                providers,
                graph=graph,
                weights=self._weights,
                threads=threads,
                # Weights outside the arena, which then holds only activations.
                config={"session.use_device_allocator_for_initializers": "1"},
            )
        self._reads = {port.name for port in self._session.get_inputs()}
        self._binding = self._session.io_binding()
        self._options = _run_options(_NO_GRAPH)
        self._thread = threading.get_ident()
        self._captured: dict[int, _Static] = {}
        # After the session, as attributes go in their order: it must not outlive its stream.
        self._stream = own
        if captures:
            for number, n in enumerate(sorted(set(batches)), 1):
                self._captured[n] = self._capture(number, n)

    @property
    def stream(self) -> Any:
        """The stream that its work is enqueued on."""
        return self._stream

    def run(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, stream: Any = None
    ) -> dict[str, Any]:
        """Enqueue one batch; arguments are device arrays, and the outputs are returned as they were given."""
        if outputs is None or stream is None:
            missing = "outputs" if outputs is None else "stream"
            raise TypeError(f"run '{self._name}': {missing} is None, expected one on {self._device}.")
        elsewhere = stream.ptr != self._stream.ptr
        if elsewhere:
            self._stream.wait_for(stream)
        n = int(inputs["noise"].shape[0]) if "noise" in inputs else int(next(iter(inputs.values())).shape[0])
        # ONNX Runtime keeps captured graphs by thread.
        static = self._captured.get(n) if threading.get_ident() == self._thread else None
        if static is None:
            self._bind(self._binding, inputs, outputs)
            self._enqueue(self._binding, self._options, n)
        else:
            for name, array in static.inputs.items():
                self._cuda.copy_unordered(inputs[name], array, self._stream)
            self._enqueue(static.binding, static.options, n)
            for name, array in outputs.items():
                self._cuda.copy_unordered(static.outputs[name], array, self._stream)
        if elsewhere:
            stream.wait_for(self._stream)
        return dict(outputs)

    def _bind(self, binding: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        try:
            for name in self._reads:
                array = inputs[name]
                binding.bind_input(name, *self._memory, np.float32, list(array.shape), array.data_ptr)
            for name, array in outputs.items():
                binding.bind_output(name, *self._memory, np.float32, list(array.shape), array.data_ptr)
        except KeyError as error:
            raise BackendError(
                f"run '{self._name}': inputs are {', '.join(inputs)}, expected {', '.join(sorted(self._reads))}."
            ) from error
        except Exception as error:
            raise BackendError(f"run '{self._name}': ONNX Runtime failed: {one_line(error)}") from error

    def _enqueue(self, binding: Any, options: Any, n: int) -> None:
        if self._emulated:
            # An emulated stream does its work when somebody waits for it, and the CPU's session reads at once.
            self._stream.synchronize()
        try:
            with cuda.on_device(self._device.index):  # as at load
                self._session.run_with_iobinding(binding, options)
        except Exception as error:
            text = str(error)
            wanted = _WANTED_BYTES.search(text)
            if wanted is not None or "out of memory" in text:
                amount = f"{int(wanted[1]):,} bytes" if wanted else "more than there is"
                free = self._cuda.device(self._device.index)["free_bytes"]
                raise MemoryError(
                    f"run '{self._name}': memory wanted for a batch of {n} is {amount}, expected at most the {free:,} "
                    f"bytes free on {self._device}. Take smaller batches."
                ) from error
            raise BackendError(f"run '{self._name}': ONNX Runtime failed: {one_line(error)}") from error

    def _capture(self, number: int, n: int) -> _Static:
        """Capture a CUDA graph for n samples; the first run with its number warms up and captures."""
        inputs, outputs = (
            {
                spec.name: self._cuda.DeviceArray.empty((n, *spec.shape[1:]), "float32", self._stream)
                for spec in specs
            }
            for specs in self._specs
        )
        for array in inputs.values():
            array.upload(np.ones(array.shape, np.float32))
        static = _Static(inputs, outputs, self._session.io_binding(), _run_options(str(number)))
        self._bind(static.binding, inputs, outputs)
        self._enqueue(static.binding, static.options, n)
        self._stream.synchronize()
        return static


def _run_options(graph: str) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry("gpu_graph_id", graph)
    return options


def _cuda_options(
    stream: Any,
    device: Device,
    precision: str,
    captures: bool,
    times_algorithms: bool,
    memory_limit: int | None,
) -> dict[str, str]:
    options = {
        "device_id": str(device.index),
        "user_compute_stream": str(stream.ptr),
        # Tensor cores want channels last; fp32 without TF32 does not reach them.
        "prefer_nhwc": str(int(precision == "fp16")),
        "use_tf32": "0",  # fp32 is fp32: TF32 has ten bits of mantissa
        "cudnn_conv_algo_search": "EXHAUSTIVE" if times_algorithms else "HEURISTIC",
        # Grows by what is needed, not to the next power of two.
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(captures)),
    }
    if memory_limit is not None:
        options["gpu_mem_limit"] = str(memory_limit)
    return options


def _tensorrt_options(
    network: Network,
    stream: Any,
    device: Device,
    precision: str,
    batches: Sequence[int],
    cache: Path | None,
) -> dict[str, str]:
    options = {
        "device_id": str(device.index),
        "user_compute_stream": str(stream.ptr),
    }
    if precision != "fp32":
        options[f"trt_{precision}_enable"] = "True"
    if batches:
        sizes = {"min": 1, "opt": batches[-1], "max": max(batches)}
        for kind, n in sizes.items():
            shapes = (
                f"{spec.name}:{'x'.join(map(str, (n, *spec.shape[1:])))}" for spec in network.spec.inputs
            )
            options[f"trt_profile_{kind}_shapes"] = ",".join(shapes)
    if cache is not None:
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(cache)}
        options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(cache)}
    return options
