"""The 1,000 classes of ImageNet (ILSVRC 2012), in the order of their indices."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def class_names() -> tuple[str, ...]:
    """The first name of each class's WordNet synset; where two classes share it, one that tells them apart."""
    text = Path(__file__).with_name("classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
