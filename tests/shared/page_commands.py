"""The parsers of cgnrt's commands, for commands that stand in texts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import cgnrt.cli
import cgnrt_export.cli
import cgnrt_training.cli

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "cgnrt": cgnrt.cli._parser,
    "cgnrt-train": cgnrt_training.cli._parser,
    "cgnrt-export": cgnrt_export.cli._parser,
}


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of a command line's sub-command."""
    parser = PARSERS[words[0]]()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = action.choices.get(words[1]) if len(words) > 1 else parser
            assert isinstance(found, argparse.ArgumentParser), f"{' '.join(words)}: there is no such command"
            return found
    return parser


def unknown_options(words: list[str]) -> list[str]:
    """Options of a command line that its sub-command does not have."""
    known = parser_of(words)._option_string_actions
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [option for option in options if option not in known]


def replaced(words: list[str], options: list[str]) -> list[str]:
    """A command line with other values of some options: replaced where it has them, else added.

    `--set`, which takes a setting each time, is added to those of the command line.
    """
    words = list(words)
    known = parser_of(words)._option_string_actions if words[0] in PARSERS else {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        names = known[option].option_strings if option in known else [option]
        at = [k for k, word in enumerate(words) if word in names]
        if at and option != "--set":
            words[at[0] + 1] = value
        else:
            words += [option, value]
    return words
