"""Images on the way between two samples: the input `end`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import generator, request, tensor

import cgnrt
from cgnrt.serve.protocol import InferRequest, InferResponse, ServeError
from cgnrt.serve.service import Service


@pytest.fixture(scope="module")
def alone(golden_plan: Path) -> cgnrt.Generator:
    return generator(golden_plan)


def ask(plan: Path, asked: InferRequest, *, stream: bool = False) -> InferResponse:
    async def infer() -> InferResponse:
        service = Service(generator(plan), "v2")
        try:
            if stream:
                return await anext(service.stream(asked))
            return await service.infer(asked)
        finally:
            await service.close()

    return asyncio.run(infer())


def refusal(plan: Path, asked: InferRequest, **how: Any) -> str:
    with pytest.raises(ServeError) as caught:
        ask(plan, asked, **how)
    assert caught.value.kind == "invalid"
    return str(caught.value)


@pytest.fixture
def ends() -> list[Any]:
    return [tensor("count", 5), tensor("seed", 3), tensor("start", 4), tensor("end", 9)]


def test_a_path_is_that_of_the_generator(golden_plan: Path, alone: cgnrt.Generator, ends: list[Any]) -> None:
    labels = [tensor("shape", 0, 2), tensor("texture", b"dots", datatype="BYTES")]
    names = ("images", "labels", "mask", "background")
    response = ask(golden_plan, request(*ends, *labels, outputs=names))
    expected = alone.interpolate(5, shape=(0, 2), texture="dots", seed=3, start=4, end=9, parts=True)
    found = {output.name: output.data for output in response.outputs}
    np.testing.assert_array_equal(found["images"], expected.images)
    np.testing.assert_array_equal(found["labels"], np.stack(expected.labels, 1))
    np.testing.assert_array_equal(found["mask"], expected.mask)
    np.testing.assert_array_equal(found["background"], expected.background)


def test_ends_are_the_samples_themselves(golden_plan: Path, alone: cgnrt.Generator, ends: list[Any]) -> None:
    images = ask(golden_plan, request(*ends)).outputs[0].data.astype(int)
    assert abs(images[0] - alone.sample(1, seed=3, start=4).images[0]).max() <= 1
    assert len(images) == 5


def test_what_a_path_has_not_is_refused(golden_plan: Path, ends: list[Any]) -> None:
    assert "shape has 5 values, expected 1 or 2" in refusal(
        golden_plan, request(*ends, tensor("shape", 0, 1, 2, 0, 1))
    )
    assert "end is given beside a pool" in refusal(golden_plan, request(*ends, tensor("pool", 3)))
    assert "texture[1] is 3, expected 0..2" in refusal(golden_plan, request(*ends, tensor("texture", 0, 3)))
    assert "frames is 1, expected an int of at least 2" in refusal(
        golden_plan, request(tensor("count", 1), tensor("end", 1))
    )
    assert "end has 2 values, expected one" in refusal(
        golden_plan, request(tensor("count", 2), tensor("end", 1, 2))
    )
    assert "which a stream does not support" in refusal(golden_plan, request(*ends), stream=True)
