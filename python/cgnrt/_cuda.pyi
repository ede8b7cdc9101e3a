from collections.abc import Sequence
from typing import Any

# The ops have the same signatures in both modules.
from cgnrt._core import compose as compose
from cgnrt._core import integers as integers
from cgnrt._core import normal as normal
from cgnrt._core import patch_grid as patch_grid
from cgnrt._core import philox as philox
from cgnrt._core import resize as resize
from cgnrt._core import truncated_normal as truncated_normal

# A tensor is a DeviceArray or any object on a CUDA device with DLPack or __cuda_array_interface__. `stream` is a
# Stream, the handle of another library's stream, or None: that of the first tensor if it is a DeviceArray, else the
# legacy default stream. Only `synchronize` and `numpy` wait for the device.

class Event:
    """A point in a stream."""

    def query(self) -> bool:
        """Whether the stream got there."""
    def synchronize(self) -> None:
        """Block until the stream got there."""
    def elapsed_ms(self, earlier: Event) -> float:
        """Milliseconds since an earlier event; both recorded with timing=True, and reached."""

class Graph:
    """Captured work, to be run again and again with the addresses it was given."""

    def launch(self, stream: Stream) -> None:
        """Run the work on a stream."""

class Stream:
    """A non-blocking stream with a pool of memory of its own."""

    def __init__(self, device: int = 0, *, high_priority: bool = False) -> None: ...
    @staticmethod
    def borrow(device: int, handle: int) -> Stream:
        """Another library's stream, by its handle; that library keeps it alive."""
    @property
    def ptr(self) -> int:
        """The `cudaStream_t`, for other libraries."""
    @property
    def device(self) -> int: ...
    def synchronize(self) -> None:
        """Block until all that it has been given is done."""
    def record(self, timing: bool = False) -> Event:
        """An event at what it has been given so far."""
    def wait(self, event: Event) -> None:
        """Do nothing further before the event; blocks no host thread."""
    def wait_for(self, other: Stream) -> None:
        """Do nothing further before what another stream has been given so far."""
    def trim(self, bytes_to_keep: int = 0) -> None:
        """Give memory that no array uses back to the device."""
    def begin_capture(self) -> None:
        """Record what follows into a graph instead of running it, for this thread."""
    def end_capture(self) -> Graph:
        """The graph of what was recorded."""

class DeviceArray:
    """A C-contiguous array on a GPU, in memory of a stream's pool. It leaves by DLPack."""

    @staticmethod
    def empty(shape: Sequence[int], dtype: str, stream: Stream) -> DeviceArray:
        """A new array whose values are not set."""
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def data_ptr(self) -> int:
        """The address on the device."""
    @property
    def device(self) -> int: ...
    @property
    def stream(self) -> Stream:
        """The stream that orders the work on its memory."""
    def view(self, offset: int, shape: Sequence[int], dtype: str) -> DeviceArray:
        """Bytes of the array from an offset on, as an array of another shape and dtype; no copy."""
    def upload(self, source: Any) -> None:
        """Copy from host memory, in the order of the array's stream."""
    def numpy(self, out: Any | None = None) -> Any:
        """Copy to the host and wait for it; bfloat16 as its uint16 bits."""
    def ready(self, event: Event | None = None) -> None:
        """Say that what was written to the array is there, at an event or at what its stream has been given so far."""
    def __len__(self) -> int: ...
    def __getitem__(self, key: int | slice) -> DeviceArray: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

class PinnedBuffer:
    """Page-locked host memory."""

    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

def info() -> dict[str, Any]: ...
def device(index: int = 0) -> dict[str, Any]: ...
def set_device(index: int) -> int: ...
def copy(source: Any, out: Any, stream: Stream | int | None = None) -> None: ...
def copy_unordered(source: DeviceArray, out: DeviceArray, stream: Stream) -> None: ...
def gather_rows(
    table: Any, index: Any, *, out: Any | None = None, stream: Stream | int | None = None
) -> Any: ...
def scale_rows(
    values: Any, factors: Any, *, out: Any | None = None, stream: Stream | int | None = None
) -> Any: ...
