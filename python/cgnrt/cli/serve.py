"""`cgnrt serve`: a plan behind the Open Inference Protocol."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt._support.reading import read_text
from cgnrt._support.terminal import say
from cgnrt.cli.arguments import Commands, add_generator, open_generator
from cgnrt.errors import CgnrtError

if TYPE_CHECKING:
    from cgnrt.generator import Generator

_LONGEST_MODEL_NAME = 255
TOKEN_VARIABLE = "CGNRT_TOKEN"  # of the environment
_MOST_TOKEN_BYTES = 65_536  # of the file with it


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="answer requests for images over HTTP and gRPC")
    parser.description = (
        "Answer requests for a plan's images until a signal. The plan is copied to a temporary folder first (TMPDIR, "
        "which has to have room for it), so that the file may be replaced or cut short while it is served."
    )
    add_generator(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (127.0.0.1: only for this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, help="HTTP port; 0 is any free port (8000)")
    parser.add_argument("--grpc-port", type=int, default=8001, help="gRPC port; 0 is any free port (8001)")
    parser.add_argument("--no-grpc", action="store_true", help="only HTTP")
    parser.add_argument("--ui", action="store_true", help="a page for browsers, at /ui/")
    parser.add_argument("--name", help="name of the model (the plan file's name without .plan)")
    parser.add_argument(
        "--max-images",
        type=int,
        help="images of a request that is answered in one piece (4096 of 32 x 32 px, 64 of 256 x 256)",
    )
    parser.add_argument(
        "--max-queue", type=int, help="images that wait; more are refused (512 of 32 x 32 px)"
    )
    parser.add_argument("--max-body", type=int, metavar="BYTES", help="size of a request (1048576)")
    parser.add_argument(
        "--bank-cache",
        type=int,
        metavar="BYTES",
        help="memory for decoded pictures of a plan's banks, which are decoded again where it is full (1 GiB)",
    )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="time from a request to its answer (60)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the bearer token that clients must send (or ${TOKEN_VARIABLE})",
    )
    parser.add_argument("--certificate", type=Path, help="PEM file, for TLS")
    parser.add_argument("--key", type=Path, help="PEM file with the key of the certificate")
    parser.add_argument(
        "--public-url",
        action="append",
        default=[],
        metavar="URL",
        help="address of a reverse proxy before the server, whose pages may ask (may be given several times)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log single requests")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Serve until a signal."""
    from cgnrt.serve.app import Address, Bound, serve
    from cgnrt.serve.browsers import is_loopback, public_origin, read_pages
    from cgnrt.serve.limits import Limits
    from cgnrt.serve.log import Log, LogStream
    from cgnrt.serve.service import Service

    for name in ("max_images", "max_queue", "max_body", "timeout"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"serve: {option} is {value}, expected a positive number.")
    if arguments.bank_cache is not None and arguments.bank_cache < 0:
        raise ValueError(f"serve: --bank-cache is {arguments.bank_cache}, expected 0 or more.")
    for name in ("port", "grpc_port"):
        if not 0 <= getattr(arguments, name) <= 65535:
            raise ValueError(f"serve: {name} is {getattr(arguments, name)}, expected 0..65535.")
    token = _token(arguments.token_file)
    _open_standard_files()
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # it would write to stderr, and wait for whoever reads that
    log = Log(sys.stderr, requests=not arguments.quiet)
    if token is None and not is_loopback(arguments.host):
        log.write(
            "warning", message=f"{arguments.host} is open to other machines without a token: see --token-file"
        )
    name = _model_name(arguments.plan.stem if arguments.name is None else arguments.name)
    generator = _open(arguments)
    generator.sample(1, seed=0)  # opens the engines
    limits = Limits.usual(
        generator.resolution,
        images=arguments.max_images,
        queue=arguments.max_queue,
        body_bytes=arguments.max_body,
        timeout_s=arguments.timeout,
    )
    address = Address(
        arguments.host,
        arguments.port,
        None if arguments.no_grpc else arguments.grpc_port,
        arguments.certificate,
        arguments.key,
        tuple(map(public_origin, arguments.public_url)),
    )

    def started(bound: Bound) -> None:
        gc.collect()
        gc.freeze()  # what is here stays: no request waits while the collector looks at all of it
        scheme, host = (
            ("https" if bound.tls else "http"),
            (f"[{bound.host}]" if ":" in bound.host else bound.host),
        )
        grpc = "" if bound.grpc_port is None else f", gRPC on port {bound.grpc_port}"
        page = f", page at {scheme}://{host}:{bound.port}/ui/" if arguments.ui else ""
        say(f"{name}: {scheme}://{host}:{bound.port}{grpc}{page}")

    async def live() -> None:
        service = Service(generator, name, limits=limits, token=token, log=log)
        pages = read_pages() if arguments.ui else None
        await serve(service, address, log=log, pages=pages, started=started)

    try:
        with contextlib.redirect_stderr(LogStream(log)):  # warnings and the tracebacks of threads
            asyncio.run(live())
    finally:
        log.flush()


def _open(arguments: argparse.Namespace) -> Generator:
    """The generator of a private copy of the plan."""
    cache = {} if arguments.bank_cache is None else {"bank_cache_bytes": arguments.bank_cache}
    with _private_copy(arguments.plan) as arguments.plan:
        return open_generator(arguments, dtype="uint8", layout="NHWC", **cache)


def _model_name(name: str) -> str:
    """A name that clients can ask for, as a part of a path."""
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name) > _LONGEST_MODEL_NAME:
        raise ValueError(
            f"serve: name is {name[:100]!r}, expected 1 to {_LONGEST_MODEL_NAME} printable characters without '/'. "
            "Choose one with --name."
        )
    return name


def _open_standard_files() -> None:
    """Open those of stdin, stdout and stderr that are closed: a connection would get their numbers, and their texts."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def _private_copy(plan: Path) -> Iterator[Path]:
    """A copy of the plan to map: making a mapped file shorter kills the process. The copy has no name afterwards."""
    if not plan.is_file():  # opening the plan reports it
        yield plan
        return
    with tempfile.TemporaryDirectory(prefix="cgnrt-serve-") as folder:
        copy = Path(folder) / plan.name
        try:
            shutil.copyfile(plan, copy)
        except OSError as error:
            raise CgnrtError(
                f"serve '{plan}': it cannot be copied to '{folder}' ({error.strerror or error}). "
                "Set TMPDIR to a folder with room for it."
            ) from error
        try:
            yield copy
        except (CgnrtError, ValueError) as error:
            error.args = (str(error).replace(str(copy), str(plan)),)
            raise


def _token(path: Path | None) -> str | None:
    """The bearer token. It is not an argument, because other users can see those.

    Raises:
      CgnrtError: the file cannot be read, or the token is not printable ASCII.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if path is not None:
        try:
            token = read_text(path, _MOST_TOKEN_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CgnrtError(f"serve: token file '{path}' cannot be read ({error}).") from error
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CgnrtError(
            "serve: token is empty or has other characters, expected printable ASCII without spaces."
        )
    return token
