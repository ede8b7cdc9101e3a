"""The `cgnrt-export` command.

The report goes to stdout, progress and messages to stderr; exit 0 ok, 1 failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt.errors import CgnrtError
from cgnrt.files import terminable

if TYPE_CHECKING:
    from cgnrt_export.report import ParityReport
    from cgnrt_export.saliency import SaliencyReport


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with terminable():
            _export(arguments)
    except (CgnrtError, ValueError, TypeError) as error:
        print(f"cgnrt-export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cgnrt-export: interrupted; nothing was written", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cgnrt-export",
        description="Write a trained CGN as a plan, and prove that the plan computes the same.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="MNIST: the authors' ckp.pth, or the cgn.pt that cgnrt-train wrote. ImageNet: the authors' cgn.pth, or "
        "Hugging Face's folder of a BigGAN-deep, with --u2net. Photos: u2net.pth or u2netp.pth",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PLAN", help="the plan to write")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="the plan's default precision; auto (the default) is the fastest with at least 40 dB PSNR",
    )
    parser.add_argument(
        "--min-psnr",
        type=float,
        metavar="DB",
        help="also plan which layers may be bfloat16 with at least this PSNR of the composite, such as 35",
    )
    parser.add_argument(
        "--variant",
        choices=("colored", "double-colored", "wildlife"),
        help="names the classes of an MNIST checkpoint that does not name them",
    )
    head = parser.add_mutually_exclusive_group()
    head.add_argument(
        "--u2net", type=Path, metavar="FILE", help="ImageNet: u2net.pth, for a checkpoint without its own"
    )
    head.add_argument(
        "--u2netp", type=Path, metavar="FILE", help="likewise: the smaller U2-Net-p, u2netp.pth"
    )
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="ImageNet: refuse a checkpoint of another resolution"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs that the plan is checked with (0)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    # Here, so that --help needs no torch.
    from cgnrt_export import export_plan, read_checkpoint
    from cgnrt_export.u2net_reader import export_u2net, is_u2net

    if is_u2net(arguments.checkpoint):
        if arguments.variant is not None:
            raise ValueError(
                f"export: variant is {arguments.variant!r}, expected none beside a U2-Net's weights."
            )
        found = export_u2net(
            arguments.checkpoint,
            arguments.output,
            precision=arguments.precision,
            seed=arguments.seed,
            force=arguments.force,
            progress=_say,
        )
        _print(arguments, found)
        return
    checkpoint = read_checkpoint(
        arguments.checkpoint,
        variant=arguments.variant,
        u2net=arguments.u2net,
        u2netp=arguments.u2netp,
        resolution=arguments.resolution,
    )
    if checkpoint.note:
        _say(f"note: {checkpoint.note}")
    report = export_plan(
        arguments.output,
        checkpoint.mechanisms,
        family=checkpoint.family,
        noise_mode=checkpoint.noise_mode,
        precision=arguments.precision,
        truncation=checkpoint.truncation,
        sources=checkpoint.sources,
        training_data=checkpoint.training_data,
        seed=arguments.seed,
        min_psnr=arguments.min_psnr,
        force=arguments.force,
        progress=_say,
    )
    _print(arguments, report)


def _print(arguments: argparse.Namespace, report: ParityReport | SaliencyReport) -> None:
    size = arguments.output.stat().st_size
    if arguments.json:
        print(json.dumps({"plan": str(arguments.output), "size": size, "report": report.to_json()}, indent=2))
    else:
        print(f"{report.table()}\nwrote {arguments.output}, {size:,} bytes")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
