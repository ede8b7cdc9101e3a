"""From options to a checked request: what options, and class names in them, mean for one plan."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from cgnrt._support.values import host_array
from cgnrt.plan import Plan, Truncation
from cgnrt.request.labels import LONGEST_COMPOSED, LONGEST_SPELT, Label, close_names, list_labels
from cgnrt.request.noise import check_noise, check_truncation, noise_parts
from cgnrt.request.options import SampleOptions, beside_pool
from cgnrt.request.place import Place, check_places, unmoved
from cgnrt.sampling import (
    MECHANISMS,
    DrawOptions,
    Labels,
    MechanismDraws,
    Noise,
    Sampler,
    check_index,
    resolve_indices,
    resolve_seed,
)


class Request(NamedTuple):
    """A checked request for n images: labels are set, noise is drawn chunk by chunk.

    Attributes:
      indices: (n,) int64 stream indices.
      options: what the draws depend on.
      labels: int64 (n,) each.
      given: the caller's noise; None entries are drawn.
      truncation: (n, 1) float32 factor of the noise, None for plans without one.
      place: (n, 4) float32, where the objects are put; None: where they are.
    """

    sampler: Sampler
    indices: np.ndarray
    options: DrawOptions
    labels: Labels
    given: tuple[np.ndarray | None, ...]
    truncation: np.ndarray | None
    place: np.ndarray | None = None

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
        return self._replace(
            indices=self.indices[part],
            labels=Labels(*(column[part] for column in self.labels)),
            given=tuple(None if array is None else array[part] for array in self.given),
            truncation=None if self.truncation is None else self.truncation[part],
            place=None if self.place is None else self.place[part],
        )


class ClassNames:
    """The plan's class names: index <-> name, with close matches for a misspelt one."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = {mechanism: tuple(names[mechanism]) for mechanism in MECHANISMS}
        self._index = {m: {name: i for i, name in enumerate(found)} for m, found in self.names.items()}

    def index(self, field: str, mechanism: str, label: Label | np.integer[Any]) -> int:
        """The class index of one label; an int is always an index, a str always a name.

        Raises:
          TypeError, ValueError: it is neither, out of range, or unknown.
        """
        names = self.names[mechanism]
        if isinstance(label, str):
            # The form that plans have; of a long text it would take time that grows with the square of its length.
            composed = unicodedata.normalize("NFC", label) if len(label) < LONGEST_COMPOSED else label
            index = self._index[mechanism].get(composed)
            if index is None:
                close = close_names(label, names)
                hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
                shown = repr(label) if len(label) <= LONGEST_SPELT else f"{label[:LONGEST_SPELT]!r} ..."
                raise ValueError(
                    f"sample: {field} is {shown}, expected one of {len(names)} class names.{hint} "
                    "See: cgnrt inspect --classes"
                )
            return index
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise TypeError(f"sample: {field} is {label!r}, expected a class index (int) or name (str).")
        if not 0 <= label < len(names):
            raise ValueError(f"sample: {field} is {label}, expected 0..{len(names) - 1}.")
        return int(label)

    def indices(self, mechanism: str, labels: Any) -> np.ndarray:
        """Class indices of a list, array or tensor of labels, int64 (n,).

        Raises:
          TypeError, ValueError: it is something else, or one of the labels is not as for `index`.
        """
        given = list_labels(mechanism, labels)
        found = [self.index(f"{mechanism}[{i}]", mechanism, label) for i, label in enumerate(given)]
        return np.asarray(found, np.int64)

    def same(self, mechanism: str, other: str, labels: np.ndarray) -> np.ndarray:
        """The classes of `mechanism` that are called as the classes `labels` of `other`, int64 (n,); -1 without one."""
        found = [self._index[mechanism].get(name, -1) for name in self.names[other]]
        classes: np.ndarray = np.asarray(found, np.int64)[labels]
        return classes

    def intervention(self, do: Mapping[str, Any] | None) -> tuple[tuple[str, int], ...]:
        """`do` as (mechanism, class index) pairs, in the order of `MECHANISMS`."""
        do = do or {}
        return tuple((m, self.index(f"do[{m!r}]", m, do[m])) for m in MECHANISMS if m in do)

    def subsets(
        self, classes: Mapping[str, Sequence[Label]] | None
    ) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """`classes` as (mechanism, class indices) pairs, in the order of `MECHANISMS`."""
        found = []
        for mechanism, subset in sorted((classes or {}).items(), key=lambda item: MECHANISMS.index(item[0])):
            field = f"classes[{mechanism!r}]"
            labels = list_labels(field, subset)
            if not labels:
                raise ValueError(f"sample: {field} is {subset!r}, expected a sequence of classes.")
            indices = (self.index(f"{field}[{i}]", mechanism, label) for i, label in enumerate(labels))
            found.append((mechanism, tuple(indices)))
        return tuple(found)


class Resolver:
    """What options mean for one plan. It renders nothing and opens no engine.

    Args:
      truncation: the plan's bounds, None for a plan without truncation.
      shared_noise: whether mechanisms share their noise where the options leave it open.
    """

    def __init__(
        self, sampler: Sampler, names: ClassNames, truncation: Truncation | None, shared_noise: bool
    ) -> None:
        self.sampler = sampler
        self.names = names
        self._truncation = truncation
        self._shared_noise = shared_noise

    @classmethod
    def of_plan(cls, plan: Plan, shared_noise: bool | None) -> Resolver:
        """The one of an open plan; `shared_noise` None is the plan's noise mode."""
        manifest, mechanisms = plan.manifest, plan.mechanisms
        draws = {
            name: MechanismDraws(
                len(m.classes),
                m.spec.noise.size,
                m.spec.noise.distribution,
                bool(m.spec.roll),
                plan.following.get(name),
            )
            for name, m in mechanisms.items()
        }
        sampler = Sampler(draws, (manifest.resolution[0], manifest.resolution[1]))
        shared = (manifest.noise_mode == "shared") if shared_noise is None else bool(shared_noise)
        if shared and not sampler.can_share_noise:
            raise ValueError(
                f"load {plan.path!r}: shared_noise is on, expected one noise size and distribution for all "
                "mechanisms."
            )
        names = ClassNames({name: m.classes for name, m in mechanisms.items()})
        return cls(sampler, names, manifest.truncation, shared)

    def check(self, options: SampleOptions, n: int, *, noise: Any = None) -> SampleOptions:
        """Check options for n samples against the plan; the same with what was left open filled in.

        `noise` is only checked for whether it may be there.
        """
        draws = self.draws(options)
        if options.place is not None and not isinstance(options.place, Place):
            check_places(options.place, n)
        if options.pool is None:
            # One number for all is checked without an array of n.
            self.truncation(options.truncation, n if np.ndim(options.truncation) else 0)
        else:
            self.pool_truncation(options)
            if noise is not None:
                raise beside_pool("noise")
        truncation = options.truncation
        if truncation is None and self._truncation is not None:
            truncation = self._truncation.default
        return replace(
            options,
            seed=draws.seed,
            do=dict(draws.do),
            classes=dict(draws.classes),
            shared_noise=draws.shared_noise,
            truncation=truncation,
        )

    def draws(self, options: SampleOptions) -> DrawOptions:
        """What the draws depend on; a seed is drawn where the options have none."""
        shared = self._shared_noise if options.shared_noise is None else bool(options.shared_noise)
        if shared and not self.sampler.can_share_noise:
            raise ValueError(
                "sample: shared_noise is on, expected one noise size and distribution for all mechanisms."
            )
        if options.labels == "shared" and (options.classes or not self.sampler.can_share_labels):
            raise ValueError(
                "sample: labels is 'shared', expected the same classes for all mechanisms and no subsets."
            )
        self._check_following(options)
        return DrawOptions(
            seed=resolve_seed(options.seed),
            labels=options.labels,
            do=self.names.intervention(options.do),
            classes=self.names.subsets(options.classes),
            shared_noise=shared,
            per_noise=options.per_noise,
            hold=options.hold,
            distinct=bool(options.distinct),
        )

    def _check_following(self, options: SampleOptions) -> None:
        """Refuse what would draw another entry or label of a mechanism than of the one that it follows."""
        for name, leader in self.sampler.following.items():
            for option in ("do", "classes"):
                if name in (getattr(options, option) or {}):
                    raise ValueError(
                        f"sample: {option}[{name!r}] must not be set: {name} follows {leader} in this plan "
                        f"and has its label. Set {option}[{leader!r}], or leave it out."
                    )
            if options.pool is not None:
                sizes = dict(zip(MECHANISMS, options.pool_sizes, strict=True))
                if sizes[name] != sizes[leader]:
                    raise ValueError(
                        f"sample: pool is {options.pool}, expected one size for {leader} and {name}: {name} follows "
                        f"{leader} in this plan."
                    )

    def request(self, options: SampleOptions, indices: np.ndarray, noise: Any = None) -> Request:
        """The request for the samples at `indices`, int64 (n,), without a pool."""
        return self._request(options, self.draws(options), indices, noise, {})

    def call(
        self,
        options: SampleOptions,
        given: Mapping[str, Any],
        *,
        n: int | None,
        start: int,
        indices: Any,
        noise: Any,
    ) -> Request:
        """The request of a call with labels: `given` maps mechanisms to one label, one for each sample, or None."""
        single: dict[str, Label] = {
            m: self.names.index(m, m, v) for m, v in given.items() if isinstance(v, int | str | np.integer)
        }
        several = {m: self.names.indices(m, v) for m, v in given.items() if v is not None and m not in single}
        lengths = {m: len(v) for m, v in several.items()}
        if noise is not None:
            parts = zip(MECHANISMS, noise_parts(noise), strict=False)
            lengths |= {
                f"noise of {m}": len(np.atleast_1d(host_array("sample", f"noise of {m}", u)))
                for m, u in parts
                if u is not None
            }
        if options.place is not None and not isinstance(options.place, Place):
            lengths["place"] = len(np.atleast_1d(host_array("sample", "place", options.place)))
        if indices is not None:
            lengths["indices"] = len(resolve_indices(None, 0, indices))
        if n is not None:
            lengths["n"] = check_index("n", n)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"sample: lengths are {lengths}, expected one for all.")
        for name, leader in self.sampler.following.items():
            self._leave_out(name, leader, single, several)
        count = None if indices is not None else next(iter(lengths.values()), 1)
        where = resolve_indices(count, start, indices)
        return self._request(options, self.draws(replace(options, do=single)), where, noise, several)

    def _leave_out(
        self, name: str, leader: str, single: dict[str, Label], several: dict[str, np.ndarray]
    ) -> None:
        """Leave out the labels of a mechanism that follows `leader`, once they are found to be the leader's."""
        for labels in (single, several):
            if name in labels:
                mine: Any = labels.pop(name)
                its: Any = single.get(leader, several.get(leader))
                if its is None or np.not_equal(mine, its).any():
                    raise ValueError(
                        f"sample: {name} is given, expected the labels of {leader}, which it follows in this plan. "
                        "Leave it out."
                    )

    def truncation(self, value: Any, n: int) -> np.ndarray | None:
        """The truncation of n samples, float32 (n, 1); None for a plan without truncation."""
        return check_truncation(self._truncation, value, n)

    def places(self, options: SampleOptions, draws: DrawOptions, indices: np.ndarray) -> np.ndarray | None:
        """Where the objects of samples are put, float32 (n, 4); None: where they are."""
        if options.place is None:
            return None
        if isinstance(options.place, Place):
            return self.sampler.places(draws, options.place.draws(self.sampler.resolution), indices)
        return check_places(options.place, len(indices))

    def pool_truncation(self, options: SampleOptions) -> float | None:
        """The one truncation of all entries of a pool."""
        factor = check_truncation(self._truncation, options.truncation, 1)
        return None if factor is None else float(factor[0, 0])

    def noise(self, noise: Any, n: int) -> tuple[np.ndarray | None, ...]:
        """A caller's noise for n samples, checked."""
        return check_noise(self.sampler, noise, n)

    def _request(
        self,
        options: SampleOptions,
        draws: DrawOptions,
        indices: np.ndarray,
        noise: Any,
        labels: Mapping[str, np.ndarray],
    ) -> Request:
        """`labels`: those of mechanisms that are not drawn."""
        n = len(indices)
        return Request(
            self.sampler,
            indices,
            draws,
            self._labels(draws, indices, labels),
            check_noise(self.sampler, noise, n),
            self.truncation(options.truncation, n),
            self.places(options, draws, indices),
        )

    def _labels(self, draws: DrawOptions, indices: np.ndarray, given: Mapping[str, np.ndarray]) -> Labels:
        """The labels of samples; `given` has those of mechanisms that are not drawn."""
        found = dict(given)
        fixed = {*given, *(name for name, _ in draws.do)}
        following = self.sampler.following
        order = [name for name in MECHANISMS if name not in following]
        if "background" in fixed:
            # A label that is fixed stays: where it is the background's, the texture's is drawn beside it.
            order.append(order.pop(order.index(following.get("texture", "texture"))))
        for name in order:
            if name in found:
                continue
            avoided = None
            if draws.distinct and name == order[-1] and name not in fixed:
                avoided = self.names.same(name, order[-2], found[order[-2]])
            found[name] = self.sampler.labels(draws, name, indices, avoided)
        found |= {name: found[leader] for name, leader in following.items()}
        if draws.distinct:
            equal = self.names.same("background", "texture", found["texture"]) == found["background"]
            if equal.any():
                at = int(equal.argmax())
                name = self.names.names["texture"][found["texture"][at]]
                raise ValueError(
                    f"sample: distinct is on, but texture and background of sample {indices[at]} are both {name!r}, "
                    "expected different classes. Give others, or leave distinct out."
                )
        return Labels(*(found[name] for name in MECHANISMS))


def merge_requests(requests: Sequence[Request]) -> Request:
    """One request for the samples of several, whose noise is drawn here: of one plan, whatever their seeds."""
    first = requests[0]
    noise = [request.noise() for request in requests]
    truncation = None
    if first.truncation is not None:
        truncation = np.concatenate([request.truncation for request in requests])
    place = None
    if any(request.place is not None for request in requests):
        place = np.concatenate(
            [unmoved(len(each.indices)) if each.place is None else each.place for each in requests]
        )
    return first._replace(
        place=place,
        indices=np.concatenate([request.indices for request in requests]),
        labels=Labels(*map(np.concatenate, zip(*(request.labels for request in requests), strict=True))),
        given=tuple(map(np.concatenate, zip(*noise, strict=True))),
        truncation=truncation,
    )
