"""`cgnrt inspect`: what is inside a plan, for people (`describe`) and for programs (`to_json`)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.terminal import say
from cgnrt.backends.tensorrt.ready import list_ready
from cgnrt.cli.arguments import Commands
from cgnrt.errors import PlanError
from cgnrt.plan import (
    Bank,
    CgnManifest,
    ExternalInitializer,
    Mechanism,
    Network,
    Plan,
    SaliencyManifest,
    SaliencyPlan,
    SaliencySpec,
    TensorSpec,
    Weights,
    external_initializers,
    open_any,
)

_CLASSES_SHOWN = 10
_PARITY_LINES = 24
_LINE_CHARS = 100


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("inspect", help="what is inside a plan")
    parser.add_argument("plan", type=Path, help="the plan file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--classes", action="store_true", help="print every class: index, name")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.classes and not arguments.json:
        with Plan.open(arguments.plan) as plan:
            say(list_classes(plan))
        return
    with open_any(arguments.plan) as found:
        say(json.dumps(to_json(found), indent=2) if arguments.json else describe(found))


def describe(plan: Plan | SaliencyPlan) -> str:
    """A few screens of text: the manifest, each network, the parity report in short, the members.

    Everything that comes from the file was checked to be free of control characters when it was opened.
    """
    manifest = plan.manifest
    height, width = manifest.resolution
    facts = [
        ("plan", plan.path),
        ("digest", plan.digest),
        ("kind", manifest.kind),
        ("family", manifest.family),
        ("resolution", f"{height} x {width} px (height x width)"),
        *(_draws(plan.manifest) if isinstance(plan, Plan) else _photos(plan.manifest.saliency)),
        ("precision", manifest.precision),
        ("exported by", manifest.exported_by),
        ("training data", manifest.training_data or "not said"),
        ("versions", _versions(manifest)),
        *(("source", _source(source)) for source in manifest.sources),
    ]
    lines = [f"{name:<14}{value}" for name, value in facts]
    for network in plan.mechanisms.values() if isinstance(plan, Plan) else [plan.network]:
        lines += ["", *_describe_network(network)]
    lines += ["", "parity", *(f"  {line}" for line in _parity_lines(manifest.parity))]
    if isinstance(plan, Plan) and (engines := _engines(plan)):
        lines += ["", "engines", *(f"  {line}" for line in engines)]
    names = ("manifest.json", *plan.members)
    sizes = [plan.member(name).nbytes for name in names]
    lines += ["", f"members ({len(names)}, {_bytes(sum(sizes))})"]
    lines += [f"  {_bytes(size):>10}  {name}" for name, size in zip(names, sizes, strict=True)]
    return "\n".join(lines)


def list_classes(plan: Plan) -> str:
    """Every class of every mechanism, a line each: mechanism, index and name, with tabs between."""
    return "\n".join(
        f"{mechanism.name}\t{index}\t{name}"
        for mechanism in plan.mechanisms.values()
        for index, name in enumerate(mechanism.classes)
    )


def to_json(plan: Plan | SaliencyPlan) -> dict[str, Any]:
    """The manifest as it is, with what the file adds: path, digest, size, and the weights of each graph."""
    networks = plan.networks.values() if isinstance(plan, Plan) else [plan.network]
    graphs = {
        network.name: [
            {
                "name": piece.name,
                "dtype": piece.dtype,
                "shape": list(piece.dims),
                "bytes": piece.length,
                "stored": _stored(piece, network.external),
            }
            for piece in external_initializers(network.model)
        ]
        for network in networks
    }
    names = ("manifest.json", *plan.members)
    return {
        "path": plan.path,
        "digest": plan.digest,
        "size": sum(plan.member(name).nbytes for name in names),
        "manifest": plan.manifest.to_dict(),
        "weights": graphs,
        "engines": [ready.to_json() for ready in list_ready(plan)] if isinstance(plan, Plan) else [],
    }


def _stored(piece: ExternalInitializer, weights: Weights | None) -> str:
    """The element type of an initializer in the file."""
    if weights is None or weights.half_from is None or piece.offset < weights.half_from:
        return piece.dtype
    return "float16"


def _draws(manifest: CgnManifest) -> list[tuple[str, str]]:
    truncation = manifest.truncation
    if truncation is None:
        return [("noise", manifest.noise_mode), ("truncation", "none")]
    bounds = f"{truncation.minimum:g} .. {truncation.maximum:g}, default {truncation.default:g}"
    return [("noise", manifest.noise_mode), ("truncation", bounds)]


def _photos(spec: SaliencySpec) -> list[tuple[str, str]]:
    divisor = "their maximum" if spec.divide_by == "maximum" else "their range"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return [
        ("photos", f"/ {divisor}, - {mean}, / {std}"),
        ("masks", "stretched to 0 .. 1" if spec.stretch else "as they come"),
    ]


def _versions(manifest: CgnManifest | SaliencyManifest) -> str:
    words = f"format {manifest.format_version}"
    return words if isinstance(manifest, SaliencyManifest) else f"{words}, stream {manifest.stream_version}"


def _describe_network(network: Network | Bank) -> list[str]:
    if isinstance(network, Bank):
        return _describe_bank(network)
    spec = network.spec
    graph, weights = network.graph.nbytes, _weights(network.external)
    lines = [
        f"{network.name}  (graph {_bytes(graph)}, weights {weights})",
        f"  {'takes':<12}{', '.join(_tensor(tensor) for tensor in spec.inputs)}",
        f"  {'gives':<12}{', '.join(_tensor(tensor) for tensor in spec.outputs)}",
    ]
    return lines + _describe_draws(network) if isinstance(network, Mechanism) else lines


def _describe_bank(bank: Bank) -> list[str]:
    spec = bank.spec
    sizes = np.diff(bank.starts)
    weights = "" if bank.weights is None else ", drawn by weights"
    stored = "uint8" if bank.is_raw else spec.store
    lines = [
        f"{bank.name}  (bank of {spec.count:,} pictures, {_bytes(bank.stored_bytes)})",
        f"  {'gives':<12}{', '.join(_tensor(tensor) for tensor in spec.outputs)}, stored as {stored}",
        f"  {'a class':<12}{sizes.min():,} .. {sizes.max():,} pictures{weights}",
        f"  {'classes':<12}{_classes(bank.classes)}",
    ]
    if spec.roll:
        lines.append(f"  {'roll':<12}at random on a torus")
    if spec.follows is not None:
        lines.append(f"  {'follows':<12}{spec.follows}: the same entry, and its label")
    for source in spec.sources:
        licence = "" if source.licence is None else f", licence: {source.licence}"
        lines.append(
            _cut(f"  {'from':<12}{source.name}: {source.count:,} (SHA-256 {source.sha256[:16]}...){licence}")
        )
    return lines


def _weights(weights: Weights | None) -> str:
    if weights is None or weights.half_from is None:
        return _bytes(0 if weights is None else weights.nbytes)
    return f"{_bytes(weights.stored_bytes)}, {_bytes(weights.nbytes)} once widened from half precision"


def _describe_draws(mechanism: Mechanism) -> list[str]:
    spec = mechanism.spec
    low, high = spec.range
    rows, columns = spec.embedding.shape
    return [
        f"  {'range':<12}{low:g} .. {high:g}{', rolled at random on a torus' if spec.roll else ''}",
        f"  {'noise':<12}{spec.noise.size} x {spec.noise.distribution}",
        f"  {'embedding':<12}{rows} x {columns}",
        f"  {'classes':<12}{_classes(mechanism.classes)}",
    ]


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} ({', '.join(map(str, spec.shape))}) {spec.dtype}"


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_CLASSES_SHOWN])
    rest = len(names) - _CLASSES_SHOWN
    return f"{len(names)}: {_cut(shown)}{f', and {rest} more' if rest > 0 else ''}"


def _source(source: Mapping[str, str]) -> str:
    others = [f"{key} {value}" for key, value in source.items() if key not in ("name", "sha256")]
    return _cut("; ".join([f"{source['name']} (SHA-256 {source['sha256'][:16]}...)", *others]))


def _parity_lines(parity: Mapping[str, Any]) -> list[str]:
    """The report's values, one line for each group of plain ones, whatever its form."""
    lines: list[str] = []
    for line in _flatten("", parity):
        if len(lines) == _PARITY_LINES:
            return [*lines, "... (the whole report: --json)"]
        lines.append(_cut(line))
    return lines or ["not measured"]


def _flatten(path: str, value: Any) -> Iterator[str]:
    """Lines `path: key value, key value`, and one for each of the exporter's measurements.

    Depth and number of values are bounded by the format.
    """
    if isinstance(value, Mapping) and {"precision", "measured", "max_abs_error", "psnr_db"} <= set(value):
        picture = path.removeprefix("mechanisms.").removesuffix(".measures")
        error, psnr = _plain(value["max_abs_error"]), _plain(value["psnr_db"])
        yield f"{picture}: {value['precision']} by {value['measured']}, max error {error}, PSNR {psnr} dB"
    elif isinstance(value, Mapping):
        plain = {key: item for key, item in value.items() if not isinstance(item, Mapping | list | tuple)}
        if plain:
            words = ", ".join(f"{key} {_plain(item)}" for key, item in plain.items())
            yield f"{path}: {words}" if path else words
        for key, item in value.items():
            if key not in plain:
                yield from _flatten(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            for item in value:
                yield from _flatten(path, item)
        elif value:
            yield f"{path}: {', '.join(map(_plain, value))}"
    else:
        yield f"{path}: {_plain(value)}"


def _engines(plan: Plan) -> list[str]:
    """A line for each set of ready engines."""
    try:
        found = list_ready(plan)
    except PlanError as error:
        return [str(error)]
    return [
        _cut(
            f"{ready.precision} ({_composite(ready.parity)}) for batches of {ready.batches.minimum}.."
            f"{ready.batches.maximum}: {ready.target}"
        )
        for ready in found
    ]


def _composite(parity: Mapping[str, Any]) -> str:
    measure = parity.get("composite")
    if not isinstance(measure, Mapping) or "psnr_db" not in measure:
        return "not measured"
    return "equal to fp32" if measure["psnr_db"] is None else f"{_plain(measure['psnr_db'])} dB"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_CHARS else text[: _LINE_CHARS - 3] + "..."


def _bytes(size: int) -> str:
    if size < 10_000:
        return f"{size} B"
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
