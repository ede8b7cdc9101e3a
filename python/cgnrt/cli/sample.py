"""`cgnrt sample`: counterfactuals to one .npz file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cgnrt._support.files import refuse_existing, write_npz, written_beside
from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import (
    Commands,
    add_generator,
    add_sample_options,
    open_generator,
    sample_options,
)
from cgnrt.request.options import SampleOptions
from cgnrt.sampling import LABEL_COLUMNS

# Pixels that are held in memory, and between two moves of the progress bar: 1,024 images of 32 x 32, 16 of 256 x 256.
_STEP_PIXELS = 1 << 20


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("sample", help="write counterfactuals to an .npz")
    add_generator(parser)
    add_sample_options(parser, pools=True)
    parser.add_argument("-n", type=int, required=True, help="number of images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    parser.add_argument(
        "--dtype",
        choices=("uint8", "float32", "float16"),
        default="uint8",
        help="of the images; in Python float32 (uint8)",
    )
    parser.add_argument(
        "--layout", choices=("NCHW", "NHWC"), default="NHWC", help="of the images; in Python NCHW (NHWC)"
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
    options = generator.check(SampleOptions(**sample_options(arguments, generator.classes)))
    step = max(1, _STEP_PIXELS // (generator.resolution[0] * generator.resolution[1]))
    # On a GPU the generator reuses memory of its own.
    buffer = None
    if generator.device == "cpu":
        buffer = np.empty((min(step, n), *generator.image_shape), generator.dtype)
    batches = generator.batches(n, step, start=arguments.start, out=buffer, **options)
    columns = {
        "images": ((n, *generator.image_shape), generator.dtype),
        **dict.fromkeys(LABEL_COLUMNS, ((n,), "int64")),
        "indices": ((n,), "int64"),
        "seed": ((1,), "uint64"),
    }
    if options.place is not None:
        columns["place"] = ((n, 4), "float32")
    bar = progress_bar(n, unit="image")

    def rows() -> Iterator[dict[str, np.ndarray]]:
        yield {"seed": np.asarray([options.drawn_seed], np.uint64)}
        for batch in (batch.numpy() for batch in batches):
            labels = dict(zip(LABEL_COLUMNS, batch.labels, strict=True))
            placed = {} if batch.place is None else {"place": batch.place}
            yield {"images": batch.images, **labels, "indices": batch.indices, **placed}
            bar.update(len(batch))

    with bar, written_beside(arguments.output, force=arguments.force) as beside:
        write_npz(beside, columns, rows())
    say(arguments.output)
