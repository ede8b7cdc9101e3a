"""The TensorRT backend: which engine to run, from the plan, from the local cache, or built now."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from cgnrt import cuda
from cgnrt.backends.base import PRECISIONS, Device, EngineOptions
from cgnrt.backends.tensorrt import library as packages
from cgnrt.backends.tensorrt.batches import Batches, usual_batches
from cgnrt.backends.tensorrt.build import build_engine
from cgnrt.backends.tensorrt.cache import CacheKey, read_entry, timing_cache, write_entry
from cgnrt.backends.tensorrt.digest import graph_digest
from cgnrt.backends.tensorrt.engine import TensorRtEngine, Workspace
from cgnrt.backends.tensorrt.library import Library, log
from cgnrt.backends.tensorrt.progress import bar
from cgnrt.backends.tensorrt.ready import UnfitError, find_ready
from cgnrt.backends.tensorrt.target import Target
from cgnrt.backends.typed_graph import planned_fp32_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism, Plan

_BF16_CAPABILITY = (8, 0)
_REBUILD = "Pass rebuild=True (--rebuild) to build one for this card from its ONNX"


class TensorRtBackend:
    name = "tensorrt"
    extra = "tensorrt"

    def installed(self) -> bool:
        return packages.installed() is not None

    def version(self) -> str:
        return packages.load().version

    def refusal(self, device: Device, precision: str, mechanisms: Sequence[Mechanism] = ()) -> str | None:
        if device.kind != "cuda":
            return f"it runs on CUDA devices, not on {device}"
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

    def plan_refusal(self, plan: Plan, device: Device, precision: str, options: EngineOptions) -> str | None:
        if not options.trust_engines or options.rebuild:
            return None
        target = Target.of(packages.load(), device.index)
        asked = None if options.batches is None else Batches.of(options.batches)
        for mechanism in plan.mechanisms.values():
            _, reason = _ready(plan, mechanism, precision, target, asked)
            if reason is not None and not _key(plan, mechanism, precision, target, asked).path.exists():
                return f"{reason}. {_REBUILD}"
        return None

    def load_on(
        self,
        stream: Any,
        plan: Plan,
        mechanism: Mechanism,
        device: Device,
        precision: str,
        options: EngineOptions,
    ) -> TensorRtEngine:
        return self.load(
            mechanism,
            device,
            precision,
            None,
            plan=plan,
            trust_engines=options.trust_engines,
            rebuild=options.rebuild,
            batches=options.batches,
        )

    def load(
        self,
        mechanism: Mechanism,
        device: Device,
        precision: str,
        threads: int | None,
        *,
        plan: Plan | None = None,
        trust_engines: bool = False,
        rebuild: bool = False,
        batches: Sequence[int] | None = None,
        workspace: Workspace | None = None,
        graphs: int = 3,
    ) -> TensorRtEngine:
        """Load one mechanism's engine; the first time on a card it may have to be built, which takes minutes.

        Taken is the first of: the plan's own engine, if it is trusted and for exactly this library version and card;
        the local cache; one that is built now, with a progress bar on stderr, and kept in the cache. A trusted plan
        with engines of which none fits is refused, as the minutes come unexpected then, unless `rebuild` is on.

        Args:
          mechanism: of an open plan.
          device: a CUDA device that `refusal` had nothing against.
          precision: "fp32", "fp16" or "bf16".
          threads: ignored.
          plan: where the mechanism is from: for its engines, and for the layers that it keeps in float32.
          trust_engines: run the plan's engines, which are native code.
          rebuild: build where a trusted plan has engines, but none that fits.
          batches: one to three sizes to build for: smallest, usual, largest. None is whatever the plan's engines run,
            and `usual_batches` where one is built.
          workspace: for engines that run in turn on one stream; see `Workspace`.
          graphs: batch sizes to replay as CUDA graphs; see `TensorRtEngine`.
        Raises:
          BackendError: the plan's engines do not fit, or the library fails.
          ValueError: `batches` is not as above.
        """
        library = packages.load()
        target = Target.of(library, device.index)
        asked = None if batches is None else Batches.of(batches)
        data: bytes | memoryview | None = None
        reason = None
        if plan is not None and trust_engines:
            data, reason = _ready(plan, mechanism, precision, target, asked)
        if data is None:
            key = _key(plan, mechanism, precision, target, asked)
            data = read_entry(key)
            if data is None and reason is not None and not rebuild:
                raise BackendError(f"load mechanism '{mechanism.name}': {reason}. {_REBUILD}.")
            if data is None:
                data = _build(mechanism, key, library, device)
        return TensorRtEngine(mechanism, data, library, device, workspace, graphs)


def _ready(
    plan: Plan, mechanism: Mechanism, precision: str, target: Target, asked: Batches | None
) -> tuple[memoryview | None, str | None]:
    """The plan's own engine; or why none of those that it has fits, which is nothing where it has none."""
    try:
        ready = find_ready(plan, [mechanism], precision, target, asked)
    except UnfitError as error:
        has_some = any(name.startswith("engines/") for name in plan.members)
        return None, f"the plan has {error}" if has_some else None
    return plan.member(ready.member(mechanism.name)), None


def _key(
    plan: Plan | None, mechanism: Mechanism, precision: str, target: Target, asked: Batches | None
) -> CacheKey:
    kept = () if plan is None else planned_fp32_layers(plan.manifest, mechanism.name, precision)
    height, width = (int(size) for size in mechanism.spec.outputs[0].shape[-2:])
    wanted = asked or usual_batches(height, width)
    return CacheKey(mechanism.name, graph_digest(mechanism), precision, wanted, target, kept)


def _build(mechanism: Mechanism, key: CacheKey, library: Library, device: Device) -> bytes:
    log.info("building an engine of mechanism '%s' for %s", mechanism.name, key.target)
    with cuda.on_device(device.index), bar() as progress:
        data = build_engine(
            mechanism,
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
