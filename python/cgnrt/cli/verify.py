"""`cgnrt verify`: checks a data set on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import Commands
from cgnrt.errors import CgnrtError

_SHOWN = 20  # problems that are printed


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("verify", help="compare a data set with its manifest")
    parser.add_argument("folder", type=Path, help="a folder that `cgnrt generate` wrote")
    parser.add_argument("--deep", action="store_true", help="decode every picture too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from cgnrt import shards

    with progress_bar(unit="image") as bar:
        problems = shards.verify(arguments.folder, deep=arguments.deep, progress=bar.update)
    if problems:
        shown = "".join(f"\n  {text}" for text in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CgnrtError(f"verify '{arguments.folder}': problems found: {len(problems)}{shown}{more}")
    manifest = shards.Manifest.read(arguments.folder)
    count = sum(record.count for record in manifest.shards)
    say(f"{arguments.folder}: {count:,} samples in {len(manifest.shards):,} shards, as the manifest says")
