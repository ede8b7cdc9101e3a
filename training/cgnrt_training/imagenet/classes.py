"""The names of classes: of ImageNet's 1,000 (ILSVRC 2012), in the order of their indices, and of a BigGAN's."""

from __future__ import annotations

import functools
from pathlib import Path

from .biggan import BigGANConfig


@functools.cache
def class_names() -> tuple[str, ...]:
    """The first name of each class's WordNet synset; where two classes share it, one that tells them apart."""
    text = Path(__file__).with_name("classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def names_of(config: BigGANConfig) -> tuple[str, ...]:
    """The names of a BigGAN's classes: those that its file has, ImageNet's for 1,000, else their numbers."""
    if config.class_names:
        return config.class_names
    known = class_names()
    return known if config.num_classes == len(known) else tuple(map(str, range(config.num_classes)))
