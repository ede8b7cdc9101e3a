"""`cgnrt-train mnist`: a CGN on an MNIST variant."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cgnrt.errors import CheckpointError

from ..config import (
    VARIANTS,
    Config,
    differences,
    from_dict,
    load_toml,
    override,
    parse_settings,
    recipes,
    reference,
)
from . import common

_MAY_CHANGE = ("train.steps", "log.")  # on --resume


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "mnist",
        help="train a CGN on an MNIST variant",
        description="Train a CGN on colored, double-colored or Wildlife MNIST (Sec. 4.1, App. A.2). Prints "
        "the path of the checkpoint, which cgnrt-export reads.",
    )
    parser.add_argument("--variant", choices=VARIANTS, help="which data; needed unless --resume")
    common.add_data(parser)
    common.add_output(parser)
    parser.add_argument("--steps", type=int, metavar="N", help="short for --set train.steps=N")
    parser.add_argument("--seed", type=int, metavar="N", help="short for --set train.seed=N")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes()) or 'none'}",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, as loss.binary=0.3; repeatable",
    )
    parser.add_argument(
        "--perceptual-weights",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1 state dict (torchvision's names) for the perceptual loss; off without",
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Train; returns the checkpoint's path."""
    try:
        config = _configure(args)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..loops import write_text
    from ..mnist.data import VariantMnist
    from ..mnist.train import train

    data = VariantMnist(config.variant, args.data, seed=config.train.seed, textures=args.textures)
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(args.output / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    return train(
        config,
        data,
        args.output,
        perceptual_weights=args.perceptual_weights,
        resume=args.resume,
        log=sys.stderr,
        device=device,
    )


def _configure(args: argparse.Namespace) -> Config:
    """The run's settings: the variant's, or on --resume the run's own, with what the command line changes."""
    stored_path = args.output / "config.json"
    stored = None
    if args.resume:
        stored = _stored(args.output)
        if args.variant and args.variant != stored.variant:
            raise ValueError(
                f"resume '{args.output}': variant is {stored.variant}, expected {args.variant} as asked."
            )
    elif stored_path.exists() and not args.force:
        raise ValueError(
            f"train '{args.output}': folder holds a run, expected none. Use --resume, --force or another."
        )
    elif not args.variant:
        raise ValueError(f"train: --variant is not given, expected one of {', '.join(VARIANTS)}.")
    config = stored or reference(args.variant)
    if args.config:
        config = override(config, load_toml(args.config))
    config = override(config, parse_settings(args.set))
    short = {key: getattr(args, key) for key in ("steps", "seed") if getattr(args, key) is not None}
    config = override(config, {"train": short})
    if stored is not None:
        if changed := [text for text in differences(stored, config) if not text.startswith(_MAY_CHANGE)]:
            raise ValueError(
                f"resume '{args.output}': settings are changed: {', '.join(changed)}, expected the run's "
                f"own. Leave them, or start anew in another folder."
            )
    elif args.config and config.variant != args.variant:
        raise ValueError(
            f"configure '{args.config}': variant is {config.variant}, expected {args.variant} as asked."
        )
    return config


def _stored(output: Path) -> Config:
    path = output / "config.json"
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(
            f"resume '{output}': config.json is unreadable ({error.strerror}), expected a run."
        ) from error
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"resume '{path}': content is damaged ({error}), expected a run's settings."
        ) from error
