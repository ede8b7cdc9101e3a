"""The `cgnrt` command as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgnrt import Generator, Place
from cgnrt._support.files import terminable, written_beside
from cgnrt.cli import main
from cgnrt.cli.bench import usual_batch
from cgnrt.errors import CgnrtError

from .conftest import NAMES


def test_inspect(golden_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(golden_plan)]) == 0
    text = capsys.readouterr().out
    assert main(["inspect", "--json", str(golden_plan)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Generator(golden_plan).plan.digest == found["digest"]
    assert found["digest"][:12] in text


def test_sample_writes_the_stream(golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cgnrt.cli.sample._STEP_PIXELS", 16 * 64
    )  # so that the file is written in several steps
    target = tmp_path / "deep" / "out.npz"
    arguments = ["sample", str(golden_plan), "-n", "50", "-o", str(target), "--seed", "4", "--start", "3"]
    assert main([*arguments, "--do", "texture=1"]) == 0
    expected = Generator(golden_plan, dtype="uint8", layout="NHWC").sample(
        50, seed=4, start=3, do={"texture": 1}
    )
    with np.load(target, allow_pickle=False) as found:
        assert np.abs(found["images"].astype(int) - expected.images.astype(int)).max() <= 1
        np.testing.assert_array_equal(found["labels_shape"], expected.labels.shape)
        np.testing.assert_array_equal(found["labels_texture"], 1)
        np.testing.assert_array_equal(found["indices"], np.arange(3, 53))
        assert found["seed"].tolist() == [4]
    assert [p.name for p in target.parent.iterdir()] == ["out.npz"]


def test_inspect_lists_all_classes(imagenet_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(imagenet_like), "--classes"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [mechanism, str(index), name]
        for mechanism in ("shape", "texture", "background")
        for index, name in enumerate(NAMES)
    ]


def test_sample_takes_class_subsets_and_truncation(imagenet_like: Path, tmp_path: Path) -> None:
    shark = "great white shark, man-eater"  # one class, commas and all
    subsets = ["texture=jay, 0,geyser", f"texture={shark}", "background=king penguin"]
    arguments = [
        "sample",
        str(imagenet_like),
        "-n",
        "60",
        "-o",
        str(tmp_path / "x.npz"),
        "--truncation",
        "0.3",
    ]
    assert main(arguments + [word for subset in subsets for word in ("--classes", subset)]) == 0
    expected = Generator(imagenet_like, dtype="uint8", layout="NHWC").sample(
        60,
        seed=0,
        truncation=0.3,
        classes={"texture": ["jay", 0, "geyser", shark], "background": ["king penguin"]},
    )
    assert {NAMES[k] for k in expected.labels.texture} == {"jay", NAMES[0], "geyser", shark}
    with np.load(tmp_path / "x.npz") as found:
        for mechanism, labels in expected.labels._asdict().items():
            np.testing.assert_array_equal(found[f"labels_{mechanism}"], labels)
        assert np.abs(found["images"].astype(int) - expected.images.astype(int)).max() <= 1


def test_sample_renews_its_pool(golden_plan: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "x.npz")
    assert main(["sample", str(golden_plan), "-n", "9", "-o", target, "--pool", "3", "--refresh", "2"]) == 0
    expected = Generator(golden_plan, dtype="uint8", layout="NHWC").sample(9, seed=0, pool=3, refresh=2)
    with np.load(target) as found:
        np.testing.assert_array_equal(found["labels_texture"], expected.labels.texture)
        assert np.abs(found["images"].astype(int) - expected.images.astype(int)).max() <= 1


def test_sample_tells_the_places(
    golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "x.npz")
    given = ["sample", str(golden_plan), "-n", "9", "-o", target]
    assert main([*given, "--place", "dx=-0.5:0.25,flip=0.5", "--do", "scale=0.5"]) == 0
    place = Place(dx=(-0.5, 0.25), flip=0.5, scale=0.5)
    expected = Generator(golden_plan, dtype="uint8", layout="NHWC").sample(9, seed=0, place=place)
    with np.load(target) as found:
        np.testing.assert_array_equal(found["place"], expected.place)
        assert found["place"].dtype == np.float32
        assert np.abs(found["images"].astype(int) - expected.images.astype(int)).max() <= 1
    assert main([*given, "--force", "--place", "size=2"]) == 1
    assert "sample: place has 'size', expected some of dy, dx, scale, flip." in capsys.readouterr().err
    assert main([*given, "--force"]) == 0
    with np.load(target) as found:
        assert "place" not in found.files


def test_sample_of_nothing(golden_plan: Path, tmp_path: Path) -> None:
    assert main(["sample", str(golden_plan), "-n", "0", "-o", str(tmp_path / "x.npz")]) == 0
    with np.load(tmp_path / "x.npz") as found:
        assert found["images"].shape == (0, 8, 8, 3)


def test_sheet(golden_plan: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    assert main(["sheet", str(golden_plan), "-n", "3", "-o", str(target), "--tile", "40"]) == 0
    with Image.open(target) as image:
        found = np.asarray(image)
    batch = Generator(golden_plan, dtype="uint8", layout="NHWC").sample(3, seed=0)
    # The last composite is the corner of the sheet, inside a gap of 6: 8 px drawn as 40.
    corner = found[-46:-6, -46:-6].reshape(8, 5, 8, 5, 3)[:, 2, :, 2]
    np.testing.assert_array_equal(corner, batch.images[-1])


def test_bench(golden_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(golden_plan), "--seconds", "0.01", "--batch", "32", "--reuse", "4"]
    assert main(arguments) == 0
    assert "images/s" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == ["reuse 1", "pool 8, reuse 4"]
    assert all(row["images_per_second"] > 0 for row in rows)


@pytest.mark.parametrize(("side", "batch"), [(8, 1600), (32, 1600), (256, 25), (2048, 1)])
def test_bench_draws_fewer_large_images(side: int, batch: int) -> None:
    assert usual_batch((side, side)) == batch


def test_bench_has_a_batch_of_its_own(golden_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(golden_plan), "--seconds", "0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == usual_batch((8, 8))


@pytest.mark.parametrize("terminal", [False, True])
def test_bench_shows_its_progress_on_a_terminal_alone(
    golden_plan: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main(["bench", str(golden_plan), "--seconds", "0.01", "--batch", "32"]) == 0
    progress = capsys.readouterr().err
    assert ("reuse 1" in progress and "100%" in progress) if terminal else not progress


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.plan"], "missing.plan"),
        (["sample", "PLAN", "-n", "-2", "-o", "x.npz"], "n is -2, expected 0 or more"),
        (["sample", "PLAN", "-n", "2", "-o", "x.png"], "expected a name that ends in .npz"),
        (["sample", "PLAN", "-n", "2", "-o", "x.npz", "--do", "colour=1"], "do key is 'colour'"),
        (["sheet", "PLAN", "-n", "0", "-o", "x.png"], "n is 0, expected at least 1"),
        (["bench", "PLAN", "--reuse", "0"], "expected positive numbers"),
        (["sheet", "PLAN", "-o", "x.png", "--backend", "tvm"], "backend is 'tvm'"),
    ],
)
def test_failures_exit_1_and_leave_nothing(
    golden_plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(golden_plan) if a == "PLAN" else a for a in arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["draw"],
        ["sample", "x.plan"],
        ["sheet", "x", "-o", "y", "--do", "z"],
        ["sheet", "x", "-o", "y", "--classes", "shape="],
        ["sheet", "x", "-o", "y", "--kind", "poster"],
        ["sheet", "x", "-o", "y", "--truncations", "0.5,high"],
    ],
)
def test_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("command", ["sample", "sheet"])
def test_existing_files_are_kept_without_force(
    golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    target = tmp_path / ("x.npz" if command == "sample" else "x.png")
    target.write_text("mine")
    # Refused before any other work: a plan that is not there is not even looked for.
    for plan in (golden_plan, tmp_path / "missing.plan"):
        assert main([command, str(plan), "-n", "2", "-o", str(target)]) == 1
        assert "the file exists, expected a new one. Pass --force to replace it" in capsys.readouterr().err
        assert target.read_text() == "mine"
    assert main([command, str(golden_plan), "-n", "2", "-o", str(target), "--force"]) == 0
    assert target.stat().st_size > 100
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "x.npz"
    target.write_text("mine")
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    assert main(["sample", str(golden_plan), "-n", "2", "-o", str(target), "--force"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(CgnrtError, match="the file exists, expected a new one"):
        _write_while_another_does(tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def _write_while_another_does(target: Path) -> None:
    with written_beside(target, force=False) as beside:
        beside.write_text("ours")
        target.write_text("theirs")


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    target = tmp_path / "x.npz"
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, target.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    with written_beside(target, force=force) as beside:
        beside.write_text("ours")
    assert synced == [(target.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
    assert target.stat().st_nlink == 1


def test_without_hard_links_a_file_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "x.npz"
    with written_beside(target, force=False) as beside:
        beside.write_text("ours")
    assert target.read_text() == "ours"
    with pytest.raises(CgnrtError, match="the file exists"):
        _write_while_another_does(tmp_path / "y.npz")
    assert (tmp_path / "y.npz").read_text() == "theirs"


def test_a_name_as_long_as_names_may_be(golden_plan: Path, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".npz")
    assert main(["sample", str(golden_plan), "-n", "2", "-o", str(target)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_terminated_sample_leaves_nothing(golden_plan: Path, tmp_path: Path) -> None:
    code = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["sample", str(golden_plan), "-n", "20000000", "-o", str(tmp_path / "x.npz")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            begun = list(tmp_path.iterdir())
            process.terminate()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert begun
    assert (process.returncode, out, err) == (1, "", "cgnrt sample: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_terminable_gives_the_handlers_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


def test_terminable_sees_through_the_error_of_an_interrupted_call() -> None:
    def call() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    with pytest.raises(KeyboardInterrupt), terminable():
        call()
    with pytest.raises(ImportError), terminable():
        raise ImportError


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_bench_takes_a_time(golden_plan: Path, capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert main(["bench", str(golden_plan), "--seconds", seconds]) == 1
    assert "expected positive numbers" in capsys.readouterr().err


def test_example_writes_a_plan_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_plan: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["example"]) == 0
    assert Path("plans/double-colored.plan").read_bytes() == demo_plan.read_bytes()
    capsys.readouterr()
    before = Path("plans/double-colored.plan").stat().st_mtime_ns
    assert main(["example"]) == 0  # it is there
    assert Path("plans/double-colored.plan").stat().st_mtime_ns == before
    Path("plans/double-colored.plan").write_text("another")
    assert main(["example"]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["example", "--force"]) == 0
    assert main(["example", "-o", "other.plan"]) == 0
    assert Generator("other.plan").sample(2, seed=0).images.shape == (2, 3, 32, 32)
