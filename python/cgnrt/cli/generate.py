"""`cgnrt generate`: data sets on disk, in shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgnrt._support.terminal import say, say_error
from cgnrt.cli.arguments import Commands, add_generator, add_sample_options, sample_options
from cgnrt.shards.formats import FORMATS


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "generate", help="write a data set in shards, or resume one whose run was stopped"
    )
    add_generator(parser)
    add_sample_options(parser, pools=True)
    parser.add_argument("-n", type=int, required=True, help="number of images")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder, a new one or one to resume"
    )
    formats = "; ".join(f"{f.name} ({f.description}, {'|'.join(f.images)})" for f in FORMATS.values())
    parser.add_argument("--format", default="webdataset", help=f"{formats} (webdataset)")
    parser.add_argument("--image", help="how images are stored (the first that the format lists)")
    parser.add_argument(
        "--quality", type=int, help="of webp (lossless without it) and of jpeg (95): 0 to 100"
    )
    parser.add_argument("--masks", action="store_true", help="store the masks too")
    parser.add_argument("--shard-size", type=int, default=10_000, help="images in a file (10,000)")
    parser.add_argument("--processes", type=int, help="how many make shards (as many as the cores can run)")
    parser.add_argument(
        "--engine", default="processes", help="what runs the job: processes (of this machine), or ray"
    )
    parser.add_argument(
        "--force", action="store_true", help="start again over another data set, or beside other files"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from cgnrt import shards
    from cgnrt.plan import Plan

    with Plan.open(arguments.plan, private=True) as plan:
        names = {name: mechanism.classes for name, mechanism in plan.mechanisms.items()}
        shards.generate(
            plan,
            arguments.n,
            arguments.output,
            format=arguments.format,
            image=arguments.image,
            quality=arguments.quality,
            masks=arguments.masks,
            shard_size=arguments.shard_size,
            start=arguments.start,
            **sample_options(arguments, names),
            backend=arguments.backend,
            device=arguments.device,
            precision=arguments.precision,
            threads=arguments.threads,
            processes=arguments.processes,
            engine=arguments.engine,
            force=arguments.force,
            note=lambda text: say_error("cgnrt generate", text),
        )
    say(arguments.output)
