"""What the commands print, safe for a terminal whatever files, plans and engines are called or say."""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import NoReturn, TextIO

from cgnrt.errors import printable


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose messages are safe for a terminal, whatever the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line or several, on stdout unless `file` is given."""
    print(printable(str(text)), file=file, flush=True)


def say_error(program: str, error: object) -> None:
    """Print a command's error on stderr."""
    say(f"{program}: {error}", sys.stderr)


def say_traceback(error: BaseException) -> None:
    """Print an error of somebody else's code with its traceback on stderr."""
    say("".join(traceback.format_exception(error)).rstrip("\n"), sys.stderr)
