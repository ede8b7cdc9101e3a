"""Engine libraries behind one protocol (`base`), their list and the choice between them (`choice`)."""

from __future__ import annotations

from cgnrt.backends.base import Backend, Candidate, Device, Engine, EngineOptions, Setup
from cgnrt.backends.choice import BACKENDS, Choice, backends_for, choose, load_engine, supports

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
