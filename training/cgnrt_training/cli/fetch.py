"""`cgnrt-train fetch`: check the data files, and fetch the missing ones from where the user says."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from ..data_files import KNOWN, PURPOSES, REQUIRED
from ..fetch import Finding, check, fetch
from . import common

_MOST_LINES = 4  # of a group whose files are all alike


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "fetch",
        help="check the data files; fetch those that are missing",
        description="Check data files against known hashes, and say which are good, damaged or missing. With "
        "--from, fetch those that are missing; nothing is ever fetched without it. Exit 1 if a needed file is not "
        "good: those of mnist, or those of the group that --only names.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of the data files")
    parser.add_argument(
        "--from",
        dest="address",
        metavar="URL",
        help="http://, https:// or file:// address of a folder that has them",
    )
    parser.add_argument(
        "--only", choices=tuple(PURPOSES), metavar="GROUP", help=f"one of {', '.join(PURPOSES)}"
    )
    parser.add_argument("--force", action="store_true", help="with --from: replace damaged files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> str:
    """Check and fetch; returns the table of all files.

    Raises:
      JobFailed: a needed file is not good, or a damaged one could not be fetched.
    """
    if args.force and args.address is None:
        raise common.UsageError("fetch: --force is given without --from, expected both.")
    if args.folder.exists() and not args.folder.is_dir():
        raise common.UsageError(f"fetch: DIR is '{args.folder}', a file, expected a folder.")
    catalogue = tuple(file for file in KNOWN if args.only in (None, file.group))
    if args.address is None:
        findings = check(args.folder, catalogue)
    else:
        try:
            findings = fetch(args.folder, args.address, catalogue, force=args.force)
        except ValueError as error:
            raise common.UsageError(str(error)) from error
    needed = REQUIRED if args.only is None else {args.only}
    table = _table(findings)
    if bad := [f for f in findings if f.failed or (f.state != "good" and f.file.group in needed)]:
        raise common.JobFailed(f"fetch '{args.folder}': {_needed(bad, args)}", table)
    return table


def _needed(bad: list[Finding], args: argparse.Namespace) -> str:
    """Which files are needed, and how to get them."""
    paths = [finding.path for finding in bad]
    damaged = any(finding.state == "damaged" for finding in bad)
    files = ", ".join(f"{finding.path} ({finding.state})" for finding in bad)
    named = f"{len(bad)} needed {'file is' if len(bad) == 1 else 'files are'} not good: {files}."
    if args.address is not None:
        base = args.address.rstrip("/")
        return f"{named} They are expected at {base}/{paths[0]} and so on; the table says what was wrong."
    return (
        f"{named} Pass --from URL with the address of a folder that has them under these names: the first one is "
        f"fetched from URL/{paths[0]}.{' Add --force to replace damaged files.' if damaged else ''}"
    )


def _table(findings: list[Finding]) -> str:
    """A line for each file; one for a group of which all is to be said once."""
    lines = []
    for _, group in groupby(findings, key=lambda finding: finding.file.group):
        files = list(group)
        alike = len({(file.state, file.detail) for file in files}) == 1
        if alike and len(files) > _MOST_LINES:
            lines.append(_line(files[0], f"{len(files)} files"))
        else:
            lines += [_line(file, file.path) for file in files]
    return "\n".join(lines)


def _line(finding: Finding, name: str) -> str:
    note = finding.detail
    if finding.state == "missing" and not finding.failed:
        note = "; ".join(filter(None, (note, PURPOSES[finding.file.group])))
    return f"{finding.state:<8} {finding.file.group:<11} {name:<28} {note}".rstrip()
