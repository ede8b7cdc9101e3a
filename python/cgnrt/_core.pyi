from collections.abc import Sequence
from typing import Any

# A tensor is any object with the buffer protocol or DLPack; what is made anew is a NumPy array. `implementation`
# ("auto", "reference" or one of build_info()["cpu"]["isas"]) and `streams` (write around the cache) are for tests and
# benchmarks.

def compose(
    masks: Any,
    foregrounds: Any,
    backgrounds: Any,
    index: Any | None = None,
    *,
    rolls: Any | None = None,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: float | Sequence[float] | None = None,
    bias: float | Sequence[float] | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    implementation: str = "auto",
    streams: bool | None = None,
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
    scale: float | Sequence[float] | None = None,
    bias: float | Sequence[float] | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    implementation: str = "auto",
) -> Any: ...
def resize(
    images: Any,
    size: int | tuple[int, int],
    *,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: float | Sequence[float] | None = None,
    bias: float | Sequence[float] | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    implementation: str = "auto",
) -> Any: ...
def normal(
    seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None, implementation: str = "auto"
) -> Any: ...
def truncated_normal(
    seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None, implementation: str = "auto"
) -> Any: ...
def integers(
    seed: int,
    indices: Any,
    slot: int,
    bound: int | Sequence[int],
    size: int = 1,
    *,
    out: Any | None = None,
    implementation: str = "auto",
) -> Any: ...
def philox(
    seed: int, indices: Any, slot: int, blocks: int, *, out: Any | None = None, implementation: str = "auto"
) -> Any: ...
def bfloat16_dlpack(bits: Any, *, max_version: tuple[int, int] | None = None) -> Any: ...
def copy(source: Any, out: Any, *, threads: int = 0, streams: bool = False) -> None: ...
def build_info() -> dict[str, Any]: ...

class Engine:
    def __init__(
        self,
        input_widths: Sequence[int],
        weight: Any,
        bias: Any,
        shape: Sequence[int],
        layers: Sequence[dict[str, Any]],
        *,
        isa: str | None = None,
    ) -> None: ...
    @property
    def output_shape(self) -> tuple[int, int, int]: ...
    def run(self, inputs: Sequence[Any], *, out: Any | None = None, threads: int = 0) -> Any: ...

class DeepEngine:
    # A picture is (channels, height, width, buffer, first channel); steps are as csrc/bindings/deep_binding.cc reads
    # them. `methods` are how each step is computed and its multiply-adds for an image, `seconds` those of the last run.
    def __init__(
        self,
        vector_widths: Sequence[int],
        pictures: Sequence[Sequence[int]],
        steps: Sequence[dict[str, Any]],
        outputs: Sequence[int],
        *,
        image: int | None = None,
        isa: str | None = None,
    ) -> None: ...
    @property
    def methods(self) -> list[tuple[str, float]]: ...
    @property
    def seconds(self) -> list[float]: ...
    @property
    def workspace_bytes(self) -> int: ...
    def run(
        self, vectors: Sequence[Any], image: Any | None, n: int, outs: Sequence[Any], *, threads: int = 0
    ) -> list[Any]: ...
