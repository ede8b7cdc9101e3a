"""Judge each texture mechanism by what is seen of real images alone, while training (not in the paper).

The discriminator of composites sees all three mechanisms at once, and a foreground only where a mask happens to show
it: spots that few masks show cost nothing there. A discriminator of its own compares what generated textures and real
images show, before anything is composed: backgrounds around and behind objects (`surroundings.py`), and foregrounds
through the masks that are found in real images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import N_CLASSES, Config
from .discriminators import DiscStrided
from .losses import adversarial
from .teacher import Teacher

# Pictures (n, 3, h, w), their labels (n,), and 1 where they are seen, else 0 (n or 1, 1, h, w).
Seen = tuple[Tensor, Tensor, Tensor]


class FillJudge(Teacher):
    """The discriminator of one mechanism. In each step: add `losses` to the generator's, and afterwards `learn`.

    Args:
      name: of its losses.
      weight: of the generator's loss.
    """

    def __init__(self, config: Config, name: str, weight: float, device: torch.device | None = None) -> None:
        super().__init__()
        self.name, self.weight = name, weight
        self.judge = DiscStrided(N_CLASSES, 24, dropout=config.discriminator.dropout, projection=True)
        self.to(device)
        self.optimise(self.judge.parameters(), config.optimizer.lr_discriminator, config.optimizer)

    def losses(self, pictures: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The generator's: what is seen of a texture should pass for that of a real image.

        Args:
          seen: (n or 1, 1, h, w) of 0 and 1.
        """
        self.judge.requires_grad_(False)
        scores = self.judge(pictures * seen, labels)
        self.judge.requires_grad_(True)
        return {self.name: self.weight * adversarial(scores, real=True)}

    def learn(self, real: Seen, drawn: Seen) -> dict[str, Tensor]:
        """A step of the discriminator, on real images and textures."""
        images = torch.cat([pictures.detach() * seen for pictures, _, seen in (real, drawn)])
        scores = self.judge(images, torch.cat([real[1], drawn[1]]))
        n = len(real[0])
        losses = {
            f"{self.name}_real": adversarial(scores[:n], real=True),
            f"{self.name}_fake": adversarial(scores[n:], real=False),
        }
        self.descend(torch.stack(list(losses.values())).sum() / 2)
        return losses


def one_of_label(labels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """For each wanted label, where one of that label is, drawn at random.

    Args:
      labels: (m,).  wanted: (n,).
    Returns:
      (n,) whether there is one, and (k,) int64 places in `labels` for the k of which there is.
    """
    same = (wanted[:, None] == labels[None]).float()
    found = same.any(1)
    return found, torch.multinomial(same[found], 1)[:, 0]
