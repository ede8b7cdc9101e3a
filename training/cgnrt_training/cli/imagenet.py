"""`cgnrt-train imagenet`: the CGN of Fig. 2 from a trained BigGAN, U2-Net and VGG16."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..natural.config import MAY_CHANGE, RECIPES, Config
from ..settings import load_toml, recipes
from . import common

if TYPE_CHECKING:
    from ..natural.networks import Files

FILES = ("biggan", "u2net", "vgg", "features")


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "imagenet",
        help="train the CGN of Fig. 2 from a trained BigGAN, U2-Net and VGG16",
        description="Train the CGN of Fig. 2 (Sec. 3.1, App. C.3): three copies of a trained BigGAN-deep become shape, "
        "texture and background mechanism. No pictures are needed. Files are checked key by key before any work. "
        "Prints the path of the checkpoint, which cgnrt-export reads. Under torchrun several processes share the work, "
        "with the same result.",
    )
    add_files(parser)
    common.add_output(parser)
    common.add_settings(parser, "updates of a pseudo-batch; 300 by default", "loss.background=1000")
    add_config(parser)
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="refuse a BigGAN of another resolution than this"
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def add_files(parser: argparse.ArgumentParser) -> None:
    """The files that training starts from."""
    for name, metavar, text in (
        (
            "biggan",
            "DIR",
            "Hugging Face's folder of a BigGAN-deep, the file of its weights, or a run's cgan.pt; needed for a new run",
        ),
        (
            "u2net",
            "FILE",
            "the shape's head: a U2-Net, or what cgnrt-train saliency makes; needed for a new run",
        ),
        (
            "vgg",
            "FILE",
            "torchvision's VGG16 for the style losses, with batch norm (paper) or without (authors)",
        ),
        ("features", "FILE", "in its place: torchvision's SqueezeNet 1.1, or an EfficientNet-Lite"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=text)


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes(RECIPES)) or 'none'}",
    )


def run(args: argparse.Namespace) -> Path:
    """Train; returns the checkpoint's path."""
    common.set_threads(args.threads)
    from ..natural.networks import load_networks
    from ..natural.train import train
    from ..runs.processes import local_device, open_processes

    with open_processes(common.open_device(local_device(args.device))) as processes:
        config = settings(args)
        processes.wait()  # all have looked at the folder before the first one writes to it
        files = given_files(args)
        log = sys.stderr if processes.first else None
        networks = load_networks(files, config, log, resolution=args.resolution)
        return train(
            config,
            networks,
            args.output,
            resume=args.resume,
            force=args.force,
            log=log,
            device=processes.device,
            processes=processes,
        )


def settings(args: argparse.Namespace) -> Config:
    """The settings of the run.

    Raises:
      UsageError, CheckpointError: as `common.run_settings`.
    """
    try:
        toml = load_toml(args.config, RECIPES) if args.config else {}
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    return common.run_settings(
        args,
        Config,
        Config,
        {"steps": "train.updates", "seed": "train.seed"},
        toml=toml,
        may_change=MAY_CHANGE,
    )


def given_files(args: argparse.Namespace) -> Files:
    """The files that are named, or on --resume those that the run began with."""
    from ..natural.networks import Files
    from ..runs.sources import stored_files

    stored = stored_files(args.output) if args.resume else {}
    if args.vgg or args.features:  # one stands for the other
        stored = {name: path for name, path in stored.items() if name not in ("vgg", "features")}
    named: dict[str, Any] = {name: getattr(args, name) or stored.get(name) for name in FILES}
    for name in ("biggan", "u2net"):
        if named[name] is None:
            raise common.UsageError(f"train: --{name} is missing, expected it for a new run.")
    return Files(**named)
