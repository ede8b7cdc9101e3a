"""The `cgnrt` command. Results go to stdout, progress and messages to stderr; exit 0 ok, 1 failed, 2 usage."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt import audit_command, generate_command, real_command, serve_command, sheet_command
from cgnrt.arguments import add_draws, add_generator, draws, open_generator, pool_sizes
from cgnrt.errors import CgnrtError
from cgnrt.files import refuse_existing, terminable, write_npz, written_beside

if TYPE_CHECKING:
    import numpy as np

# Pixels that `sample` holds in memory and shows progress by: 1,024 images of 32 x 32, 16 of 256 x 256.
_STEP_PIXELS = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        with terminable():
            arguments.run(arguments)
    except (CgnrtError, ValueError, TypeError, MemoryError) as error:
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
    inspect.add_argument("--classes", action="store_true", help="print every class: index, name")
    inspect.set_defaults(run=_inspect)

    sample = commands.add_parser("sample", help="write counterfactuals to an .npz")
    add_generator(sample)
    add_draws(sample)
    sample.add_argument("-n", type=int, required=True, help="number of images")
    sample.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    sample.add_argument("--dtype", choices=("uint8", "float32", "float16"), default="uint8")
    sample.add_argument("--layout", choices=("NCHW", "NHWC"), default="NHWC")
    sample.add_argument("--pool", type=pool_sizes, metavar="M,F,B", help="compose from pools of these sizes")
    sample.add_argument(
        "--refresh",
        type=int,
        metavar="K",
        help="with --pool: after K images its oldest entries leave for new ones",
    )
    sample.add_argument(
        "--per-noise", type=int, default=1, metavar="K", help="counterfactuals per noise and shape"
    )
    sample.add_argument("--force", action="store_true", help="replace an existing file")
    sample.set_defaults(run=_sample)

    generate = commands.add_parser(
        "generate", help="write a data set in shards, or go on with one whose run was stopped"
    )
    generate_command.add_generate(generate)

    verify = commands.add_parser("verify", help="whether a data set is whole, as its manifest says")
    generate_command.add_verify(verify)

    serve = commands.add_parser("serve", help="answer requests for images over HTTP and gRPC")
    serve_command.add_arguments(serve)
    serve.set_defaults(run=serve_command.run)

    sheet = commands.add_parser(
        "sheet",
        help="labelled pictures of samples and their parts, interpolations (also as GIF), truncations",
    )
    add_generator(sheet)
    add_draws(sheet)
    sheet_command.add_arguments(sheet)
    sheet.set_defaults(run=sheet_command.run)

    bench = commands.add_parser("bench", help="images per second on this machine")
    add_generator(bench)
    bench.add_argument("--batch", type=int, help="images per call (1600 of 32 x 32 px, of larger ones fewer)")
    bench.add_argument("--reuse", type=int, default=16, help="images per pool entry (16)")
    bench.add_argument("--seconds", type=float, default=2.0, help="time for each case (2)")
    bench.add_argument("--seed", type=int, default=0)
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(run=_bench)

    audit = commands.add_parser("audit", help="what a classifier's answers follow")
    add_generator(audit)
    audit_command.add_arguments(audit)
    audit.set_defaults(run=_audit)

    real = commands.add_parser("real", help="exchange textures and backgrounds between photos")
    real_command.add_arguments(real)
    real.set_defaults(run=real_command.run)
    return parser


def _inspect(arguments: argparse.Namespace) -> None:
    from cgnrt.inspect import describe, list_classes, to_json
    from cgnrt.plan import Plan, open_any

    if arguments.classes and not arguments.json:
        with Plan.open(arguments.plan) as plan:
            print(list_classes(plan))
        return
    with open_any(arguments.plan) as found:
        print(json.dumps(to_json(found), indent=2) if arguments.json else describe(found))


def _sample(arguments: argparse.Namespace) -> None:
    import numpy as np
    from tqdm import tqdm

    if arguments.n < 0:
        raise ValueError(f"sample: n is {arguments.n}, expected 0 or more.")
    if arguments.output.suffix != ".npz":
        raise ValueError(f"sample: output is '{arguments.output}', expected a name that ends in .npz.")
    refuse_existing(arguments.output, force=arguments.force)
    generator = open_generator(arguments, dtype=arguments.dtype, layout=arguments.layout)
    n = arguments.n
    options = draws(arguments, generator.classes)
    options |= {"pool": arguments.pool, "refresh": arguments.refresh, "per_noise": arguments.per_noise}
    # No image, but the shape of one.
    nothing = generator.sample(0, **options).numpy()
    step = max(1, _STEP_PIXELS // (generator.resolution[0] * generator.resolution[1]))
    # On a GPU the generator reuses memory of its own.
    buffer = None
    if generator.device == "cpu":
        buffer = np.empty((min(step, n), *nothing.images.shape[1:]), arguments.dtype)
    # Checks every option before the first byte is written.
    batches = generator.batches(n, step, out=buffer, **options)
    columns = {
        "images": ((n, *nothing.images.shape[1:]), arguments.dtype),
        **{f"labels_{name}": ((n,), "int64") for name in ("shape", "texture", "background")},
        "indices": ((n,), "int64"),
        "seed": ((1,), "uint64"),
    }
    bar = tqdm(total=n, unit="image", disable=None)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        # The seed is one number: written at once, empty beside every batch.
        seed = np.asarray([arguments.seed], np.uint64)
        for batch in itertools.chain([nothing], (batch.numpy() for batch in batches)):
            labels = {f"labels_{name}": column for name, column in batch.labels._asdict().items()}
            yield {"images": batch.images, **labels, "indices": batch.indices, "seed": seed}
            seed = seed[:0]
            bar.update(len(batch))

    with bar, written_beside(arguments.output, force=arguments.force) as beside:
        write_npz(beside, columns, rows())
    print(arguments.output)


def _bench(arguments: argparse.Namespace) -> None:
    from cgnrt.measure import measure, table, usual_batch

    if (arguments.batch is not None and arguments.batch < 1) or arguments.reuse < 1 or arguments.seconds <= 0:
        raise ValueError("bench: batch, reuse and seconds are not all positive, expected positive numbers.")
    generator = open_generator(arguments)
    result = measure(
        generator,
        batch=usual_batch(generator.resolution) if arguments.batch is None else arguments.batch,
        reuse=arguments.reuse,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    print(json.dumps(result, indent=2) if arguments.json else table(result))


def _audit(arguments: argparse.Namespace) -> None:
    if arguments.inputs == "torch" and arguments.device == "auto":
        arguments.device = "cpu"  # where a classifier is that says nothing else
    audit_command.run(arguments, lambda: open_generator(arguments))


def _version() -> str:
    from importlib.metadata import version

    return version("cgnrt")
