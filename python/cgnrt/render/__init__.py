"""From checked requests to batches of images: one renderer, its pools, and the devices that it runs on."""

from __future__ import annotations

from cgnrt.backends import Choice
from cgnrt.plan import Plan
from cgnrt.render.device import Opening
from cgnrt.render.pixels import PixelFormat
from cgnrt.render.renderer import Renderer
from cgnrt.sampling import Sampler


def make_renderer(
    plan: Plan,
    sampler: Sampler,
    pixels: PixelFormat,
    choice: Choice,
    threads: int | None,
) -> Renderer:
    """The renderer for the device that was chosen, which is opened on first use."""
    return Renderer(plan, sampler, pixels, Opening(plan, choice, threads))
