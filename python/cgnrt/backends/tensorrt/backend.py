"""The TensorRT backend: which engine to run, from the plan, from the local cache, or built now."""

from __future__ import annotations

import importlib.util
from typing import Any

from cgnrt import cuda
from cgnrt._support.forking import cached_property
from cgnrt.backends.base import PRECISIONS, Device, Setup
from cgnrt.backends.tensorrt import library as packages
from cgnrt.backends.tensorrt.build import bar, build_engine
from cgnrt.backends.tensorrt.cache import CacheKey, read_entry, timing_cache, write_entry
from cgnrt.backends.tensorrt.engine import TensorRtEngine
from cgnrt.backends.tensorrt.library import Library, log
from cgnrt.backends.tensorrt.ready import UnfitError, find_ready
from cgnrt.backends.tensorrt.target import Batches, Target, graph_digest, usual_batches
from cgnrt.backends.typed import planned_fp32_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Network, Plan

_BF16_CAPABILITY = (8, 0)
_REBUILD = "Pass rebuild=True (--rebuild) to build one for this card from its ONNX"


class TensorRtCandidate:
    """A mechanism whose engine is in the plan, in the local cache, or to be built.

    Loading takes the first of: the plan's own engine, if it is trusted and for exactly this library version and card;
    the local cache; one that is built now, which takes minutes, with a progress bar on stderr, and kept in the cache.
    A trusted plan with engines of which none fits is refused, as the minutes would come unexpected then, unless
    `options.rebuild` is on.

    Raises:
      BackendError: the plan's engines do not fit.
      ValueError: `options.batches` is not one to three sizes in ascending order.
    """

    def __init__(self, network: Network, setup: Setup) -> None:
        self._network = network
        self._setup = setup
        self._library = packages.load()
        self._target = Target.of(self._library, setup.device.index)
        options = setup.options
        self._asked = None if options.batches is None else Batches.of(options.batches)
        self._ready: memoryview | None = None
        self._reason: str | None = None
        if setup.plan is not None and options.trust_engines:
            self._ready, reason = _ready(setup.plan, network, setup.precision, self._target, self._asked)
            self._reason = None if options.rebuild or reason is None else f"{reason}. {_REBUILD}"
        if self._reason is not None and not self._key.path.exists():
            raise BackendError(self._reason)

    def load(self, threads: int | None = None, stream: Any = None) -> TensorRtEngine:
        data: bytes | memoryview | None = self._ready
        if data is None:
            data = read_entry(self._key)
        if data is None and self._reason is not None:  # an entry that is damaged, or gone since
            raise BackendError(f"load mechanism '{self._network.name}': {self._reason}.")
        if data is None:
            data = _build(self._network, self._key, self._library, self._setup.device)
        return TensorRtEngine(self._network, data, self._library, self._setup.device)

    @cached_property
    def _key(self) -> CacheKey:
        """What the engine's place in the cache depends on; to compute it reads all weights."""
        network, plan, precision = self._network, self._setup.plan, self._setup.precision
        kept = () if plan is None else planned_fp32_layers(plan.manifest, network.name, precision)
        height, width = (int(size) for size in network.spec.outputs[0].shape[-2:])
        wanted = self._asked or usual_batches(height, width)
        return CacheKey(network.name, graph_digest(network), precision, wanted, self._target, kept)


class TensorRtBackend:
    def version(self) -> str:
        return packages.load().version

    def refusal(self, device: Device, precision: str) -> str | None:
        if precision not in PRECISIONS:
            return f"it has no {precision}"
        missing = cuda.refusal(device.index)
        if missing is not None:
            return missing
        if (cuda.info() or {}).get("emulated"):
            return "the CUDA device is emulated"
        if precision != "fp32" and importlib.util.find_spec("onnx") is None:
            return f"package 'onnx' is not installed, which {precision} needs. Run: pip install onnx"
        try:
            library = packages.load()
        except BackendError as error:
            return str(error)
        target = Target.of(library, device.index)
        if not library.supports(target.architecture):
            return f"{library.name} {library.version} makes no engines for {target.device} ({target.architecture})"
        capability = tuple(cuda.module().device(device.index)["compute_capability"])
        if precision == "bf16" and capability < _BF16_CAPABILITY:
            return f"{target.device} ({target.architecture}) has no bf16"
        return None

    def examine(self, network: Network, setup: Setup) -> TensorRtCandidate:
        return TensorRtCandidate(network, setup)


def _ready(
    plan: Plan, network: Network, precision: str, target: Target, asked: Batches | None
) -> tuple[memoryview | None, str | None]:
    """The plan's own engine; or why none of those that it has fits, which is nothing where it has none."""
    try:
        ready = find_ready(plan, [network], precision, target, asked)
    except UnfitError as error:
        has_some = any(name.startswith("engines/") for name in plan.members)
        return None, f"the plan has {error}" if has_some else None
    return plan.member(ready.member(network.name)), None


def _build(network: Network, key: CacheKey, library: Library, device: Device) -> bytes:
    log.info("building an engine of mechanism '%s' for %s", network.name, key.target)
    with cuda.on_device(device.index), bar() as progress:
        data = build_engine(
            network,
            key.precision,
            key.batches,
            library,
            key.target.architecture,
            fp32_layers=key.fp32_layers,
            timing_cache=timing_cache(key.target),
            progress=progress,
        )
    write_entry(key, data)
    return data
