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

from cgnrt._support.extras import missing_dependency
from cgnrt._support.files import terminable
from cgnrt._support.machine import limit_torch_threads
from cgnrt._support.reading import open_file
from cgnrt._support.terminal import CommandParser, hold_standard_files, say, say_error
from cgnrt.errors import CgnrtError
from cgnrt.plan.limits import MANIFEST_NAME

if TYPE_CHECKING:
    from cgnrt_export.report import ParityReport
    from cgnrt_export.saliency import SaliencyReport
    from cgnrt_export.tensorrt_engines import EnginesReport


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    hold_standard_files()
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.output is None and (arguments.triton_repository is None or arguments.tensorrt):
        parser.error("the following arguments are required: -o/--output")
    try:
        with terminable():
            _export(arguments)
    except BrokenPipeError:
        return 1
    except (CgnrtError, ValueError, TypeError, OSError) as error:
        say_error("cgnrt-export", error)
        return 1
    except ModuleNotFoundError as error:
        say_error("cgnrt-export", missing_dependency("export", error, "export"))
        return 1
    except KeyboardInterrupt:
        say_error("cgnrt-export", "interrupted; nothing was written")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="cgnrt-export",
        description="Write a trained CGN as a plan, and prove that the plan computes the same.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="MNIST: the authors' ckp.pth, or the cgn.pt that cgnrt-train wrote. ImageNet: the authors' cgn.pth, or "
        "Hugging Face's folder of a BigGAN-deep, with --u2net. Photos: u2net.pth, u2netp.pth, or the saliency.pt that "
        "cgnrt-train saliency wrote. With --tensorrt also a plan, to add engines to, and with --triton-repository one "
        "to serve",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PLAN",
        help="the plan to write; not needed to serve a plan that exists",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="the plan's default precision; auto (the default) is the fastest with at least 40 dB PSNR; and "
        "the engines', whose auto is the plan's",
    )
    parser.add_argument(
        "--store",
        choices=("fp32", "fp16"),
        help="how weights are stored: in full (fp32, the default), or in half precision, which halves the plan and is "
        "refused where a picture would have less than 40 dB PSNR; the speed is the same",
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
        "--u2net",
        type=Path,
        metavar="FILE",
        help="ImageNet: u2net.pth, or what cgnrt-train saliency wrote, for a checkpoint without its own",
    )
    head.add_argument(
        "--u2netp", type=Path, metavar="FILE", help="likewise: the smaller U2-Net-p, u2netp.pth"
    )
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="ImageNet: refuse a checkpoint of another resolution"
    )
    engines = parser.add_argument_group("engines for a GPU")
    engines.add_argument(
        "--tensorrt",
        action="store_true",
        help="also build TensorRT engines on a GPU, and put them into the plan",
    )
    engines.add_argument(
        "--batch",
        type=_sizes,
        metavar="N,N,N",
        help="smallest, usual and largest batch of the engines, as 1,32,128, which is the default at 256 px; one "
        "or two numbers will do",
    )
    engines.add_argument("--device", metavar="cuda:N", help="the GPU to build on and for (cuda:0)")
    triton = parser.add_argument_group("NVIDIA Triton")
    triton.add_argument(
        "--triton-repository",
        type=Path,
        metavar="DIR",
        help="also write the plan as a model that Triton's Python backend serves (docs/triton.md)",
    )
    triton.add_argument("--name", help="of the model (the plan file's name without its ending)")
    triton.add_argument(
        "--decoupled",
        action="store_true",
        help="answer requests as streams of pieces, over gRPC alone",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs that the plan is checked with (0)")
    parser.add_argument("--force", action="store_true", help="replace an existing file or model")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    for option, value in (("--batch", arguments.batch), ("--device", arguments.device)):
        if value is not None and not arguments.tensorrt:
            raise ValueError(f"export: {option} is given, expected it with --tensorrt alone.")
    _check_triton(arguments)
    if is_plan(arguments.checkpoint):
        _use_plan(arguments)
        return
    if arguments.output is None:
        raise ValueError(
            f"export '{arguments.checkpoint}': -o is missing, expected the plan to write. "
            "Only a plan that exists is served without."
        )
    # Here, so that --help needs no torch.
    from cgnrt_export import export_plan, read_checkpoint
    from cgnrt_export.saliency_reader import export_finder, finds_objects

    limit_torch_threads()

    if finds_objects(arguments.checkpoint):
        if arguments.tensorrt:
            raise ValueError(
                "export: --tensorrt is given, expected it for a CGN: photos are masked on the CPU."
            )
        if arguments.triton_repository is not None:
            raise ValueError("export: --triton-repository is given, expected it for a CGN.")
        if arguments.variant is not None:
            raise ValueError(
                f"export: variant is {arguments.variant!r}, but a saliency network has no variants."
            )
        found = export_finder(
            arguments.checkpoint,
            arguments.output,
            precision=arguments.precision,
            store=arguments.store or "fp32",
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
    if arguments.tensorrt:  # before the work that comes first
        from cgnrt_export.tensorrt_engines import check_card

        check_card(_card(arguments), "fp32" if arguments.precision == "auto" else arguments.precision)
    report = export_plan(
        arguments.output,
        checkpoint.mechanisms,
        family=checkpoint.family,
        noise_mode=checkpoint.noise_mode,
        precision=arguments.precision,
        store=arguments.store or "fp32",
        truncation=checkpoint.truncation,
        sources=checkpoint.sources,
        training_data=checkpoint.training_data,
        seed=arguments.seed,
        min_psnr=arguments.min_psnr,
        force=arguments.force,
        progress=_say,
    )
    engines = None
    if arguments.tensorrt:
        _say(f"wrote {arguments.output}; now its engines")
        engines = _add_engines(arguments, arguments.output, force=True)
    _print(arguments, report, engines, _write_triton(arguments, arguments.output))


def is_plan(path: Path) -> bool:
    """Whether a file begins as plans do."""
    if not path.is_file():
        return False
    with open_file(path) as file:
        start = file.read(30 + len(MANIFEST_NAME))
    return start.startswith(b"PK\x03\x04") and start[30:] == MANIFEST_NAME.encode()


def _check_triton(arguments: argparse.Namespace) -> None:
    """Refuse before long work what --triton-repository would refuse after it."""
    for option, given in (("--name", arguments.name is not None), ("--decoupled", arguments.decoupled)):
        if given and arguments.triton_repository is None:
            raise ValueError(f"export: {option} is given, expected it with --triton-repository alone.")
    if arguments.triton_repository is not None:
        from cgnrt_export.triton_repository import check_name, refuse_existing_model

        check_name(_model_name(arguments))
        refuse_existing_model(arguments.triton_repository, _model_name(arguments), force=arguments.force)


def _model_name(arguments: argparse.Namespace) -> str:
    if arguments.name is not None:
        return str(arguments.name)
    path: Path = arguments.output or arguments.checkpoint
    return path.stem


def _use_plan(arguments: argparse.Namespace) -> None:
    """A plan that exists gets engines, or a place in a Triton repository, or both."""
    plan = arguments.checkpoint
    if not arguments.tensorrt and arguments.triton_repository is None:
        raise ValueError(
            f"export '{plan}': it is a plan already, expected a checkpoint. "
            "Pass --tensorrt to add engines, or --triton-repository to serve it."
        )
    own = ("store", "variant", "u2net", "u2netp", "resolution", "min_psnr")
    if given := [name for name in own if getattr(arguments, name) is not None]:
        option = f"--{given[0].replace('_', '-')}"
        raise ValueError(f"export '{plan}': {option} is given, expected it for checkpoints alone.")
    if arguments.tensorrt:
        engines = _add_engines(arguments, plan, force=arguments.force)
        _print(arguments, None, engines, _write_triton(arguments, arguments.output))
        return
    if arguments.output is not None:
        raise ValueError(f"export '{plan}': -o is given, but the plan is served as it is. Leave it out.")
    _print(arguments, None, None, _write_triton(arguments, plan))


def _write_triton(arguments: argparse.Namespace, plan: Path) -> Path | None:
    """The folder of the plan's model, where one is asked for."""
    if arguments.triton_repository is None:
        return None
    from cgnrt_export.triton_repository import write_triton_model

    return write_triton_model(
        plan,
        arguments.triton_repository,
        _model_name(arguments),
        decoupled=arguments.decoupled,
        force=arguments.force,
    )


def _add_engines(arguments: argparse.Namespace, source: Path, *, force: bool) -> EnginesReport:
    from cgnrt_export.tensorrt_engines import add_engines

    return add_engines(
        source,
        arguments.output,
        precision=arguments.precision,
        batches=arguments.batch,
        device=_card(arguments),
        seed=arguments.seed,
        force=force,
        progress=_say,
    )


def _card(arguments: argparse.Namespace) -> str:
    return str(arguments.device or "cuda:0")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"batch is {text!r}, expected numbers such as 1,32,128") from None


def _print(
    arguments: argparse.Namespace,
    report: ParityReport | SaliencyReport | None,
    engines: EnginesReport | None = None,
    model: Path | None = None,
) -> None:
    plan: Path | None = arguments.output
    if arguments.json:
        values: dict[str, object] = {}
        values |= {"plan": str(plan), "size": plan.stat().st_size} if plan is not None else {}
        values |= {"report": report.to_json()} if report is not None else {}
        values |= {"engines": engines.to_json()} if engines is not None else {}
        values |= {"triton_model": str(model)} if model is not None else {}
        say(json.dumps(values, indent=2))
        return
    for part in (report, engines):
        if part is not None:
            say(part.table())
    if plan is not None:
        say(f"wrote {plan}, {plan.stat().st_size:,} bytes")
    if model is not None:
        say(f"wrote {model}, a model of Triton's Python backend")


def _say(message: str) -> None:
    say(message, sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
