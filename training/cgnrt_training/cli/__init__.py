"""`cgnrt-train`: train Counterfactual Generative Networks."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import pkgutil
from collections.abc import Sequence

from cgnrt._support.extras import missing_dependency
from cgnrt._support.files import terminable
from cgnrt._support.terminal import CommandParser, hold_standard_files, say, say_error
from cgnrt.errors import CgnrtError

from .common import JobFailed, UsageError

OK, FAILED, USAGE = 0, 1, 2

# The jobs: every module of this folder that has `add(jobs)`, which adds its sub-parser with `run` as a default, and
# `run(args)`, which returns what to print. A new job is a new module here, and nothing else of this folder changes.
JOBS = tuple(
    module
    for found in pkgutil.iter_modules(__path__)
    if not found.name.startswith("_")
    and hasattr(module := importlib.import_module(f"{__name__}.{found.name}"), "add")
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Results go to stdout, all else to stderr.

    Returns:
      0 if all went well, 1 if the job failed, 2 if it was asked for wrongly.
    """
    hold_standard_files()
    args = _parser().parse_args(argv)
    try:
        with terminable():
            say(args.run(args))
    except UsageError as error:
        say_error("cgnrt-train", error)
        return USAGE
    except JobFailed as failure:
        with contextlib.suppress(CgnrtError, BrokenPipeError):
            say(failure.result)
        say_error("cgnrt-train", failure)
        return FAILED
    except BrokenPipeError:
        return FAILED
    except (CgnrtError, ValueError, OSError) as error:
        say_error("cgnrt-train", error)
        return FAILED
    except ModuleNotFoundError as error:
        say_error("cgnrt-train", missing_dependency(args.job, error, "train"))
        return FAILED
    except KeyboardInterrupt:
        say_error("cgnrt-train", f"interrupted.{_how_to_go_on(args)}")
        return FAILED
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="cgnrt-train", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for job in JOBS:
        job.add(jobs)
    return parser


def _how_to_go_on(args: argparse.Namespace) -> str:
    if hasattr(args, "resume"):
        return f" Go on with: --output {args.output} --resume"
    return " Start the same command again to go on." if getattr(args, "goes_on", False) else ""
