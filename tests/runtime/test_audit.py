"""The audit says exactly what a classifier follows, on a plan whose images tell their labels."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cgnrt
from cgnrt import Audit, Generator, MissingDependencyError
from cgnrt.auditing.rates import ByMechanism, Rate, wilson
from cgnrt.cli import main
from cgnrt.plan import write_plan

K, N = 3, 300
LEVELS = np.array([-1.0, 0.0, 1.0])  # before tanh

Write = Callable[..., Path]


def pictures(name: str) -> np.ndarray:
    """What the mechanism paints for each class, before its activation: (k, channels, 8, 8).

    A mask that is on below and, in row 0, at the column of its class; foregrounds whose channel 0 tells their
    class, backgrounds whose channel 1 does, and channel 2 tells the two apart.
    """
    painted = np.full((K, 1 if name == "shape" else 3, 8, 8), -50.0)
    if name == "shape":
        painted[:, :, 4:] = 50
        painted[np.arange(K), 0, 0, np.arange(K)] = 50
    else:
        painted[:, 0 if name == "texture" else 1] = LEVELS[:, None, None]
        painted[:, 2] = 50 if name == "texture" else -50
    return painted


def shape_of(images: np.ndarray) -> np.ndarray:
    return images[:, 2, 0, :K].argmax(axis=1)


def texture_of(images: np.ndarray) -> np.ndarray:
    return np.abs(images[:, 0, 5, 5, None] - np.tanh(LEVELS)).argmin(axis=1)


def background_of(images: np.ndarray) -> np.ndarray:
    return np.abs(images[:, 1, 2, 5, None] - np.tanh(LEVELS)).argmin(axis=1)


@pytest.fixture(scope="module")
def write(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """A plan of such mechanisms; those that are `blind` look alike for all classes."""

    def make(blind: tuple[str, ...] = (), classes: dict[str, int] | None = None) -> Path:
        manifest, members = make_golden.make_plan()
        for name in make_golden.PICTURES:
            painted = pictures(name)
            if name in blind:
                painted[:] = painted[0]
            k = (classes or {}).get(name, K)
            weight = np.zeros((painted[0].size, make_golden.NOISE + K), "<f4")
            weight[:, make_golden.NOISE :] = painted.reshape(K, -1).T
            members[f"mechanisms/{name}.weights"] = weight.tobytes() + bytes(4 * len(weight))
            members[f"mechanisms/{name}.embedding"] = np.eye(K, dtype="<f4")[:k].tobytes()
            manifest["mechanisms"][name] |= {
                "classes": [f"{name} {i}" for i in range(k)],
                "embedding": {"member": f"mechanisms/{name}.embedding", "shape": [k, K]},
                "roll": False,
            }
        path = tmp_path_factory.mktemp("plans") / "told.plan"
        write_plan(path, manifest, members)
        return path

    return make


@pytest.fixture(scope="module")
def plan(write: Write) -> Generator:
    return Generator(write(), threads=1)


def counts(rates: tuple[Rate, ...]) -> list[int]:
    return [rate.count for rate in rates]


def independent(plan: Generator) -> tuple[np.ndarray, ...]:
    return plan.sample(N, seed=0).labels


def test_the_plan_tells_its_labels(plan: Generator) -> None:
    batch = plan.sample(N, seed=0)
    for read, labels in zip((shape_of, texture_of, background_of), batch.labels, strict=True):
        np.testing.assert_array_equal(read(batch.images), labels)


def test_a_classifier_that_is_right(plan: Generator) -> None:
    found = cgnrt.audit(shape_of, plan, N)
    shape, texture, background = independent(plan)
    assert counts(found.follows) == [N, (texture == shape).sum(), (background == shape).sum()]
    assert counts(found.changes) == [N, 0, 0]
    assert found.moves.shape.count == N
    assert found.shared.count == N
    assert counts(found.by_class) == np.bincount(shape).tolist() == [rate.n for rate in found.by_class]
    assert found.follows.texture.low < found.chance < found.follows.texture.high
    assert found.follows.shape.high == 1
    assert found.classes == ("shape 0", "shape 1", "shape 2")
    assert (found.plan, found.digest, found.n, found.seed) == ("told.plan", plan.plan.digest, N, 0)


@pytest.mark.parametrize(("read", "column"), [(texture_of, 1), (background_of, 2)])
def test_a_classifier_that_follows_a_cue(plan: Generator, read: Any, column: int) -> None:
    found = cgnrt.audit(read, plan, N)
    labels = independent(plan)
    assert counts(found.follows) == [(label == labels[column]).sum() for label in labels]
    assert counts(found.changes) == [N if i == column else 0 for i in range(3)]
    assert found.moves[column].count == N
    assert found.shared.count == N  # right wherever the cues agree: that is why it was not noticed
    assert found.follows.shape.value < 0.45


def test_a_constant_classifier(plan: Generator) -> None:
    found = cgnrt.audit(lambda images: np.ones((len(images), K)), plan, N)  # of equal logits the first
    assert counts(found.follows) == [(label == 0).sum() for label in independent(plan)]
    assert counts(found.changes) == [0, 0, 0]
    assert [rate.value for rate in found.by_class] == [1, 0, 0]


def test_a_random_classifier(plan: Generator) -> None:
    random = np.random.default_rng(0)
    found = cgnrt.audit(lambda images: random.random((len(images), K)), plan, 2000, confidence=0.9999)
    for rate in (*found.follows, *found.moves, found.shared):
        assert rate.low < found.chance < rate.high
    for rate in found.changes:
        assert rate.low < 1 - found.chance < rate.high


def test_interventions_change_one_label_and_no_noise(golden_plan: Path) -> None:
    generator = Generator(golden_plan, backend="openvino", precision="fp32", threads=1)
    asked: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        asked.append(images.copy())
        return np.zeros(len(images), int)

    cgnrt.audit(remember, generator, 20, batch_size=20, seed=5)
    fact = generator.sample(20, seed=5)
    np.testing.assert_allclose(asked[0], fact.images, atol=2e-5)
    np.testing.assert_allclose(asked[4], generator.sample(20, seed=5, labels="shared").images, atol=2e-5)
    for column, mechanism in enumerate(("shape", "texture", "background")):
        others = [
            generator(
                **fact.labels._asdict() | {mechanism: (fact.labels[column] + step) % 3}, noise=fact.noise
            ).images
            for step in (1, 2)
        ]
        off = np.stack([np.abs(asked[1 + column] - other).max(axis=(1, 2, 3)) for other in others])
        assert off.min(axis=0).max() < 2e-5
        assert (off.argmin(axis=0) == 0).any()  # both other classes come
        assert (off.argmin(axis=0) == 1).any()


def test_the_same_whatever_the_batch_size(plan: Generator) -> None:
    mixed = lambda images: (shape_of(images) + (texture_of(images) == 2)) % K  # noqa: E731
    expected = cgnrt.audit(mixed, plan, 100, seed=3)
    assert cgnrt.audit(mixed, plan, 100, seed=3, batch_size=7) == expected
    assert cgnrt.audit(mixed, plan, 100, seed=4) != expected
    drawn = cgnrt.audit(mixed, plan, 100, seed=None)
    assert cgnrt.audit(mixed, plan, 100, seed=drawn.seed) == drawn


def test_batches_bound_the_memory(plan: Generator) -> None:
    sizes: list[int] = []

    def count(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, 8, 8)
        return np.zeros(len(images), np.uint8)

    cgnrt.audit(count, plan, 25, batch_size=10)
    assert sizes == [10] * 10 + [5] * 5


def test_a_background_without_looks_shows_no_change(write: Write) -> None:
    found = cgnrt.audit(background_of, write(blind=("background",)), N)
    assert counts(found.changes) == [0, 0, 0]


def test_the_plan_may_be_a_path_a_plan_or_a_generator(plan: Generator) -> None:
    expected = cgnrt.audit(shape_of, plan, 10)
    assert cgnrt.audit(shape_of, str(plan.plan.path), 10) == expected
    assert cgnrt.audit(shape_of, plan.plan, 10) == expected


def test_a_generator_hands_out_its_own_form(plan: Generator) -> None:
    def read(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (8, 8, 3)
        return shape_of(images.transpose(0, 3, 1, 2))

    assert (
        cgnrt.audit(read, Generator(plan.plan.path, dtype="uint8", layout="NHWC"), N).follows.shape.count == N
    )


class Cues(torch.nn.Module):
    """Logits that follow the texture, in the given type."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tanh(torch.tensor(LEVELS)).to(dtype))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -(images[:, 0, 5, 5, None].to(self.levels.dtype) - self.levels).abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_torch_classifier(plan: Generator, dtype: torch.dtype) -> None:
    expected = cgnrt.audit(texture_of, plan, N)
    module = Cues(dtype).eval()
    assert cgnrt.audit(module, plan, N, inputs="torch") == expected
    # With a gradient, from NumPy images: a tensor is taken all the same.
    assert cgnrt.audit(lambda images: module(torch.from_numpy(images)), plan, N) == expected
    with pytest.raises(ValueError, match=r"module in training mode, .* Call classifier\.eval\(\)"):
        cgnrt.audit(module.train(), plan, N, inputs="torch")


def test_torch_is_asked_for_and_missing(plan: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="package 'torch' is not installed"):
        cgnrt.audit(shape_of, plan, N, inputs="torch")
    assert cgnrt.audit(shape_of, plan, N).follows.shape.count == N


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda m: np.zeros((m, 10)), "number of logits is 10, expected 3, the classes of the plan"),
        (
            lambda m: np.zeros((m - 1, K)),
            r"has shape \(9, 3\), expected logits \(10, 3\) or integer labels \(10,\)",
        ),
        (lambda m: np.zeros((m, K, 1)), r"has shape \(10, 3, 1\)"),
        (lambda m: 1, r"has shape \(\)"),
        (lambda m: None, "is NoneType, expected an array"),
        (lambda m: [[0], [0, 1]] * 5, r"is list \(.*expected an array"),
        (lambda m: np.zeros(m), r"is float64 \(10,\), expected"),
        (lambda m: np.zeros((m, K), complex), "is complex128, expected"),
        (lambda m: np.arange(m), r"labels of the classifier are 0\.\.9, expected 0\.\.2"),
        (lambda m: np.arange(m) % K - 1, r"labels of the classifier are -1\.\.1, expected 0\.\.2"),
        (lambda m: np.diag([np.nan] * m)[:, :K] + np.eye(m)[:, :K], "logits of image 0 of a batch are NaN"),
        (lambda m: np.full((m, K), np.nan), "logits of image 0 of a batch are NaN"),
        (lambda m: np.full((m, K), -np.inf), "logits of image 0 of a batch are all -inf"),
        (lambda m: np.full((m, K), -np.inf, np.float16), "logits of image 0 of a batch are all -inf"),
        (
            lambda m: np.where(np.arange(m) == 4, -np.inf, 0)[:, None] * np.ones(K),
            "logits of image 4 .* all -inf",
        ),
    ],
)
def test_answers_that_are_none(plan: Generator, answer: Callable[[int], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^audit: .*{message}"):
        cgnrt.audit(lambda images: answer(len(images)), plan, 10)


def test_infinite_logits_are_numbers(plan: Generator) -> None:
    def certain(images: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(np.eye(K)[shape_of(images)])

    assert cgnrt.audit(certain, plan, N).follows.shape.count == N


def test_what_the_classifier_raises_goes_through(plan: Generator) -> None:
    class OwnError(Exception):
        pass

    own = OwnError("out of order")

    def fail(images: np.ndarray) -> np.ndarray:
        raise own

    with pytest.raises(OwnError) as caught:
        cgnrt.audit(fail, plan, 10)
    assert caught.value is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"n": -1}, "n is -1, expected at least 1"),
        ({"n": 2.0}, r"n is 2\.0, expected an int"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"confidence": 1.0}, r"confidence is 1\.0, expected a number between 0 and 1"),
        ({"confidence": math.nan}, "confidence is nan"),
        ({"inputs": "jax"}, "inputs is 'jax', expected 'numpy' or 'torch'"),
        ({"classifier": "model"}, "classifier is str, expected a callable"),
        ({"seed": -1}, r"seed is -1, expected 0\.\."),
        ({"truncation": 0.5}, "this plan has no truncation"),
    ],
)
def test_bad_arguments(plan: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        cgnrt.audit(**{"classifier": shape_of, "plan": plan, "n": 10} | options)


def test_mechanisms_of_different_classes(write: Write) -> None:
    with pytest.raises(
        ValueError, match=r"classes are shape 3, texture 2, background 3, expected the same number"
    ):
        cgnrt.audit(shape_of, write(classes={"texture": 2}), 10)
    with pytest.raises(ValueError, match="at least 2"):
        cgnrt.audit(shape_of, write(classes=dict.fromkeys(("shape", "texture", "background"), 1)), 10)


# The result.


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    # Published examples: 0 and 1 of 10, 15 of 148 (Newcombe, 1998: 0.0624 to 0.1605), all of 10.
    [(0, 10, (0, 0.2775)), (1, 10, (0.0179, 0.4042)), (15, 148, (0.0624, 0.1605)), (10, 10, (0.7225, 1))],
)
def test_wilson(count: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(count, n, 0.95) == pytest.approx(expected, abs=6e-5)


def test_wilson_contains_the_rate() -> None:
    for n in (1, 3, 7, 10_000):
        for count in {0, 1, n // 2, n}:
            low, high = wilson(count, n, 0.95)
            assert 0 <= low <= count / n <= high <= 1
    assert wilson(0, 0, 0.95) == (0, 1)


def test_json_is_the_audit(plan: Generator) -> None:
    found = cgnrt.audit(shape_of, plan, 5)  # few enough that a class may not come
    assert Audit.from_json(found.to_json()) == found
    content = json.loads(found.to_json())
    assert content["follows"]["shape"] == {
        "count": 5,
        "n": 5,
        "low": found.follows.shape.low,
        "high": 1,
        "value": 1,
    }
    assert content["chance"] == pytest.approx(1 / K)
    unseen = Rate.of(0, 0, 0.95)
    assert math.isnan(unseen.value)
    assert str(unseen) == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("format"), "format is not 'cgnrt-audit'"),
        (lambda c: c.update(format_version=2), "format version is 2, expected 1. Upgrade"),
        (lambda c: c.pop("shared"), "content is damaged .*shared"),
        (lambda c: c["follows"]["shape"].update(count=7), "content is damaged .*a rate is"),
        (lambda c: c["by_class"].pop(), "content is damaged .*by_class"),
        (lambda c: c.update(n="5"), "content is damaged .*n is '5'"),
        (lambda c: c.update(classes=[1, 2, 3]), "content is damaged .*classes"),
    ],
)
def test_content_that_is_no_audit(
    plan: Generator, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = cgnrt.audit(shape_of, plan, 5).to_dict()
    change(content)
    with pytest.raises(ValueError, match=f"^read audit: {message}"):
        Audit.from_dict(content)
    with pytest.raises(ValueError, match=r"^read audit: content is not JSON"):
        Audit.from_json("{")


def test_the_table(plan: Generator) -> None:
    text = str(cgnrt.audit(texture_of, plan, N))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["texture"].count("100.0 %") == 3
    assert rows["chance"].split() == ["chance", "33.3", "%"]
    assert "where all labels agree, accuracy is 100.0 % (" in text


def test_the_table_of_many_classes_shows_the_lowest() -> None:
    one = Rate.of(1, 2, 0.95)
    three = ByMechanism(one, one, one)
    rates = tuple(Rate.of(i, 20, 0.95) for i in range(20))
    found = Audit("a.plan", "0" * 64, 2, 0, 0.95, tuple(map(str, range(20))), three, three, three, one, rates)
    assert "shape followed, lowest 10 of 20:\n  0: 0.0 %" in str(found)
    assert "  10: " not in str(found)


def test_the_plot(plan: Generator, tmp_path: Path) -> None:
    target = tmp_path / "audit.png"
    found = cgnrt.audit(texture_of, plan, N)
    found.plot(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - (0x1B, 0x6C, 0xA8)).max(axis=2) < 8).sum() > 1000  # bars of `follows`
    with pytest.raises(cgnrt.CgnrtError, match="the file exists"):
        found.plot(target)
    found.plot(target, force=True)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        found.plot(tmp_path / "audit.pdf")
    assert [p.name for p in tmp_path.iterdir()] == ["audit.png"]


def test_matplotlib_is_missing(plan: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingDependencyError, match=r"Run: pip install 'cgnrt\[plot\]'"):
        cgnrt.audit(shape_of, plan, 10).plot(tmp_path / "audit.png")
    assert not list(tmp_path.iterdir())


# The command.

SOURCE = """
import numpy as np
def constant(images):
    assert images.dtype == np.float32
    return np.zeros(len(images), int)
def fails(images):
    raise ValueError("out of order")
class Model:
    def classify(self, images):
        return constant(images)
model = Model()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of classifiers."""
    (tmp_path / "own_classifiers.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import cgnrt_no_such_package\n")
    monkeypatch.chdir(tmp_path)
    for name in ("own_classifiers", "own_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_command(plan: Generator, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = list(sys.path)
    words = ["audit", str(plan.plan.path), "own_classifiers:constant", "-n", "50", "--threads", "1"]
    assert main([*words, "-o", "audit.json", "--plot", "audit.png"]) == 0
    captured = capsys.readouterr()
    expected = cgnrt.audit(lambda images: np.zeros(len(images), int), plan, 50)
    assert captured.out == f"{expected}\n"
    assert captured.err == ""
    assert Audit.from_json((here / "audit.json").read_text()) == expected
    assert (here / "audit.png").stat().st_size > 1000
    assert sys.path == path
    assert main([*words, "-o", "audit.json"]) == 1
    assert "the file exists" in capsys.readouterr().err
    assert main([*words, "-o", "audit.json", "--force"]) == 0
    assert main([*words[:2], "own_classifiers:model.classify", *words[3:]]) == 0


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("own_classifiers", [], "expected MODULE:FUNCTION"),
        ("no_such_module:f", [], "module 'no_such_module' is missing"),
        ("own_classifiers.sub:f", [], "module 'own_classifiers.sub' is missing"),
        ("own_classifiers:f", [], "'f' is missing in module 'own_classifiers'"),
        ("own_classifiers:SOURCE", [], "is missing in module"),
        ("own_classifiers:np", [], "classifier is module, expected a callable"),
        ("own_classifiers:fails", [], "the classifier's code raised ValueError (above)"),
        ("own_broken:f", [], "the classifier's code raised ModuleNotFoundError (above)"),
        ("own_classifiers:constant", ["-o", "audit.txt"], "expected a name that ends in .json"),
        ("own_classifiers:constant", ["--plot", "audit.txt"], "expected a name that ends in .png"),
        ("own_classifiers:constant", ["-n", "0"], "n is 0, expected at least 1"),
    ],
)
def test_the_command_refuses(
    plan: Generator, here: Path, capsys: pytest.CaptureFixture[str], name: str, more: list[str], message: str
) -> None:
    before = sorted(p.name for p in here.iterdir() if p.suffix)
    assert main(["audit", str(plan.plan.path), name, "-n", "10", *more]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert sorted(p.name for p in here.iterdir() if p.suffix) == before
    if "(above)" in message:
        assert "Traceback" in captured.err
