"""`banks.from_folders` and `cgnrt bank PHOTOS`: folders of photos as a plan."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cgnrt
from cgnrt import banks, real
from cgnrt.banks import photos as module
from cgnrt.banks import unfinished
from cgnrt.cli import main
from cgnrt.errors import CgnrtError, PlanError
from cgnrt.plan import MECHANISMS, Plan

from .conftest import Stop, names

Album = tuple[Path, Path]


def run(*arguments: object) -> int:
    return main(["bank", *map(str, arguments)])


def square(path: Path) -> np.ndarray:
    """The middle of a photo of 72 x 96, at 64 x 64."""
    with Image.open(path) as image:
        return np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS, (12, 0, 84, 72)))


def test_a_photo_is_an_entry_of_each_bank(
    album: Album, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = album
    out = tmp_path / "out.plan"
    given = [photos, "--masks", masks, "--size", 64, "-o", out, "--licence", "CC0", "--processes", 1]
    assert run(*given) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert f"left out {photos / 'cat' / '3.png'}: no object in it" in told.err
    assert "Left out 1 of 9 photos." in told.err
    assert "not read, since not called like photos: 1 (.txt)" in told.err
    files = [path for path in sorted(photos.glob("*/*.png")) if path.name != "3.png"]
    with Plan.open(out) as plan:
        for name in MECHANISMS:
            bank = plan.banks[name]
            assert bank.classes == ("cat", "dog")
            assert bank.labels.tolist() == [0] * 4 + [1] * 4
            (source,) = bank.spec.sources
            assert (source.name, source.count, source.licence) == ("photos", 8, "CC0")
        for k, file in enumerate(files):
            mask = square(masks / file.relative_to(photos))
            pixels = square(file).transpose(2, 0, 1).astype(np.float32)
            grey = mask.astype(np.float32) / np.float32(255)
            assert np.array_equal(plan.banks["shape"].pictures[k, 0], mask)
            background = np.rint(real.fill_object(pixels, grey))
            assert np.array_equal(plan.banks["background"].pictures[k], background)
            # Textures have the object's colours alone, whatever is around it.
            assert plan.banks["texture"].pictures[k, 0].min() > 150
    assert names(tmp_path) == {"photos", "masks", "out.plan"}
    batch = cgnrt.Generator(out).sample(5, seed=0, do={"texture": "dog"})
    assert batch.images.shape == (5, 3, 64, 64)


@pytest.mark.parametrize("texture", banks.TEXTURES)
def test_textures(album: Album, tmp_path: Path, texture: str) -> None:
    photos, masks = album
    out = tmp_path / "out.plan"
    made = banks.from_folders(out, photos, masks=masks, size=64, texture=texture, processes=1)
    assert [path.name for path, _ in made.left_out] == ["3.png"]
    assert [path.name for path in made.used] == [
        "0.png",
        "1.png",
        "2.png",
        "4.png",
        *(f"{k}.png" for k in range(5, 9)),
    ]
    with Plan.open(out) as plan:
        assert (made.digest, made.classes) == (plan.digest, ("cat", "dog"))
        bank = plan.banks["texture"]
        assert bank.spec.follows == ("shape" if texture == "own" else None)
        own = square(made.used[2]).transpose(2, 0, 1)
        inside = plan.banks["shape"].pictures[2, 0] > 250
        if texture == "own":
            assert np.array_equal(bank.pictures[2], own)
        elif texture == "filled":
            outside = bank.pictures[2][:, ~inside]
            assert outside[0].min() > 100
            kept = plan.banks["shape"].pictures[2, 0] == 255
            assert np.abs(bank.pictures[2].astype(int) - own)[:, kept].mean() < 12
        assert plan.manifest.sources[0]["texture"] == texture
    if texture == "own":
        with pytest.raises(ValueError, match="texture"):
            cgnrt.Generator(out).sample(3, seed=0, do={"texture": 0})


def test_patches_are_those_of_counterfactuals(album: Album) -> None:
    """One code: a texture's windows are those that `cgnrt.real` would pick."""
    photos, masks = album
    files = [photos / "cat" / f"{k}.png" for k in (0, 1)]
    images = np.stack([square(file) for file in files])
    grey = np.stack([square(masks / file.relative_to(photos)) for file in files])
    batch = real.counterfactuals(images, grey, seed=7, indices=[1], swap="texture")
    assert batch.index.tolist() == [[1, 0, 1]]
    made = banks.Recipe("patches", 7).entry(
        images[0].transpose(2, 0, 1).astype(np.float32), grey[0].astype(np.float32) / np.float32(255), 1
    )
    assert not isinstance(made, str)
    inside = grey[1] == 255
    assert np.array_equal(batch.images[0][inside], made["texture"].transpose(1, 2, 0)[inside])


def test_objects_found_by_a_plan(album: Album, tmp_path: Path, golden_saliency_plan: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "noise" / "cat"
    photos.mkdir(parents=True)
    for k in range(8):
        noise = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(photos / f"{k}.png")
    out = tmp_path / "out.plan"
    find = real.Saliency(golden_saliency_plan, threads=1)
    made = banks.from_folders(out, photos, saliency=find, size=64, min_object=0, max_object=1, processes=1)
    pixels = [np.asarray(Image.open(path)) for path in made.used]
    with Plan.open(out) as plan:
        assert np.array_equal(plan.banks["shape"].pictures, np.rint(find(np.stack(pixels)) * 255))
        assert plan.manifest.sources[1] == {
            "name": find.plan.manifest.family, "sha256": find.plan.digest, "for": "masks",
        }  # fmt: skip


def test_the_plan_does_not_depend_on_the_processes(album: Album, tmp_path: Path) -> None:
    photos, masks = album
    for processes in (1, 2):
        assert (
            run(
                photos,
                "--masks",
                masks,
                "--size",
                64,
                "-o",
                tmp_path / f"{processes}.plan",
                "--processes",
                processes,
            )
            == 0
        )
    assert (tmp_path / "1.plan").read_bytes() == (tmp_path / "2.plan").read_bytes()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each photo by itself, on the disk at once."""
    monkeypatch.setattr(module, "_GROUP", 1)
    monkeypatch.setattr(unfinished, "_FLUSH_SECONDS", -1)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("calls", [0, 4, 8])
def test_a_run_that_was_stopped_goes_on(
    album: Album, tmp_path: Path, stop_after: Stop, calls: int, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = album
    given = [photos, "--masks", masks, "--size", 64, "--processes", 1, "-o"]
    assert run(*given, tmp_path / "whole.plan") == 0
    stop_after(calls)
    assert run(*given, tmp_path / "out.plan") == 1
    assert len((tmp_path / "out.plan.unfinished" / "journal.jsonl").read_text().splitlines()) == 1 + calls
    capsys.readouterr()
    assert run(*given, tmp_path / "out.plan") == 0
    assert (tmp_path / "out.plan").read_bytes() == (tmp_path / "whole.plan").read_bytes()
    assert capsys.readouterr().err.count("left out") == 1


@pytest.mark.usefixtures("one_by_one")
def test_photos_that_changed_in_between_are_not_mixed(
    album: Album, tmp_path: Path, stop_after: Stop, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = album
    given = [photos, "--masks", masks, "--size", 64, "--processes", 1, "-o", tmp_path / "out.plan"]
    stop_after(5)
    assert run(*given) == 1
    Image.fromarray(np.zeros((72, 96, 3), np.uint8)).save(photos / "dog" / "9.png")
    shutil.copyfile(masks / "dog" / "5.png", masks / "dog" / "9.png")
    assert run(*given) == 1
    assert "go on with" in (told := capsys.readouterr().err)
    assert "photos is " in told
    assert "or --force to start again." in told
    assert run(*given, "--force") == 0
    with Plan.open(tmp_path / "out.plan") as plan:
        assert plan.banks["shape"].spec.count == 9


def test_a_worker_that_is_killed(album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, masks = album
    out, whole = tmp_path / "out.plan", tmp_path / "whole.plan"
    monkeypatch.setattr(module, "_GROUP", 1)
    options: dict[str, Any] = {"masks": masks, "size": 64, "processes": 2}

    def kill(text: str) -> None:
        if text.startswith("left out"):
            for child in multiprocessing.active_children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(
        CgnrtError, match=r"a worker process ended before its photos were finished. Run the same"
    ):
        banks.from_folders(out, photos, note=kill, **options)
    banks.from_folders(out, photos, **options)
    banks.from_folders(whole, photos, **options)
    assert out.read_bytes() == whole.read_bytes()


def test_a_class_without_a_usable_photo(
    album: Album, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = album
    for path in (masks / "cat").iterdir():
        Image.fromarray(np.zeros((72, 96), np.uint8)).save(path)
    assert run(photos, "--masks", masks, "--size", 64, "-o", tmp_path / "out.plan") == 1
    assert (
        "cgnrt bank: bank: no photo of class 'cat' can be used, expected at least one. Left out "
        f"'{photos / 'cat' / '0.png'}': no object in it. Add photos, give masks, or leave the class out."
    ) in capsys.readouterr().err
    assert names(tmp_path) == {"photos", "masks"}
    assert run(photos / "dog", "--masks", masks, "--size", 64, "-o", tmp_path / "out.plan") == 0


@pytest.mark.usefixtures("album")
def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    Image.fromarray(np.zeros((90, 40), np.uint8)).save(masks / "cat" / "1.png")
    (photos / "dog" / "5.png").write_bytes(b"no picture")
    (masks / "dog" / "6.png").unlink()
    small = np.zeros((72, 96), np.uint8)
    small[30:36, 40:46] = 255
    Image.fromarray(small).save(masks / "cat" / "0.png")
    assert run(photos, "--masks", masks, "--size", 64, "-o", tmp_path / "out.plan") == 0
    told = capsys.readouterr().err
    assert f"{photos / 'cat' / '0.png'}: its object covers 0." in told
    assert "width x height is 40 x 90, expected the photo's 96 x 72, or the same proportions." in told
    assert f"left out {photos / 'dog' / '5.png'}: file is unreadable" in told
    assert f"left out {photos / 'dog' / '6.png'}: mask '{masks / '6.png'}': file is missing" in told
    assert "Left out 5 of 9 photos." in told


def test_folders_that_cannot_be_told_apart(album: Album, tmp_path: Path) -> None:
    photos, masks = album
    shutil.copytree(photos / "cat", tmp_path / "more" / "cat")
    with pytest.raises(
        ValueError, match=r"are both of a class 'cat', expected one folder for each class. Rename"
    ):
        banks.from_folders(tmp_path / "out.plan", [photos, tmp_path / "more"], masks=masks)
    with pytest.raises(ValueError, match="a photo is given twice"):
        banks.from_folders(tmp_path / "out.plan", [photos, photos / "cat"], masks=masks)
    shutil.copytree(photos / "cat", photos / "c\u0430t")
    with pytest.raises(
        ValueError, match=r"look the same, expected names that people can tell apart. Rename one"
    ):
        banks.from_folders(tmp_path / "out.plan", photos, masks=masks)
    shutil.rmtree(photos / "c\u0430t")
    shutil.copytree(photos / "cat", photos / "cat\x1b[1m")
    with pytest.raises(ValueError, match="its name cannot be a class name"):
        banks.from_folders(tmp_path / "out.plan", photos, masks=masks)
    assert names(tmp_path) == {"photos", "masks", "more"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"texture": "patch"},
            "texture is 'patch', expected one of patches, filled, own. Did you mean 'patches'?",
        ),
        ({"size": 16}, "size is 16, expected 32..8192."),
        ({"min_object": 0.9}, "min_object is 0.9 and max_object 0.8"),
        ({"seed": -1}, "seed is -1"),
        ({"processes": 0}, "processes is 0, expected at least 1."),
        ({"licence": ""}, "licence has 0 characters, expected 1..4096"),
        ({"saliency": "x.plan"}, "both or none of saliency and masks are given, expected one of them."),
        ({"masks": None}, "both or none of saliency and masks are given, expected one of them."),
    ],
)
def test_bad_options(album: Album, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    photos, masks = album
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        banks.from_folders(tmp_path / "out.plan", photos, **{"masks": masks, **options})
    assert names(tmp_path) == {"photos", "masks"}


def test_a_plan_that_finds_no_objects(album: Album, demo_plan: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="kind"):
        banks.from_folders(tmp_path / "out.plan", album[0], saliency=demo_plan)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["PHOTOS"],
            "what finds the photos' objects is missing, expected --saliency PLAN or --masks FOLDER.",
        ),
        (["PHOTOS", "--masks", "MASKS", "-n", "9"], "-n is not supported for photos. Leave it out."),
        (["PHOTOS", "--masks", "MASKS", "--truncation", "1"], "--truncation is not supported for photos."),
        (["PHOTOS", "--masks", "MASKS", "--texture", "b.plan"], "Plans are joined by --shape, --texture and"),
        (["a.plan", "--min-object", "0.1"], "--min-object is not supported for a plan. Leave it out."),
        (["a.plan", "PHOTOS"], "'a.plan' is given beside others, expected one plan, or photos and folders"),
        ([], "what to make pictures of is missing, expected a plan, photos, or a plan for each of"),
        (["--shape", "a.plan"], "expected --shape, --texture and --background, a plan for each"),
        (
            ["a.plan", "--shape", "a.plan", "--texture", "a.plan", "--background", "a.plan"],
            "and no other plan",
        ),
        (
            ["--shape", "a.plan", "--texture", "a.plan", "--background", "a.plan", "--seed", "1"],
            "--seed is not supported for mechanisms of several plans.",
        ),
    ],
)
def test_options_of_another_form(
    album: Album, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    places = {"PHOTOS": str(album[0]), "MASKS": str(album[1])}
    assert run(*(places.get(word, word) for word in words), "-o", tmp_path / "out.plan") == 1
    assert message in capsys.readouterr().err
