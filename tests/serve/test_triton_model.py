"""The model.py of a Triton repository, against a stand-in for Triton's Python backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Gate, generator, until
from triton_standin import FINAL, InferenceResponse, Loaded, Sender, TritonError, loaded

import cgnrt
from cgnrt.errors import BackendError
from cgnrt_export.triton_repository import write_triton_model

PARTS = ("mask", "foreground", "background")


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def seed(value: int) -> np.ndarray:
    return np.array([value], np.uint64)


def edit(folder: Path, *pairs: tuple[str, str]) -> Path:
    """What its owner writes into a config.pbtxt: replaced texts, and parameters after them."""
    path = folder / "config.pbtxt"
    text = path.read_text()
    for old, new in pairs:
        if not old.startswith("name:"):
            text += f'parameters {{ key: "{old}" value: {{ string_value: "{new}" }} }}\n'
            continue
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(golden_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triton_model(golden_plan, tmp_path_factory.mktemp("repository"), "v2")


@pytest.fixture
def own(golden_plan: Path, tmp_path: Path) -> Path:
    """A model whose configuration a test may edit."""
    return write_triton_model(golden_plan, tmp_path, "v2")


@pytest.fixture(scope="module")
def triton(folder: Path) -> Iterator[Loaded]:
    with loaded(folder) as found:
        yield found


@pytest.fixture(scope="module")
def alone(golden_plan: Path) -> cgnrt.Generator:
    return generator(golden_plan)


def check(answer: InferenceResponse, expected: cgnrt.Batch) -> None:
    """Labels are exact, pictures may differ by the engine's rounding: 1 of 255, 1e-5 in float32."""
    assert answer.error is None, answer.error
    np.testing.assert_array_equal(answer.tensors["labels"], np.stack(expected.labels, axis=1))
    images = answer.tensors["images"]
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int) - expected.images).max(initial=0) <= 1
    for name in PARTS:
        if name in answer.tensors:
            np.testing.assert_allclose(answer.tensors[name], getattr(expected, name), atol=1e-5)


def test_samples_are_those_of_the_stream(triton: Loaded, alone: cgnrt.Generator) -> None:
    request = triton.ask(("images", "labels"), count=integers(5), seed=seed(2**64 - 1), start=integers(3))
    answer = request.answer()
    assert list(answer.tensors) == ["images", "labels"]
    check(answer, alone.sample(5, seed=2**64 - 1, start=3))


def test_who_names_no_outputs_gets_all(triton: Loaded, alone: cgnrt.Generator) -> None:
    answer = triton.ask(count=integers(3), seed=seed(1), texture=integers(2)).answer()
    assert list(answer.tensors) == ["images", "labels", *PARTS, "place"]
    check(answer, alone.sample(3, seed=1, do={"texture": 2}, parts=True))


def test_labels_for_each_image_and_pools(triton: Loaded, alone: cgnrt.Generator) -> None:
    answer = triton.ask(
        ("images", "labels"), count=integers(3), seed=seed(1), shape=integers(2, 0, 1)
    ).answer()
    check(answer, alone(shape=[2, 0, 1], seed=1))
    answer = triton.ask(
        ("images", "labels"), count=integers(9), seed=seed(1), pool=integers(2, 3, 4)
    ).answer()
    check(answer, alone.sample(9, seed=1, pool=(2, 3, 4)))


def test_names_and_forms_are_parameters(triton: Loaded, alone: cgnrt.Generator) -> None:
    name = alone.classes["background"][1]
    request = triton.ask(
        ("images", "labels"), count=integers(2), seed=4, background=name, dtype="float32", layout="NCHW"
    )
    answer = request.answer()
    expected = alone.with_pixels("float32", "NCHW").sample(2, seed=4, do={"background": 1})
    np.testing.assert_allclose(answer.tensors["images"], expected.images, atol=1e-5)
    assert (answer.tensors["labels"][:, 2] == 1).all()


def test_names_for_each_image_after_an_edit(own: Path, alone: cgnrt.Generator) -> None:
    names = alone.classes["texture"]
    edit(own, ('name: "texture" data_type: TYPE_INT64', 'name: "texture" data_type: TYPE_STRING'))
    with loaded(own) as triton:
        texts = np.array([names[2].encode(), names[0].encode()], object)
        answer = triton.ask(count=integers(2), seed=seed(4), texture=texts).answer()
    check(answer, alone(texture=[2, 0], seed=4, parts=True))


def test_requests_that_come_together_share_a_call(folder: Path, alone: cgnrt.Generator) -> None:
    gate = Gate()
    with loaded(folder) as triton:
        gate.hold(triton.model._service._generator)
        first = triton.ask(("images", "labels"), count=integers(1), seed=seed(9))
        gate.wait()
        asked = [
            triton.ask(("images", "labels"), count=integers(n), seed=seed(n), texture=integers(1))
            for n in (2, 3, 4)
        ]
        until(lambda: triton.model._service.active() == 4)
        gate.open.set()
        check(first.answer(), alone.sample(1, seed=9))
        for n, request in zip((2, 3, 4), asked, strict=True):
            check(request.answer(), alone.sample(n, seed=n, do={"texture": 1}))
    assert gate.calls == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"count": integers(10**9)}, "INVALID_ARG", r"count is 1000000000, expected 0\.\."),
        ({"seed": seed(1)}, "INVALID_ARG", "input 'count' is missing"),
        ({"count": integers(1), "texture": integers(3)}, "INVALID_ARG", r"texture is 3, expected 0\.\.2"),
        ({"count": integers(1), "txture": 1}, "INVALID_ARG", "Did you mean 'texture'"),
        ({"count": integers(1), "shape": np.zeros(10**6, np.int64)}, "INVALID_ARG", "values are 1000000"),
        ({"count": integers(1), "layout": "CHWN"}, "INVALID_ARG", "layout is 'CHWN', expected NHWC or NCHW"),
    ],
)
def test_refusals(triton: Loaded, given: dict[str, Any], code: str, message: str) -> None:
    error = triton.ask(**given).answer().error
    assert error is not None
    assert error.code == getattr(TritonError, code)
    with pytest.raises(TritonError, match=message):
        raise error


def test_what_does_not_fit_the_queue_is_refused_at_once(own: Path) -> None:
    gate = Gate()
    with loaded(edit(own, ("queue", "4"))) as triton:
        gate.hold(triton.model._service._generator)
        running = triton.ask(count=integers(1))
        gate.wait()
        waiting = triton.ask(count=integers(4))
        error = triton.ask(count=integers(1)).answer().error
        gate.open.set()
        assert error is not None
        assert error.code == TritonError.UNAVAILABLE
        assert error.message.startswith("infer: images that wait are 4, expected at most 4")
        assert running.answer().error is None
        assert waiting.answer().error is None


def test_who_went_away_leaves_the_queue(folder: Path) -> None:
    gate = Gate()
    with loaded(folder) as triton:
        gate.hold(triton.model._service._generator)
        running = triton.ask(count=integers(1))
        gate.wait()
        gone = triton.ask(count=integers(2))
        gone.sender.cancelled = True
        error = gone.answer().error
        gate.open.set()
        assert running.answer().error is None
    assert error is not None
    assert error.code == TritonError.CANCELLED
    assert gate.calls == [[1]]


def test_a_clients_timeout(folder: Path) -> None:
    gate = Gate()
    with loaded(folder) as triton:
        gate.hold(triton.model._service._generator)
        error = triton.ask(count=integers(1), timeout_us=20_000).answer().error
        gate.open.set()
    assert error is not None
    assert error.code == TritonError.UNAVAILABLE
    assert "no answer within 0.02 s" in error.message


def test_a_failure_inside_is_answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded(folder) as triton:

        def fail(requests: Any, *, parts: bool = False) -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(triton.model._service._generator, "render", fail)
        error = triton.ask(count=integers(1)).answer().error
    assert error is not None
    assert error.code == TritonError.INTERNAL


def test_what_was_taken_is_answered_before_the_end(folder: Path, alone: cgnrt.Generator) -> None:
    with loaded(folder) as triton:
        requests = [triton.ask(count=integers(3), seed=seed(k)) for k in range(20)]
    for k, request in enumerate(requests):
        check(request.answer(), alone.sample(3, seed=k, parts=True))


@pytest.fixture
def stream(golden_plan: Path, tmp_path: Path) -> Path:
    """A decoupled model that answers at most 64 images at once and 1,000 as a stream."""
    folder = write_triton_model(golden_plan, tmp_path, "stream", decoupled=True)
    return edit(folder, ("images", "64"), ("stream_images", "1000"))


def test_a_decoupled_model_answers_in_pieces(stream: Path, alone: cgnrt.Generator) -> None:
    with loaded(stream) as triton:
        answers = triton.ask(
            ("images", "labels"), count=integers(200), seed=seed(7), texture=integers(1)
        ).answers()
        assert [len(answer.tensors["images"]) for answer in answers] == [64, 64, 64, 8]
        whole = {name: np.concatenate([a.tensors[name] for a in answers]) for name in ("images", "labels")}
        (refused,) = triton.ask(count=integers(1001)).answers()
        (none,) = triton.ask(count=integers(0)).answers()
    expected = alone.sample(200, seed=7, do={"texture": 1})
    assert np.abs(whole["images"].astype(int) - expected.images).max() <= 1
    np.testing.assert_array_equal(whole["labels"], np.stack(expected.labels, axis=1))
    assert refused.error is not None
    assert none.tensors["images"].shape == (0, 8, 8, 3)


def test_a_stream_that_nobody_reads_ends(stream: Path) -> None:
    with loaded(stream) as triton:
        sender = Sender(decoupled=True)
        send = sender.send

        def leave(response: InferenceResponse | None = None, flags: int = 0) -> None:
            send(response, flags)
            sender.cancelled = True

        sender.send = leave  # type: ignore[method-assign]
        request = triton.ask(count=integers(0))
        request.answers()
        request.tensors, request.sender = {"count": integers(1000)}, sender
        triton.model.execute([request])
        assert len(request.answers()) == 1
        until(lambda: triton.model._service.active() == 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("queue", "-1", r"load 'v2': parameter queue is '-1', expected a whole number of at least 1"),
        ("timeout_s", "nan", r"parameter timeout_s is 'nan', expected seconds above 0"),
        (
            "bank_cache_bytes",
            "-1",
            r"parameter bank_cache_bytes is '-1', expected a number of bytes of 0 or more",
        ),
        ("trust_engines", "yes", r"parameter trust_engines is 'yes', expected true or false"),
        ("backend", "", r"parameter backend is '', expected a name or 'auto'"),
        ("thread", "1", r"parameter is 'thread', expected one of .* Did you mean 'threads'\?"),
    ],
)
def test_a_parameter_that_is_none_keeps_the_model_from_loading(
    own: Path, name: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message), loaded(edit(own, (name, value))):
        pass


def test_parameters_reach_the_generator(own: Path) -> None:
    pairs = (("threads", "1"), ("precision", "fp32"), ("backend", "openvino"), ("timeout_s", "2.5"))
    with loaded(edit(own, *pairs, ("EXECUTION_ENV_PATH", "/env"))) as triton:
        service = triton.model._service
        assert (service._generator.threads, service._generator.backend) == (1, "openvino")
        assert service.limits.timeout_s == 2.5


def test_memory_for_the_pictures_of_banks(own: Path) -> None:
    with loaded(edit(own, ("bank_cache_bytes", "0"))) as triton:
        assert triton.model._service._generator._pipeline.options.bank_cache_bytes == 0


def test_an_instance_on_a_gpu_that_is_not_there_does_not_load(folder: Path) -> None:
    with pytest.raises(BackendError, match="cuda:0"), loaded(folder, kind="GPU"):
        pass


def test_the_stand_in_refuses_what_triton_does() -> None:
    sender = Sender(decoupled=False)
    with pytest.raises(RuntimeError, match="complete final before sending a response"):
        sender.send(flags=FINAL)
    sender.send(InferenceResponse())
    with pytest.raises(RuntimeError, match="more than one response"):
        sender.send(InferenceResponse())
