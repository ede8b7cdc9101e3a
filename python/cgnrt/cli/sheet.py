"""`cgnrt sheet`: pictures of a plan's samples."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import (
    Commands,
    add_generator,
    add_sample_options,
    labels_in,
    open_generator,
    sample_options,
)
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import read_place
from cgnrt.sampling import MECHANISMS

if TYPE_CHECKING:
    from PIL import Image

    from cgnrt.batch import Batch
    from cgnrt.generator import Generator

_STEP_PIXELS = 1 << 18  # drawn between two moves of the progress bar: four pictures of 256 x 256
_PAPER_TRUNCATION = 0.5  # of App. D.1
_LARGEST_TILE = 4096  # pixels
_MOST_CLASSES = 12  # that are shown unasked: App. D.1 has twelve

# The options of each kind, besides those of all kinds (--seed, --start, -n, --tile), and the default of -n.
_KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "contact": (("do", "classes", "labels", "distinct", "truncation", "place"), 10),
    "mechanisms": (("show", "truncation", "place"), 4),
    "interpolation": (("path", "frames", "move", "gif", "ms", "back", "truncation"), 1),
    "truncations": (("truncations", "do", "classes", "labels", "distinct", "place"), 6),
}
_EVERY = tuple(dict.fromkeys(option for options, _ in _KINDS.values() for option in options))


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "sheet",
        help="labelled pictures of samples and their parts, interpolations (also as GIF), truncations",
    )
    add_generator(parser)
    add_sample_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the .png to write, or .gif with --gif"
    )
    parser.add_argument(
        "--kind",
        choices=tuple(_KINDS),
        default="contact",
        help="contact: a column for each sample, its parts and its composite (the default); mechanisms: the same "
        "class by class; interpolation: paths between two samples, one mechanism at a time and all together; "
        "truncations: the same samples at several truncations",
    )
    parser.add_argument(
        "-n",
        type=int,
        help="samples: columns, with mechanisms for each class (10; mechanisms 4, truncations 6); "
        "with interpolation pairs of samples (1)",
    )
    parser.add_argument(
        "--tile", type=int, help="width of a picture in pixels (as in the plan, from 96 to 256)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    mechanisms = parser.add_argument_group("--kind mechanisms")
    mechanisms.add_argument(
        "--show",
        action="append",
        metavar="A,B,...",
        help="classes, by name or index as for --do; may be given again "
        f"(all, of more than {_MOST_CLASSES} as many at random)",
    )
    path = parser.add_argument_group("--kind interpolation")
    path.add_argument(
        "--path",
        action="append",
        metavar="[MECHANISM=]FROM,TO",
        help="classes at the two ends, by name or index as for --do, for one mechanism "
        "or for all; one class stays (those of the two samples)",
    )
    path.add_argument("--frames", type=int, help="both ends included (8; with --gif 16)")
    path.add_argument(
        "--move",
        metavar="A,B,...",
        help="which rows, or with --gif which pictures side by side: some of shape, "
        "texture, background, all (every one; with --gif all)",
    )
    path.add_argument("--gif", action="store_true", help="write an animated GIF")
    path.add_argument("--ms", type=int, help="milliseconds for each frame of the GIF (80)")
    path.add_argument("--back", action="store_true", help="the GIF goes back the same way")
    truncations = parser.add_argument_group("--kind truncations")
    truncations.add_argument(
        "--truncations",
        type=_numbers,
        metavar="A,B,...",
        help="a row for each (0.1,0.5,1 within the plan's range)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Draw, and write the picture.

    Raises:
      ValueError: an option does not fit the kind, or is out of its range.
    """
    own, count = _KINDS[arguments.kind]
    for option in _EVERY:
        value = getattr(arguments, option)
        if option not in own and value not in (None, [], False, SampleOptions.labels):
            raise ValueError(
                f"sheet: --{option} is not supported with --kind {arguments.kind}. Leave it out."
            )
    suffix = ".gif" if arguments.gif else ".png"
    if arguments.output.suffix != suffix:
        raise ValueError(f"sheet: output is '{arguments.output}', expected a name that ends in {suffix}.")
    for option in ("ms", "back"):
        if getattr(arguments, option) not in (None, False) and not arguments.gif:
            raise ValueError(
                f"sheet: --{option} is not supported without --gif. Pass --gif, or leave it out."
            )
    arguments.n = count if arguments.n is None else arguments.n
    if arguments.n < 1 or (arguments.gif and arguments.n > 1):
        raise ValueError(
            f"sheet: n is {arguments.n}, expected {'1 with --gif' if arguments.gif else 'at least 1'}."
        )
    if arguments.tile is not None and not 8 <= arguments.tile <= _LARGEST_TILE:
        rule = "at least 8" if arguments.tile < 8 else f"at most {_LARGEST_TILE}"
        raise ValueError(f"sheet: tile is {arguments.tile}, expected {rule}.")
    refuse_existing(arguments.output, force=arguments.force)
    generator = open_generator(arguments, dtype="uint8", layout="NHWC")
    if arguments.tile is None:
        arguments.tile = min(256, max(96, generator.resolution[1]))
    if arguments.gif:
        _write_gif(arguments, generator)
    else:
        image = _DRAW[arguments.kind](arguments, generator)
        with written_beside(arguments.output, force=arguments.force) as beside:
            image.save(beside, format="PNG")
    say(arguments.output)


# Kinds.


def _contact(arguments: argparse.Namespace, generator: Generator) -> Image.Image:
    from cgnrt.sheets import contact_sheet

    options = SampleOptions(parts=True, **sample_options(arguments, generator.classes))
    with _bar(arguments.n) as bar:
        batch = _sampled(arguments, generator, bar, options)
    return contact_sheet(batch, generator.classes, source=_source(generator), tile=arguments.tile)


def _mechanisms(arguments: argparse.Namespace, generator: Generator) -> Image.Image:
    from cgnrt.sheets import mechanism_sheet

    labels = _shown(arguments, generator)
    truncation = arguments.truncation
    limits = generator.plan.manifest.truncation
    if truncation is None and limits is not None:
        truncation = min(max(_PAPER_TRUNCATION, limits.minimum), limits.maximum)
    place = read_place(arguments.place)
    options = SampleOptions(seed=arguments.seed, truncation=truncation, place=place, parts=True)
    free = [name for name in MECHANISMS if name not in generator.plan.following]
    # Checked for every class before the first picture is drawn.
    fixed = [generator.check(replace(options, do=dict.fromkeys(free, label))) for label in labels]
    with _bar(arguments.n * len(labels)) as bar:
        batches = [_sampled(arguments, generator, bar, one) for one in fixed]
    return mechanism_sheet(batches, generator.classes, source=_source(generator), tile=arguments.tile)


def _interpolation(arguments: argparse.Namespace, generator: Generator) -> Image.Image:
    from cgnrt.sheets import MOVES, interpolation_sheet

    moves = _moves(arguments, MOVES)
    with _bar(arguments.n * _frames(arguments)) as bar:
        paths = [_path(arguments, generator, bar, k) for k in range(arguments.n)]
    return interpolation_sheet(
        paths, generator.classes, moves=moves, source=_source(generator), tile=arguments.tile
    )


def _truncations(arguments: argparse.Namespace, generator: Generator) -> Image.Image:
    from cgnrt.sheets import truncation_sheet

    limits = generator.plan.manifest.truncation
    if limits is None:
        raise ValueError("sheet: kind is 'truncations', expected another one: this plan has no truncation.")
    values = arguments.truncations
    if values is None:
        values = [v for v in (0.1, 0.5, 1.0) if limits.minimum <= v <= limits.maximum] or [limits.default]
    options = SampleOptions(**sample_options(arguments, generator.classes))
    rows = [generator.check(replace(options, truncation=value)) for value in values]
    with _bar(arguments.n * len(rows)) as bar:
        batches = [_sampled(arguments, generator, bar, row) for row in rows]
    return truncation_sheet(batches, values, generator.classes, tile=arguments.tile)


_DRAW = {
    "contact": _contact,
    "mechanisms": _mechanisms,
    "interpolation": _interpolation,
    "truncations": _truncations,
}


def _write_gif(arguments: argparse.Namespace, generator: Generator) -> None:
    from cgnrt.sheets import interpolation_frames
    from cgnrt.sheets.gif import MAX_MS, MIN_MS, write_gif

    frame_ms = 80 if arguments.ms is None else arguments.ms
    if not MIN_MS <= frame_ms <= MAX_MS:
        raise ValueError(f"sheet: ms is {frame_ms}, expected {MIN_MS}..{MAX_MS}.")
    moves = _moves(arguments, ("all",))
    with _bar(_frames(arguments)) as bar:
        path = _path(arguments, generator, bar, 0)
    frames = interpolation_frames(path, moves=moves, source=_source(generator), tile=arguments.tile)
    with written_beside(arguments.output, force=arguments.force) as beside:
        write_gif(beside, frames, frame_ms=frame_ms, there_and_back=arguments.back)


# Options.


def _shown(arguments: argparse.Namespace, generator: Generator) -> list[int]:
    import numpy as np

    from cgnrt.request.resolver import ClassNames

    names = generator.classes
    sizes = {len(names[mechanism]) for mechanism in MECHANISMS}
    if len(sizes) > 1:
        raise ValueError(
            "sheet: kind is 'mechanisms', expected another one: the mechanisms of this plan have different numbers "
            "of classes."
        )
    if arguments.show is None:
        k = sizes.pop()
        some = np.random.default_rng(arguments.seed).choice(k, min(k, _MOST_CLASSES), replace=False)
        return sorted(int(label) for label in some)
    given = [label for text in arguments.show for label in labels_in(text, names["shape"])]
    # A class is its index: the names of a plan's three mechanisms may differ (digits, colours).
    return [ClassNames(names).index(f"show[{i}]", "shape", label) for i, label in enumerate(given)]


def _frames(arguments: argparse.Namespace) -> int:
    default = 16 if arguments.gif else 8
    return default if arguments.frames is None else int(arguments.frames)


def _moves(arguments: argparse.Namespace, default: Sequence[str]) -> list[str]:
    from cgnrt.sheets import MOVES

    moves = list(default) if arguments.move is None else [m.strip() for m in arguments.move.split(",")]
    for move in moves:
        if move not in MOVES:
            raise ValueError(f"sheet: --move has {move!r}, expected some of {', '.join(MOVES)}.")
    return moves


def _ends(arguments: argparse.Namespace, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The labels at both ends: mechanism -> (from, to)."""
    ends: dict[str, Any] = {}
    for text in arguments.path or ():
        head, equals, tail = text.partition("=")
        if equals and head not in MECHANISMS and not any("=" in name for name in classes["shape"]):
            raise ValueError(
                f"sheet: --path has {head!r}, expected one of {', '.join(MECHANISMS)}.{did_you_mean(head, MECHANISMS)}"
            )
        own = equals and head in MECHANISMS
        for mechanism in (head,) if own else MECHANISMS:
            labels = labels_in(tail if own else text, classes[mechanism])
            ends[mechanism] = labels * 2 if len(labels) == 1 else labels
    return ends


def _numbers(text: str) -> list[float]:
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not A,B,...") from None


# Samples.


def _path(arguments: argparse.Namespace, generator: Generator, bar: Any, k: int) -> Batch:
    """The k-th pair of samples of the stream, and what lies between."""
    first = arguments.start + 2 * k
    return generator.interpolate(
        _frames(arguments),
        seed=arguments.seed,
        start=first,
        end=first + 1,
        truncation=arguments.truncation,
        parts=True,
        progress=bar.update,
        **_ends(arguments, generator.classes),
    ).numpy()


def _sampled(arguments: argparse.Namespace, generator: Generator, bar: Any, options: SampleOptions) -> Batch:
    """The samples that -n and --start ask for; the bar shows how many are drawn."""
    step = max(1, _STEP_PIXELS // (generator.resolution[0] * generator.resolution[1]))
    return _joined(_counted(generator.batches(arguments.n, step, start=arguments.start, **options), bar))


def _counted(batches: Iterator[Batch], bar: Any) -> Iterator[Batch]:
    for batch in batches:
        yield batch.numpy()
        bar.update(len(batch))


def _joined(batches: Iterator[Batch]) -> Batch:
    import numpy as np

    from cgnrt.batch import PICTURE_NAMES
    from cgnrt.sampling import Labels

    found = list(batches)
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in found])
        for name in ("images", "indices", "place", *PICTURE_NAMES)
        if getattr(found[0], name) is not None
    }
    labels = Labels(*map(np.concatenate, zip(*(batch.labels for batch in found), strict=True)))
    return replace(found[0], labels=labels, draw_noise=None, **arrays)


def _bar(total: int) -> Any:

    return progress_bar(total, unit="image")


def _source(generator: Generator) -> tuple[float, float]:
    low, high = generator.plan.mechanisms["texture"].spec.range
    return low, high
