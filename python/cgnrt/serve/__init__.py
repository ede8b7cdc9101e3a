"""`cgnrt serve`: a plan behind the Open Inference Protocol (KServe v2), over HTTP and gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cgnrt._support.extras import missing_dependency


@contextlib.contextmanager
def serve_extra(*modules: str) -> Iterator[None]:
    """A block that imports modules of the extra "serve".

    Raises:
      MissingDependencyError: one of `modules` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in modules:
            raise
        raise missing_dependency("serve", error) from error
