"""Running engines: contexts, their memory, and CUDA-graph replay."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from cgnrt import cuda
from cgnrt.backends.base import Device
from cgnrt.backends.tensorrt.library import Library, log
from cgnrt.backends.tensorrt.target import Batches
from cgnrt.errors import BackendError
from cgnrt.plan import Network

Arrays = Mapping[str, Any]  # of cgnrt.cuda.DeviceArray, by the name of an input or output
_ALIGNMENT = 256  # of the addresses that TensorRT takes for inputs and outputs


class Workspace:
    """Device memory for activations, of as many contexts as run one after another on one stream.

    Engines that overlap need one each. It is allocated at the first run: as much as the largest context needs.
    """

    def __init__(self) -> None:
        self._size = 0
        self._block: Any = None

    def reserve(self, size: int) -> None:
        """Note what a context needs."""
        self._size = max(self._size, size)

    def block(self, stream: Any) -> Any:
        """The memory, which stays where it is until a larger context was loaded."""
        if self._block is None or self._block.nbytes < self._size:
            self._block = allocate((max(self._size, 1),), "uint8", stream)
        return self._block


def allocate(shape: tuple[int, ...], dtype: str, stream: Any) -> Any:
    """Device memory that any stream may use from now on: rare, so it may wait for the device."""
    array = cuda.module().DeviceArray.empty(shape, dtype, stream)
    stream.synchronize()
    return array


class _Context:
    """An execution context, at one batch size at a time."""

    def __init__(self, engine: Any, library: Library, name: str) -> None:
        strategy = library.api.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = engine.create_execution_context(strategy)
        if self._context is None:
            raise BackendError(f"load mechanism '{name}': {library.name} makes no context for the engine.")
        self._library = library
        self._name = name
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._block: Any = None

    def bind(self, inputs: Arrays, outputs: Arrays, block: Any) -> None:
        """Say where everything lies; the block is kept."""
        if block is not self._block:
            self._context.set_device_memory(block.data_ptr, block.nbytes)
            self._block = block
        for name, array in inputs.items():
            if self._shapes.get(name) != array.shape:
                self._check(self._context.set_input_shape(name, array.shape), f"shape of {name}")
                self._shapes[name] = array.shape
            self._check(self._context.set_tensor_address(name, array.data_ptr), f"address of {name}")
        for name, array in outputs.items():
            self._check(self._context.set_tensor_address(name, array.data_ptr), f"address of {name}")

    def enqueue(self, stream: Any) -> None:
        with self._library.errors() as errors:
            if not self._context.execute_async_v3(stream.ptr):
                words = "; ".join(errors) or "no reason given"
                raise BackendError(f"run mechanism '{self._name}': {self._library.name} failed: {words}")

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise BackendError(f"run mechanism '{self._name}': {self._library.name} refuses the {what}.")


class _Replay:
    """One batch size, captured: a context, inputs and outputs of its own, at addresses that stay."""

    def __init__(self, context: _Context, inputs: Arrays, outputs: Arrays, block: Any, stream: Any) -> None:
        self._context = context  # whose kernels and memory the graph launches
        self._inputs = {name: allocate(a.shape, a.dtype, stream) for name, a in inputs.items()}
        self._outputs = {name: allocate(a.shape, a.dtype, stream) for name, a in outputs.items()}
        context.bind(self._inputs, self._outputs, block)
        # What a context does only at a new shape must not be in the graph.
        context.enqueue(stream)
        stream.begin_capture()
        try:
            context.enqueue(stream)
        finally:
            self._graph = stream.end_capture()

    def run(self, inputs: Arrays, outputs: Arrays, stream: Any) -> None:
        copy = cuda.module().copy_unordered
        for name, array in inputs.items():
            copy(array, self._inputs[name], stream)
        self._graph.launch(stream)
        for name, array in outputs.items():
            copy(self._outputs[name], array, stream)


class TensorRtEngine:
    """One mechanism's engine, loaded on its device.

    Args:
      network: what it was built from.
      data: the serialised engine.
      library: the version that built it.
      device: the card that it was built for.
      workspace: shared with engines that run before or after this one on the same stream; None makes one.
      graphs: how many batch sizes to keep as CUDA graphs, each captured when it comes the second time; 0 for none.
        Each has inputs and outputs of its own, and copying those is less than launching the kernels one by one only
        for small networks or batches.
    Raises:
      BackendError: the library refuses the engine, or its inputs or outputs are not the mechanism's.
    """

    def __init__(
        self,
        network: Network,
        data: bytes | memoryview,
        library: Library,
        device: Device,
        workspace: Workspace | None = None,
        graphs: int = 3,
    ) -> None:
        self._name = network.name
        self._library = library
        self._device = device
        self._workspace = workspace if workspace is not None else Workspace()
        self._graphs = graphs
        self._replays: OrderedDict[int, _Replay] = OrderedDict()
        self._seen: Counter[int] = Counter()
        with cuda.on_device(device.index), library.errors() as errors:
            self._runtime = library.api.Runtime(library.logger)
            self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise BackendError(
                    f"load mechanism '{self._name}': {library.name} {library.version} refuses the engine: "
                    f"{'; '.join(errors) or 'no reason given'}"
                )
            self._inputs, self._outputs = self._names()
            unknown = set(self._inputs) - {spec.name for spec in network.spec.inputs}
            missing = {spec.name for spec in network.spec.outputs} - set(self._outputs)
            if unknown or missing:
                found = f"inputs {sorted(self._inputs)}, outputs {sorted(self._outputs)}"
                raise BackendError(
                    f"load mechanism '{self._name}': engine has {found}, expected the mechanism's. "
                    "Build it again with cgnrt-export --tensorrt."
                )
            shapes = self._engine.get_tensor_profile_shape(self._inputs[0], 0)
            self.batches = Batches(*(int(shape[0]) for shape in shapes))
            self._workspace.reserve(int(self._engine.device_memory_size_v2))
            self._context = _Context(self._engine, library, self._name)

    @property
    def largest_batch(self) -> int:
        """The most samples of one run."""
        return self.batches.maximum

    def _names(self) -> tuple[list[str], list[str]]:
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        given = self._library.api.TensorIOMode.INPUT
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == given]
        return inputs, [name for name in names if name not in inputs]

    def run(self, inputs: Arrays, outputs: Arrays | None = None, stream: Any = None) -> dict[str, Any]:
        """Enqueue one batch; see `Engine.run`.

        Args:
          inputs: DeviceArrays, float32, C-contiguous, of one batch size that the engine was built for.
          outputs: DeviceArrays to write, one for every output.
          stream: a `cgnrt.cuda.Stream` of the engine's device. Only the first run, and the second of a batch size,
            wait for it: memory is allocated then.
        Returns:
          `outputs`.
        Raises:
          BackendError: the engine fails, or was not built for this batch size.
        """
        if outputs is None or stream is None:
            raise ValueError(
                "run: outputs or stream is None, expected device memory and a stream to enqueue on."
            )
        n = len(inputs[self._inputs[0]])
        if n == 0:
            return dict(outputs)
        if not self.batches.minimum <= n <= self.batches.maximum:
            raise BackendError(
                f"run mechanism '{self._name}': batch is {n}, expected {self.batches.minimum}..{self.batches.maximum}, "
                "what the engine was built for. Build it for others: --batch."
            )
        given = {name: inputs[name] for name in self._inputs}
        made = {name: outputs[name] for name in self._outputs}
        with cuda.on_device(self._device.index):
            self._run(n, given, made, stream)
        return dict(outputs)

    def _run(self, n: int, inputs: Arrays, outputs: Arrays, stream: Any) -> None:
        self._seen[n] += 1
        block = self._workspace.block(stream)
        # The legacy default stream, 0 or 1, cannot be captured.
        if n not in self._replays and self._graphs and self._seen[n] > 1 and stream.ptr > 1:
            self._capture(n, inputs, outputs, block, stream)
        if n in self._replays:
            self._replays.move_to_end(n)
            self._replays[n].run(inputs, outputs, stream)
        else:
            self._run_aligned(inputs, outputs, block, stream)

    def _run_aligned(self, inputs: Arrays, outputs: Arrays, block: Any, stream: Any) -> None:
        """Run once; rows that begin anywhere go by way of memory that goes back behind the run."""
        module = cuda.module()
        moved = {
            name: module.DeviceArray.empty(array.shape, array.dtype, stream)
            for name, array in {**inputs, **outputs}.items()
            if array.data_ptr % _ALIGNMENT
        }
        for name in inputs.keys() & moved.keys():
            module.copy_unordered(inputs[name], moved[name], stream)
        self._context.bind(
            {name: moved.get(name, array) for name, array in inputs.items()},
            {name: moved.get(name, array) for name, array in outputs.items()},
            block,
        )
        self._context.enqueue(stream)
        for name in outputs.keys() & moved.keys():
            module.copy_unordered(moved[name], outputs[name], stream)

    def _capture(self, n: int, inputs: Arrays, outputs: Arrays, block: Any, stream: Any) -> None:
        try:
            # A context of its own: a graph is good for as long as its context stays at the shape that was captured.
            context = _Context(self._engine, self._library, self._name)
            self._replays[n] = _Replay(context, inputs, outputs, block, stream)
        except BackendError as error:
            log.info(
                "mechanism '%s' is not captured as a CUDA graph, and runs without: %s", self._name, error
            )
            self._graphs = 0
            return
        if len(self._replays) > self._graphs:
            stream.synchronize()  # the graph that goes may still be running
            self._replays.popitem(last=False)
