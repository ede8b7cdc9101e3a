"""Command line options that several commands share: which plan and engine, and which samples."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cgnrt.backends.choice import BACKENDS
from cgnrt.request.options import LABELS, OPTION_NAMES, SampleOptions
from cgnrt.request.place import FACTORS, read_factor, read_place

if TYPE_CHECKING:
    from cgnrt._support.terminal import CommandParser
    from cgnrt.generator import Generator

# What `add_parser` of a command is given.
Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


def add_generator(parser: argparse.ArgumentParser) -> None:
    """The plan and what runs it."""
    parser.add_argument("plan", type=Path, help="the plan file")
    add_engine(parser)


def add_engine(parser: argparse._ActionsContainer) -> None:
    """What runs a plan."""
    parser.add_argument("--backend", default="auto", help=f"auto, {', '.join(BACKENDS)}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, xpu, or cuda:<index>")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (all cores)")


def open_generator(arguments: argparse.Namespace, **options: Any) -> Generator:
    """The Generator that `add_generator`'s options ask for."""
    from cgnrt.generator import Generator

    return Generator(
        arguments.plan,
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
        **options,
    )


def add_sample_options(parser: argparse.ArgumentParser, *, pools: bool = False) -> None:
    """Which samples of which stream; with `pools` also how the networks are used for several of them."""
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (0)")
    parser.add_argument("--start", type=int, default=0, help="first sample of the stream (0)")
    parser.add_argument(
        "--do",
        type=assignment,
        action="append",
        default=[],
        metavar="MECHANISM=CLASS",
        help="intervene: fix a label, by name or index; may be given again. A class is the one of that name, where the "
        "plan has one, else the one of that index; index:3 is always an index, name:3 always a name. dy, dx, scale and "
        "flip fix that of the place: scale=0.5",
    )
    parser.add_argument(
        "--classes",
        type=assignment,
        action="append",
        default=[],
        metavar="MECHANISM=A,B,...",
        help="draw this mechanism's labels only from these classes, written as for --do; may be given again, to add to "
        "them",
    )
    parser.add_argument(
        "--labels",
        choices=LABELS,
        default=SampleOptions.labels,
        help=f"one label for each mechanism, or the same for all of them ({SampleOptions.labels})",
    )
    parser.add_argument(
        "--distinct", action="store_true", help="never draw a texture and a background of one class (off)"
    )
    parser.add_argument("--truncation", type=float, help="for plans that have it (the plan's default)")
    add_place(parser)
    if pools:
        parser.add_argument(
            "--pool", type=_pool_sizes, metavar="M,F,B", help="compose from pools of these sizes"
        )
        parser.add_argument(
            "--refresh",
            type=int,
            metavar="K",
            help="with --pool: after K images its oldest entries leave for new ones (never)",
        )
        parser.add_argument(
            "--per-noise",
            type=int,
            default=SampleOptions.per_noise,
            metavar="K",
            help="counterfactuals per noise and shape",
        )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Where objects are put."""
    parser.add_argument(
        "--place",
        action="append",
        default=[],
        metavar="FACTOR=LOW:HIGH,...",
        help="draw where each object is put, such as dx=-0.3:0.3,scale=0.5:1,flip=0.5: dy and dx, its shift down and "
        "to the right in heights and widths of the picture, scale, its size, and flip, the chance that it is mirrored; "
        "each a range, or a number for all (as the plan draws it)",
    )


def sample_options(arguments: argparse.Namespace, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What `add_sample_options` adds but --start, as arguments of `SampleOptions`; `classes` is the generator's."""
    do = {
        m: _fixed_factor(m, text) if m in FACTORS else label_of(text, classes.get(m, ()))
        for m, text in arguments.do
    }
    subsets = class_subsets(arguments.classes, classes)
    found = {name: value for name, value in vars(arguments).items() if name in OPTION_NAMES}
    return found | {"do": do, "classes": subsets, "place": read_place(arguments.place)}


def class_subsets(
    given: Sequence[tuple[str, str]], names: Mapping[str, Sequence[str]]
) -> dict[str, list[int | str]]:
    """What --classes options mean, which may name a mechanism several times; `names` are the plan's."""
    subsets: dict[str, list[int | str]] = {}
    for mechanism, text in given:
        subsets.setdefault(mechanism, []).extend(labels_in(text, names.get(mechanism, ())))
    return subsets


def label_of(text: str, names: Collection[str]) -> int | str:
    """What a text on the command line means: the class of that name where the plan has it, else an index.

    `index:3` is always the index, `name:3` always the name. Any other text is returned as it is: the error for an
    unknown name suggests close ones.
    """
    if text in names:
        return text
    kind, colon, rest = text.partition(":")
    if colon and kind == "name":
        return rest
    number = rest if colon and kind == "index" else text
    digits = number.removeprefix("-")
    return int(number) if digits.isascii() and digits.isdecimal() else text


def labels_in(text: str, names: Collection[str]) -> list[int | str]:
    """The labels in `A,B,...`. A text that is a class name as a whole, commas and all, is that one class."""
    if text in names:
        return [text]
    return [label_of(piece if piece in names else piece.strip(), names) for piece in text.split(",")]


def assignment(text: str) -> tuple[str, str]:
    """MECHANISM=TEXT, cut at the first equals sign; names in the form that plans have."""
    mechanism, equals, value = unicodedata.normalize("NFC", text).partition("=")
    if not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not MECHANISM=CLASS")
    return mechanism, value


def _fixed_factor(name: str, text: str) -> float:
    """The number that --do sets a factor of the place to."""
    value = read_factor(name, text)
    if isinstance(value, tuple):
        raise ValueError(
            f"sample: do[{name!r}] is {text!r}, expected a number. Use --place to draw from a range."
        )
    return value


def _pool_sizes(text: str) -> tuple[int, ...]:
    """M,F,B, or one size for all three."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not M,F,B") from None
    return sizes if len(sizes) != 1 else sizes * 3
