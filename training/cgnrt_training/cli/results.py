"""`cgnrt-train results`: the page of results."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "results",
        help="put experiments' results into the docs",
        description="Merge experiments' JSON files (table2.json, fig7.json, ...) into results.json of a folder, and "
        "generate results.md and the plots from it. Without a file the page is written anew. Prints its path.",
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN.json", help="what an experiment wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder, as docs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Publish; returns the path of the page."""
    from ..experiments.results import publish

    return publish(args.runs, args.output)
