"""The CGN as it is trained: the one of Fig. 2, with a refinement network if the run has one."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn

from ..imagenet.biggan import BigGAN
from ..imagenet.cgn import CGN, Head, Parts, compose
from .refine import Refiner

MECHANISMS = {"shape": "f_shape", "texture": "f_text", "background": "f_bg"}


class NaturalCGN(CGN):
    """Three BigGANs, a saliency head that is never trained, and perhaps a refinement network.

    Args:
      refiner: None composes alone (Eq. 2).
    """

    def __init__(
        self, f_shape: BigGAN, f_text: BigGAN, f_bg: BigGAN, u2net: Head, refiner: Refiner | None = None
    ) -> None:
        super().__init__(f_shape, f_text, f_bg, u2net)
        self.refiner = refiner

    @classmethod
    def of_teacher(cls, teacher: BigGAN, u2net: Head, refiner: Refiner | None = None) -> NaturalCGN:
        """The CGN as training begins: every mechanism has a copy of the cGAN's weights (Sec. 3.1)."""
        cgn = cls(deepcopy(teacher), deepcopy(teacher), deepcopy(teacher), u2net, refiner)
        cgn.eval()  # BigGAN's batch norms keep their stored statistics; the loop runs the power iteration
        cgn.requires_grad_(True)
        u2net.requires_grad_(False)
        return cgn

    def trained(self) -> dict[str, nn.Module]:
        """What is trained, by mechanism, and `refine`."""
        parts: dict[str, nn.Module] = {
            name: self.get_submodule(attribute) for name, attribute in MECHANISMS.items()
        }
        return parts if self.refiner is None else parts | {"refine": self.refiner}

    def composite(self, parts: Parts) -> Tensor:
        """The picture that the parts make (Eq. 2), refined if there is a refinement network; (n, 3, h, w)."""
        plain = compose(parts)
        if self.refiner is None:
            return plain
        refined: Tensor = self.refiner(plain, parts.mask)
        return refined
