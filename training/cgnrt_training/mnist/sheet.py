"""Sample sheets: what a CGN draws, as one picture."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runs.pictures import Sheet
from .models import CGN, compose

ROWS = 4  # of each kind


@torch.no_grad()
def sheet(cgn: CGN, seed: int = 0) -> Sheet:
    """Draw a sheet: a column for each class; down, mask, foreground, background and composite of equal
    labels, then composites whose three labels differ (counterfactuals: the shape's label is the column's).

    The same noise is used at every call, and the global random state is left alone. All on the CPU.
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
    columns = torch.stack(rows, 2).flatten(2, 3).cpu().clamp(-1, 1) / 2 + 0.5  # (classes, 3, rows * h, w)
    side = ["mask", "foreground", "background", "composite"] * ROWS + ["counterfactual"] * ROWS
    return Sheet(list(columns), side=side, head=[str(digit) for digit in range(n_classes)])
