"""A plan's graph for `_core.PictureNetwork`: vectors by NumPy, pictures by our own engine.

A generator like BigGAN starts with vectors (noise, class embedding, the scales and shifts of every batch norm),
which are a thousandth of the work, and goes on with pictures. `vectors` evaluates the first part, `compile` turns
the second into steps of the engine, each with the element-wise operators around it folded in.
"""

from __future__ import annotations

from cgnrt.backends.native.deep.compile import compile_pictures
from cgnrt.backends.native.deep.engine import NativeDeepEngine

__all__ = ["NativeDeepEngine", "compile_pictures"]
