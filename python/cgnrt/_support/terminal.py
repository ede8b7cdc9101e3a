"""What the commands print, safe for a terminal whatever is in the names and messages of files, plans and engines.

Results go to stdout, and an error is raised if they cannot be written. Messages and progress bars go to stderr.
Without a stderr they are dropped: a GUI program has no stderr, and a shell closes it with `2>&-`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, TextIO

from cgnrt._support.suggest import did_you_mean
from cgnrt.errors import CgnrtError, printable


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose messages are safe for a terminal, and say what a misspelt word may have meant.

    A sub-command reports an option that it does not have by itself, with its own usage.
    """

    _words: Sequence[str] = ()
    _replaced: Mapping[str, argparse.Action] = MappingProxyType({})

    def stands_for(self, option: str, positional: str) -> None:
        """Let an option of the command stand for one of its positional arguments, which may then be left out."""
        (action,) = (action for action in self._get_positional_actions() if action.dest == positional)
        self._replaced = {**self._replaced, option: action}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        for option, action in self._replaced.items():
            if any(word.partition("=")[0] == option for word in self._words):
                action.nargs, action.required = "?", False
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        unknown = self._unknown_options()
        if unknown and not message.startswith("unrecognized"):  # something else was found first
            message = f"unrecognized arguments: {' '.join(unknown)}; {message}"
        hints = "".join(did_you_mean(name, self._options()) for name in unknown)
        super().error(printable(f"{message}{'.' if hints else ''}{hints}"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(value, map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}{'.' if hint else ''}{hint}") from None

    def _options(self) -> list[str]:
        return [option for option in self._option_string_actions if option.startswith("--")]

    def _unknown_options(self) -> list[str]:
        """The long options among the words that this parser does not have, also not in full length."""
        found = []
        for word in self._words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break  # what follows are values, or words of the sub-command
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in self._options()):
                found.append(name)
        return found

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        try:
            flush_results()  # of --help
        except (CgnrtError, BrokenPipeError) as error:
            status, message = 1, f"{self.prog}: {error}\n"
        super().exit(status, message)


class _Results:
    """Stands for stdout as it is when something is printed."""


_RESULTS = _Results()


def say(text: object, file: TextIO | _Results | None = _RESULTS) -> None:
    """Print a line or several, on stdout unless `file` is given. What its encoding lacks is escaped.

    Raises:
      CgnrtError, BrokenPipeError: results cannot be written. A message that cannot is dropped.
    """
    if isinstance(file, _Results):
        if sys.stdout is not None:
            with contextlib.suppress(ValueError):  # closed
                try:
                    _print(text, sys.stdout)
                except OSError as error:
                    raise _unwritten(error) from error
    elif file is not None:
        with contextlib.suppress(OSError, ValueError):
            _print(text, file)


def say_error(program: str, error: object) -> None:
    """Print a command's error on stderr."""
    say(f"{program}: {error}", sys.stderr)


def say_traceback(error: BaseException) -> None:
    """Print an error of another package's code with its traceback on stderr."""
    say("".join(traceback.format_exception(error)).rstrip("\n"), sys.stderr)


def hold_standard_files() -> None:
    """Open the null device in place of standard files that a shell has closed.

    Otherwise the next file that is opened takes the number of stdout or stderr, and libraries print into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def flush_results() -> None:
    """Write what is still in the buffer of stdout.

    Raises:
      CgnrtError, BrokenPipeError: it cannot be written, and is dropped.
    """
    if sys.stdout is not None and not sys.stdout.closed:
        try:
            sys.stdout.flush()
        except OSError as error:
            raise _unwritten(error) from error


def progress_bar(total: float | None = None, *, shown: bool = True, **options: Any) -> Any:
    """A bar of tqdm on stderr; silent where it is not to be shown, or stderr is missing, closed or no terminal.

    Args:
      options: of tqdm, such as `unit` and `initial`.
    """
    from tqdm import tqdm  # here, because most programs show no progress bar

    screen = sys.stderr
    visible = shown and _is_terminal(screen)
    return tqdm(total=total, disable=not visible, file=_Screen(screen) if visible else None, **options)


def steady_progress(operation: str, total: int, things: str, *, shown: bool = True) -> Any:
    """`progress_bar` on a terminal; elsewhere, such as in a log, a line now and then that says how long it will take.

    Args:
      operation: what is being done, which begins each line.
      things: what is counted, in the plural.
    """
    if _is_terminal(sys.stderr):
        return progress_bar(total, desc=operation, unit=f" {things}", shown=shown)
    return _ProgressLines(operation, total, things, shown=shown)


class _ProgressLines:
    """Lines on stderr: the first after some seconds, the next when a good deal more is done."""

    first_s = 5.0
    next_s = 30.0

    def __init__(self, operation: str, total: int, things: str, *, shown: bool) -> None:
        self._operation, self._total, self._things, self._shown = operation, total, things, shown
        self._done = 0
        self._begin = time.monotonic()
        self._due = self._begin + self.first_s

    def __enter__(self) -> _ProgressLines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if not self._shown or now < self._due or not 0 < self._done < self._total:
            return
        self._due = now + self.next_s
        left_s = (now - self._begin) / self._done * (self._total - self._done)
        say(
            f"{self._operation}: {self._done:,} of {self._total:,} {self._things}, about {_duration(left_s)} left",
            sys.stderr,
        )


def _duration(seconds: float) -> str:
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{max(1, round(seconds))} s"


def _is_terminal(file: TextIO | None) -> bool:
    try:
        return file is not None and file.isatty()
    except ValueError:  # closed
        return False


class _Screen:
    """A terminal that may go away while something is shown on it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _print(text: object, file: TextIO) -> None:
    encoding = getattr(file, "encoding", None) or "utf-8"
    shown = printable(str(text)).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=file, flush=True)


def _unwritten(error: OSError) -> Exception:
    """The error for results that stdout does not take. They are dropped: Python would try again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    if isinstance(error, BrokenPipeError):  # the reader has seen enough: `cgnrt inspect | head`
        return error
    return CgnrtError(
        f"write to stdout: {error.strerror or error}, expected a place with room for the results."
    )
