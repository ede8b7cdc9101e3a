"""The `cgnrt` command. Results go to stdout, progress and messages to stderr; exit 0 ok, 1 failed, 2 usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt import audit_command
from cgnrt.errors import CgnrtError
from cgnrt.files import refuse_existing, terminable, write_npz, written_beside

if TYPE_CHECKING:
    import numpy as np

    from cgnrt.generator import Generator

_STEP = 4096  # images that `sample` holds in memory at a time


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        with terminable():
            arguments.run(arguments)
    except (CgnrtError, ValueError, TypeError) as error:
        print(f"cgnrt {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"cgnrt {arguments.command}: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `cgnrt inspect | head`
        sys.stderr.close()
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cgnrt", description="Counterfactual batches from a plan.")
    parser.add_argument("--version", action="version", version=f"cgnrt {_version()}")
    commands = parser.add_subparsers(dest="command", required=True)

    inspect = commands.add_parser("inspect", help="what is inside a plan")
    inspect.add_argument("plan", type=Path)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    sample = commands.add_parser("sample", help="write counterfactuals to an .npz")
    _add_generator(sample)
    _add_draws(sample)
    sample.add_argument("-n", type=int, required=True, help="number of images")
    sample.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    sample.add_argument("--dtype", choices=("uint8", "float32", "float16"), default="uint8")
    sample.add_argument("--layout", choices=("NCHW", "NHWC"), default="NHWC")
    sample.add_argument("--pool", type=_pool, metavar="M,F,B", help="compose from pools of these sizes")
    sample.add_argument(
        "--per-noise", type=int, default=1, metavar="K", help="counterfactuals per noise and shape"
    )
    sample.add_argument("--force", action="store_true", help="replace an existing file")
    sample.set_defaults(run=_sample)

    sheet = commands.add_parser(
        "sheet", help="a labelled contact sheet: mask, foreground, background, composite"
    )
    _add_generator(sheet)
    _add_draws(sheet)
    sheet.add_argument("-n", type=int, default=10, help="number of columns (10)")
    sheet.add_argument("-o", "--output", type=Path, required=True, help="the .png to write")
    sheet.add_argument("--tile", type=int, default=96, help="pixels of a picture's side on the sheet (96)")
    sheet.add_argument("--force", action="store_true", help="replace an existing file")
    sheet.set_defaults(run=_sheet)

    bench = commands.add_parser("bench", help="images per second on this machine")
    _add_generator(bench)
    bench.add_argument("--batch", type=int, default=1600, help="images per call (1600)")
    bench.add_argument("--reuse", type=int, default=16, help="images per pool entry (16)")
    bench.add_argument("--seconds", type=float, default=2.0, help="time for each case (2)")
    bench.add_argument("--seed", type=int, default=0)
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(run=_bench)

    audit = commands.add_parser("audit", help="what a classifier's answers follow")
    _add_generator(audit)
    audit_command.add_arguments(audit)
    audit.set_defaults(run=_audit)
    return parser


def _add_generator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", type=Path)
    parser.add_argument("--backend", default="auto", help="auto, native, openvino or onnxruntime")
    parser.add_argument("--device", default="auto", help="auto or cpu")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--threads", type=int, default=None)


def _add_draws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first sample of the stream (0)")
    parser.add_argument(
        "--do",
        type=_assignment,
        action="append",
        default=[],
        metavar="MECHANISM=CLASS",
        help="intervene: fix a label, by index or name; may be given again",
    )
    parser.add_argument("--labels", choices=("independent", "shared"), default="independent")


def _inspect(arguments: argparse.Namespace) -> None:
    from cgnrt.inspect import describe, to_json
    from cgnrt.plan import Plan

    with Plan.open(arguments.plan) as plan:
        print(json.dumps(to_json(plan), indent=2) if arguments.json else describe(plan))


def _sample(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    if arguments.n < 0:
        raise ValueError(f"sample: n is {arguments.n}, expected 0 or more.")
    if arguments.output.suffix != ".npz":
        raise ValueError(f"sample: output is '{arguments.output}', expected a name that ends in .npz.")
    refuse_existing(arguments.output, force=arguments.force)
    generator = _generator(arguments, dtype=arguments.dtype, layout=arguments.layout)
    options = {
        "seed": arguments.seed,
        "do": dict(arguments.do),
        "labels": arguments.labels,
        "pool": arguments.pool,
        "per_noise": arguments.per_noise,
    }
    # Checks every option before the first byte is written, and tells the shape of an image.
    image_shape = generator.sample(0, start=arguments.start, **options).images.shape[1:]
    n = arguments.n
    columns = {
        "images": ((n, *image_shape), arguments.dtype),
        **{f"labels_{name}": ((n,), "int64") for name in ("shape", "texture", "background")},
        "indices": ((n,), "int64"),
        "seed": ((1,), "uint64"),
    }
    bar = tqdm(total=n, unit="image", disable=None)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        import numpy as np

        seed = np.asarray([arguments.seed], np.uint64)
        for first in range(0, max(n, 1), _STEP):  # once for no image, too
            batch = generator.sample(min(_STEP, n - first), start=arguments.start + first, **options)
            labels = {f"labels_{name}": column for name, column in batch.labels._asdict().items()}
            # The seed is one number: written with the first rows, empty after them.
            yield {"images": batch.images, **labels, "indices": batch.indices, "seed": seed}
            seed = seed[:0]
            bar.update(len(batch))

    with bar, written_beside(arguments.output, force=arguments.force) as beside:
        write_npz(beside, columns, rows())
    print(arguments.output)


def _sheet(arguments: argparse.Namespace) -> None:
    from cgnrt.sheets import contact_sheet

    if arguments.n < 1 or arguments.tile < 8:
        raise ValueError(f"sheet: n is {arguments.n} and tile {arguments.tile}, expected at least 1 and 8.")
    refuse_existing(arguments.output, force=arguments.force)
    generator = _generator(arguments, dtype="uint8", layout="NHWC")
    batch = generator.sample(
        arguments.n,
        seed=arguments.seed,
        start=arguments.start,
        do=dict(arguments.do),
        labels=arguments.labels,
        parts=True,
    )
    source = generator.plan.mechanisms["texture"].spec.range
    image = contact_sheet(batch, generator.classes, source=(source[0], source[1]), tile=arguments.tile)
    with written_beside(arguments.output, force=arguments.force) as beside:
        image.save(beside, format="PNG")
    print(arguments.output)


def _bench(arguments: argparse.Namespace) -> None:
    from cgnrt.measure import measure, table

    if min(arguments.batch, arguments.reuse) < 1 or arguments.seconds <= 0:
        raise ValueError("bench: batch, reuse and seconds are not all positive, expected positive numbers.")
    result = measure(
        _generator(arguments),
        batch=arguments.batch,
        reuse=arguments.reuse,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    print(json.dumps(result, indent=2) if arguments.json else table(result))


def _audit(arguments: argparse.Namespace) -> None:
    audit_command.run(arguments, lambda: _generator(arguments))


def _generator(arguments: argparse.Namespace, **options: Any) -> Generator:
    from cgnrt.generator import Generator

    return Generator(
        arguments.plan,
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
        **options,
    )


def _assignment(text: str) -> tuple[str, int | str]:
    mechanism, equals, label = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not MECHANISM=CLASS")
    # On the command line digits are an index; a class whose name is digits has that index in every plan of ours.
    return mechanism, int(label) if label.lstrip("-").isdecimal() else label


def _pool(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not M,F,B") from None
    return sizes if len(sizes) != 1 else sizes * 3


def _version() -> str:
    from importlib.metadata import version

    return version("cgnrt")
