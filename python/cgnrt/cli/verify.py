"""`cgnrt verify`: checks a data set on disk, or a plan."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import Commands
from cgnrt.errors import CgnrtError
from cgnrt.plan import Plan, open_any

_SHOWN = 20  # problems that are printed


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("verify", help="compare a data set, or a plan, with its manifest")
    parser.add_argument("path", type=Path, help="a folder that `cgnrt generate` wrote, or a plan file")
    parser.add_argument("--deep", action="store_true", help="decode every picture too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.path.is_file():
        _verify_plan(arguments.path)
        return
    from cgnrt import shards

    with progress_bar(unit="image") as bar:
        problems = shards.verify(arguments.path, deep=arguments.deep, progress=bar.update)
    if problems:
        shown = "".join(f"\n  {text}" for text in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CgnrtError(f"verify '{arguments.path}': problems found: {len(problems)}{shown}{more}")
    manifest = shards.Manifest.read(arguments.path)
    count = sum(record.count for record in manifest.shards)
    say(f"{arguments.path}: {count:,} samples in {len(manifest.shards):,} shards, as the manifest says")


def _verify_plan(path: Path) -> None:
    """Every member of a plan, the pictures of its banks too, which are otherwise compared when they are first used."""
    with open_any(path) as plan, progress_bar(unit="B") as bar:
        if isinstance(plan, Plan):
            plan.verify_banks(progress=bar.update)
        say(f"{path}: {len(plan.members)} members, as the manifest says")
