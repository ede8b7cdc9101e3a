"""`cgnrt sheet`: what is on the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from cgnrt import Batch, Generator, Labels, Place
from cgnrt.cli import main
from cgnrt.sheets import MOVES, contact_sheet, interpolation_frames, write_gif
from cgnrt.sheets.layout import fit
from cgnrt.sheets.samples import _corner, _labels

from .conftest import NAMES

TILE, GAP = 40, 6  # the plans' 8 px, each drawn as 5 x 5


@pytest.fixture(scope="module")
def gen(imagenet_like: Path) -> Generator:
    return Generator(imagenet_like, dtype="uint8", layout="NHWC")


def draw(plan: Path, target: Path, *options: str) -> np.ndarray:
    assert main(["sheet", str(plan), "-o", str(target), "--tile", str(TILE), *options]) == 0
    with Image.open(target) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """The picture in a row and column that count from the end: -1, -2, ..."""
    y, x = sheet.shape[0] + row * (TILE + GAP), sheet.shape[1] + column * (TILE + GAP)
    return sheet[y : y + TILE, x : x + TILE].reshape(8, 5, 8, 5, -1)[:, 2, :, 2]


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to the last step of uint8, where fp32 sums in another order."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def as_bytes(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (picture.transpose(1, 2, 0) - low) / (high - low) * 255 + 0.5
    return np.clip(scaled, 0, 255).astype(np.uint8) + np.zeros(3, np.uint8)


def test_contact_shows_every_part(imagenet_like: Path, gen: Generator, tmp_path: Path) -> None:
    sheet = draw(
        imagenet_like, tmp_path / "x.png", "-n", "3", "--truncation", "0.3", "--classes", "texture=jay,cock"
    )
    batch = gen.sample(3, seed=0, truncation=0.3, classes={"texture": ["jay", "cock"]}, parts=True)
    for column in (-1, -2, -3):
        for row, (picture, low) in enumerate(
            [(batch.pre_mask, -1), (batch.mask, 0), (batch.foreground, -1), (batch.background, -1)]
        ):
            assert_alike(tile(sheet, row - 5, column), as_bytes(picture[column], low, 1))
        assert_alike(tile(sheet, -1, column), batch.images[column])


def test_mechanisms_are_shown_class_by_class(imagenet_like: Path, gen: Generator, tmp_path: Path) -> None:
    options = ("--kind", "mechanisms", "-n", "2", "--seed", "3", "--start", "5")
    jay = draw(imagenet_like, tmp_path / "x.png", *options, "--show", "jay")
    batch = gen("jay", "jay", "jay", n=2, seed=3, start=5, truncation=0.5, parts=True)  # App. D.1's
    for column in (-1, -2):
        assert_alike(tile(jay, -1, column), batch.images[column])
        assert_alike(tile(jay, -2, column), as_bytes(batch.background[column], -1, 1))
        assert_alike(tile(jay, -5, column), as_bytes(batch.pre_mask[column], -1, 1))
    three = draw(
        imagenet_like,
        tmp_path / "y.png",
        *options,
        "--show",
        "jay,0",
        "--show",
        "great white shark, man-eater",
    )
    np.testing.assert_array_equal(three[: len(jay), : jay.shape[1]], jay)
    shark = draw(
        imagenet_like,
        tmp_path / "z.png",
        *options,
        "--show",
        str(NAMES.index("great white shark, man-eater")),
    )
    height, width = jay.shape[0] + 2 * GAP, jay.shape[1] + 2 * GAP
    assert three.shape == (2 * height, 2 * width, 3)
    np.testing.assert_array_equal(three[height : height + len(jay), : jay.shape[1]], shark)


def test_mechanisms_of_all_classes_or_of_twelve(
    imagenet_like: Path, golden_plan: Path, tmp_path: Path
) -> None:
    """The golden plan has neither truncation nor a pre-mask."""
    three = draw(golden_plan, tmp_path / "x.png", "--kind", "mechanisms", "-n", "1")
    twelve = draw(imagenet_like, tmp_path / "y.png", "--kind", "mechanisms", "-n", "1")
    rows, line = 5 * (TILE + GAP), 13  # of text
    assert twelve.shape[0] // 6 in range(rows + GAP, rows + GAP + 2 * line + 2 * GAP)
    assert three.shape[0] // 2 in range(rows - TILE, rows - TILE + 2 * line + 2 * GAP)


@pytest.mark.parametrize("moves", [MOVES, ("background",), ("all", "shape")])
def test_interpolation_moves_one_mechanism_in_a_row(
    golden_plan: Path, tmp_path: Path, moves: Sequence[str]
) -> None:
    """Each row is what `interpolate` gives, rolls and all."""
    sheet = draw(
        golden_plan, tmp_path / "x.png", *("--kind", "interpolation", "--frames", "4", "--seed", "3", "--start", "7"),
        *("--path", "shape=square,disc", "--path", "texture=dots"),
        *(("--move", ",".join(moves)) if moves != MOVES else ()),
    )  # fmt: skip
    gen = Generator(golden_plan, dtype="uint8", layout="NHWC")
    for row, move in enumerate(moves):
        frames = gen.interpolate(
            4, mechanisms=move, shape=("square", "disc"), texture="dots", seed=3, start=7, end=8
        )
        for column in range(4):
            assert_alike(tile(sheet, row - len(moves), column - 4), frames.images[column])


def test_interpolation_of_several_pairs(imagenet_like: Path, gen: Generator, tmp_path: Path) -> None:
    options = ("--kind", "interpolation", "--frames", "2", "--truncation", "0.4", "--path", "jay,cock")
    two = draw(imagenet_like, tmp_path / "x.png", *options, "-n", "2")
    one = draw(imagenet_like, tmp_path / "y.png", *options, "--start", "2")
    height = one.shape[0] + 2 * GAP
    assert len(two) == 2 * height
    np.testing.assert_array_equal(two[height : height + len(one), : one.shape[1]], one)
    end = gen.sample(indices=[3], seed=0, truncation=0.4, do=dict.fromkeys(gen.classes, "cock"))
    assert_alike(tile(one, -1, -1), end.images[0])


def test_truncations_show_the_same_samples(imagenet_like: Path, gen: Generator, tmp_path: Path) -> None:
    options = ("--kind", "truncations", "-n", "2", "--do", "shape=jay")
    sheet = draw(imagenet_like, tmp_path / "x.png", *options, "--truncations", "0.2,0.9")
    usual = draw(imagenet_like, tmp_path / "y.png", *options)
    for image, values in ((sheet, (0.2, 0.9)), (usual, (0.1, 0.5, 1.0))):
        for row, truncation in enumerate(values):
            batch = gen.sample(2, seed=0, truncation=truncation, do={"shape": "jay"})
            for column in (-1, -2):
                assert_alike(tile(image, row - len(values), column), batch.images[column])


# GIFs.


@pytest.mark.parametrize(("back", "frames"), [(False, [0, 1, 2, 3, 4]), (True, [0, 1, 2, 3, 4, 3, 2, 1])])
def test_a_gif_is_the_way_and_if_wanted_back(
    imagenet_like: Path, gen: Generator, tmp_path: Path, back: bool, frames: list[int]
) -> None:
    target = tmp_path / "x.gif"
    options = ["--kind", "interpolation", "--gif", "--frames", "5", "--ms", "120", "--tile", "8"]
    assert (
        main(["sheet", str(imagenet_like), "-o", str(target), *options, *(["--back"] if back else [])]) == 0
    )
    expected = gen.interpolate(5, seed=0).images.astype(int)
    with Image.open(target) as image:
        assert image.format == "GIF"
        assert (image.size, image.n_frames, image.info["loop"]) == ((8, 8), len(frames), 0)  # type: ignore[attr-defined]
        for k, frame in enumerate(frames):
            image.seek(k)
            assert image.info["duration"] == 120
            found = np.asarray(image.convert("RGB")).astype(int)
            # 256 colours stand for 320 pixels: the right frame is by far the nearest.
            distances = np.abs(expected - found).mean(axis=(1, 2, 3))
            assert distances.argmin() == frame
            assert distances[frame] < 12
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_gif_may_show_several_moves_side_by_side(imagenet_like: Path, gen: Generator) -> None:
    path = gen.interpolate(3, seed=0, parts=True)
    single = interpolation_frames(path, moves=("shape",), tile=TILE)
    double = interpolation_frames(path, moves=("all", "shape"), tile=TILE)
    assert [frame.size for frame in single] == [(TILE, TILE)] * 3
    for one, two in zip(single, double, strict=True):
        corner = np.asarray(two)[-GAP - TILE : -GAP, -GAP - TILE : -GAP]
        np.testing.assert_array_equal(corner, np.asarray(one))


def test_one_palette_keeps_still_what_does_not_move(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    still = random.integers(0, 256, (24, 16, 3), np.uint8)
    frames = [np.concatenate([still, np.full((24, 16, 3), 60 * k, np.uint8)], axis=1) for k in range(4)]
    write_gif(tmp_path / "x.gif", [Image.fromarray(frame) for frame in frames], frame_ms=20)
    shown = []
    with Image.open(tmp_path / "x.gif") as image:
        for k in range(4):
            image.seek(k)
            shown.append(np.asarray(image.convert("RGB")))
    # Dithering carries some of an edge over from the right; the first columns it does not reach at once.
    assert all((frame[0, :15] == shown[0][0, :15]).all() for frame in shown)
    assert np.abs(shown[3][:, 20:].astype(int) - 180).mean() < 8


def test_an_existing_gif_is_kept(
    imagenet_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.gif"
    target.write_text("mine")
    arguments = [
        "sheet",
        str(imagenet_like),
        "--kind",
        "interpolation",
        "--gif",
        "--frames",
        "2",
        "-o",
        str(target),
    ]
    assert main(arguments) == 1
    assert "the file exists, expected a new one" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    assert target.read_bytes()[:4] == b"GIF8"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


# Captions and pictures.


def made_up(images: np.ndarray) -> Batch:
    n, height, width = images.shape[:3]
    nothing = np.zeros(n, np.int64)
    pictures = np.zeros((n, 3, height, width), np.float32)
    return Batch(
        images=images,
        labels=Labels(nothing, nothing, nothing),
        seed=0,
        indices=nothing,
        mask=pictures[:, :1],
        foreground=pictures,
        background=pictures,
    )


def names(name: str) -> Mapping[str, list[str]]:
    return {mechanism: [name] for mechanism in ("shape", "texture", "background")}


@pytest.mark.parametrize("width", [8, 30, 96, 200, 2000])
@pytest.mark.parametrize("name", NAMES[:11])
def test_captionsfit(name: str, width: int) -> None:
    font = ImageFont.load_default(12)
    fitted = fit(name, width, font)
    assert font.getlength(fitted) <= max(width, font.getlength("…"))
    if fitted.endswith("…"):
        assert name.replace("é", "e").startswith(fitted[:-1])
    else:
        assert fitted == name.replace("é", "e")
    assert (width != 2000) or not fitted.endswith("…")


def test_a_long_name_stays_above_its_column() -> None:
    batch = made_up(np.zeros((2, 8, 8, 3), np.uint8))
    short, long = (np.asarray(contact_sheet(batch, names(name), tile=TILE)) for name in ("i", "W" * 100))
    assert short.shape == long.shape
    edge = -(TILE + GAP) - GAP  # the gap before the last column
    assert (long[:, edge : edge + GAP] == 255).all()
    assert (long[:, -GAP:] == 255).all()


def test_accents_are_shown() -> None:
    batch = made_up(np.zeros((1, 8, 8, 3), np.uint8))
    accented, apart, plain = (
        np.asarray(contact_sheet(batch, names(name))) for name in ("café", "cafe\u0301", "cafe")
    )
    np.testing.assert_array_equal(accented, apart)
    assert not np.array_equal(accented, plain)


def test_large_pictures_are_averaged() -> None:
    checks = np.indices((1, 64, 64)).sum(axis=0) % 2 * 255
    batch = made_up(np.repeat(checks[..., None], 3, axis=3).astype(np.uint8))
    sheet = np.asarray(contact_sheet(batch, names("x"), tile=16))
    inner = sheet[-GAP - 12 : -GAP - 4, -GAP - 12 : -GAP - 4].astype(int)
    assert np.abs(inner - 127).max() <= 4


def test_pictures_keep_their_proportions() -> None:
    sheet = contact_sheet(made_up(np.zeros((1, 8, 16, 3), np.uint8)), names("x"), tile=32)
    tall = contact_sheet(made_up(np.zeros((1, 16, 8, 3), np.uint8)), names("x"), tile=32)
    assert tall.size[1] - sheet.size[1] == 4 * (64 - 16)


def test_the_tile_follows_the_plan(golden_plan: Path, demo_plan: Path, tmp_path: Path) -> None:
    for k, plan in enumerate((golden_plan, demo_plan)):  # 8 px and 32
        assert main(["sheet", str(plan), "-n", "1", "-o", str(tmp_path / f"{k}.png")]) == 0
        with Image.open(tmp_path / f"{k}.png") as image:
            assert 96 + GAP < image.size[0] < 2 * 96 + 2 * GAP


def test_a_sheet_shows_where_objects_are_put(golden_plan: Path, tmp_path: Path) -> None:
    words = ["sheet", str(golden_plan), "-n", "2", "--tile", "96"]
    for name, options in (("plain", []), ("placed", ["--place", "dx=0.25,scale=0.5"])):
        assert main([*words, "-o", str(tmp_path / f"{name}.png"), *options]) == 0
    gen = Generator(golden_plan, dtype="uint8", layout="NHWC")
    place = Place(dx=0.25, scale=0.5)
    batch = gen.sample(2, seed=0, place=place, parts=True)
    expected = contact_sheet(batch, gen.classes)
    with Image.open(tmp_path / "placed.png") as placed, Image.open(tmp_path / "plain.png") as plain:
        np.testing.assert_array_equal(np.asarray(placed), np.asarray(expected))
        two_lines = placed.size[1] - plain.size[1]
    assert two_lines > 20
    narrow = contact_sheet(replace(batch, place=None), gen.classes)
    assert expected.size[1] - narrow.size[1] == two_lines


def test_the_lines_of_a_place() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    place = np.array([[3, -4, 0.5, 0], [0, 1.5, 1.25, 1]], np.float32)
    batch = replace(made_up(images), place=place)
    assert _labels(batch, names("x"))[0][3:] == ["+3, -4", "0.50"]
    assert _labels(batch, names("x"))[1][3:] == ["+0, +1.5", "1.25 mirrored"]
    assert _corner(batch)[3:] == ("dy, dx", "scale")


@pytest.mark.parametrize("kind", ["mechanisms", "truncations"])
def test_other_sheets_place_their_objects(imagenet_like: Path, tmp_path: Path, kind: str) -> None:
    pictures = []
    for options in ([], ["--place", "dx=0.5"]):
        target = tmp_path / f"{len(pictures)}.png"
        show = ["--show", "jay"] if kind == "mechanisms" else []
        words = ["sheet", str(imagenet_like), "-n", "2", "-o", str(target), "--kind", kind, *show, *options]
        assert main(words) == 0
        with Image.open(target) as image:
            pictures.append(np.asarray(image))
    height = min(len(picture) for picture in pictures)
    assert not np.array_equal(pictures[0][-height:], pictures[1][-height:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--kind", "interpolation", "--place", "dx=1"],
            "--place is not supported with --kind interpolation",
        ),
        (["--kind", "mechanisms", "--distinct"], "--distinct is not supported with --kind mechanisms"),
        (["--place", "dx=9"], "sample: place dx is 9.0, expected (low, high) with -4 <= low"),
        (["--kind", "contact", "--frames", "3"], "--frames is not supported with --kind contact"),
        (["--gif"], "--gif is not supported with --kind contact"),
        (["--kind", "mechanisms", "--do", "shape=1"], "--do is not supported with --kind mechanisms"),
        (["--kind", "interpolation", "--labels", "shared"], "--labels is not supported"),
        (["--kind", "truncations", "--truncation", "0.5"], "--truncation is not supported"),
        (["--kind", "interpolation", "--ms", "50"], "--ms is not supported without --gif"),
        (["--kind", "interpolation", "--back"], "--back is not supported without --gif"),
        (["--kind", "interpolation", "--gif"], "output is 'x.png', expected a name that ends in .gif"),
        (["-o", "x.gif"], "output is 'x.gif', expected a name that ends in .png"),
        (["--kind", "interpolation", "--gif", "-n", "2", "-o", "x.gif"], "n is 2, expected 1 with --gif"),
        (["--kind", "interpolation", "--gif", "--ms", "5", "-o", "x.gif"], "ms is 5, expected 20..655350"),
        (["--tile", "7"], "tile is 7, expected at least 8"),
        (["--tile", "99999999999999999999"], "tile is 99999999999999999999, expected at most 4096"),
        (["--kind", "interpolation", "--frames", "1000000000"], "1000000000 images need"),
        (["--kind", "interpolation", "--frames", "99999999999999999999"], "99999999999999999999 images need"),
        (["--truncation", "1.5"], "truncation is 1.5, expected 0.02..1.0"),
        (["--kind", "truncations", "--truncations", "0.5,2"], "truncation is 2.0, expected 0.02..1.0"),
        (
            ["--kind", "mechanisms", "--show", "jay,coc"],
            "show[1] is 'coc', expected one of 1000 class names. Did you mean 'cock'",
        ),
        (["--kind", "interpolation", "--frames", "1"], "frames is 1, expected an int of at least 2"),
        (["--kind", "interpolation", "--move", "shape,al"], "--move has 'al', expected some of shape"),
        (["--kind", "interpolation", "--path", "size=1,2"], "--path has 'size', expected one of shape"),
        (["--kind", "interpolation", "--path", "shape=1,2,3"], "shape has 3 labels, expected (from, to)"),
        (
            ["--kind", "interpolation", "--path", "jay,coc"],
            "shape[1] is 'coc', expected one of 1000 class names. Did you mean 'cock'",
        ),
        (
            ["--classes", "shape=jay,coc"],
            "classes['shape'][1] is 'coc', expected one of 1000 class names. Did you mean 'cock'",
        ),
        (["--classes", "colour=1"], "classes key is 'colour', expected one of shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    imagenet_like: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sheet", str(imagenet_like), "-o", "x.png", *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plan_without_truncation_has_no_such_sheet(
    golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sheet", str(golden_plan), "-o", str(tmp_path / "x.png"), "--kind", "truncations"]
    assert main(arguments) == 1
    assert "this plan has no truncation" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_alone(
    imagenet_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    for k, terminal in enumerate((False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        arguments: list[Any] = ["sheet", str(imagenet_like), "-n", "3", "-o", str(tmp_path / f"{k}.png")]
        assert main(arguments) == 0
        progress = capsys.readouterr().err
        assert ("3/3" in progress) if terminal else not progress
