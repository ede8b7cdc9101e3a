"""A server of the golden plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, generator, running

from cgnrt.serve.limits import Limits
from cgnrt.serve.service import Service


@pytest.fixture(scope="module")
def server(golden_plan: Path) -> Iterator[Running]:
    """A server of the golden plan with HTTP alone."""
    with running(Service(generator(golden_plan), "v2")) as found:
        yield found


@pytest.fixture
def limits() -> Limits:
    """Limits that a test reaches: a batch of 8 images, two at a time, 16 that wait."""
    return Limits(
        images=64, stream_images=1000, piece=16, batch=8, queue=16, turns=2, body_bytes=10_000, timeout_s=5
    )
