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
from report import ROOT, print_table, write_json

import cgnrt
from cgnrt_training.classifier.reader import digits_of, read, train_reader
from cgnrt_training.mnist.data import VariantMnist

PLANS = ("colored", "double-colored", "wildlife")


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
    reader = train_reader(digits_of(train), torch.from_numpy(train.labels), arguments.steps)
    accuracy = float((read(reader, digits_of(test)).numpy() == test.labels).mean())
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


if __name__ == "__main__":
    main()
