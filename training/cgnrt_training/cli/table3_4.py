"""`cgnrt-train table3-4`: shape bias and BG-gap of classifiers of photos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..ensemble.config import RECIPES, ROWS, EnsembleConfig
from ..settings import check, check_one_of, from_texts, load_toml, override, recipes
from . import common
from .ensemble import add_backbone, add_photos, backbone_of, packed, side_of
from .photos import mask_source


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "table3-4",
        help="Tables 3 and 4: shape bias and BG-gap of classifiers of photos, over several seeds",
        description="Tables 3 and 4 (Sec. 4.3) on photos of your own: train classifiers with counterfactuals, with "
        "exchanged photos and with simple augmentations, for the same number of epochs of the photos; measure "
        "accuracy on val, on Mixed-Same, Mixed-Rand and backgrounds alone, audit them with the plan, and move and "
        "scale objects. Prints the path of table4.json; table3.json, tables and plots are beside it. The same command "
        "started again trains and measures only what is missing.",
    )
    add_photos(parser)
    parser.add_argument(
        "--plan", type=Path, required=True, metavar="FILE", help="a CGN's plan of the photos' classes"
    )
    add_backbone(parser)
    parser.add_argument("--rows", metavar="ROW,ROW", help=f"some of {', '.join(ROWS)}; all by default")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="classifiers of each row; 3")
    parser.add_argument(
        "--audit", type=int, default=1000, metavar="N", help="samples of an audit, 1,000; 0 for none"
    )
    parser.add_argument(
        "--places",
        type=int,
        default=300,
        metavar="N",
        help="photos of val whose objects are moved and scaled, for centre and size bias, 300; 0 for none",
    )
    common.add_output(parser)
    parser.add_argument("--epochs", type=float, metavar="N", help="of every row; 70 by default")
    common.add_set(parser, "train.batch_size=128, for all rows")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes(RECIPES))}; the paper's by default",
    )
    common.add_device(parser)
    common.add_threads(parser)
    parser.set_defaults(run=run, force=False, goes_on=True)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of Table 4's JSON file."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)
    from ..ensemble.train import Inputs
    from ..experiments.table3_4.run import Table34
    from ..experiments.table3_4.run import run as run_tables
    from ..photos.pack import pack_photos
    from ..runs.sources import source_of

    try:
        check("--seeds", args.seeds, args.seeds >= 1, ">= 1")
        check("--audit", args.audit, args.audit >= 0, ">= 0")
        check("--places", args.places, args.places >= 0, ">= 0")
        rows = args.rows.split(",") if args.rows else list(ROWS)
        for row in rows:
            check_one_of("--rows", row, tuple(ROWS))
        for setting in args.set:
            if setting.partition("=")[0].strip() in ("train.row", "train.seed"):
                raise ValueError(f"table3-4: --set is '{setting}', expected a setting that all rows share.")
        common.needed(args, "images")
        masks = mask_source(args)
        if masks is None:
            raise ValueError("table3-4: masks are missing, expected --masks FOLDER or --saliency PLAN.")
        config = override(EnsembleConfig(), load_toml(args.config, RECIPES) if args.config else {})
        changed, weights = backbone_of(args, config)
        config = from_texts(override(config, {"model": changed}), args.set)
        if args.epochs is not None:
            config = override(config, {"train": {"epochs": args.epochs}})
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    folder = pack_photos(args.images, args.output / "photos", side_of(args), masks, log=sys.stderr)
    photos, judged = packed(folder)
    sources: dict[str, Any] = {
        "photos": {"name": folder.name, "sha256": photos.fingerprint},
        "plan": source_of(args.plan),
    }
    if weights is not None:
        sources["weights"] = source_of(weights)
    options = Table34(
        inputs=Inputs(photos, judged, args.plan, weights, sources),
        config=config,
        output=args.output,
        rows=rows,
        seeds=args.seeds,
        audit=args.audit,
        places=args.places,
        device=device,
        command=sys.argv[1:],
    )
    return run_tables(options, sys.stderr)
