"""Sample sheets: what a CGN draws, as one picture."""

from __future__ import annotations

import torch
from torch import Tensor

from .models import CGN, compose

ROWS = 4  # of each kind


@torch.no_grad()
def sheet(cgn: CGN, seed: int = 0) -> Tensor:
    """Draw a sheet: a column for each class; down, mask, foreground, background and composite of equal
    labels, then composites whose three labels differ (counterfactuals: the shape's label is the column's).

    The same noise is used at every call, and the global random state is left alone.

    Returns:
      (3, height, width) in [0, 1], on the CPU.
    """
    was_training = cgn.training
    cgn.eval()
    generator = torch.Generator().manual_seed(seed)
    n_classes = cgn.n_classes
    labels = torch.arange(n_classes, device=cgn.label_emb.weight.device)
    rows: list[Tensor] = []
    for _ in range(ROWS):
        parts = cgn(labels, generator=generator)
        mask = parts.mask.expand(-1, 3, -1, -1) * 2 - 1
        rows += [mask, parts.foreground, parts.background, compose(parts)]
    for row in range(ROWS):
        texture, background = (labels + 1 + row) % n_classes, (labels + 3 + row) % n_classes
        rows.append(compose(cgn(labels, texture, background, generator=generator)))
    cgn.train(was_training)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).cpu().clamp(-1, 1) / 2 + 0.5
