"""From what a caller asks for to checked labels, noise and draw options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cgnrt.request.labels import ClassNames, Label
from cgnrt.sampling import (
    MECHANISMS,
    DrawOptions,
    Labels,
    Noise,
    Sampler,
    check_index,
    resolve_indices,
    resolve_seed,
)


@dataclass(frozen=True)
class Request:
    """A checked request for n images: labels are set, noise is drawn chunk by chunk.

    Attributes:
      indices: (n,) int64 stream indices.
      options: what the draws depend on.
      labels: int64 (n,) each.
      given: the caller's noise; None entries are drawn.
      truncation: (n, 1) float32 factor of the noise, None for plans without one.
    """

    sampler: Sampler
    indices: np.ndarray
    options: DrawOptions
    labels: Labels
    given: tuple[np.ndarray | None, ...]
    truncation: np.ndarray | None

    def noise(self, part: slice = slice(None)) -> Noise:
        """Noise and rolls of some of the samples."""
        indices = self.indices[part]
        shape, texture, background = (
            self.sampler.noise(self.options, name, indices) if given is None else given[part]
            for name, given in zip(MECHANISMS, self.given[:3], strict=True)
        )
        return Noise(shape, texture, background, self.rolls(part))

    def rolls(self, part: slice = slice(None)) -> np.ndarray:
        """The rolls of some of the samples, int32 (n, 2, 2)."""
        given = self.given[3]
        return self.sampler.rolls(self.options, self.indices[part]) if given is None else given[part]

    def cut(self, part: slice) -> Request:
        """A request for some of the samples."""
        return replace(
            self,
            indices=self.indices[part],
            labels=Labels(*(column[part] for column in self.labels)),
            given=tuple(None if array is None else array[part] for array in self.given),
            truncation=None if self.truncation is None else self.truncation[part],
        )


def merge_requests(requests: Sequence[Request]) -> Request:
    """One request for the samples of several, whose noise is drawn here: of one plan, whatever their seeds."""
    first = requests[0]
    noise = [request.noise() for request in requests]
    truncation = None
    if first.truncation is not None:
        truncation = np.concatenate([request.truncation for request in requests])
    return replace(
        first,
        indices=np.concatenate([request.indices for request in requests]),
        labels=Labels(*map(np.concatenate, zip(*(request.labels for request in requests), strict=True))),
        given=tuple(map(np.concatenate, zip(*noise, strict=True))),
        truncation=truncation,
    )


def check_do(names: ClassNames, do: Mapping[str, Label] | None) -> tuple[tuple[str, int], ...]:
    """An intervention as (mechanism, class index) pairs."""
    do = {} if do is None else do
    _check_mechanisms("do", do)
    return tuple((m, names.index(f"do[{m!r}]", m, do[m])) for m in MECHANISMS if m in do)


def check_classes(
    names: ClassNames, classes: Mapping[str, Sequence[Label]] | None
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Class subsets as (mechanism, class indices) pairs."""
    classes = {} if classes is None else classes
    _check_mechanisms("classes", classes)
    subsets = []
    for mechanism in MECHANISMS:
        if mechanism not in classes:
            continue
        subset = classes[mechanism]
        sequence = isinstance(subset, Sequence | np.ndarray) and not isinstance(subset, str)
        if not sequence or not len(subset):
            raise ValueError(f"sample: classes[{mechanism!r}] is {subset!r}, expected a sequence of classes.")
        found = (names.index(f"classes[{mechanism!r}][{i}]", mechanism, c) for i, c in enumerate(subset))
        subsets.append((mechanism, tuple(found)))
    return tuple(subsets)


def draw_options(
    sampler: Sampler,
    names: ClassNames,
    seed: int | None,
    do: Mapping[str, Label] | None,
    *,
    labels: str,
    classes: Mapping[str, Sequence[Label]] | None,
    shared_noise: bool,
    per_noise: int,
    hold: str,
) -> DrawOptions:
    """What the draws of a request depend on, checked; `seed=None` draws one."""
    _check_choice("labels", labels, ("independent", "shared"))
    _check_choice("hold", hold, ("shape", "all"))
    if isinstance(per_noise, bool) or not isinstance(per_noise, int | np.integer) or per_noise < 1:
        raise ValueError(f"sample: per_noise is {per_noise!r}, expected an int of at least 1.")
    draws = sampler.mechanisms.values()
    if shared_noise and not sampler.can_share_noise:
        raise ValueError(
            "sample: shared_noise is on, expected one noise size and distribution for all mechanisms."
        )
    if labels == "shared" and (classes or len({m.classes for m in draws}) > 1):
        raise ValueError(
            "sample: labels is 'shared', expected the same classes for all mechanisms and no subsets."
        )
    return DrawOptions(
        seed=resolve_seed(seed),
        labels=labels,
        do=check_do(names, do),
        classes=check_classes(names, classes),
        shared_noise=shared_noise,
        per_noise=int(per_noise),
        hold=hold,
    )


def call_labels(
    names: ClassNames, given: Mapping[str, Any], *, noise: Any, indices: Any, n: Any
) -> tuple[dict[str, Label], dict[str, np.ndarray], int]:
    """The labels of a call: one for all samples, or one for each, by mechanism; and how many samples it is about."""
    single: dict[str, Label] = {
        m: names.index(m, m, v) for m, v in given.items() if isinstance(v, int | str | np.integer)
    }
    several = {m: names.indices(m, v) for m, v in given.items() if v is not None and m not in single}
    lengths = {m: len(v) for m, v in several.items()}
    if noise is not None:
        parts = zip(MECHANISMS, noise_parts(noise), strict=False)
        lengths |= {f"noise of {m}": len(np.atleast_1d(u)) for m, u in parts if u is not None}
    if indices is not None:
        lengths["indices"] = len(resolve_indices(None, 0, indices))
    if n is not None:
        lengths["n"] = check_index("n", n)
    if len(set(lengths.values())) > 1:
        raise ValueError(f"sample: lengths are {lengths}, expected one for all.")
    return single, several, next(iter(lengths.values()), 1)


def check_pool_alone(options: DrawOptions, noise: Any) -> None:
    """Refuse what a pool cannot keep."""
    for name, is_set in (
        ("per_noise", options.per_noise > 1),
        ("noise", noise is not None),
        ("labels='shared'", options.labels == "shared"),
    ):
        if is_set:
            raise ValueError(
                f"sample: {name} is set beside a pool, expected one of the two: pool entries meet at random."
            )


def check_pool(pool: Any) -> tuple[int, int, int]:
    """Pool sizes (masks, foregrounds, backgrounds); one number stands for all three."""
    sizes = tuple(pool) if isinstance(pool, Sequence | np.ndarray) else (pool,) * 3
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in sizes)
    if len(sizes) != 3 or not whole or min(sizes) < 1 or max(sizes) > 2**31 - 1:
        raise ValueError(
            f"sample: pool is {pool!r}, expected three sizes of at least 1 (shape, texture, background)."
        )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def check_refresh(refresh: Any, pool: Any) -> int | None:
    """After how many samples a pool's oldest entries leave; None where they stay."""
    if refresh is None:
        return None
    if isinstance(refresh, bool) or not isinstance(refresh, int | np.integer) or not 1 <= refresh <= 2**62:
        raise ValueError(f"sample: refresh is {refresh!r}, expected an int of at least 1, or None.")
    if pool is None:
        raise ValueError(f"sample: refresh is {refresh} without a pool, expected pool=(M, F, B) beside it.")
    return int(refresh)


def check_noise(sampler: Sampler, noise: Any, n: int) -> tuple[np.ndarray | None, ...]:
    """A caller's (shape, texture, background[, rolls]) as float32 (n, z) arrays; None entries stay None."""
    if noise is None:
        return (None,) * 4
    given = noise_parts(noise)
    checked: list[np.ndarray | None] = []
    for name, array in zip(MECHANISMS, given, strict=False):
        if array is None:
            checked.append(None)
            continue
        array = np.asarray(array)
        expected = (n, sampler.mechanisms[name].noise_size)
        if array.dtype.kind != "f" or array.shape != expected:
            raise ValueError(
                f"sample: noise of {name} is {array.dtype} {array.shape}, expected float32 {expected}."
            )
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"sample: noise of {name} has values that are not finite in float32.")
        checked.append(array)
    rolls = given[3]
    if rolls is not None:
        rolls = np.asarray(rolls)
        if rolls.dtype.kind != "i" or rolls.shape != (n, 2, 2):
            raise ValueError(f"sample: rolls are {rolls.dtype} {rolls.shape}, expected int32 {(n, 2, 2)}.")
        if rolls.size and not -(2**31) <= rolls.min() <= rolls.max() < 2**31:
            raise ValueError(f"sample: rolls are {rolls.min()}..{rolls.max()}, expected what int32 holds.")
        rolls = np.ascontiguousarray(rolls, np.int32)
    return (*checked, rolls)


def noise_parts(noise: Any) -> tuple[Any, Any, Any, Any]:
    """The three mechanisms' parts of a caller's noise, and its rolls or None."""
    if not isinstance(noise, Sequence):
        raise TypeError(f"sample: noise is {noise!r}, expected (shape, texture, background[, rolls]).")
    if len(noise) not in (3, 4):
        raise ValueError(
            f"sample: noise has {len(noise)} parts, expected 3 or 4 (shape, texture, background, rolls)."
        )
    return noise[0], noise[1], noise[2], noise[3] if len(noise) == 4 else None


def check_truncation(bounds: Any, truncation: Any, n: int) -> np.ndarray | None:
    """The truncation of every sample, float32 (n, 1), from a number or (n,); `bounds` is the manifest's."""
    if bounds is None:
        if truncation is not None:
            raise ValueError(
                f"sample: truncation is {truncation}, expected none: this plan has no truncation."
            )
        return None
    values = np.asarray(bounds.default if truncation is None else truncation, np.float32)
    if values.shape not in ((), (n,)):
        raise ValueError(f"sample: truncation has shape {values.shape}, expected a number or ({n},).")
    if not ((values >= bounds.minimum) & (values <= bounds.maximum)).all():
        raise ValueError(f"sample: truncation is {truncation}, expected {bounds.minimum}..{bounds.maximum}.")
    return np.ascontiguousarray(np.broadcast_to(values, (n,)).reshape(n, 1))


def _check_mechanisms(field: str, mapping: Mapping[str, Any]) -> None:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"sample: {field} is {mapping!r}, expected a mapping from mechanisms to classes.")
    for key in mapping:
        if key not in MECHANISMS:
            close = difflib.get_close_matches(str(key), MECHANISMS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"sample: {field} key is {key!r}, expected one of {', '.join(MECHANISMS)}.{hint}"
            )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"sample: {name} is {value!r}, expected {' or '.join(map(repr, choices))}.")
