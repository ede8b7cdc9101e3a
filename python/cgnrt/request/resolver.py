"""`Resolver`: checks options against one plan, and makes requests of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cgnrt._support.values import host_array
from cgnrt.plan import Plan, Truncation
from cgnrt.request import Request
from cgnrt.request.labels import ClassNames, Label
from cgnrt.request.noise import check_noise, check_truncation, noise_parts
from cgnrt.request.options import SampleOptions, beside_pool
from cgnrt.sampling import (
    MECHANISMS,
    DrawOptions,
    Labels,
    MechanismDraws,
    Sampler,
    check_index,
    resolve_indices,
    resolve_seed,
)


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
                len(m.classes), m.spec.noise.size, m.spec.noise.distribution, bool(m.spec.roll)
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
        if options.pool is None:
            self.truncation(options.truncation, n)
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
        sizes = {mechanism.classes for mechanism in self.sampler.mechanisms.values()}
        if options.labels == "shared" and (options.classes or len(sizes) > 1):
            raise ValueError(
                "sample: labels is 'shared', expected the same classes for all mechanisms and no subsets."
            )
        return DrawOptions(
            seed=resolve_seed(options.seed),
            labels=options.labels,
            do=self.names.intervention(options.do),
            classes=self.names.subsets(options.classes),
            shared_noise=shared,
            per_noise=options.per_noise,
            hold=options.hold,
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
        if indices is not None:
            lengths["indices"] = len(resolve_indices(None, 0, indices))
        if n is not None:
            lengths["n"] = check_index("n", n)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"sample: lengths are {lengths}, expected one for all.")
        count = None if indices is not None else next(iter(lengths.values()), 1)
        where = resolve_indices(count, start, indices)
        return self._request(options, self.draws(replace(options, do=single)), where, noise, several)

    def truncation(self, value: Any, n: int) -> np.ndarray | None:
        """The truncation of n samples, float32 (n, 1); None for a plan without truncation."""
        return check_truncation(self._truncation, value, n)

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
        drawn = (
            labels[name] if name in labels else self.sampler.labels(draws, name, indices)
            for name in MECHANISMS
        )
        n = len(indices)
        return Request(
            self.sampler,
            indices,
            draws,
            Labels(*drawn),
            check_noise(self.sampler, noise, n),
            self.truncation(options.truncation, n),
        )
