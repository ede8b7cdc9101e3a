"""A plan's graph for `_core.DeepEngine`: vectors by NumPy, pictures by our own engine.

A generator like BigGAN begins with vectors (noise, class embedding, the scales and shifts of every batch norm),
whose share of the work is a thousandth, and goes on with pictures. `vectors` evaluates the first part, `compile`
turns the second into steps of the engine, each with the element-wise operators around it folded in.
"""

from __future__ import annotations

from cgnrt.backends.native.deep.compile import compile_pictures
from cgnrt.backends.native.deep.program import PictureProgram
from cgnrt.backends.native.deep.vectors import evaluate

__all__ = ["PictureProgram", "compile_pictures", "evaluate"]
