from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from wrapped import WRAPPED

from cgnrt.errors import CheckpointError
from cgnrt_training import checkpoints
from cgnrt_training.checkpoints import load_tensors, save
from cgnrt_training.classifier.model import Classifier, load_classifier
from cgnrt_training.mnist.checkpoints import load_cgn
from cgnrt_training.mnist.models import CGN


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch was-run",)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return CGN().state_dict()


def own(state: dict[str, torch.Tensor], **changes: object) -> dict[str, object]:
    return {"format": "cgnrt-mnist-cgn", "format_version": 1, "model": state, "variant": "colored"} | changes


def test_authors_layout_loads_strictly(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    """A bare state dict of 57 tensors, as the authors published it."""
    torch.save(state, tmp_path / "ckp.pth")
    loaded = load_cgn(tmp_path / "ckp.pth")
    assert len(state) == 57
    for key, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, state[key])
    assert not loaded.model.training
    assert loaded.variant is None


def test_padding_of_the_textures_is_the_settings(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    for config, expected in (
        ({}, "zeros"),  # from before it was a setting
        ({"model": {"texture_padding": "zeros"}}, "zeros"),
        ({"model": {"texture_padding": "circular"}}, "circular"),
    ):
        torch.save(own(state, config=config), tmp_path / "cgn.pt")
        assert load_cgn(tmp_path / "cgn.pt").model.texture_padding == expected
    torch.save(own(state, config={"model": {"texture_padding": "mirror"}}), tmp_path / "cgn.pt")
    with pytest.raises(
        CheckpointError, match=r"texture_padding is 'mirror', expected one of zeros, circular"
    ):
        load_cgn(tmp_path / "cgn.pt")


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_as_training_scripts_save_them(
    form: str, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    torch.save(WRAPPED[form](state), tmp_path / "ckp.pth")
    loaded = load_cgn(tmp_path / "ckp.pth").model.state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in state.items())


@pytest.mark.parametrize("form", ["DataParallel", "torch.compile", "both"])
def test_own_checkpoints_of_wrapped_modules(
    form: str, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    torch.save(own(WRAPPED[form](state)), tmp_path / "cgn.pt")
    assert load_cgn(tmp_path / "cgn.pt").variant == "colored"
    classifier = Classifier().state_dict()
    content = {"format": "cgnrt-mnist-classifier", "format_version": 1, "model": WRAPPED[form](classifier)}
    torch.save(content, tmp_path / "classifier.pt")
    loaded = load_classifier(tmp_path / "classifier.pt").state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in classifier.items())


def test_one_key_with_and_without_a_wrapper(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state | {"module.label_emb.weight": state["label_emb.weight"]}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="keys occur twice, with and without module or _orig_mod"):
        load_cgn(tmp_path / "a.pt")


def test_own_layout_round_trip(tmp_path: Path) -> None:
    cgn = CGN(7, 12, 4, 16)
    names = {part: [f"{part} {k}" for k in range(7)] for part in ("shape", "texture", "background")}
    save(own(cgn.state_dict(), class_names=names, step=9, training_data="x"), tmp_path / "cgn.pt")
    loaded = load_cgn(tmp_path / "cgn.pt")
    model = loaded.model
    assert (model.n_classes, model.noise_size, model.channels, model.resolution) == (7, 12, 4, 16)
    assert (loaded.variant, loaded.class_names, loaded.step, loaded.training_data) == (
        "colored",
        names,
        9,
        "x",
    )
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), cgn.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": RunsCode()}, "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        CheckpointError, match=r"a pickle with code or foreign classes in it.*Nothing in it was run"
    ):
        load_cgn("evil.pt")
    assert not Path("was-run").exists()


def test_bare_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pt").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(CheckpointError, match="expected tensors and plain values only"):
        load_tensors("evil.pt")
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-LFS pointer"),
        (b"just some text, no checkpoint", "no torch checkpoint"),
        (b"PK\x03\x04 broken zip", "no torch checkpoint"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_tensors(tmp_path / "a.pt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file or directory"):
        load_tensors(tmp_path / "none.pt")


def test_truncated(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    for part in (0.1, 0.5, 0.99):
        (tmp_path / "a.pt").write_bytes(content[: int(len(content) * part)])
        with pytest.raises(CheckpointError, match="damaged"):
            load_cgn(tmp_path / "a.pt")


class TestKeys:
    def check(self, tmp_path: Path, content: object, message: str) -> None:
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=message):
            load_cgn(tmp_path / "a.pt")

    def test_missing(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        rest = {key: value for key, value in state.items() if not key.startswith("f_text2.11.")}
        self.check(
            tmp_path, rest, r"missing keys are 'f_text2.11.weight', .*Expected exactly the 57 tensors of CGN"
        )

    def test_without_sizes(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        rest = {key: value for key, value in state.items() if key != "f_shape.0.weight"}
        self.check(tmp_path, rest, r"missing keys are 'f_shape.0.weight'")

    def test_unknown(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        self.check(
            tmp_path, state | {"f_shape.13.weight": torch.zeros(1)}, r"unknown keys are 'f_shape.13.weight'"
        )

    def test_another_model(self, tmp_path: Path) -> None:
        self.check(
            tmp_path,
            {"conv1.weight": torch.zeros(1)},
            r"missing keys .* and 49 more; unknown keys are 'conv1",
        )

    def test_shape(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        wrong = state | {"f_text1.10.bias": torch.zeros(4)}
        self.check(tmp_path, own(wrong), r"'f_text1.10.bias' is \(4,\), expected \(3,\)")

    def test_type(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        self.check(
            tmp_path, own(state | {"f_text1.10.bias": "x"}), r"'f_text1.10.bias' is str, expected a tensor"
        )

    def test_not_finite(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        wrong = state | {"f_text1.10.bias": torch.tensor([0.0, torch.nan, 0.0])}
        self.check(tmp_path, own(wrong), r"'f_text1.10.bias' has values that are not finite")

    def test_made_up_size_asks_for_no_memory(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        wrong = state | {"f_shape.0.weight": torch.zeros(1).expand(2**30, 42)}
        self.check(tmp_path, wrong, r"'f_shape.0.weight' is \(1073741824, 42\), expected \(4096, 42\)")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (torch.zeros(3), "content is Tensor, expected a state dict"),
            ({"format": "something"}, "format is 'something', expected 'cgnrt-mnist-cgn'"),
            (own({}, format_version=2), r"format version is 2, expected 1\.\.1. Upgrade cgnrt"),
            (own({}, format_version=True), r"format version is True, expected 1\.\.1"),
            (own({}, format=torch.zeros(2)), r"format is a Tensor, expected 'cgnrt-mnist-cgn'"),
            (own({}, model=5), "content is int, expected a state dict"),
        ],
    )
    def test_content(self, tmp_path: Path, content: object, message: str) -> None:
        self.check(tmp_path, content, message)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"variant": "grey"}, "variant is 'grey', expected one of colored, double-colored, wildlife"),
            ({"variant": ["colored"]}, "variant is a list, expected one of"),
            ({"training_data": 5}, r"training_data is 5, expected a text of 1\.\.4096 characters"),
            ({"training_data": "x" * 5000}, r"training_data is 'x+\.\.\.x+', expected a text"),
            ({"step": "9"}, r"step is '9', expected an int in 0\.\.2\*\*63 - 1"),
            ({"step": -1}, "step is -1, expected"),
            ({"step": True}, "step is True, expected"),
            ({"step": 10**400}, r"step is 10+\.\.\.0+, expected"),
            ({"class_names": ["a"]}, "class_names is a list, expected a dict of exactly shape, texture"),
            ({"config": "abc"}, "config is 'abc', expected a dict whose keys are texts"),
            ({"config": [("a", 1)]}, "config is a list, expected a dict"),
            ({"config": {1: 2}}, "config is a dict of 1, expected a dict whose keys are texts"),
        ],
    )
    def test_what_it_says_of_itself(
        self, tmp_path: Path, state: dict[str, torch.Tensor], changed: dict[str, object], message: str
    ) -> None:
        message = f"load '.*a.pt': {message}.*Fetch or train the checkpoint again"
        self.check(tmp_path, own(state, **changed), message)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({}, "class_names is an empty dict, expected a dict of exactly shape, texture, background"),
            ({"shape": None}, r"class_names\['shape'\] is None, expected a list of names"),
            (
                {"colour": []},
                r"class_names is a dict of 'shape', .*'colour', expected a dict of exactly shape",
            ),
            (
                {"texture": "0123456789"},
                r"class_names\['texture'\] is '0123456789', expected a list of names",
            ),
            ({"texture": ["a"]}, r"length of class_names\['texture'\] is 1, expected 10, the classes of the"),
            ({"background": [*"012345678", 9]}, r"class_names\['background'\]\[9\] is 9, expected a name of"),
            ({"background": [*"012345678", ""]}, r"\[9\] is '', expected a name of 1\.\.200 characters"),
            ({"shape": [*"0123456780"]}, r"class_names\['shape'\]\[9\] is '0' again, expected unique names"),
        ],
    )
    def test_class_names(
        self, tmp_path: Path, state: dict[str, torch.Tensor], changed: dict[str, object], message: str
    ) -> None:
        names = {part: [*"0123456789"] for part in ("shape", "texture", "background")}
        self.check(tmp_path, own(state, class_names=names | changed if changed else {}), message)


def test_save_leaves_the_old_file_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cgn.pt"
    save({"step": 1}, path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save({"step": 2}, path)
    assert load_tensors(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["cgn.pt"]


def test_another_pickle_protocol_is_an_error_and_no_warning(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="Unsupported operand 149"):
        load_tensors(tmp_path / "a.pt")
