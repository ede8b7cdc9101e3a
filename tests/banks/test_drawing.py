"""`banks.from_plan` and `cgnrt bank PLAN`: what networks draw, stored once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cgnrt
from cgnrt import banks
from cgnrt.banks import drawing, unfinished
from cgnrt.cli import main
from cgnrt.errors import CgnrtError, PlanError
from cgnrt.plan import MECHANISMS, PICTURES, Plan, write_bank, write_plan

from .conftest import Stop, names

LIMITED = """
import resource, signal, sys
from cgnrt.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures of 32 x 32 at a time, each on the disk at once."""
    monkeypatch.setattr(drawing, "_CPU_PIXELS", 4 * 32 * 32)
    monkeypatch.setattr(unfinished, "_FLUSH_SECONDS", -1)


def run(*arguments: object) -> int:
    return main(["bank", *map(str, arguments)])


def test_picture_k_of_a_class_is_what_the_networks_draw_of_noise_k(demo_plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank.plan"
    digest = banks.from_plan(out, demo_plan, 41, seed=5)
    gen = cgnrt.Generator(demo_plan)
    with Plan.open(out) as plan:
        assert plan.digest == digest
        for name in MECHANISMS:
            bank = plan.banks[name]
            assert bank.spec.count == 50  # rounded up to five of each of ten classes
            assert np.array_equal(bank.labels, np.repeat(np.arange(10), 5))
            assert (bank.classes, bank.spec.roll) == (gen.classes[name], gen.plan.networks[name].spec.roll)
            (source,) = bank.spec.sources
            assert (source.name, source.count, source.sha256) == (demo_plan.name, 50, gen.plan.digest)
            for label in (0, 7):
                noise = (
                    gen.prepare(seed=5, indices=np.arange(5))
                    .noise()
                    ._replace(rolls=np.zeros((5, 2, 2), np.int32))
                )
                drawn = gen(**dict.fromkeys(MECHANISMS, label), noise=noise, parts=True)
                picture = getattr(drawn, PICTURES[name])
                assert np.abs(bank.widened(np.arange(label * 5, label * 5 + 5)) - picture).max() <= 1.01 / 255
        assert plan.manifest.training_data == gen.plan.manifest.training_data
        assert plan.manifest.sources[0] | {"backend": "", "precision": ""} == {
            "name": demo_plan.name, "sha256": gen.plan.digest, "seed": "5", "backend": "", "precision": "",
        }  # fmt: skip


def test_images_of_a_bank_are_those_of_the_networks(demo_plan: Path, tmp_path: Path) -> None:
    """Noise given back with another label is the same noise: an intervention means the same on both."""
    banks.from_plan(tmp_path / "bank.plan", demo_plan, 30, seed=2)
    bank, gen = (
        cgnrt.Generator(tmp_path / "bank.plan", dtype="uint8"),
        cgnrt.Generator(demo_plan, dtype="uint8"),
    )
    batch = bank.sample(40, seed=9)
    number = [
        (np.asarray(u).reshape(-1).astype(np.uint64) * np.uint64(3)) >> np.uint64(32) for u in batch.noise[:3]
    ]
    drawn = [
        getattr(gen.prepare(seed=2, indices=k.astype(np.int64)).noise(), name)
        for name, k in zip(MECHANISMS, number, strict=True)
    ]
    for label in (batch.labels, batch.labels._replace(texture=(batch.labels.texture + 1) % 10)):
        ours = bank(*label, noise=batch.noise).images.astype(int)
        theirs = gen(*label, noise=(*drawn, batch.noise.rolls)).images.astype(int)
        assert np.abs(ours - theirs).max() <= 3  # three bytes are rounded before they are blended


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("calls", [0, 1, 7])
def test_a_run_that_was_stopped_goes_on(
    demo_plan: Path, tmp_path: Path, stop_after: Stop, calls: int
) -> None:
    whole, out = tmp_path / "whole.plan", tmp_path / "out.plan"
    assert run(demo_plan, "-n", 30, "-o", whole) == 0
    stop_after(calls)
    assert run(demo_plan, "-n", 30, "-o", out) == 1
    folder = tmp_path / "out.plan.unfinished"
    assert (folder / "shape.pictures").stat().st_size == calls * 4 * 32 * 32
    with (folder / "texture.pictures").open("ab") as file:
        file.write(b"what a crash left")
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"rows": {"sha')
    assert run(demo_plan, "-n", 30, "-o", out) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == {"whole.plan", "out.plan"}


@pytest.mark.usefixtures("small_steps")
def test_another_run_is_not_mixed_in(
    root: Path, tmp_path: Path, stop_after: Stop, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = tmp_path / "cgn.plan", tmp_path / "out.plan"
    shutil.copyfile(root / "plans" / "double-colored.plan", plan)
    stop_after(2)
    assert run(plan, "-n", 30, "-o", out) == 1
    assert run(plan, "-n", 30, "-o", out, "--seed", 1) == 1
    assert (
        f"cgnrt bank: go on with '{out}.unfinished': seed is 1, expected 0, as in the run that was stopped. Give what "
        "that run was given, another output, or --force to start again." in capsys.readouterr().err
    )
    shutil.copyfile(root / "plans" / "colored.plan", plan)  # the plan is changed in between
    assert run(plan, "-n", 30, "-o", out) == 1
    assert "plan is " in capsys.readouterr().err
    assert run(plan, "-n", 30, "-o", out, "--force") == 0
    with Plan.open(out) as made, Plan.open(plan) as source:
        assert made.banks["shape"].spec.sources[0].sha256 == source.digest


def test_a_plan_that_is_changed_during_the_run_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = tmp_path / "cgn.plan", tmp_path / "out.plan"
    shutil.copyfile(root / "plans" / "double-colored.plan", plan)
    monkeypatch.setattr(drawing, "_CPU_PIXELS", 4 * 32 * 32)
    add = unfinished.Unfinished.add

    def change(self: unfinished.Unfinished, *arguments: object) -> None:
        add(self, *arguments)  # type: ignore[arg-type]
        with plan.open("r+b") as file:
            file.seek(plan.stat().st_size // 2)
            file.write(b"\x42")

    monkeypatch.setattr(unfinished.Unfinished, "add", change)
    with pytest.raises(PlanError, match="changed"):
        banks.from_plan(out, plan, 30)
    assert not out.exists()


def test_a_disk_that_fills_keeps_what_is_done(demo_plan: Path, tmp_path: Path) -> None:
    """Real writes that fail: first those of the pictures, then that of the plan."""
    out, whole = tmp_path / "out.plan", tmp_path / "whole.plan"
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    given = ["bank", str(demo_plan), "-n", "600", "-o", str(out)]
    for limit, told in (
        (1_000_000, "File too large, expected a place with room. What is done is kept. Make room"),
        (
            2_000_000,
            f"The pictures are kept in '{out}.unfinished'. Make room, and run the same command again",
        ),
    ):
        done = subprocess.run(
            [sys.executable, script, str(limit), *given], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert (tmp_path / "out.plan.unfinished" / "texture.pictures").stat().st_size >= limit * 3 // 4
    assert main(given) == 0
    assert run(demo_plan, "-n", 600, "-o", whole) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == {"out.plan", "whole.plan", "limited.py"}


def test_too_small_a_disk_is_refused_before_the_work(
    demo_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    with pytest.raises(
        CgnrtError, match=r"2,000,000 bytes are free on its disk, expected at least 5,3.*Make room"
    ):
        banks.from_plan(tmp_path / "out.plan", demo_plan, 300)
    monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda _: SimpleNamespace(free=6_000_000))
    banks.from_plan(tmp_path / "out.plan", demo_plan, 300)


def test_mechanisms_that_are_banks_are_taken_over(
    golden_bank_plan: Path, golden_plan: Path, tmp_path: Path
) -> None:
    mixed, out = tmp_path / "mixed.plan", tmp_path / "out.plan"
    with Plan.open(golden_bank_plan) as pictures, Plan.open(golden_plan) as networks:
        write_bank(mixed, shape=pictures, texture=networks, background=networks)
        banks.from_plan(out, mixed, 12)
        with Plan.open(out) as made:
            assert np.array_equal(made.banks["shape"].pictures, pictures.banks["shape"].pictures)
            assert made.banks["texture"].spec.count == 12
    with pytest.raises(ValueError, match="its mechanisms are banks, expected at least one that is a network"):
        banks.from_plan(tmp_path / "again.plan", golden_bank_plan)
    with pytest.raises(ValueError, match="classes of shape are given, which is a bank and taken over whole"):
        banks.from_plan(tmp_path / "again.plan", mixed, classes={"shape": [0]})


def test_some_classes_only(demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, some = tmp_path / "whole.plan", tmp_path / "some.plan"
    assert run(demo_plan, "-n", 20, "-o", whole) == 0
    chosen = ["--classes", "shape=7,2", "--classes", "texture=index:9", "--classes", "shape=7"]
    assert run(demo_plan, "-n", 4, *chosen, "-o", some) == 1
    told = (
        "number of pictures is 4, expected at least 10: one for each class of background. Choose some of them"
    )
    assert told in capsys.readouterr().err
    assert run(demo_plan, "-n", 4, *chosen, "--classes", "background=lime,aqua", "-o", some) == 0
    with Plan.open(whole) as one, Plan.open(some) as other:
        classes = {name: one.banks[name].classes for name in MECHANISMS}
        assert other.banks["shape"].classes == ("2", "7")
        assert other.banks["texture"].classes == (classes["texture"][9],)
        assert set(other.banks["background"].classes) == {"lime", "aqua"}
        picked = [list(classes["shape"]).index(name) for name in ("2", "7")]
        rows = np.concatenate([np.arange(2 * label, 2 * label + 2) for label in picked])
        assert np.array_equal(other.banks["shape"].pictures, one.banks["shape"].pictures[rows])
        assert np.array_equal(other.banks["texture"].pictures[:2], one.banks["texture"].pictures[18:20])
    assert cgnrt.Generator(some).sample(3, seed=0).images.shape == (3, 3, 32, 32)


def test_shared_noise_and_truncation_stay(golden_plan: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "cgn.plan", tmp_path / "out.plan"
    with Plan.open(golden_plan) as plan:
        manifest = plan.manifest.to_dict()
        manifest |= {"noise_mode": "shared", "truncation": {"minimum": 0.02, "maximum": 1.0, "default": 1.0}}
        for mechanism in manifest["mechanisms"].values():
            mechanism["noise"]["distribution"] = "truncated_normal"
        write_plan(source, manifest, {name: plan.member(name) for name in plan.members})
    banks.from_plan(out, source, 9, truncation=0.25)
    gen = cgnrt.Generator(source)
    with Plan.open(out) as plan:
        assert plan.manifest.noise_mode == "shared"
        assert plan.manifest.truncation is None
        assert plan.manifest.sources[0]["truncation"] == "0.25"
        noise = gen.sample(3, seed=0).noise._replace(rolls=np.zeros((3, 2, 2), np.int32))
        drawn = gen(*[1] * 3, noise=noise, truncation=0.25, parts=True)
        found = plan.banks["background"].widened(np.arange(3, 6))
        assert np.abs(found - drawn.background).max() <= 1.01 / 255


def test_pictures_as_streams(demo_plan: Path, tmp_path: Path) -> None:
    raw, webp = tmp_path / "raw.plan", tmp_path / "webp.plan"
    assert run(demo_plan, "-n", 20, "-o", raw) == 0
    assert run(demo_plan, "-n", 20, "-o", webp, "--store", "webp") == 0
    assert webp.stat().st_size < raw.stat().st_size
    one, other = (cgnrt.Generator(path, dtype="uint8").sample(9, seed=1).images for path in (raw, webp))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "9"], "number of pictures is 9, expected at least 10: one for each class of shape."),
        (["-n", "-1"], "pictures is -1, expected 0 or more"),
        (["--classes", "shap=1"], "classes"),
        (["--classes", "shape=13"], "classes['shape'][0] is 13, expected 0..9."),
        (["--quality", "90"], "quality is given for raw pictures. Give store='webp' or 'jpeg', too."),
        (["--store", "jpeg", "--quality", "101"], "quality is 101, expected 1..100 for jpeg."),
        (["--seed", "-1"], "seed is -1, expected 0..2**64 - 1."),
        (["--truncation", "1"], "this plan has no truncation. Leave it out."),
        (["-n", str(1 << 27)], "expected at most 67108864."),
    ],
)
def test_bad_options(
    demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(demo_plan, "-o", tmp_path / "out.plan", *words) == 1
    assert message in capsys.readouterr().err
    assert names(tmp_path) == set()


def test_existing_files_are_kept(demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.plan"
    out.write_text("mine")
    assert run(demo_plan, "-n", 10, "-o", out) == 1
    assert "the file exists, expected a new one. Pass --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(demo_plan, "-n", 10, "-o", out, "--force") == 0
    assert names(tmp_path) == {"out.plan"}
