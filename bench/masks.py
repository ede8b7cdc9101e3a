"""How many of a plan's masks show their label, by class: `cgnrt.audit` with a classifier of plain MNIST digits.

The classifier is the network of Table 2, trained for a minute on MNIST's digits as white masks on black, shifted by
up to two pixels; its accuracy on 10,000 other digits is printed beside.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from report import ROOT, print_table, write_json

import cgnrt
from cgnrt_training.classifier.model import Classifier
from cgnrt_training.mnist.data import VariantMnist

PLANS = ("colored", "double-colored", "wildlife")
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder with MNIST's IDX files")
    parser.add_argument("-n", type=int, default=10_000, help="masks of each plan")
    parser.add_argument("--steps", type=int, default=2000, help="of the classifier's training")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    train, test = (VariantMnist("colored", arguments.data, domain=domain) for domain in ("train", "test"))
    reader = train_reader(digits(train), torch.from_numpy(train.labels), arguments.steps)
    with torch.no_grad():
        answers = torch.cat([reader.eval()(masks).argmax(1) for masks in digits(test).split(1000)])
    accuracy = float((answers.numpy() == test.labels).mean())
    rows: list[dict[str, Any]] = []
    for name in PLANS:
        found = cgnrt.audit(
            lambda images: np.zeros(len(images), np.int64),  # only the masks matter here
            ROOT / "plans" / f"{name}.plan",
            arguments.n,
            mask_classifier=reader,
        ).masks
        assert found is not None
        by_class = {str(digit): 100 * rate.value for digit, rate in enumerate(found.by_class)}
        rows.append({"plan": name, "all": 100 * found.shown.value, **by_class})
    print(f"classifier: {100 * accuracy:.1f} % of 10,000 other digits of MNIST")
    print_table("Masks that show their label, % by class", rows)
    write_json("masks", {"n": arguments.n, "classifier": accuracy, "rows": rows}, arguments.json)


class Reader(torch.nn.Module):
    """Digits of masks (m, 1, 32, 32) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier((masks * 2 - 1).expand(-1, 3, -1, -1))
        return logits


def digits(data: VariantMnist) -> torch.Tensor:
    """Its digits as masks, (n, 1, 32, 32) in [0, 1]."""
    return torch.from_numpy(data.digits[:, None].astype(np.float32))


def train_reader(masks: torch.Tensor, labels: torch.Tensor, steps: int) -> Reader:
    torch.manual_seed(0)
    reader = Reader()
    optimizer = torch.optim.Adam(reader.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(masks), (BATCH,))
        across, down = torch.randint(-2, 3, (2,)).tolist()
        loss = F.cross_entropy(reader(masks[chosen].roll((across, down), (2, 3))), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader


if __name__ == "__main__":
    main()
