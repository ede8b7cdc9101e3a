"""Engine libraries behind one protocol (`base`), their list (`registry`), and the choice between them (`choice`)."""

from __future__ import annotations

from cgnrt.backends.base import Backend, Candidate, Device, Engine, EngineOptions, Setup
from cgnrt.backends.choice import Choice, choose, load_engine, supports
from cgnrt.backends.registry import BACKENDS, backends_for

__all__ = [
    "BACKENDS",
    "Backend",
    "Candidate",
    "Choice",
    "Device",
    "Engine",
    "EngineOptions",
    "Setup",
    "backends_for",
    "choose",
    "load_engine",
    "supports",
]
