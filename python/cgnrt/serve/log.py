"""A structured log that never holds the server up, whatever becomes of the file or pipe that it is written to."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import queue
import select
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

from cgnrt._support.forking import ForkLock

_WAITING_BYTES = 1 << 20  # lines that wait to be written
# What a client makes the server write is limited, so that none can fill a disk: about 2 MB in a minute.
_BURST_BYTES = 1 << 18
_BYTES_PER_S = 24_000
_ALWAYS = ("ready", "stopping", "stopped")  # events that no client causes
_LONGEST_TEXT = 16_000  # of a field
_LIBRARIES = ("asyncio", "concurrent", "grpc")  # whose warnings belong to the log


class Log:
    """Writes events to a text stream, one JSON object a line. With None as the stream it writes nothing.

    Lines are written by a thread of their own. Those that the stream does not take in time, and those beyond some
    24 kB a second, are left out; an event "left out" says how many.
    """

    def __init__(self, stream: TextIO | None, *, requests: bool = True) -> None:
        self._stream = stream
        self._requests = requests
        self._lock = ForkLock()
        self._begin()
        self._allowed_bytes: float = _BURST_BYTES
        self._counted_at = time.monotonic()
        self._unsaid = 0
        self.left_out = 0  # lines since the start

    def write(self, event: str, **fields: Any) -> None:
        """Write one event, at once and without an error. Without `requests`, "infer" events are left out."""
        if self._stream is None or (event == "infer" and not self._requests):
            return
        with self._lock:
            if os.getpid() != self._pid:  # a forked process has no thread that writes
                self._begin()
            self._say_left_out()
            if not self._put(event, fields):
                self._leave_out()

    def failure(self, event: str, error: BaseException) -> None:
        """Write an error of the server itself, with its traceback."""
        try:
            text = "".join(traceback.format_exception(error))
        except (MemoryError, RecursionError):
            text = type(error).__name__
        self.write("failure", during=event, error=str(error), traceback=text)

    def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until everything is written, but no longer than this."""
        end = time.monotonic() + timeout_s
        with self._lock:
            self._say_left_out(always=True)
        while self._waiting_bytes and time.monotonic() < end:
            time.sleep(0.002)

    @contextlib.contextmanager
    def libraries(self) -> Iterator[None]:
        """A block whose libraries' warnings come here: on stderr they could hold up the thread that warns."""
        handler = _Handler(self)
        loggers = [logging.getLogger(name) for name in _LIBRARIES]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.removeHandler(handler)
                logger.propagate = propagate

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._thread: threading.Thread | None = None

    def _say_left_out(self, *, always: bool = False) -> None:
        if self._unsaid and self._put("left out", {"lines": self._unsaid}, always=always):
            self._unsaid = 0

    def _put(self, event: str, fields: dict[str, Any], *, always: bool = False) -> bool:
        """Hand a line to the thread. Returns False if it is left out."""
        now = time.monotonic()
        refilled = self._allowed_bytes + _BYTES_PER_S * (now - self._counted_at)
        self._allowed_bytes, self._counted_at = min(_BURST_BYTES, refilled), now
        always = always or event in _ALWAYS
        if self._waiting_bytes >= _WAITING_BYTES or (self._allowed_bytes <= 0 and not always):
            return False
        try:
            short = {name: _shortened(value) for name, value in fields.items()}
            line = json.dumps({"time": round(time.time(), 3), "event": event, **short}).encode() + b"\n"
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cgnrt-log", daemon=True)
                self._thread.start()
        except (MemoryError, RuntimeError):  # no memory, or no thread
            return False
        self._allowed_bytes -= len(line)
        self._waiting_bytes += len(line)
        self._lines.put(line)
        return True

    def _leave_out(self) -> None:
        self._unsaid += 1
        self.left_out += 1

    def _run(self) -> None:
        lines = self._lines
        while True:
            line = lines.get()
            try:
                self._write(line)
            except (OSError, ValueError, MemoryError):  # a full disk, a closed pipe or a closed stream
                with self._lock:
                    self._leave_out()
            with self._lock:
                self._waiting_bytes -= len(line)

    def _write(self, line: bytes) -> None:
        assert self._stream is not None
        try:
            file = self._stream.fileno()
        except io.UnsupportedOperation:
            self._stream.write(line.decode())
            self._stream.flush()
            return
        left = memoryview(line)
        while left:  # not through the stream, whose own buffer would wait for the interpreter's end
            try:
                left = left[os.write(file, left) :]
            except BlockingIOError:
                select.select([], [file], [])


class LogStream(io.TextIOBase):
    """A text stream whose lines become events, to stand for stderr."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if len(self._begun) > _LONGEST_TEXT:
            lines, self._begun = [*lines, self._begun], ""
        for line in filter(None, lines):
            self._log.write("stderr", message=line)
        return len(text)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            message += "\n" + "".join(traceback.format_exception(record.exc_info[1]))
        self._log.write(record.name, level=record.levelname.lower(), message=message)


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[: _LONGEST_TEXT // 2] + " ... " + value[-_LONGEST_TEXT // 2 :]
    return value
