"""cgnrt's own CPU engines, in fp32: no engine library is needed.

Small generators, like those of the MNIST CGN, go through `_core.SmallGenerator`: a linear layer, then up-sampling
convolutions, every image on one thread and in its caches (csrc/engines/small). Deep picture networks, like
BigGAN-deep and U-Net shapes, go through `_core.PictureNetwork`, whose convolutions multiply fewer numbers than they
have taps (csrc/engines/deep). Any other graph is refused with the reasons, and `auto` goes on to the next backend.
"""

from __future__ import annotations

from cgnrt.backends.native.backend import NativeBackend, examine

__all__ = ["NativeBackend", "examine"]
