"""What runs that are stopped leave, and how they go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt.banks import unfinished

Stop = Callable[[int], None]


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Let the next run be interrupted after so many calls of `Unfinished.add`."""

    def stop(calls: int) -> None:
        add = unfinished.Unfinished.add
        count = 0

        def counted(self: Any, *arguments: Any) -> None:
            nonlocal count
            if count == calls:
                monkeypatch.setattr(unfinished.Unfinished, "add", add)
                raise KeyboardInterrupt
            count += 1
            add(self, *arguments)

        monkeypatch.setattr(unfinished.Unfinished, "add", counted)

    return stop


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
