"""A classifier trained on counterfactuals as they are made: it learns shapes, for nothing else tells the label.

It takes about 10 s on two idle cores, and runs from any folder.

python examples/train_classifier.py                # every image a counterfactual, each of them new
python examples/train_classifier.py --data DATA    # half of each batch MNIST, its colours telling the label
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import cgnrt
from cgnrt.torch import CounterfactualDataset, mix
from cgnrt_training.classifier.model import Classifier
from cgnrt_training.mnist.data import VariantMnist

ROOT = Path(__file__).resolve().parents[1]


def real_batches(folder: Path, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of double-colored MNIST without end; a `DataLoader` of your own data does as well."""
    data = VariantMnist("double-colored", folder)
    for start in itertools.count(0, size):
        batch = data.batch(np.arange(start, start + size))
        yield torch.from_numpy(batch.images), torch.from_numpy(batch.labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--data", type=Path, help="a folder with MNIST's IDX files")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()

    print(f"{arguments.steps} steps; the default of 600 takes about 10 s on two idle cores", flush=True)
    torch.manual_seed(0)
    generator = cgnrt.Generator(arguments.plan)
    # The networks run for 4 new entries a batch, which is composed from the last 256 of each mechanism.
    batches: Iterable = CounterfactualDataset(generator, 64, seed=1, pool=256, refresh=16)
    if arguments.data:
        batches = mix(real_batches(arguments.data, 64), batches)

    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step, batch in zip(range(arguments.steps), batches, strict=False):
        loss = F.cross_entropy(model(batch.images), batch.labels.shape)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.3f}")

    held_out = generator.sample(2000, seed=2).torch()
    with torch.no_grad():
        found = model.eval()(held_out.images).argmax(1)
    for name, labels in held_out.labels._asdict().items():
        print(
            f"says the {name}'s label of {100 * (found == labels).float().mean():.1f} % of new counterfactuals"
        )


if __name__ == "__main__":
    main()
