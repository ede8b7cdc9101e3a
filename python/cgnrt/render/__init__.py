"""From checked requests to batches of images: one renderer, its pools, and the devices that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnrt.backends import Choice
from cgnrt.plan import Plan
from cgnrt.render.pixels import PixelFormat
from cgnrt.sampling import Sampler

if TYPE_CHECKING:
    from cgnrt.render.renderer import Renderer


def make_renderer(
    plan: Plan,
    sampler: Sampler,
    pixels: PixelFormat,
    choice: Choice,
    threads: int | None,
) -> Renderer:
    """The renderer for the device that was chosen; it opens its engines on first use."""
    if choice.device.kind == "cuda":
        from cgnrt.render.cuda.rendering import CudaRenderer

        return CudaRenderer(plan, pixels, sampler, choice)
    from cgnrt.render.renderer import Renderer

    return Renderer(plan, pixels, sampler, choice, threads)
