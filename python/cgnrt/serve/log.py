"""Structured logs: one JSON object a line."""

from __future__ import annotations

import json
import threading
import time
import traceback
from typing import Any, TextIO


class Log:
    """Writes events to a text stream; to none where it is None."""

    def __init__(self, stream: TextIO | None, *, requests: bool = True) -> None:
        self._stream = stream
        self._requests = requests
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """One event; those of requests only where they are wanted."""
        if self._stream is None or (event == "infer" and not self._requests):
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def failure(self, event: str, error: BaseException) -> None:
        """An error that is the server's own, with its traceback."""
        text = "".join(traceback.format_exception(error))
        self.write("failure", during=event, error=str(error), traceback=text)
