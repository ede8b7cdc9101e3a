"""NVIDIA's HTTP client against a server."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from serving import Running, generator
from tritonclient.utils import InferenceServerException

import cgnrt


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.http, concurrency=4) as found:
        yield found


@pytest.fixture(scope="module")
def alone(golden_plan: Path) -> cgnrt.Generator:
    return generator(golden_plan)


def tensors(**values: Any) -> list[triton.InferInput]:
    found = []
    for name, value in values.items():
        array = np.asarray(value)
        if array.dtype.kind in "SU":
            array = array.astype(object)
        datatype = {"i": "INT64", "u": "UINT64", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
        entry = triton.InferInput(name, list(array.shape), datatype)
        entry.set_data_from_numpy(array.astype(np.float32) if datatype == "FP32" else array)
        found.append(entry)
    return found


def test_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("v2")
    assert client.is_model_ready("v2", "1")
    assert not client.is_model_ready("v3")
    assert not client.is_model_ready("v2", "7")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("v2")
    assert [entry["name"] for entry in metadata["inputs"]][:3] == ["count", "seed", "start"]
    assert metadata["outputs"][0] == {"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}
    config = client.get_model_config("v2")
    assert config["input"][0] == {"name": "count", "data_type": "TYPE_INT64", "dims": [1], "optional": False}
    assert len(json.loads(config["parameters"]["classes"]["string_value"])["texture"]) == 3
    assert client.get_model_repository_index()[0]["name"] == "v2"


def test_images_and_labels_are_those_of_the_generator(
    client: triton.InferenceServerClient, alone: cgnrt.Generator
) -> None:
    result = client.infer(
        "v2", tensors(count=[9], seed=np.array([2**64 - 1], np.uint64), start=[7]), request_id="a"
    )
    expected = alone.sample(9, 2**64 - 1, start=7)
    np.testing.assert_array_equal(result.as_numpy("images"), expected.images)
    np.testing.assert_array_equal(result.as_numpy("labels"), np.stack(expected.labels, 1))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("a", "v2", "1")
    assert response["parameters"] == {"seed": 2**64 - 1, "start": 7}


def test_a_drawn_seed_gives_the_same_images_again(
    client: triton.InferenceServerClient, alone: cgnrt.Generator
) -> None:
    result = client.infer("v2", tensors(count=[3]))
    seed = result.get_response()["parameters"]["seed"]
    assert seed < 2**53  # a double holds it
    np.testing.assert_array_equal(result.as_numpy("images"), alone.sample(3, seed).images)


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_come_as_they_are_asked_for(
    client: triton.InferenceServerClient, alone: cgnrt.Generator, binary: bool
) -> None:
    names = ("mask", "labels", "background", "images", "foreground")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer("v2", tensors(count=[5], seed=[3]), outputs=outputs)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == list(names)
    expected = alone.sample(5, 3, parts=True)
    for name in ("mask", "foreground", "background", "images"):
        np.testing.assert_array_equal(result.as_numpy(name), getattr(expected, name))


def test_distinct_classes(client: triton.InferenceServerClient, golden_plan: Path) -> None:
    result = client.infer("v2", tensors(count=[40], seed=[1]), parameters={"distinct": True})
    expected = cgnrt.Generator(golden_plan, threads=1, device="cpu").sample(40, 1, distinct=True)
    np.testing.assert_array_equal(result.as_numpy("labels"), np.stack(expected.labels, 1))


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "NCHW"), ("float16", "NHWC"), ("uint8", "NCHW")])
def test_images_come_in_other_forms(
    client: triton.InferenceServerClient, golden_plan: Path, dtype: str, layout: str
) -> None:
    result = client.infer("v2", tensors(count=[4], seed=[1]), parameters={"dtype": dtype, "layout": layout})
    expected = cgnrt.Generator(golden_plan, dtype=dtype, layout=layout, threads=1, device="cpu").sample(4, 1)
    np.testing.assert_array_equal(result.as_numpy("images"), expected.images)


def test_classes_are_set_by_index_or_name(
    client: triton.InferenceServerClient, alone: cgnrt.Generator
) -> None:
    name = alone.classes["texture"][2]
    result = client.infer("v2", tensors(count=[3], seed=[5], shape=[1], texture=[name], background=[0, 1, 2]))
    expected = alone([1, 1, 1], [2, 2, 2], [0, 1, 2], seed=5)
    np.testing.assert_array_equal(result.as_numpy("images"), expected.images)
    as_parameters = client.infer(
        "v2", tensors(background=[0, 1, 2]), parameters={"count": 3, "seed": 5, "shape": 1, "texture": name}
    )
    np.testing.assert_array_equal(as_parameters.as_numpy("images"), expected.images)


def test_pools(client: triton.InferenceServerClient, alone: cgnrt.Generator) -> None:
    result = client.infer("v2", tensors(count=[20], seed=[5], pool=[2, 3, 4], texture=[1]))
    expected = alone.sample(20, 5, pool=(2, 3, 4), do={"texture": 1})
    np.testing.assert_array_equal(result.as_numpy("images"), expected.images)
    np.testing.assert_array_equal(result.as_numpy("labels"), np.stack(expected.labels, 1))


def test_no_image_is_an_answer(client: triton.InferenceServerClient) -> None:
    result = client.infer("v2", tensors(count=[0]))
    assert result.get_response()["outputs"][0]["shape"] == [0, 8, 8, 3]


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_requests_may_be_packed(client: triton.InferenceServerClient, packed: str) -> None:
    result = client.infer("v2", tensors(count=[2], seed=[0]), request_compression_algorithm=packed)
    assert result.as_numpy("images").shape == (2, 8, 8, 3)


def test_many_at_once(client: triton.InferenceServerClient, alone: cgnrt.Generator) -> None:
    asked = [client.async_infer("v2", tensors(count=[n], seed=[n])) for n in range(1, 20)]
    for n, request in enumerate(asked, 1):
        np.testing.assert_array_equal(request.get_result().as_numpy("images"), alone.sample(n, n).images)


@pytest.mark.parametrize(
    ("inputs", "parameters", "status", "message"),
    [
        ({}, {}, "400", "input 'count' is missing, expected the number of images as an input or,"),
        ({"count": [-1]}, {}, "400", r"count is -1, expected 0\.\."),
        ({"count": [10**6]}, {}, "413", r"count is 1000000, expected 0\.\.65536"),
        ({"count": [1, 2]}, {}, "400", "count has 2 values, expected one"),
        ({"count": [1.5]}, {}, "400", "count is 1.5, expected an integer"),
        ({"coumt": [1]}, {}, "400", "Did you mean 'count'"),
        ({"count": [1], "texture": ["limme"]}, {}, "400", "texture is 'limme', expected one of"),
        ({"count": [1], "shape": [3]}, {}, "400", r"shape is 3, expected 0\.\.2"),
        ({"count": [3], "shape": [0, 1]}, {}, "400", "shape has 2 values, expected 1 or 3"),
        ({"count": [3], "shape": [0, 1, 9]}, {}, "400", r"shape\[2\] is 9"),
        ({"count": [1], "seed": [-1]}, {}, "400", "seed is -1"),
        ({"count": [1], "start": [2**63 - 1]}, {}, "400", r"start \+ n is"),
        ({"count": [1], "truncation": [0.5]}, {}, "400", "this plan has no truncation"),
        ({"count": [1], "truncation": [float("nan")]}, {}, "400", "truncation is nan"),
        ({"count": [1], "pool": [0]}, {}, "400", "pool is"),
        ({"count": [1], "pool": [1, 2]}, {}, "400", "pool has 2 values"),
        ({"count": [1], "pool": [10**9]}, {}, "413", "pool is 1000000000"),
        ({"count": [2], "pool": [3], "shape": [0, 1]}, {}, "400", "a class for each image"),
        ({"count": [1]}, {"dtype": "bfloat16"}, "400", "dtype is 'bfloat16', expected uint8"),
        ({"count": [1]}, {"distinct": "yes"}, "400", "distinct is 'yes', expected true or false."),
        ({"count": [1], "pool": [4]}, {"distinct": True}, "400", "distinct is set beside a pool"),
        ({"count": [1], "end": [4]}, {"distinct": True}, "400", "distinct is set beside end"),
        ({"count": [1]}, {"layuot": "NCHW"}, "400", "Did you mean 'layout'"),
        ({"count": [1]}, {"count": 2}, "400", "an input and a parameter"),
    ],
)
def test_says_what_is_wrong(
    client: triton.InferenceServerClient, inputs: Any, parameters: Any, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer("v2", tensors(**inputs), parameters=parameters)
    assert caught.value.status() == status


@pytest.mark.parametrize(
    ("model", "output", "status", "message"),
    [
        ("v3", "images", "404", "name is 'v3', expected 'v2'"),
        ("v2", "image", "400", "Did you mean 'images'"),
    ],
)
def test_says_what_is_not_there(
    client: triton.InferenceServerClient, model: str, output: str, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(model, tensors(count=[1]), outputs=[triton.InferRequestedOutput(output)])
    assert caught.value.status() == status


def test_classification_is_refused(client: triton.InferenceServerClient) -> None:
    output = triton.InferRequestedOutput("labels", class_count=2)
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer("v2", tensors(count=[1]), outputs=[output])


def test_metrics_are_what_prometheus_reads(server: Running, client: triton.InferenceServerClient) -> None:
    client.infer("v2", tensors(count=[2]))
    with urllib.request.urlopen(f"http://{server.http}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"}
    assert values['cgnrt_requests_total{outcome="ok"}'] >= 1
    assert values["cgnrt_images_total"] >= 2
    assert values["cgnrt_queue_images"] == 0
    assert values['cgnrt_request_seconds_bucket{le="+Inf"}'] == values["cgnrt_request_seconds_count"]
    assert values["cgnrt_batch_images_sum"] >= values["cgnrt_images_total"]
    assert values['cgnrt_batch_images_bucket{le="4096.0"}'] == values["cgnrt_batch_images_count"]
    names = {re.sub(r"(_bucket|_sum|_count)?({.*)?$", "", name) for name in values}
    assert names == {
        *("cgnrt_requests_total", "cgnrt_images_total", "cgnrt_request_seconds"),
        *("cgnrt_batch_images", "cgnrt_batch_requests", "cgnrt_queue_requests", "cgnrt_queue_images"),
        *("cgnrt_log_lines_left_out", "cgnrt_http_connections", "cgnrt_closed_connections_total"),
        *("cgnrt_answer_bytes", "cgnrt_active_requests", "cgnrt_running_requests"),
    }
    kinds = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert ["cgnrt_batch_images", "histogram"] in kinds


def test_pages(server: Running) -> None:
    for path in ("/", "/ui", "/ui/index.html"):
        with urllib.request.urlopen(f"http://{server.http}{path}") as answer:
            assert answer.read().startswith(b"<!doctype html>")
    for path in ("/ui/../index.html", "/ui/%2e%2e/%2e%2e/etc/passwd", "/ui//etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{server.http}{path}")
