"""A classifier of plain MNIST digits, which says what digit a mask shows: it has never seen a CGN's masks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..mnist.data import VariantMnist
from .model import Classifier

STEPS = 2000  # a minute
_BATCH = 128


class Reader(torch.nn.Module):
    """Masks (n, 1, 32, 32) in [0, 1] -> logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def forward(self, masks: Tensor) -> Tensor:
        logits: Tensor = self.classifier((masks * 2 - 1).expand(-1, 3, -1, -1))
        return logits


def digits_of(data: VariantMnist) -> Tensor:
    """The digits of a data set as masks, (n, 1, 32, 32) in [0, 1]."""
    return torch.from_numpy(data.digits[:, None].astype(np.float32))


def train_reader(masks: Tensor, labels: Tensor, steps: int | None = None) -> Reader:
    """Train on digits as masks, shifted by up to two pixels; in evaluation mode. `STEPS` steps if not given."""
    steps = STEPS if steps is None else steps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader = Reader()
        optimizer = torch.optim.Adam(reader.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randint(len(masks), (_BATCH,))
            across, down = torch.randint(-2, 3, (2,)).tolist()
            loss = F.cross_entropy(reader(masks[chosen].roll((across, down), (2, 3))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return reader.eval()


@torch.no_grad()
def read(reader: Reader, masks: Tensor) -> Tensor:
    """The digits that masks show, (n,) int64."""
    parts = [reader(masks[start : start + 1000]).argmax(1) for start in range(0, len(masks), 1000)]
    return torch.cat(parts)
