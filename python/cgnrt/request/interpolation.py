"""Paths between two (u, y) pairs of each mechanism (App. D.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt._support.values import is_int
from cgnrt.request.labels import list_labels
from cgnrt.request.options import SampleOptions
from cgnrt.request.resolver import ClassNames, Request, Resolver
from cgnrt.sampling import MECHANISMS, Labels, check_index

_PLACE = "place"  # where the object is, which may change beside the mechanisms


@dataclass(frozen=True)
class Interpolation:
    """What `Generator.interpolate` takes; its docstring says what each field means, and has the defaults.

    Raises:
      TypeError, ValueError: the message names the field, what it is and what is expected.
    """

    frames: int
    mechanisms: str | Sequence[str]
    labels: Mapping[str, Any]
    seed: int | None
    start: int
    end: int
    noise: Any
    truncation: float | None
    place: Any

    def __post_init__(self) -> None:
        frames, mechanisms = self.frames, self.mechanisms
        if not is_int(frames) or frames < 2:
            raise ValueError(f"interpolate: frames is {frames!r}, expected an int of at least 2.")
        if not self.moving or any(name not in (*MECHANISMS, _PLACE) for name in self.moving):
            raise ValueError(
                f"interpolate: mechanisms is {mechanisms!r}, expected 'all' or some of {', '.join(MECHANISMS)}."
            )
        if _PLACE in self.moving and mechanisms != "all" and self.place is None:
            raise ValueError(
                f"interpolate: mechanisms is {mechanisms!r} without a place, expected place= beside it."
            )
        check_index("start", self.start)
        check_index("end", self.end)

    @property
    def moving(self) -> tuple[str, ...]:
        """The mechanisms that change, and "place" where the object moves."""
        if isinstance(self.mechanisms, str):
            return (*MECHANISMS, _PLACE) if self.mechanisms == "all" else (self.mechanisms,)
        return tuple(self.mechanisms) if isinstance(self.mechanisms, Sequence) else ()

    def request(
        self, resolver: Resolver, tables: Mapping[str, np.ndarray]
    ) -> tuple[Request, dict[str, np.ndarray]]:
        """A request with the noise of every frame set, and the class embeddings (frames, e) of each mechanism.

        `tables` are the class embeddings (classes, e) of each mechanism.
        """
        frames = int(self.frames)
        indices = np.asarray([self.start, self.end], np.int64)
        drawn = resolver.request(SampleOptions(seed=self.seed, place=self.place), indices, self.noise)
        ends = drawn.noise()
        steps = np.linspace(0, 1, frames, dtype=np.float32)[:, None]
        nearer_first = steps[:, 0] < 0.5
        labels, noises, embeddings = [], [], {}
        for column, name in enumerate(MECHANISMS):
            given = self.labels[name]
            if (leader := resolver.sampler.mechanisms[name].follows) is not None:
                if given is not None and given != self.labels[leader]:
                    raise ValueError(
                        f"interpolate: {name} is {given!r}, expected that of {leader}, which {name} follows in this "
                        "plan. Leave it out."
                    )
                given = self.labels[leader]
            pair = _label_pair(resolver.names, name, given, drawn.labels[column])
            first, last = (0, 1) if name in self.moving else (0, 0)
            if resolver.sampler.mechanisms[name].distribution == "entry":
                if name in self.moving:
                    raise ValueError(
                        f"interpolate: mechanisms is {self.mechanisms!r}, expected networks: {name} is a bank of "
                        "pictures, between which there is nothing. Leave it out."
                    )
                noises.append(np.repeat(ends[column][:1], frames, axis=0))
                labels.append(np.full(frames, pair[0], np.int64))
                continue
            normal = resolver.sampler.mechanisms[name].distribution == "normal"
            noises.append((slerp if normal else lerp)(ends[column][first], ends[column][last], steps))
            embeddings[name] = lerp(tables[name][pair[first]], tables[name][pair[last]], steps)
            labels.append(np.where(nearer_first, pair[first], pair[last]).astype(np.int64))
        request = drawn._replace(
            indices=np.where(nearer_first, indices[0], indices[1]),
            labels=Labels(*labels),
            given=(*noises, np.repeat(ends.rolls[:1], frames, axis=0)),
            truncation=resolver.truncation(self.truncation, frames),
            place=None if drawn.place is None else self._places(drawn.place, steps),
        )
        return request, embeddings

    def _places(self, ends: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The place of each frame, (n, 4), of those at the ends: on a straight line, mirrored as at the nearer end."""
        first, last = ends[0], ends[1 if _PLACE in self.moving else 0]
        places = lerp(first, last, steps)
        places[:, 3] = np.where(steps[:, 0] < 0.5, first[3], last[3])
        return places


def lerp(a: np.ndarray, b: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The straight line from a to b, (z,) each, at steps (n, 1) in [0, 1]: (n, z) float32."""
    return np.ascontiguousarray(a * (1 - steps) + b * steps, np.float32)


def slerp(a: np.ndarray, b: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The great circle from a to b: a straight line would leave the shell that Gaussian noise lives on."""
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not min(norms):
        return lerp(a, b, steps)
    angle = np.arccos(np.clip(np.dot(a / norms[0], b / norms[1]), -1, 1))
    if np.sin(angle) < 1e-6:
        return lerp(a, b, steps)
    path = (np.sin((1 - steps) * angle) * a + np.sin(steps * angle) * b) / np.sin(angle)
    return np.ascontiguousarray(path, np.float32)


def _label_pair(names: ClassNames, mechanism: str, given: Any, drawn: np.ndarray) -> tuple[int, int]:
    if given is None:
        return int(drawn[0]), int(drawn[1])
    if isinstance(given, int | str | np.integer):
        label = names.index(mechanism, mechanism, given)
        return label, label
    labels = list_labels(mechanism, given)
    if len(labels) != 2:
        raise ValueError(f"interpolate: {mechanism} has {len(labels)} labels, expected (from, to) or one.")
    first, last = (names.index(f"{mechanism}[{i}]", mechanism, label) for i, label in enumerate(labels))
    return first, last
