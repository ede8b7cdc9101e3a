"""`cgnrt sample`: counterfactuals to one .npz file."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cgnrt._support.files import refuse_existing, write_npz, written_beside
from cgnrt.cli.arguments import Commands, add_draws, add_generator, draws, open_generator, pool_sizes

# Pixels that are held in memory and that progress is shown by: 1,024 images of 32 x 32, 16 of 256 x 256.
_STEP_PIXELS = 1 << 20


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("sample", help="write counterfactuals to an .npz")
    add_generator(parser)
    add_draws(parser)
    parser.add_argument("-n", type=int, required=True, help="number of images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--dtype", choices=("uint8", "float32", "float16"), default="uint8")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NHWC")
    parser.add_argument("--pool", type=pool_sizes, metavar="M,F,B", help="compose from pools of these sizes")
    parser.add_argument(
        "--refresh",
        type=int,
        metavar="K",
        help="with --pool: after K images its oldest entries leave for new ones",
    )
    parser.add_argument(
        "--per-noise", type=int, default=1, metavar="K", help="counterfactuals per noise and shape"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
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
