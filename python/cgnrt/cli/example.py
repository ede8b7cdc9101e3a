"""`cgnrt example`: a plan to try things with, for those who installed a wheel and have no checkout."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from cgnrt._support.files import written_beside
from cgnrt._support.reading import read_file
from cgnrt._support.terminal import say
from cgnrt.cli.arguments import Commands

_PLAN = "double-colored.plan"


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("example", help="write a small plan to try things with")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("plans", _PLAN),
        help=f"the plan to write (plans/{_PLAN}, as in a checkout)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    content = (resources.files("cgnrt") / "examples" / _PLAN).read_bytes()
    if not _is_there(arguments.output, content):
        with written_beside(arguments.output, force=arguments.force) as beside:
            beside.write_bytes(content)
    say(f"{arguments.output}: digits of 32 px. Try: cgnrt sheet {arguments.output} -o sheet.png")


def _is_there(path: Path, content: bytes) -> bool:
    """Whether the file has been written before, or came with a checkout."""
    return path.is_file() and path.stat().st_size == len(content) and read_file(path) == content
