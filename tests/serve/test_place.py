"""Places of objects in requests and answers, over every transport."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from serving import Gate, Running, arrays, generator, request, running, tensor
from triton_standin import loaded
from tritonclient.utils import shared_memory

import cgnrt
from cgnrt import Place
from cgnrt.serve.limits import Limits
from cgnrt.serve.protocol import InferResponse, ServeError, Tensor
from cgnrt.serve.service import Service
from cgnrt_export.triton_repository import write_triton_model

TEXT = "dy=-0.25:0.25,dx=-0.5:0,scale=0.5:1.5,flip=0.5"
PLACE = Place(dy=(-0.25, 0.25), dx=(-0.5, 0), scale=(0.5, 1.5), flip=0.5)
LIMITS = Limits(images=64, stream_images=1000, piece=16, batch=8, queue=64, body_bytes=100_000)


@pytest.fixture(scope="module")
def served(golden_plan: Path) -> Iterator[Running]:
    """A server of both transports."""
    with running(Service(generator(golden_plan), "v2", limits=LIMITS), grpc=True) as found:
        yield found


@pytest.fixture(scope="module")
def alone(golden_plan: Path) -> cgnrt.Generator:
    return generator(golden_plan)


def rows(*places: tuple[float, ...]) -> Tensor:
    data = np.array(places, np.float32)
    return Tensor("place", "FP32", data.shape, data)


def ask(plan: Path, *inputs: Tensor, outputs: tuple[str, ...] = (), **parameters: Any) -> InferResponse:
    """One answer of a service."""

    async def once() -> InferResponse:
        service = Service(generator(plan), "v2", limits=LIMITS)
        try:
            return await service.infer(request(*inputs, outputs=outputs, **parameters))
        finally:
            await service.close()

    return asyncio.run(once())


def test_places_are_drawn_as_the_text_says(golden_plan: Path, alone: cgnrt.Generator) -> None:
    expected = alone.sample(9, 4, start=2, place=PLACE)
    asked = [tensor("count", 9), tensor("seed", 4), tensor("start", 2)]
    for given in ({"place": TEXT}, {}):
        text = [] if given else [tensor("place", TEXT.encode(), datatype="BYTES")]
        answer = ask(golden_plan, *asked, *text, **given)
        assert [output.name for output in answer.outputs] == ["images", "labels", "place"]
        found = arrays(answer)
        assert found["place"].dtype == np.float32
        np.testing.assert_array_equal(found["place"], expected.place)
        np.testing.assert_array_equal(found["images"], expected.images)


def test_places_of_ones_own(golden_plan: Path, alone: cgnrt.Generator) -> None:
    places = alone.sample(5, 4, place=PLACE).place
    asked = [tensor("count", 5), tensor("seed", 4)]
    for given, expected in (
        (rows(*places), places),
        (rows(places[2]), places[[2] * 5]),
        (Tensor("place", "FP32", (4,), places[2]), places[[2] * 5]),
        (Tensor("place", "INT64", (1, 4), np.array([[1, -2, 1, 1]])), np.float32([[1, -2, 1, 1]] * 5)),
    ):
        found = arrays(ask(golden_plan, *asked, given))
        np.testing.assert_array_equal(found["place"], expected)
        np.testing.assert_array_equal(found["images"], alone.sample(5, 4, place=expected).images)


@pytest.mark.parametrize("text", [True, False])
def test_a_pool_serves_all_places(golden_plan: Path, alone: cgnrt.Generator, text: bool) -> None:
    places = alone.sample(6, 1, place=PLACE).place

    async def twice() -> list[InferResponse]:
        service = Service(generator(golden_plan), "v2", limits=LIMITS)
        asked = [tensor("count", 6), tensor("seed", 1), tensor("pool", 3)]
        placed = request(*asked, place=TEXT) if text else request(*asked, rows(*places))
        answers = [await service.infer(each) for each in (request(*asked), placed, request(*asked))]
        assert len(service._batcher._pools) == 1
        await service.close()
        return answers

    still, placed, again = map(arrays, asyncio.run(twice()))
    np.testing.assert_array_equal(placed["images"], alone.sample(6, 1, pool=3, place=PLACE).images)
    np.testing.assert_array_equal(placed["place"], places)
    for found in (still, again):
        assert set(found) == {"images", "labels"}
        np.testing.assert_array_equal(found["images"], alone.sample(6, 1, pool=3).images)


def test_without_a_place_objects_are_where_they_are(golden_plan: Path, alone: cgnrt.Generator) -> None:
    asked = [tensor("count", 3), tensor("seed", 4)]
    plain = ask(golden_plan, *asked)
    assert [output.name for output in plain.outputs] == ["images", "labels"]
    named = arrays(ask(golden_plan, *asked, outputs=("place", "images")))
    np.testing.assert_array_equal(named["place"], np.float32([[0, 0, 1, 0]] * 3))
    np.testing.assert_array_equal(named["images"], arrays(plain)["images"])
    np.testing.assert_array_equal(named["images"], alone.sample(3, 4).images)
    only = ask(golden_plan, *asked, outputs=("images",), place=TEXT)
    assert [output.name for output in only.outputs] == ["images"]
    np.testing.assert_array_equal(arrays(only)["images"], alone.sample(3, 4, place=PLACE).images)


def test_requests_that_share_a_call_keep_their_places(
    golden_plan: Path, limits: Limits, alone: cgnrt.Generator
) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)

    async def together() -> list[InferResponse]:
        service = Service(shared, "v2", limits=limits)
        first = asyncio.ensure_future(service.infer(request(tensor("count", 1))))
        await asyncio.to_thread(gate.wait)
        asked = [
            request(tensor("count", 3), tensor("seed", 1)),
            request(tensor("count", 2), tensor("seed", 2), place=TEXT),
            request(tensor("count", 2), tensor("seed", 3), rows((1, 0, 1, 1))),
        ]
        waiting = [asyncio.ensure_future(service.infer(each)) for each in asked]
        while service.active() < 4:
            await asyncio.sleep(0.001)
        gate.open.set()
        await first
        found = await asyncio.gather(*waiting)
        await service.close()
        return found

    still, drawn, given = map(arrays, asyncio.run(together()))
    assert gate.calls[1:] == [[3, 2, 2]]
    assert "place" not in still
    for found, expected in (
        (still, alone.sample(3, 1)),
        (drawn, alone.sample(2, 2, place=PLACE)),
        (given, alone.sample(2, 3, place=[[1, 0, 1, 1]] * 2)),
    ):
        assert np.abs(found["images"].astype(int) - expected.images.astype(int)).max() <= 1
        if expected.place is not None:
            np.testing.assert_array_equal(found["place"], expected.place)


def test_paths_go_from_one_place_to_another(golden_plan: Path, alone: cgnrt.Generator) -> None:
    ends = [tensor("count", 5), tensor("seed", 4), tensor("start", 2), tensor("end", 9)]
    expected = alone.interpolate(5, seed=4, start=2, end=9, place=PLACE)
    for found in (
        arrays(ask(golden_plan, *ends, place=TEXT)),
        arrays(ask(golden_plan, *ends, rows(*alone.sample(indices=[2, 9], seed=4, place=PLACE).place))),
    ):
        np.testing.assert_array_equal(found["place"], expected.place)
        np.testing.assert_array_equal(found["images"], expected.images)


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        ([rows((0, 0, 1))], {}, "infer: place has shape [1, 3], expected rows of 4: dy, dx, scale, flip."),
        ([Tensor("place", "FP32", (1, 2, 4), np.zeros((1, 2, 4)))], {}, "infer: place has shape [1, 2, 4], expected"),
        ([rows(*[(0, 0, 1, 0)] * 3)], {}, "infer: place has 3 rows, expected 1 or 2."),
        ([rows((0, 0, 1, 0), (0, 0, 0, 1))], {}, "place[1] is (0.0, 0.0, 0.0, 1.0), expected (dy, dx, scale, flip)"),
        ([rows((np.nan, 0, 1, 0))], {}, "place[0] is (nan, 0.0, 1.0, 0.0), expected (dy, dx, scale, flip): finite"),
        ([rows((0, 0, 1, 2))], {}, "place[0] is (0.0, 0.0, 1.0, 2.0), expected"),
        ([tensor("place", b"dx=1", b"dx=1", datatype="BYTES")], {}, "infer: place has 2 values, expected one."),
        ([tensor("place", b"\xff", datatype="BYTES")], {}, "sample: place has '�', expected some of dy, dx,"),
        ([rows((0, 0, 1, 0))], {"place": TEXT}, "infer: place is an input and a parameter, expected one of the two."),
        ([], {"place": 0.5}, "infer: place is 0.5, expected a text such as dx=-0.3:0.3,scale=0.5:1."),
        ([], {"place": "x=1"}, "place has 'x', expected some of dy, dx, scale, flip. Did you mean 'dx'?"),
        ([], {"place": "dx=5"}, "place dx is 5.0, expected (low, high) with -4 <= low <= high <= 4."),
        ([], {"place": ""}, "place has '', expected some of dy, dx, scale, flip."),
        ([], {"plase": TEXT}, "Did you mean 'place'?"),
    ],
)  # fmt: skip
def test_what_is_refused(
    golden_plan: Path, inputs: list[Tensor], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServeError, match=re.escape(message)) as error:
        ask(golden_plan, tensor("count", 2), *inputs, **parameters)
    assert error.value.kind == "invalid"


def test_places_over_http(served: Running, alone: cgnrt.Generator) -> None:
    expected = alone.sample(40, 7, place=PLACE)
    with over_http.InferenceServerClient(served.http) as client:
        metadata = client.get_model_metadata("v2")
        assert metadata["inputs"][-1] == {"name": "place", "datatype": "FP32", "shape": [-1, 4]}
        assert metadata["outputs"][-1] == {"name": "place", "datatype": "FP32", "shape": [-1, 4]}
        drawn = client.infer("v2", [], parameters={"count": 40, "seed": 7, "place": TEXT})
        for binary in (True, False):
            place = over_http.InferInput("place", [40, 4], "FP32")
            place.set_data_from_numpy(expected.place, binary_data=binary)
            outputs = [
                over_http.InferRequestedOutput(name, binary_data=binary) for name in ("place", "images")
            ]
            given = client.infer("v2", [place], outputs=outputs, parameters={"count": 40, "seed": 7})
            for found in (drawn, given):
                np.testing.assert_array_equal(found.as_numpy("place"), expected.place)
                np.testing.assert_array_equal(found.as_numpy("images"), expected.images)


def test_a_request_of_curl(served: Running, alone: cgnrt.Generator) -> None:
    body = {
        "inputs": [],
        "parameters": {"count": 2, "seed": 7, "place": "dx=-0.3:0.3,scale=0.5"},
        "outputs": [{"name": "place"}],
    }
    url = f"http://{served.http}/v2/models/v2/infer"
    with urllib.request.urlopen(url, json.dumps(body).encode()) as answer:
        (output,) = json.load(answer)["outputs"]
    expected = alone.sample(2, 7, place=Place(dx=(-0.3, 0.3), scale=0.5)).place
    assert (output["name"], output["datatype"], output["shape"]) == ("place", "FP32", [2, 4])
    np.testing.assert_array_equal(np.float32(output["data"]).reshape(2, 4), expected)


@pytest.mark.parametrize("own", [False, True])
def test_a_stream_tells_the_places_of_its_pieces(served: Running, alone: cgnrt.Generator, own: bool) -> None:
    expected = alone.sample(40, 7, start=3, place=PLACE)
    found: queue.Queue[Any] = queue.Queue()
    with over_grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: found.put(error or result))
        place = over_grpc.InferInput("place", [40, 4], "FP32")
        place.set_data_from_numpy(expected.place)
        parameters = {"count": 40, "seed": 7, "start": 3} | ({} if own else {"place": TEXT})
        client.async_stream_infer("v2", [place] if own else [], parameters=parameters)
        pieces = [found.get(timeout=30) for _ in range(3)]
        client.stop_stream()
    for name in ("place", "images"):
        told = np.concatenate([piece.as_numpy(name) for piece in pieces])
        np.testing.assert_allclose(told, getattr(expected, name), atol=0 if name == "place" else 1)


def test_places_by_shared_memory(served: Running, alone: cgnrt.Generator) -> None:
    expected = alone.sample(6, 7, place=PLACE)
    regions = [
        shared_memory.create_shared_memory_region(name, f"/cgnrt_{name}_{id(expected)}", 96) for name in "io"
    ]
    try:
        shared_memory.set_shared_memory_region(regions[0], [expected.place])
        with over_grpc.InferenceServerClient(served.grpc) as client:
            for name in "io":
                path = f"/cgnrt_{name}_{id(expected)}"
                Path("/dev/shm", path[1:]).chmod(0o666)
                client.register_system_shared_memory(name, path, 96)
            place = over_grpc.InferInput("place", [6, 4], "FP32")
            place.set_shared_memory("i", 96)
            told = over_grpc.InferRequestedOutput("place")
            told.set_shared_memory("o", 96)
            outputs = [told, over_grpc.InferRequestedOutput("images")]
            parameters = {"count": 6, "seed": 7}
            answer = client.infer("v2", [place], outputs=outputs, parameters=parameters)
            np.testing.assert_array_equal(answer.as_numpy("images"), expected.images)
            written = shared_memory.get_contents_as_numpy(regions[1], np.float32, [6, 4])
            np.testing.assert_array_equal(written, expected.place)
            client.unregister_system_shared_memory()
    finally:
        for region in regions:
            shared_memory.destroy_shared_memory_region(region)


def test_a_model_of_triton_takes_places(golden_plan: Path, tmp_path: Path, alone: cgnrt.Generator) -> None:
    folder = write_triton_model(golden_plan, tmp_path, "v2")
    text = (folder / "config.pbtxt").read_text()
    assert text.count('name: "place" data_type: TYPE_FP32 dims: [-1, 4]') == 2
    expected = alone.sample(4, 7, place=PLACE)
    with loaded(folder) as triton:

        def ask(outputs: tuple[str, ...], **given: Any) -> dict[str, np.ndarray]:
            count, seed = np.array([4]), np.array([7], np.uint64)  # whose memory is gone afterwards
            return triton.ask(outputs, count=count, seed=seed, **given).answer().tensors

        drawn = ask(("images", "place"), place=TEXT)
        given = ask(("images", "place"), place=expected.place.copy())
        still = ask(("place",))
    for found in (drawn, given):
        np.testing.assert_array_equal(found["place"], expected.place)
        np.testing.assert_array_equal(found["images"], expected.images)
    np.testing.assert_array_equal(still["place"], np.float32([[0, 0, 1, 0]] * 4))
