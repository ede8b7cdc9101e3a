"""What callers ask for, as objects that check themselves: options of samples, of a generator, and of its images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cgnrt._support.forking import cached_property
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import check_threads, host_array, is_int, refuse_masked
from cgnrt.backends import EngineOptions
from cgnrt.plan import Plan
from cgnrt.request.labels import Label, check_mechanism_keys
from cgnrt.request.place import FACTORS, with_factors
from cgnrt.sampling import check_seed

_DTYPES = ("float32", "float16", "bfloat16", "uint8")
_LAYOUTS = ("NCHW", "NHWC")
_CHANNELS = 3
LABELS = ("independent", "shared")
HOLDS = ("shape", "all")


@dataclass(frozen=True)
class SampleOptions:
    """The options of a stream of samples. What each means is in the docstring of `Generator.sample`.

    The defaults stand here and nowhere else: a signature that repeats an option takes `SampleOptions.labels` as its
    default. Making one checks everything that needs no plan; `Generator.check` checks the rest and renders nothing:

        options = SampleOptions(seed=3, do={"texture": "zebra"}, pool=64)
        options = generator.check(options)              # labels as class indices; what was left open is filled in
        batch = generator.sample(100, start=5, **options)
        for batch in generator.batches(10_000, 64, **options): ...

    An instance is frozen, pickles, and unpacks with `**` into the keyword arguments of `sample`, `batches` and
    `stream`; `dataclasses.replace(options, parts=True)` changes one of them.

    Attributes:
      pool: three sizes, also where one number was given.
      place: with what `do` sets of it, which is not in `do` any more.

    Raises:
      TypeError, ValueError: the message names the option, what it is and what is expected.
    """

    seed: int | None = None
    do: Mapping[str, Label | float] | None = None
    labels: str = "independent"
    classes: Mapping[str, Sequence[Label]] | None = None
    shared_noise: bool | None = None
    per_noise: int = 1
    hold: str = "shape"
    distinct: bool = False
    truncation: Any = None
    pool: int | tuple[int, int, int] | None = None
    refresh: int | None = None
    place: Any = None
    parts: bool = False

    def __post_init__(self) -> None:
        _check_choice("labels", self.labels, LABELS)
        _check_choice("hold", self.hold, HOLDS)
        if self.do is not None:
            self._split_do(self.do)
        if self.classes is not None:
            check_mechanism_keys("classes", self.classes)
        keep = object.__setattr__
        if self.seed is not None:
            keep(self, "seed", check_seed(self.seed))
        keep(self, "per_noise", _check_per_noise(self.per_noise))
        if self.pool is not None:
            keep(self, "pool", _check_pool(self.pool))
        if self.refresh is not None:
            keep(self, "refresh", _check_refresh(self.refresh, self.pool))
        if not isinstance(self.distinct, bool | np.bool_):
            raise TypeError(f"sample: distinct is {self.distinct!r}, expected True or False.")
        if self.distinct and self.labels == "shared":
            raise ValueError("sample: distinct is on beside labels='shared', expected one of the two.")
        if self.distinct and self.pool is not None:
            raise beside_pool("distinct")
        if self.pool is not None and (self.per_noise > 1 or self.labels == "shared"):
            raise beside_pool("per_noise" if self.per_noise > 1 else "labels='shared'")

    def _split_do(self, do: Mapping[str, Any]) -> None:
        """What `do` sets of the place goes there."""
        if isinstance(do, Mapping):
            placed = {name: value for name, value in do.items() if name in FACTORS}
            if placed:
                object.__setattr__(self, "place", with_factors(self.place, placed))
                do = {name: value for name, value in do.items() if name not in FACTORS}
                object.__setattr__(self, "do", do)
        check_mechanism_keys("do", do, FACTORS)

    @property
    def drawn_seed(self) -> int:
        """The seed of options that `Generator.check` returned, or that have one."""
        seed: int = self["seed"]
        return seed

    @property
    def pool_sizes(self) -> tuple[int, int, int]:
        """The sizes of the pools of masks, foregrounds and backgrounds; there must be a pool."""
        sizes: tuple[int, int, int] = self["pool"]
        return sizes

    def keys(self) -> Iterator[str]:
        """The names of the options, for `**options`."""
        return iter(OPTION_NAMES)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    @classmethod
    def collect(cls, operation: str, options: Mapping[str, Any]) -> SampleOptions:
        """The options from the keyword arguments of a method that passes them on.

        Raises:
          TypeError: one of them is unknown.
        """
        check_names(operation, options, OPTION_NAMES)
        return cls(**options)


OPTION_NAMES = tuple(field.name for field in fields(SampleOptions))


def check_names(operation: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse keyword arguments that are not known."""
    unknown = set(options) - set(known)
    if unknown:
        name = min(unknown)
        raise TypeError(
            f"{operation}: option is {name!r}, expected one of {', '.join(sorted(known))}.{did_you_mean(name, known)}"
        )


def beside_pool(option: str) -> ValueError:
    """The error for an option that pools do not support."""
    return ValueError(
        f"sample: {option} is set beside a pool, expected one of the two: pool entries meet at random."
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"sample: {name} is {value!r}, expected {' or '.join(map(repr, choices))}.{did_you_mean(value, choices)}"
        )


def _check_per_noise(per_noise: Any) -> int:
    if not is_int(per_noise) or not 1 <= per_noise < 2**63:
        raise ValueError(f"sample: per_noise is {per_noise!r}, expected an int of at least 1, below 2**63.")
    return int(per_noise)


def _check_pool(pool: Any) -> tuple[int, int, int]:
    refuse_masked("sample", pool=pool)
    several = isinstance(pool, list | tuple) or (isinstance(pool, np.ndarray) and pool.ndim > 0)
    sizes = tuple(pool) if several else (pool,) * 3
    if len(sizes) != 3 or not all(map(is_int, sizes)) or min(sizes) < 1 or max(sizes) > 2**31 - 1:
        raise ValueError(
            f"sample: pool is {pool!r}, expected three sizes of at least 1 (shape, texture, background)."
        )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _check_refresh(refresh: Any, pool: Any) -> int:
    if not is_int(refresh) or not 1 <= refresh <= 2**62:
        raise ValueError(f"sample: refresh is {refresh!r}, expected an int of at least 1, or None.")
    if pool is None:
        raise ValueError(f"sample: refresh is {refresh} without a pool, expected pool=(M, F, B) beside it.")
    return int(refresh)


def dtype_name(dtype: Any) -> str:
    """The name of a dtype that is given as text, or as NumPy's or torch's own.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return str(np.dtype(dtype))
    if type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype":
        return str(dtype).removeprefix("torch.")
    raise TypeError(
        f"load: dtype is {dtype!r}, expected a name such as 'float32', or a dtype of NumPy or torch."
    )


@dataclass(frozen=True)
class GeneratorOptions:
    """What `Generator` takes besides the plan; its docstring says what each option means, and has the defaults."""

    device: str
    backend: str
    precision: str
    threads: int | None
    dtype: str
    layout: str
    range: Sequence[float] | None
    normalize: tuple[Sequence[float], Sequence[float]] | None
    shared_noise: bool | None
    trust_engines: bool
    rebuild: bool
    engine_batches: tuple[int, ...] | None
    compile: bool
    tf32: bool
    bank_cache_bytes: int

    def __post_init__(self) -> None:
        if not is_int(self.bank_cache_bytes) or self.bank_cache_bytes < 0:
            raise ValueError(
                f"load: bank_cache_bytes is {self.bank_cache_bytes!r}, expected an int of 0 or more."
            )
        object.__setattr__(self, "threads", check_threads(self.threads))
        object.__setattr__(self, "engine_batches", _check_engine_batches(self.engine_batches))

    @property
    def engines(self) -> EngineOptions:
        """Those that backends read."""
        flags = {name: bool(getattr(self, name)) for name in ("trust_engines", "rebuild", "compile", "tf32")}
        return EngineOptions(batches=self.engine_batches, **flags)

    def pixels(self, plan: Plan) -> PixelFormat:
        """The form of the images."""
        return PixelFormat.make(
            dtype=self.dtype,
            layout=self.layout,
            range=self.range,
            normalize=self.normalize,
            source=plan.mechanisms["texture"].spec.range,
        )


@dataclass(frozen=True)
class PixelFormat:
    """The output form of a batch.

    Attributes:
      scale, bias: map the plan's range onto that of the images, per channel; None where they are the same.
      clamp: the plan's range, to which images are clamped before.
    """

    dtype: str
    layout: str
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None
    clamp: tuple[float, float]

    @classmethod
    def make(
        cls,
        *,
        dtype: str,
        layout: str,
        range: Sequence[float] | None,
        normalize: tuple[Sequence[float], Sequence[float]] | None,
        source: tuple[float, float],
    ) -> PixelFormat:
        """Check what the user asks for, and turn it into one multiply-add per channel.

        Args:
          dtype: "float32", "float16", "bfloat16" or "uint8".
          layout: "NCHW" or "NHWC".
          range: (low, high) that the plan's value range maps to; (-1, 1) where None, (0, 255) for uint8.
          normalize: (mean, std) per channel of images in [0, 1], as classifiers take them; not with `range`.
          source: the plan's value range.
        Raises:
          ValueError: an unknown name, or options that exclude each other.
        """
        if dtype not in _DTYPES:
            raise ValueError(
                f"load: dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}.{did_you_mean(dtype, _DTYPES)}"
            )
        if layout not in _LAYOUTS:
            raise ValueError(
                f"load: layout is {layout!r}, expected one of {', '.join(_LAYOUTS)}.{did_you_mean(layout, _LAYOUTS)}"
            )
        bounds = None if range is None else _numbers("range", range)
        if dtype == "uint8" and (
            normalize is not None or (bounds is not None and bounds.tolist() != [0, 255])
        ):
            raise ValueError("load: dtype is uint8 beside a range or normalize, expected 0..255 only.")
        if range is not None and normalize is not None:
            raise ValueError("load: both range and normalize are given, expected one of the two.")
        if normalize is not None:
            if not isinstance(normalize, list | tuple | np.ndarray):
                raise TypeError(f"load: normalize is {normalize!r}, expected (mean, std).")
            if len(normalize) != 2:
                raise ValueError(f"load: normalize has {len(normalize)} parts, expected (mean, std).")
            mean, std = (_per_channel(name, v) for name, v in zip(("mean", "std"), normalize, strict=True))
            if (std <= 0).any():
                raise ValueError(f"load: normalize std is {std.tolist()}, expected positive numbers.")
            low, high = (0 - mean) / std, (1 - mean) / std
        else:
            wanted = np.asarray((0, 255) if dtype == "uint8" else (-1, 1)) if bounds is None else bounds
            if wanted.shape != (2,) or not np.isfinite(wanted).all() or wanted[0] >= wanted[1]:
                raise ValueError(f"load: range is {range}, expected (low, high) with low < high.")
            low, high = (np.full(_CHANNELS, float(end)) for end in wanted)
        scale = (high - low) / (source[1] - source[0])
        bias = low - scale * source[0]
        if (scale == 1).all() and (bias == 0).all():
            return cls(dtype, layout, None, None, source)
        return cls(dtype, layout, tuple(scale.tolist()), tuple(bias.tolist()), source)

    def shape(self, n: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape of n images."""
        return (n, _CHANNELS, height, width) if self.layout == "NCHW" else (n, height, width, _CHANNELS)

    @property
    def item_bytes(self) -> int:
        """Bytes of one number of an image."""
        return {"float32": 4, "uint8": 1}.get(self.dtype, 2)

    @cached_property
    def compose_options(self) -> dict[str, Any]:
        """The keyword arguments of `cgnrt.ops.compose` that give this form."""
        return {
            "dtype": self.dtype,
            "layout": self.layout,
            "scale": self.scale,
            "bias": self.bias,
            "clamp": self.clamp,
        }


def _per_channel(name: str, values: Sequence[float]) -> np.ndarray:
    array = _numbers(f"normalize {name}", values)
    if array.shape != (_CHANNELS,) or not np.isfinite(array).all():
        raise ValueError(f"load: normalize {name} is {values}, expected {_CHANNELS} finite numbers.")
    return array


def _numbers(name: str, values: Any) -> np.ndarray:
    array = host_array("load", name, values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"load: {name} is {values!r}, expected numbers.")
    return array.astype(np.float64)


def _check_engine_batches(sizes: Any) -> tuple[int, ...] | None:
    if sizes is None:
        return None
    array = host_array("load", "engine_batches", sizes)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"load: engine_batches is {sizes!r}, expected a list of ints, or None.")
    return tuple(array.tolist())
