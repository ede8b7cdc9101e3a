"""Which regions of shared memory a server opens for its clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnrt.serve.protocol import ServeError
from cgnrt.serve.shared_memory import Regions


@pytest.fixture
def file() -> Iterator[Path]:
    path = Path(f"/dev/shm/cgnrt-test-{os.getpid()}")
    path.write_bytes(b"secret")
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("mode", "trusted", "opened"),
    [
        (0o600, False, False),
        (0o660, False, False),
        (0o664, False, False),
        (0o662, False, False),
        (0o666, False, True),
        (0o600, True, True),
        (0o400, True, False),
        (0o200, True, False),
    ],
)
def test_a_region_is_opened_as_far_as_its_clients_may(
    file: Path, mode: int, trusted: bool, opened: bool
) -> None:
    file.chmod(mode)
    regions = Regions(trusted=trusted)
    try:
        if opened:
            regions.register("r", file.name, 0, 6)
            assert regions.read("r", 0, 6) == b"secret"
            return
        # Root opens it, anyone else is refused by the system.
        with pytest.raises(ServeError, match=rf"mode of .* is {mode:04o}, expected 0666|cannot be opened"):
            regions.register("r", file.name, 0, 6)
        assert regions.status() == []
    finally:
        regions.close()


def test_regions_of_others_are_not_opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(ServeError, match=r"or a region of the server's own user"):
        Regions(trusted=True).register("r", file.name, 0, 6)


def test_more_regions_than_the_limit(file: Path) -> None:
    regions = Regions(most=2)
    for name in ("a", "b"):
        regions.register(name, file.name, 0, 6)
    with pytest.raises(ServeError, match="2 are registered, expected fewer"):
        regions.register("c", file.name, 0, 6)
    regions.close()
