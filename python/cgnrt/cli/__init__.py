"""The `cgnrt` command. Results go to stdout, progress and messages to stderr; exit 0 ok, 1 failed, 2 usage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

from cgnrt._support.extras import missing_dependency
from cgnrt._support.files import terminable
from cgnrt._support.terminal import CommandParser, hold_standard_files, say_error
from cgnrt.cli import audit, bank, bench, example, generate, inspect, real, sample, serve, sheet, verify
from cgnrt.errors import CgnrtError

# Every command is a module with `add_parser(commands)`, in the order of `cgnrt --help`.
_COMMANDS = (example, inspect, sample, generate, verify, serve, sheet, bench, audit, real, bank)


def main(argv: Sequence[str] | None = None) -> int:
    hold_standard_files()
    arguments = _parser().parse_args(argv)
    try:
        with terminable():
            arguments.run(arguments)
    except (CgnrtError, ValueError, TypeError, MemoryError, OverflowError) as error:
        say_error(f"cgnrt {arguments.command}", error)
        return 1
    except ModuleNotFoundError as error:
        say_error(f"cgnrt {arguments.command}", missing_dependency(arguments.command, error))
        return 1
    except KeyboardInterrupt:
        say_error(f"cgnrt {arguments.command}", "interrupted")
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        say_error(f"cgnrt {arguments.command}", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="cgnrt", description="Counterfactual batches from a plan.")
    parser.add_argument("--version", action="version", version=f"cgnrt {version('cgnrt')}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
