"""The public function: three torch modules in, a verified plan out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

import cgnrt
from cgnrt._support.files import written_beside
from cgnrt._support.suggest import did_you_mean
from cgnrt.errors import CgnrtError
from cgnrt.plan import Plan, write_plan
from cgnrt.plan.limits import FORMAT_VERSION, STREAM_VERSION
from cgnrt_export.causes import first_cause
from cgnrt_export.errors import ExportError
from cgnrt_export.half_storage import (
    HalfWeights,
    check_store,
    report_storage,
    storable,
    store_in_half,
    with_weights,
)
from cgnrt_export.inference import InferenceForm, inference_form
from cgnrt_export.mechanism import CheckedMechanism, MechanismModule, check_mechanisms, convert_module
from cgnrt_export.onnx_writer import OnnxGraph, write_onnx
from cgnrt_export.parity import measure_parity
from cgnrt_export.pre_mask import Picture, check_pre_mask, picture_form
from cgnrt_export.precision_plan import plan_precision
from cgnrt_export.report import ParityReport

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def export_plan(
    path: str | os.PathLike[str],
    mechanisms: Mapping[str, MechanismModule],
    *,
    family: str,
    noise_mode: Literal["independent", "shared"] = "independent",
    precision: str = "auto",
    store: str = "fp32",
    truncation: Mapping[str, float] | None = None,
    sources: Sequence[Mapping[str, str]] = (),
    training_data: str | None = None,
    reference: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
    batch_sizes: Sequence[int] | None = None,
    min_psnr: float | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> ParityReport:
    """Write three torch modules as a plan, and prove that the plan computes what they compute.

    Each module is rewritten for inference (`inference_form`), written as ONNX, and the plan is opened again
    and run by every engine that is installed, against the module as it is. The report of that is in the
    plan's manifest. The modules are not changed.

    Args:
      path: the plan to write. It appears only if everything went well.
      mechanisms: `shape`, `texture` and `background`; see `MechanismModule`.
      family: what kind of model it is, in a word; information for people.
      noise_mode: whether the runtime draws noise for each mechanism, or one for all, by default.
      precision: the plan's default: "auto" (the fastest with at least 40 dB PSNR of the composite), "fp32",
        "bf16" or "fp16".
      store: "fp16" stores the weights of layers in half precision, which halves the plan. The runtime widens them when
        it loads an engine, so that the speed is the same. A layer whose weights would change by more than 0.2 % stays
        in full.
      truncation: {"minimum", "maximum", "default"} of the factor on truncated noise, or None. With it the
        modules take a third argument (n, 1).
      sources: what it was made from: {"name", "sha256", ...} each, strings only.
      training_data: what it was trained on, for people.
      reference: modules to compare with, by mechanism, where they are others than those that are exported: a
        module that was rewritten by hand is compared with the one as trained.
      seed: of the random inputs of the comparison.
      batch_sizes: of the comparison; None chooses by the size of the pictures.
      min_psnr: a floor in dB for the composite against float32, such as 35: also plan which layers may be bfloat16
        above it (`ParityReport.precision_plan`).
      force: replace an existing file.
      progress: called with a line for each step.
    Returns:
      The parity report.
    Raises:
      TypeError, ValueError: a module or another argument is not as described; the message names which.
      ExportError: a module cannot be written as ONNX, or the plan's fp32 differs from it by more than 1e-4 (of
        pictures of 128 px and more 1e-3; or four times torch's own rounding, if that is more). With `store="fp16"`
        this holds of the weights before they are rounded; a picture from the rounded ones has less than 40 dB.
      PlanError: the plan breaks a limit of the format, or the file cannot be written.
      CgnrtError: the file exists and `force` is off, or the disk is full. Nothing
        half-written is left behind.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"export '{path}': precision is {precision!r}, expected one of {', '.join(PRECISIONS)}."
            f"{did_you_mean(precision, PRECISIONS)}"
        )
    if noise_mode not in ("independent", "shared"):
        raise ValueError(
            f"export '{path}': noise_mode is {noise_mode!r}, expected 'independent' or 'shared'."
        )
    check_store(path, store)
    interval = None if truncation is None else (truncation["minimum"], truncation["maximum"])
    if min_psnr is not None and not (math.isfinite(min_psnr) and min_psnr > 0):
        raise ValueError(f"export '{path}': min_psnr is {min_psnr}, expected decibels above 0, such as 35.")
    with written_beside(Path(path), force=force) as beside:
        progress("check the modules")
        checked = check_mechanisms(
            mechanisms,
            shared_noise=noise_mode == "shared",
            truncation=None if truncation is None else truncation["default"],
        )
        references = _references(checked, reference or {})
        forms = {}
        halves: dict[str, HalfWeights] = {}
        layers: dict[str, list[str]] = {}
        members: dict[str, bytes] = {}
        entries = {}
        tables: dict[bytes, str] = {}
        for name, mechanism in checked.items():
            progress(f"rewrite and convert {name}")
            form = _form(mechanism)
            written = _write(mechanism, form)
            layers[name] = storable(form.module)
            if store == "fp16" and (half := store_in_half(written, layers[name])) is not None:
                halves[name] = half
                form = replace(form, module=with_weights(form.module, half.rounded))
            forms[name] = form
            entries[name] = _add_mechanism(members, tables, mechanism, written, halves.get(name))
        height, width = checked["shape"].resolution
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "stream_version": STREAM_VERSION,
            "family": family,
            "exported_by": f"cgnrt {cgnrt.__version__}",
            "resolution": [height, width],
            "noise_mode": noise_mode,
            "truncation": None if truncation is None else dict(truncation),
            "precision": "fp32",
            "mechanisms": entries,
            "sources": [dict(source) for source in sources],
            "training_data": training_data,
            "parity": {},
        }
        write_plan(beside, manifest, members)
        members.clear()  # up to gigabytes, which the plan maps from now on
        with Plan.open(beside) as plan:
            tested = plan.manifest.members
            exact = {
                name: replace(mechanism, external=halves[name].exact) if name in halves else mechanism
                for name, mechanism in plan.networks.items()
            }
            try:
                report = measure_parity(
                    plan,
                    checked,
                    {name: picture_form(form) for name, form in forms.items()},
                    {name: Picture(module) for name, module in references.items()},
                    precision=precision,
                    seed=seed,
                    exact=exact if halves else None,
                    batch_sizes=batch_sizes,
                    truncation=interval,
                    progress=progress,
                )
                check_pre_mask(exact["shape"], checked["shape"], references["shape"])
                if store == "fp16":
                    report = replace(report, storage=report_storage(halves, layers, report.pictures))
            except ExportError as error:
                raise ExportError(f"export '{path}': {error}") from error
        if min_psnr is not None:
            report = replace(
                report,
                precision_plan=plan_precision(
                    checked,
                    {name: picture_form(form) for name, form in forms.items()},
                    min_psnr=min_psnr,
                    seed=seed,
                    truncation=interval,
                    progress=progress,
                ),
            )
        manifest |= {"precision": report.precision, "parity": report.to_json()}
        with Plan.open(beside, verify=False) as plan:
            write_plan(beside, manifest, {name: plan.member(name) for name in plan.members}, force=True)
        with Plan.open(beside) as plan:
            if plan.manifest.members != tested:
                raise CgnrtError(
                    f"export '{path}': members differ from those tested, expected the same bytes."
                )
    return report


def _references(
    checked: Mapping[str, CheckedMechanism], given: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    if unknown := set(given) - set(checked):
        raise ValueError(f"export: reference has {sorted(unknown)}, expected names of mechanisms.")
    return {
        name: convert_module(given[name]) if name in given else mechanism.module
        for name, mechanism in checked.items()
    }


def _form(mechanism: CheckedMechanism) -> InferenceForm:
    try:
        return inference_form(mechanism.module, mechanism.example)
    except Exception as error:
        raise ExportError(
            f"export mechanism '{mechanism.name}': torch.export cannot trace it: {first_cause(error)}. "
            "Let no branch depend on values, and take the batch size as x.shape[0], not as len(x)."
        ) from error


def _write(mechanism: CheckedMechanism, form: InferenceForm) -> OnnxGraph:
    name, outputs = mechanism.name, list(mechanism.outputs)
    try:
        return write_onnx(form.module, mechanism.example, outputs, weights_name=f"{name}.weights")
    except ExportError as error:
        raise ExportError(f"export mechanism '{name}': {error}.") from error


def _add_mechanism(
    members: dict[str, bytes],
    tables: dict[bytes, str],
    mechanism: CheckedMechanism,
    written: OnnxGraph,
    half: HalfWeights | None,
) -> dict[str, Any]:
    """Add a mechanism's graph, weights and embedding to the members, and give its entry of the manifest."""
    name = mechanism.name
    members[f"mechanisms/{name}.onnx"] = written.graph if half is None else half.graph
    weights = written.weights if half is None else half.member
    if weights is not None:
        members[f"mechanisms/{name}.weights"] = weights
    table = mechanism.embedding.numpy().astype("<f4").tobytes()
    # Mechanisms of one CGN mostly share their embedding: it is stored once.
    embedding = tables.setdefault(table, f"mechanisms/{name}.embedding")
    members[embedding] = table
    height, width = mechanism.resolution
    return {
        "graph": f"mechanisms/{name}.onnx",
        "weights": None if weights is None else f"mechanisms/{name}.weights",
        "storage": None if half is None else half.storage,
        "embedding": {"member": embedding, "shape": list(mechanism.embedding.shape)},
        "classes": list(mechanism.classes),
        "noise": {"size": mechanism.noise_size, "distribution": mechanism.noise_distribution},
        "inputs": [
            {"name": key, "shape": ["n", value.shape[1]], "dtype": "float32"}
            for key, value in mechanism.example.items()
        ],
        "outputs": [
            {"name": output, "shape": ["n", channels, height, width], "dtype": "float32"}
            for output, channels in mechanism.outputs.items()
        ],
        "range": list(mechanism.range),
        "roll": mechanism.roll,
    }
