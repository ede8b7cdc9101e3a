"""`cgnrt-train`: train Counterfactual Generative Networks."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cgnrt.errors import CgnrtError, CheckpointError, MissingDependencyError

from .config import (
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

OK, FAILED, USAGE = 0, 1, 2
_MAY_CHANGE = ("train.steps", "log.")  # on --resume


class _UsageError(Exception):
    """The command line or the settings are wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Results go to stdout, all else to stderr.

    Returns:
      0 if all went well, 1 if the job failed, 2 if it was asked for wrongly.
    """
    args = _parser().parse_args(argv)
    try:
        path = _mnist(args)
    except _UsageError as error:
        print(f"cgnrt-train: {error}", file=sys.stderr)
        return USAGE
    except (CgnrtError, ValueError, OSError) as error:
        print(f"cgnrt-train: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"cgnrt-train: interrupted. Go on with: --output {args.output} --resume", file=sys.stderr)
        return FAILED
    print(path)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cgnrt-train", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    mnist = jobs.add_parser(
        "mnist",
        help="train a CGN on an MNIST variant",
        description="Train a CGN on colored, double-colored or Wildlife MNIST (Sec. 4.1, App. A.2). Prints "
        "the path of the checkpoint, which cgnrt-export reads.",
    )
    mnist.add_argument("--variant", choices=VARIANTS, help="which data; needed unless --resume")
    mnist.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the original MNIST IDX files, .gz or not"
    )
    mnist.add_argument(
        "--textures",
        type=Path,
        metavar="DIR",
        help="wildlife: object/ and background/, ten pictures each, 0_*.jpg..",
    )
    mnist.add_argument("--output", type=Path, required=True, metavar="DIR", help="the run folder")
    mnist.add_argument("--steps", type=int, metavar="N", help="short for --set train.steps=N")
    mnist.add_argument("--seed", type=int, metavar="N", help="short for --set train.seed=N")
    mnist.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes()) or 'none'}",
    )
    mnist.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, as loss.binary=0.3; repeatable",
    )
    mnist.add_argument(
        "--perceptual-weights",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1 state dict (torchvision's names) for the perceptual loss; off without",
    )
    mnist.add_argument("--threads", type=int, metavar="N", help="CPU threads; all cores by default")
    again = mnist.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run in --output")
    again.add_argument("--force", action="store_true", help="start anew over the run in --output")
    return parser


def _mnist(args: argparse.Namespace) -> Path:
    try:
        config = _configure(args)
    except ValueError as error:
        raise _UsageError(str(error)) from error
    if args.threads is not None and args.threads < 1:
        raise _UsageError(f"train: --threads is {args.threads}, expected >= 1.")
    # Waiting threads that spin take the cores from whatever else runs, and a step then takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(
            "train: package 'torch' is not installed. Run: pip install 'cgnrt[train]'"
        ) from error

    from .mnist.data import VariantMnist
    from .mnist.train import train

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    data = VariantMnist(config.variant, args.data, seed=config.train.seed, textures=args.textures)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    return train(
        config,
        data,
        args.output,
        perceptual_weights=args.perceptual_weights,
        resume=args.resume,
        log=sys.stderr,
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


if __name__ == "__main__":
    raise SystemExit(main())
