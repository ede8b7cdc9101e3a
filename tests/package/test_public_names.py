"""The public names: a removal is noticed here; each says what it is, and is used in docs/names.md."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "cgnrt": """
        Audit BFloat16Array BackendError Batch CgnrtError CheckpointError Generator Labels MissingDependencyError Noise
        Place Plan PlanError SampleOptions audit build_info compose
    """,
    "cgnrt.cuda": """
        DeviceArray Event Graph PinnedBuffer Stream finds_driver forked info is_cuda module on_device refusal
    """,
    "cgnrt.ops": """
        bfloat16_dlpack build_info compose integers normal patch_grid philox resize truncated_normal
    """,
    "cgnrt.banks": "PhotoBank Recipe TEXTURES from_arrays from_folders from_plan join",
    "cgnrt.real": """
        Counterfactuals CueConflictAudit CueRates Example Exchange In9Audit PhotoAudit PhotoRates Saliency audit
        counterfactuals cue_conflict fill_object in9 usable
    """,
    "cgnrt.shards": "Manifest ShardRecord generate verify",
    "cgnrt.torch": "CounterfactualDataset Mix Mixed Pairs PlacedSamples Samples join mix",
    "cgnrt_export": """
        EnginesReport ExportError InferenceForm MechanismModule ParityReport SaliencyReport add_engines count_macs
        export_plan export_saliency inference_form read_checkpoint
    """,
}
# Classes of the compiled part, which not every build has; their docstrings are in its stub, too.
COMPILED = {"DeviceArray", "Event", "Graph", "PinnedBuffer", "Stream"}
EACH = [(module, name) for module, names in NAMES.items() for name in names.split()]


@pytest.mark.parametrize("module", NAMES)
def test_the_public_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(NAMES[module].split())


@pytest.mark.parametrize(("module", "name"), [pair for pair in EACH if pair[1] not in COMPILED])
def test_a_public_name_says_what_it_is(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    # A class must have a text of its own: not its parent's, nor the signature that a dataclass or named tuple gets.
    text = vars(found).get("__doc__") if isinstance(found, type) else found.__doc__
    assert text
    assert text.strip()
    assert not text.startswith(f"{name}(")


def test_compiled_classes_say_what_they_are() -> None:
    stub = ast.parse((ROOT / "python/cgnrt/_cuda.pyi").read_text())
    texts = {node.name: ast.get_docstring(node) for node in stub.body if isinstance(node, ast.ClassDef)}
    assert set(texts) >= COMPILED
    assert [name for name in COMPILED if not texts[name]] == []


@pytest.mark.parametrize(("module", "name"), EACH)
def test_a_public_name_has_an_example(module: str, name: str) -> None:
    page = (ROOT / "docs/names.md").read_text()
    section = re.search(rf"^## `{re.escape(module)}`\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert section, module
    blocks = re.findall(r"^```python\n(.*?)^```", section[1], re.M | re.S)
    code = re.sub(r"#.*", "", "\n".join(blocks))
    assert re.search(rf"\b{name}\b", code), f"{module}.{name} has no example in docs/names.md"


def test_versions_of_the_citation_agree() -> None:
    import cgnrt

    assert f"\nversion: {cgnrt.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{cgnrt.__version__}}}" in (ROOT / "docs/citing.md").read_text()
