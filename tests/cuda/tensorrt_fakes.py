"""Stand-ins for a card: the CUDA module, device memory, and TensorRT's runtime side, which cannot run without one.

The library's builder is real in these tests; what is faked here is what only a card can do. Device memory is host
memory, and a context computes with a function of arrays.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from cgnrt.backends.tensorrt.library import Library
from cgnrt.plan.onnx.model import parse_model

ALIGNMENT = 256  # of what a device gives, and TensorRT takes
Compute = Callable[[str, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def mechanism(nodes: list[Any], x: tuple[Any, ...], y: tuple[Any, ...], **constants: np.ndarray) -> Any:
    """A mechanism from x to y, both float32, of nodes `(operator, inputs, output, attributes)`."""
    values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", x), ("y", y))]
    made = [helper.make_node(op, inputs.split(), [output], **given) for op, inputs, output, given in nodes]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(made, "g", values[:1], values[1:], initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    specs = [SimpleNamespace(name=name, shape=shape) for name, shape in (("x", x), ("y", y))]
    spec = SimpleNamespace(inputs=specs[:1], outputs=specs[1:])
    raw = model.SerializeToString()
    return SimpleNamespace(name="shape", graph=raw, model=parse_model(raw), weights=None, spec=spec)


def at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array at an address."""
    return np.ctypeslib.as_array((ctypes.c_float * math.prod(shape)).from_address(address)).reshape(shape)


class FakeStream:
    """Runs everything at once; between `begin_capture` and `end_capture` keeps it instead."""

    def __init__(self, ptr: int = 7) -> None:
        self.ptr = ptr
        self.waits = 0
        self.captured: list[Callable[[], None]] | None = None

    def synchronize(self) -> None:
        self.waits += 1

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Any:
        work, self.captured = self.captured or [], None
        return SimpleNamespace(launch=lambda stream: [step() for step in work])


class FakeArray:
    """A DeviceArray on the host."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape
        self.dtype = str(values.dtype)
        self.nbytes = values.nbytes
        self.data_ptr = values.ctypes.data

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str, stream: FakeStream) -> FakeArray:
        count = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.empty(count + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        return cls(memory[first : first + count].view(dtype).reshape(shape))

    def upload(self, source: np.ndarray) -> None:
        self.values[...] = source

    def numpy(self) -> np.ndarray:
        return self.values.copy()

    def __len__(self) -> int:
        return self.shape[0]


class FakeCuda:
    """`cgnrt._cuda` with one card."""

    DeviceArray = FakeArray

    def __init__(self, name: str = "NVIDIA H100 80GB HBM3", capability: tuple[int, int] = (9, 0)) -> None:
        self.facts = {"name": name, "compute_capability": capability}
        self.current = 0
        self.devices: list[int] = []

    def device(self, index: int = 0) -> dict[str, Any]:
        return self.facts

    def set_device(self, index: int) -> int:
        before, self.current = self.current, index
        self.devices.append(index)
        return before

    def copy_unordered(self, source: FakeArray, out: FakeArray, stream: FakeStream) -> None:
        out.values[...] = source.values

    def Stream(self, device: int) -> FakeStream:  # noqa: N802
        return FakeStream()


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.memory: tuple[int, int] | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.stream: FakeStream | None = None
        engine.contexts.append(self)

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % ALIGNMENT == 0
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if self.engine.api.failing:
            self.engine.api.logger.log(self.engine.api.ILogger.Severity.ERROR, "the device is on fire")
            return False
        self.engine.api.before()
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def step() -> None:
            inputs = {name: at(addresses[name], shape) for name, shape in shapes.items()}
            for name, values in self.engine.api.compute(self.engine.name, inputs).items():
                at(addresses[name], values.shape)[...] = values

        captured = self.engine.api.stream.captured
        if captured is None:
            step()
        else:
            captured.append(step)
        self.engine.api.launches += 1
        return True


class FakeEngine:
    """What a `FakeApi` makes of the bytes `<mechanism>:<inputs>:<outputs>:<smallest,usual,largest>`."""

    device_memory_size_v2 = 100

    def __init__(self, api: FakeApi, data: bytes) -> None:
        self.api = api
        self.name, inputs, outputs, batches = bytes(data).decode().split(":")
        self.inputs, self.outputs = inputs.split(","), outputs.split(",")
        self.batches = [int(n) for n in batches.split(",")]
        self.contexts: list[FakeContext] = []
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, k: int) -> str:
        return [*self.inputs, *self.outputs][k]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, int]]:
        return [(n, 4) for n in self.batches]

    def create_execution_context(self, strategy: str) -> FakeContext:
        assert strategy == "user"
        return FakeContext(self)


class FakeApi:
    """The runtime side of the library's module."""

    TensorIOMode = SimpleNamespace(INPUT="in")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")

    def __init__(self, real: Library, compute: Compute, stream: FakeStream) -> None:
        self.ILogger = real.api.ILogger
        self.logger = real.logger
        self.compute = compute
        self.stream = stream
        self.engines: list[FakeEngine] = []
        self.failing = False
        self.before: Callable[[], object] = bool  # called where work is enqueued
        self.launches = 0

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, data: bytes) -> FakeEngine | None:
        if not bytes(data[:5]).isalpha():
            self.logger.log(self.ILogger.Severity.ERROR, "that is not an engine")
            return None
        self.engines.append(FakeEngine(self, data))
        return self.engines[-1]
