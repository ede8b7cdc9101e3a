"""How far a build is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Steps done, steps known so far, and what is under way.
Progress = Callable[[int, int, str], None]


def make_monitor(api: Any, progress: Progress | None, subject: str) -> Any:
    """The library's progress monitor for a callback; None where there is no callback.

    The library may call it from threads of its own. An exception must not leave it, which would end the process: one
    that the callback raises, such as Ctrl-C, stops the build and is kept in `error`.
    """
    if progress is None:
        return None
    tell = progress

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._lock = threading.Lock()
            self._done = 0
            self._known = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._known += num_steps
            self._tell(f"{subject}: {phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._done += 1
            self._tell(f"{subject}: {phase_name}")
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            pass

        def _tell(self, words: str) -> None:
            try:
                tell(self._done, self._known, words)
            except BaseException as error:
                self.error = error

    return Monitor()


@contextlib.contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr, silent where that is no terminal."""
    from tqdm import tqdm

    with tqdm(unit="step", disable=None, leave=False) as shown:

        def show(done: int, known: int, words: str) -> None:
            shown.total = known
            shown.set_description(words, refresh=False)
            shown.update(done - shown.n)

        yield show
