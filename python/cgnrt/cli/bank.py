"""`cgnrt bank`: plans of pictures instead of networks."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgnrt._support.terminal import say
from cgnrt.cli.arguments import Commands, add_engine

_PICTURES = 10_000


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("bank", help="make a plan of pictures that a plan's networks draw")
    parser.add_argument("source", type=Path, metavar="PLAN", help="a plan whose networks draw the pictures")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the plan to make; a run that was stopped goes on, in the folder <output>.unfinished",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument(
        "-n",
        type=int,
        help=f"pictures of each mechanism, rounded up to as many of every class ({_PICTURES:,})",
    )
    parser.add_argument("--truncation", type=float, help="for plans that have it (the plan's default)")
    add_engine(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing file, and start again where a run with other options was stopped",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from cgnrt import banks

    banks.from_plan(
        arguments.output,
        arguments.source,
        _PICTURES if arguments.n is None else arguments.n,
        seed=arguments.seed,
        truncation=arguments.truncation,
        device=arguments.device,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        force=arguments.force,
    )
    say(arguments.output)
