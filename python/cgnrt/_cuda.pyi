from collections.abc import Sequence
from typing import Any

# A tensor is a DeviceArray or any object on a CUDA device with DLPack or __cuda_array_interface__. `stream` is a
# Stream, the handle of somebody else's, or None: that of the first tensor if it is a DeviceArray, else the legacy
# default stream. Only `synchronize` and `numpy` wait for the device.

PerChannel = float | Sequence[float] | None

class Event:
    def query(self) -> bool: ...
    def synchronize(self) -> None: ...
    def elapsed_ms(self, earlier: Event) -> float: ...

class Graph:
    def launch(self, stream: Stream) -> None: ...

class Stream:
    def __init__(self, device: int = 0, *, high_priority: bool = False) -> None: ...
    @staticmethod
    def borrow(device: int, handle: int) -> Stream: ...
    @property
    def ptr(self) -> int: ...
    @property
    def device(self) -> int: ...
    def synchronize(self) -> None: ...
    def record(self, timing: bool = False) -> Event: ...
    def wait(self, event: Event) -> None: ...
    def wait_for(self, other: Stream) -> None: ...
    def trim(self, bytes_to_keep: int = 0) -> None: ...
    def begin_capture(self) -> None: ...
    def end_capture(self) -> Graph: ...

class DeviceArray:
    @staticmethod
    def empty(shape: Sequence[int], dtype: str, stream: Stream) -> DeviceArray: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def stream(self) -> Stream: ...
    def view(self, offset: int, shape: Sequence[int], dtype: str) -> DeviceArray: ...
    def upload(self, source: Any) -> None: ...
    def numpy(self, out: Any | None = None) -> Any: ...
    def ready(self, event: Event | None = None) -> None: ...
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
    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

def info() -> dict[str, Any]: ...
def device(index: int = 0) -> dict[str, Any]: ...
def set_device(index: int) -> int: ...
def copy(source: Any, out: Any, stream: Stream | int | None = None) -> None: ...
def copy_unordered(source: DeviceArray, out: DeviceArray, stream: Stream) -> None: ...
def compose(
    masks: Any,
    foregrounds: Any,
    backgrounds: Any,
    index: Any | None = None,
    *,
    rolls: Any | None = None,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel = None,
    bias: PerChannel = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def patch_grid(
    masks: Any,
    images: Any,
    picks: Any,
    index: Any | None = None,
    *,
    size: int | tuple[int, int] = 256,
    patch: int = 15,
    grid: int = 6,
    top: int = 100,
    over: tuple[Any, Any] | None = None,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel = None,
    bias: PerChannel = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def resize(
    images: Any,
    size: int | tuple[int, int],
    *,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel = None,
    bias: PerChannel = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def normal(
    seed: int,
    indices: Any,
    slot: int,
    size: int,
    *,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def truncated_normal(
    seed: int,
    indices: Any,
    slot: int,
    size: int,
    *,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def integers(
    seed: int,
    indices: Any,
    slot: int,
    bound: int | Sequence[int],
    size: int = 1,
    *,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def philox(
    seed: int,
    indices: Any,
    slot: int,
    blocks: int,
    *,
    out: Any | None = None,
    stream: Stream | int | None = None,
) -> Any: ...
def gather_rows(
    table: Any, index: Any, *, out: Any | None = None, stream: Stream | int | None = None
) -> Any: ...
def scale_rows(
    values: Any, factors: Any, *, out: Any | None = None, stream: Stream | int | None = None
) -> Any: ...
