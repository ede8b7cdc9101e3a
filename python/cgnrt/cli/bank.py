"""`cgnrt bank`: plans of pictures instead of networks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cgnrt._support.pictures import has_suffix
from cgnrt._support.terminal import say
from cgnrt.banks.entries import TEXTURES, Recipe
from cgnrt.cli.arguments import Commands, add_engine, assignment, class_subsets
from cgnrt.plan.bank_streams import STREAMS
from cgnrt.plan.limits import MECHANISMS

_PICTURES, _SIZE = 10_000, 224
_STORES = ("raw", *STREAMS)

# The options of each form, besides those of all forms (--output, --force).
_FORMS = {
    "plan": (
        "n",
        "classes",
        "seed",
        "truncation",
        "device",
        "backend",
        "precision",
        "threads",
        "store",
        "quality",
    ),
    "photos": (
        *("saliency", "masks", "size", "texture", "seed", "min_object", "max_object", "licence", "processes"),
        *("backend", "threads", "store", "quality"),
    ),
    "join": MECHANISMS,
}


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "bank",
        help="make a plan of pictures: of what a plan's networks draw, of photos, or of mechanisms of several plans",
    )
    parser.add_argument(
        "source",
        type=Path,
        nargs="*",
        metavar="PLAN | PHOTOS",
        help="a plan whose networks draw the pictures; or folders of photos with a sub-folder for each class, folders "
        "of one class, or photos; neither with --shape, --texture and --background",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the plan to make; a run that was stopped goes on, in the folder <output>.unfinished",
    )
    parser.add_argument("--seed", type=int, help="of everything that is drawn (0)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing file, and start again where a run with other options was stopped",
    )
    parser.add_argument(
        "--store",
        choices=_STORES,
        help="raw pictures, which are composed as they lie in the file, or streams, which are smaller and are decoded "
        "when they are used; masks are then lossless WebP (raw)",
    )
    parser.add_argument(
        "--quality", type=int, help="of webp (lossless without it) and of jpeg (95): 0 to 100"
    )
    plan = parser.add_argument_group("of a plan")
    plan.add_argument(
        "-n",
        type=int,
        help=f"pictures of each mechanism, rounded up to as many of every class ({_PICTURES:,})",
    )
    plan.add_argument(
        "--classes",
        type=assignment,
        action="append",
        metavar="MECHANISM=A,B,...",
        help="draw only these classes, by name or index; may be given again (all)",
    )
    plan.add_argument("--truncation", type=float, help="for plans that have it (the plan's default)")
    add_engine(plan)
    photos = parser.add_argument_group("of photos (also --backend and --threads, for --saliency)")
    masks = photos.add_mutually_exclusive_group()
    masks.add_argument("--saliency", type=Path, metavar="PLAN", help="a plan that finds their objects")
    masks.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="grey pictures with the photos' names, PNGs for example: white is the object",
    )
    photos.add_argument("--size", type=int, help=f"side that photos are cropped and scaled to ({_SIZE})")
    photos.add_argument(
        "--texture",
        metavar="KIND",
        help="patches: a grid of patches of the object; filled: the object goes on beyond its outline; own: each "
        f"object keeps its own pixels ({Recipe.texture}). With --shape and --background: a plan",
    )
    photos.add_argument(
        "--min-object",
        type=float,
        metavar="SHARE",
        help=f"leave out photos whose object covers less of the picture ({Recipe.min_object})",
    )
    photos.add_argument(
        "--max-object",
        type=float,
        metavar="SHARE",
        help=f"leave out photos whose object covers more of the picture ({Recipe.max_object})",
    )
    photos.add_argument("--licence", metavar="TEXT", help="of the photos, which the plan then says")
    photos.add_argument(
        "--processes", type=int, help="that read photos and find objects (the cores, up to 16)"
    )
    join = parser.add_argument_group("of mechanisms of several plans (with --texture)")
    join.add_argument("--shape", type=Path, metavar="PLAN", help="the plan that gives the shape")
    join.add_argument("--background", type=Path, metavar="PLAN", help="the plan that gives the background")
    parser.set_defaults(run=_run, **dict.fromkeys(("device", "backend", "precision")))


def _run(arguments: argparse.Namespace) -> None:
    """Make the plan of the form that the arguments have."""
    form = _form(arguments)
    given = {
        option: getattr(arguments, option)
        for option in dict.fromkeys(option for options in _FORMS.values() for option in options)
        if getattr(arguments, option) is not None
    }
    for option in given:
        if option not in _FORMS[form]:
            dashes = "-" if len(option) == 1 else "--"
            raise ValueError(
                f"bank: {dashes}{option.replace('_', '-')} is not supported for {_NAMES[form]}. Leave it out."
            )
    _MAKE[form](arguments, given)
    say(arguments.output)


_NAMES = {"plan": "a plan", "photos": "photos", "join": "mechanisms of several plans"}


def _form(arguments: argparse.Namespace) -> str:
    source = arguments.source
    if arguments.shape is not None or arguments.background is not None:
        if source or any(getattr(arguments, name) is None for name in MECHANISMS):
            raise ValueError(
                "bank: expected --shape, --texture and --background, a plan for each, and no other plan or photos."
            )
        return "join"
    if not source:
        raise ValueError(
            "bank: what to make pictures of is missing, expected a plan, photos, or a plan for each of --shape, "
            "--texture and --background."
        )
    plans = [path for path in source if path.suffix == ".plan" or (path.is_file() and not has_suffix(path))]
    if plans and len(source) > 1:
        raise ValueError(
            f"bank: '{plans[0]}' is given beside others, expected one plan, or photos and folders of them. Plans are "
            "joined by --shape, --texture and --background."
        )
    return "plan" if plans else "photos"


def _from_plan(arguments: argparse.Namespace, given: dict[str, object]) -> None:
    from cgnrt import banks
    from cgnrt.plan import Plan

    pictures = given.pop("n", _PICTURES)
    with Plan.open(arguments.source[0]) as plan:
        if "classes" in given:
            names = {name: mechanism.classes for name, mechanism in plan.mechanisms.items()}
            given["classes"] = class_subsets(arguments.classes, names)
        banks.from_plan(arguments.output, plan, pictures, force=arguments.force, **given)  # type: ignore[arg-type]


def _from_photos(arguments: argparse.Namespace, given: dict[str, object]) -> None:
    from cgnrt import banks

    if arguments.saliency is None and arguments.masks is None:
        raise ValueError(
            "bank: what finds the photos' objects is missing, expected --saliency PLAN or --masks FOLDER. "
            "cgnrt-export makes such a plan of U2-Net's weights."
        )
    if (texture := arguments.texture) is not None and texture not in TEXTURES and texture.endswith(".plan"):
        raise ValueError(
            f"bank: --texture is '{texture}', expected one of {', '.join(TEXTURES)} for photos. Plans are joined by "
            "--shape, --texture and --background, without photos."
        )
    made = banks.from_folders(
        arguments.output,
        arguments.source,
        force=arguments.force,
        note=lambda text: say(text, sys.stderr),
        **given,  # type: ignore[arg-type]
    )
    if made.left_out:
        say(
            f"Left out {len(made.left_out)} of {len(made.left_out) + len(made.used)} photos.",
            sys.stderr,
        )


def _join(arguments: argparse.Namespace, given: dict[str, object]) -> None:
    from cgnrt import banks

    banks.join(
        arguments.output,
        shape=arguments.shape,
        texture=arguments.texture,
        background=arguments.background,
        force=arguments.force,
    )


_MAKE = {"plan": _from_plan, "photos": _from_photos, "join": _join}
