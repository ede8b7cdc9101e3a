"""`SampleOptions`: what `Generator.sample` takes, apart from which samples, as one object that checks itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cgnrt._support.values import is_int, refuse_masked
from cgnrt.request.labels import Label, check_mechanism_keys
from cgnrt.sampling import check_seed

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

    Raises:
      TypeError, ValueError: the message names the option, what it is and what is expected.
    """

    seed: int | None = None
    do: Mapping[str, Label] | None = None
    labels: str = "independent"
    classes: Mapping[str, Sequence[Label]] | None = None
    shared_noise: bool | None = None
    per_noise: int = 1
    hold: str = "shape"
    truncation: Any = None
    pool: int | tuple[int, int, int] | None = None
    refresh: int | None = None
    parts: bool = False

    def __post_init__(self) -> None:
        _check_choice("labels", self.labels, LABELS)
        _check_choice("hold", self.hold, HOLDS)
        for name in ("do", "classes"):
            if getattr(self, name) is not None:
                check_mechanism_keys(name, getattr(self, name))
        checked: dict[str, Any] = {
            "seed": None if self.seed is None else check_seed(self.seed),
            "per_noise": _check_per_noise(self.per_noise),
            "pool": None if self.pool is None else _check_pool(self.pool),
        }
        checked["refresh"] = _check_refresh(self.refresh, self.pool)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.pool is not None and (self.per_noise > 1 or self.labels == "shared"):
            raise beside_pool("per_noise" if self.per_noise > 1 else "labels='shared'")

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
        raise TypeError(
            f"{operation}: option is {min(unknown)!r}, expected one of {', '.join(sorted(known))}."
        )


def beside_pool(option: str) -> ValueError:
    """The error for an option that pools do not support."""
    return ValueError(
        f"sample: {option} is set beside a pool, expected one of the two: pool entries meet at random."
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"sample: {name} is {value!r}, expected {' or '.join(map(repr, choices))}.")


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


def _check_refresh(refresh: Any, pool: Any) -> int | None:
    if refresh is None:
        return None
    if not is_int(refresh) or not 1 <= refresh <= 2**62:
        raise ValueError(f"sample: refresh is {refresh!r}, expected an int of at least 1, or None.")
    if pool is None:
        raise ValueError(f"sample: refresh is {refresh} without a pool, expected pool=(M, F, B) beside it.")
    return int(refresh)
