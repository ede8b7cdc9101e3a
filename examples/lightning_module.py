"""A classifier trained on counterfactuals with Lightning: a LightningDataModule whose loader is a stream of cgnrt.

    python examples/lightning_module.py --plan plans/double-colored.plan --steps 50

It needs `pip install lightning` beside cgnrt's [torch] extra.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cgnrt.torch import CounterfactualDataset, Pairs


class Counterfactuals(lightning.LightningDataModule):
    """Batches of counterfactuals and their shape's label; each epoch has new ones.

    Under several ranks the data set takes its part of each epoch itself. Lightning must not add a sampler of its own:
    `Trainer(use_distributed_sampler=False)`.
    """

    def __init__(self, plan: str, batch_size: int = 64, batches: int = 100, workers: int = 0) -> None:
        super().__init__()
        self._workers = workers
        self.data = CounterfactualDataset(
            plan, batch_size, label="shape", n=batches * batch_size, seed=0, pool=512, refresh=16
        )

    def train_dataloader(self) -> Iterable[Pairs]:
        """Called for each epoch, with `reload_dataloaders_every_n_epochs=1`."""
        self.data.set_epoch(self.trainer.current_epoch)
        return DataLoader(self.data, batch_size=None, num_workers=self._workers)


class Classifier(lightning.LightningModule):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(classes),
        )
        self.network(torch.zeros(1, 3, 32, 32))  # sizes of the last layer

    def training_step(self, batch: Pairs, index: int) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)
        return F.cross_entropy(logits, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", default="plans/double-colored.plan")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()

    lightning.seed_everything(0)
    model, data = Classifier(), Counterfactuals(arguments.plan, batches=50)
    trainer = lightning.Trainer(
        max_steps=arguments.steps,
        accelerator="cpu",
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    print(f"accuracy of the last batch: {float(trainer.callback_metrics['accuracy']):.2f}")


if __name__ == "__main__":
    main()
