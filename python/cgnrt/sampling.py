"""Which labels and which noise: sample i of stream `seed` is the same on every machine, batch size and device.

Every draw is a pure function of (seed, sample index, slot), by counter-based Philox 4x32-10, so a stream can be
indexed, resumed and sharded without communication. Each mechanism and purpose has a slot of its own: no option changes
another draw. A change of what sample i is raises `STREAM_VERSION`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cgnrt import ops
from cgnrt._support.values import host_array, is_int
from cgnrt.plan.limits import MECHANISMS as MECHANISMS
from cgnrt.plan.limits import STREAM_VERSION as STREAM_VERSION

# Columns of files with samples.
LABEL_COLUMNS = tuple(f"labels_{mechanism}" for mechanism in MECHANISMS)

# Slots: purpose * 3 + mechanism. They are part of the stream's definition (STREAM_VERSION).
_LABEL, _NOISE, _ROLL, _POOL = 0, 3, 6, 9
# Of counterfactuals of photos (cgnrt.real): the windows of a patch grid, and the photos that parts come from.
_PATCH, _DONOR = 12, 15

# Where the object is put.
_PLACE = 18

# Numbers that one call of the compiled code draws: between two calls Ctrl-C is answered.
_DRAWN_AT_ONCE = 1 << 22

_MAX_SEED = 2**64 - 1
_MAX_INDEX = 2**63 - 1


class Labels(NamedTuple):
    """One label for each mechanism, int64 (n,) each."""

    shape: np.ndarray
    texture: np.ndarray
    background: np.ndarray


class Noise(NamedTuple):
    """The exogenous noise u of each mechanism, float32 (n, z) before truncation, and the rolls.

    That of a bank is uint32 (n, 1), the integer that picks an entry of the label's class.

    `rolls` is (n, 2, 2) int32: the cyclic shift (dy, dx) in pixels of the foreground and of the background, the
    texture shuffle of the MNIST CGN (Sec. 3.1); zero where a mechanism has none.
    """

    shape: np.ndarray
    texture: np.ndarray
    background: np.ndarray
    rolls: np.ndarray


class MechanismDraws(NamedTuple):
    """What the sampler needs to know about a mechanism: facts of the plan.

    Attributes:
      follows: the mechanism whose label, noise and pool entry this one has, too.
    """

    classes: int
    noise_size: int
    distribution: str
    roll: bool
    follows: str | None = None


class PlaceDraws(NamedTuple):
    """What places are drawn from.

    Attributes:
      rows, columns: least and greatest shift down and to the right, in pixels.
      scale: least and greatest.
      flip: of 2**32 words, those below this mirror the object.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    scale: tuple[float, float]
    flip: int


class DrawOptions(NamedTuple):
    """What fixes every draw of a stream besides the index.

    Attributes:
      seed: 0 to 2**64 - 1.
      labels: "independent" draws a label for each mechanism (counterfactual), "shared" one for all.
      do: mechanism -> class index, an intervention (Sec. 2.2): replaces only labels.
      classes: mechanism -> class indices that labels are drawn from.
      shared_noise: all mechanisms take the shape's noise.
      per_noise: samples k*g .. k*g + k - 1 share the shape's label and noise (App. A.3).
      hold: "shape" for groups that share only that, "all" for groups that share the noise and rolls of all mechanisms.
      distinct: texture and background never have classes of one name.
    """

    seed: int
    labels: str
    do: tuple[tuple[str, int], ...]
    classes: tuple[tuple[str, tuple[int, ...]], ...]
    shared_noise: bool
    per_noise: int
    hold: str
    distinct: bool = False


class NoiseDraw(NamedTuple):
    """The noise of one mechanism as a function of seed and indices.

    Attributes:
      distribution: "normal" or "truncated_normal".
      slot, size: of the draw, and how many numbers for each sample.
      group: samples k*group .. k*group + group - 1 share it.
    """

    distribution: str
    slot: int
    size: int
    group: int

    def indices(self, indices: np.ndarray) -> np.ndarray:
        """The indices to draw for: those of the samples, or of their groups."""
        return indices if self.group == 1 else indices // self.group

    def __call__(self, seed: int, indices: np.ndarray) -> Any:
        """(n, size) float32 for the samples at `indices`."""
        return self.draw(seed, self.indices(indices))

    def draw(self, seed: int, grouped: Any, stream: Any = None) -> Any:
        """(n, size) float32 for the result of `indices`, on its device; of a bank uint32 (n, 1), on the host."""
        if self.distribution == "entry":
            words: np.ndarray = ops.philox(seed, grouped, self.slot, 1)
            return np.ascontiguousarray(words[:, :1])
        op = ops.truncated_normal if self.distribution == "truncated_normal" else ops.normal
        if stream is not None or len(grouped) * self.size <= _DRAWN_AT_ONCE:
            return op(seed, grouped, self.slot, self.size, stream=stream)
        return _in_steps(lambda part, out: op(seed, part, self.slot, self.size, out=out), grouped, self.size)


class Sampler:
    """Draws labels, noise, rolls and pool picks for the mechanisms of one plan."""

    def __init__(self, mechanisms: Mapping[str, MechanismDraws], resolution: tuple[int, int]) -> None:
        self.mechanisms = {name: mechanisms[name] for name in MECHANISMS}
        self.resolution = resolution

    @property
    def following(self) -> dict[str, str]:
        """The mechanisms that follow another one, each with that one's name."""
        return {name: m.follows for name, m in self.mechanisms.items() if m.follows is not None}

    @property
    def can_share_noise(self) -> bool:
        """Whether the mechanisms' noise has one size and one distribution."""
        return len({(m.noise_size, m.distribution) for m in self.mechanisms.values()}) == 1

    @property
    def can_share_labels(self) -> bool:
        """Whether the mechanisms have equally many classes."""
        return len({m.classes for m in self.mechanisms.values()}) == 1

    def labels(
        self, options: DrawOptions, mechanism: str, indices: np.ndarray, other_than: np.ndarray | None = None
    ) -> np.ndarray:
        """Labels of one mechanism, int64 (n,); with `other_than`, (n,), one that each sample must not have, or -1.

        Raises:
          ValueError: `other_than` leaves no class.
        """
        mechanism = self.mechanisms[mechanism].follows or mechanism
        for name, label in options.do:
            if name == mechanism:
                return np.full(len(indices), label, np.int64)
        shared = options.labels == "shared"
        grouped = shared or mechanism == "shape"
        slot = _LABEL + (0 if shared else MECHANISMS.index(mechanism))
        subset = dict(options.classes).get(mechanism) if options.classes else None
        bound = self.mechanisms[mechanism].classes if subset is None else len(subset)
        where = _groups(options, indices, grouped)
        if other_than is not None:
            allowed = np.arange(bound) if subset is None else np.sort(np.asarray(subset, np.int64))
            return _drawn_without(options.seed, where, slot, allowed, other_than, mechanism)
        drawn = _integers(options.seed, where, slot, bound)[:, 0]
        return drawn.astype(np.int64) if subset is None else np.asarray(subset, np.int64)[drawn]

    def noise_draw(self, options: DrawOptions, mechanism: str) -> NoiseDraw:
        """How the noise of one mechanism is drawn, on whatever device."""
        mechanism = self.mechanisms[mechanism].follows or mechanism
        held = mechanism == "shape" or options.shared_noise or options.hold == "all"
        slot = _NOISE + (0 if options.shared_noise else MECHANISMS.index(mechanism))
        spec = self.mechanisms[mechanism]
        return NoiseDraw(spec.distribution, slot, spec.noise_size, options.per_noise if held else 1)

    def noise(self, options: DrawOptions, mechanism: str, indices: np.ndarray) -> np.ndarray:
        """Noise of one mechanism before truncation, float32 (n, z)."""
        drawn: np.ndarray = self.noise_draw(options, mechanism)(options.seed, indices)
        return drawn

    def rolls(self, options: DrawOptions, indices: np.ndarray) -> np.ndarray:
        """Rolls of foreground and background, int32 (n, 2, 2); zero for a mechanism without the flag."""
        rolls = np.zeros((len(indices), 2, 2), np.int32)
        held = options.shared_noise or options.hold == "all"
        for column, mechanism in enumerate(("texture", "background")):
            if self.mechanisms[mechanism].roll:
                slot = _ROLL + MECHANISMS.index(mechanism)
                rolls[:, column] = _integers(
                    options.seed, _groups(options, indices, held), slot, self.resolution, 2
                )
        return rolls

    def places(self, options: DrawOptions, place: PlaceDraws, indices: np.ndarray) -> np.ndarray:
        """Places of the objects, float32 (n, 4): rows of (dy, dx, scale, flip)."""
        held = options.shared_noise or options.hold == "all"
        grouped = _groups(options, indices, held)
        places = np.empty((len(indices), 4), np.float32)
        for low in range(0, len(indices), _DRAWN_AT_ONCE // 4):
            part = slice(low, low + _DRAWN_AT_ONCE // 4)
            words = ops.philox(options.seed, grouped[part], _PLACE, 1).astype(np.uint64)
            for column, (first, last) in enumerate((place.rows, place.columns)):
                picks = (words[:, column] * np.uint64(last - first + 1)) >> np.uint64(32)
                places[part, column] = first + picks.astype(np.int64)
            least, greatest = place.scale
            places[part, 2] = least + (greatest - least) * (words[:, 2] / 2.0**32)
            places[part, 3] = words[:, 3] < place.flip
        return places

    def pool_picks(self, seed: int, sizes: tuple[int, int, int], indices: np.ndarray) -> np.ndarray:
        """Which pool entries each sample is composed of, int32 (n, 3)."""
        picks = _integers(seed, indices, _POOL, sizes, 3)
        for name, leader in self.following.items():
            picks[:, MECHANISMS.index(name)] = picks[:, MECHANISMS.index(leader)]
        return picks


def _integers(
    seed: int, indices: np.ndarray, slot: int, bound: int | tuple[int, ...], size: int = 1
) -> np.ndarray:
    """`ops.integers` in steps."""
    if len(indices) * size <= _DRAWN_AT_ONCE:
        drawn: np.ndarray = ops.integers(seed, indices, slot, bound, size)
        return drawn
    return _in_steps(
        lambda part, out: ops.integers(seed, part, slot, bound, size, out=out), indices, size, np.int32
    )


def _drawn_without(
    seed: int, indices: np.ndarray, slot: int, allowed: np.ndarray, without: np.ndarray, mechanism: str
) -> np.ndarray:
    """One of the `allowed` classes for each sample, in rising order, that is not its `without`: one draw, as ever."""
    first = np.searchsorted(allowed, without, side="left")
    left_out = np.searchsorted(allowed, without, side="right") - first
    drawn = np.empty(len(indices), np.int64)
    for count in np.unique(left_out):
        those = left_out == count
        if count == len(allowed):
            raise ValueError(
                f"sample: distinct is on, but class {allowed[0]} is the only one for {mechanism}, expected one that "
                "texture and background do not share. Give more classes."
            )
        picks = _integers(seed, indices[those], slot, int(len(allowed) - count))[:, 0].astype(np.int64)
        drawn[those] = allowed[picks + np.where(picks >= first[those], count, 0)]
    return drawn


def _in_steps(
    draw: Callable[[np.ndarray, np.ndarray], object],
    indices: np.ndarray,
    size: int,
    dtype: type[np.generic] = np.float32,
) -> np.ndarray:
    """`draw(indices, out)`, (n, size), in calls that are short each."""
    step = max(1, _DRAWN_AT_ONCE // size)
    drawn = np.empty((len(indices), size), dtype)
    for low in range(0, len(indices), step):
        draw(indices[low : low + step], drawn[low : low + step])
    return drawn


def _groups(options: DrawOptions, indices: np.ndarray, held: bool) -> np.ndarray:
    return indices // options.per_noise if held and options.per_noise > 1 else indices


def patch_picks(seed: int, indices: np.ndarray, *, top: int = 100, grid: int = 6) -> np.ndarray:
    """Which of the `top` ranked windows make each sample's patch grid (App. C.2), with replacement.

    Returns:
      (n, grid * grid) int32 in 0..top-1, for `ops.patch_grid`; a function of (seed, index) alone.
    """
    picks: np.ndarray = ops.integers(seed, indices, _PATCH + MECHANISMS.index("texture"), top, grid * grid)
    return picks


def donor_picks(seed: int, indices: np.ndarray, mechanism: str, bound: int) -> np.ndarray:
    """Which of `bound` photos gives each sample's texture or background, int64 (n,) in 0..bound-1."""
    picks: np.ndarray = ops.integers(seed, indices, _DONOR + MECHANISMS.index(mechanism), bound)
    return picks[:, 0].astype(np.int64)


def resolve_seed(seed: int | None) -> int:
    """The seed itself, checked, or a new one for None."""
    return int.from_bytes(os.urandom(8), "little") >> 1 if seed is None else check_seed(seed)


def check_seed(seed: object) -> int:
    """A seed.

    Raises:
      TypeError, ValueError: it is not an integer from 0 to 2**64 - 1.
    """
    if not is_int(seed):
        raise TypeError(f"sample: seed is {seed!r}, expected an int or None.")
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"sample: seed is {seed}, expected 0..2**64 - 1.")
    return int(seed)


def resolve_indices(n: int | None, start: int, indices: object) -> np.ndarray:
    """Stream indices as int64 (n,): `start` .. `start + n - 1`, or the given ones.

    Raises:
      TypeError, ValueError: n or start is negative or not an integer, or n is not the number of the indices.
    """
    if indices is not None:
        array = host_array("sample", "indices", indices)
        if n is not None and n != array.size:
            raise ValueError(f"sample: n is {n} beside {array.size} indices, expected one of the two.")
        if array.ndim != 1 or (array.size and array.dtype.kind != "i"):
            raise TypeError(
                f"sample: indices are {array.dtype} {array.shape}, expected one dimension of int64."
            )
        return array.astype(np.int64)
    count, first = check_span(n, start)
    if count <= _DRAWN_AT_ONCE:
        return np.arange(first, first + count, dtype=np.int64)
    numbers = np.empty(count, np.int64)
    for low in range(0, count, _DRAWN_AT_ONCE):
        high = min(low + _DRAWN_AT_ONCE, count)
        numbers[low:high] = np.arange(first + low, first + high, dtype=np.int64)
    return numbers


def check_span(n: object, start: object) -> tuple[int, int]:
    """The count and the first index of consecutive samples.

    Raises:
      TypeError, ValueError: one is not an integer, or negative, or the last index is beyond int64.
    """
    count, first = check_index("n", n), check_index("start", start)
    if first + count > _MAX_INDEX:
        raise ValueError(f"sample: start + n is {first + count}, expected at most 2**63 - 1.")
    return count, first


def check_index(name: str, value: object) -> int:
    """A count or a stream index.

    Raises:
      TypeError, ValueError: it is not an integer, or negative or beyond int64.
    """
    if not is_int(value):
        raise TypeError(f"sample: {name} is {value!r}, expected an int.")
    if not 0 <= value <= _MAX_INDEX:
        raise ValueError(f"sample: {name} is {value}, expected 0 or more, and at most 2**63 - 1.")
    return int(value)
