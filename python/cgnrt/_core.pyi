from collections.abc import Sequence
from typing import Any

# A tensor is any object with the buffer protocol or DLPack; a new result is a NumPy array. The ops have no defaults
# here: `cgnrt.ops` has them. `implementation` ("auto", "reference" or one of build_info()["cpu"]["isas"]) and `streams`
# (write around the cache) are for tests and benchmarks.

PerChannel = float | Sequence[float] | None

def compose(
    masks: Any,
    foregrounds: Any,
    backgrounds: Any,
    index: Any | None,
    rolls: Any | None,
    place: Any | None,
    dtype: str,
    layout: str,
    scale: PerChannel,
    bias: PerChannel,
    clamp: tuple[float, float] | None,
    out: Any | None,
    threads: int,
    stream: Any | None,
    implementation: str = "auto",
    streams: bool | None = None,
) -> Any: ...
def patch_grid(
    masks: Any,
    images: Any,
    picks: Any,
    index: Any | None,
    size: int | tuple[int, int],
    patch: int,
    grid: int,
    top: int,
    over: tuple[Any, Any] | None,
    dtype: str,
    layout: str,
    scale: PerChannel,
    bias: PerChannel,
    clamp: tuple[float, float] | None,
    out: Any | None,
    threads: int,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def resize(
    images: Any,
    size: int | tuple[int, int],
    dtype: str,
    layout: str,
    scale: PerChannel,
    bias: PerChannel,
    clamp: tuple[float, float] | None,
    out: Any | None,
    threads: int,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def normal(
    seed: int,
    indices: Any,
    slot: int,
    size: int,
    out: Any | None,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def truncated_normal(
    seed: int,
    indices: Any,
    slot: int,
    size: int,
    out: Any | None,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def integers(
    seed: int,
    indices: Any,
    slot: int,
    bound: int | Sequence[int],
    size: int,
    out: Any | None,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def philox(
    seed: int,
    indices: Any,
    slot: int,
    blocks: int,
    stream: Any | None,
    implementation: str = "auto",
) -> Any: ...
def bfloat16_dlpack(bits: Any, *, max_version: tuple[int, int] | None = None) -> Any: ...
def copy(source: Any, out: Any, *, threads: int = 0, streams: bool = False) -> None: ...
def use_torch_team(on: bool) -> None: ...
def build_info() -> dict[str, Any]: ...
def cpu_quota(root: str) -> int | None: ...

class SmallGenerator:
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

class PictureNetwork:
    # A picture is (channels, height, width, buffer, first channel); csrc/bindings/core_engines.cc reads the steps.
    # `methods` are how each step is computed and its multiply-adds for an image, `seconds` its time in the last run.
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
