"""Which of ImageNet's 1,000 classes belong to ImageNet-9's groups and to Cue Conflict's categories.

Classes have torchvision's numbers: the order of their WordNet names, n01440764 first. Both maps are those of the people
who made the sets:

- ImageNet-9: `in_to_in9.json` of the Backgrounds Challenge (Xiao et al., 2020), as in the CGN authors' repository
  (autonomousvision/counterfactual_generative_networks, MIT licence). 370 classes have a group.
- Cue Conflict: the lists of numbers in `human_categories.py` of rgeirhos/texture-vs-shape (Geirhos et al., 2019).
  207 classes have a category.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cgnrt.auditing.asking import Name, highest

IMAGENET = 1000  # classes
NONE = -1  # the group of a class that has none
_ROUNDING = 0.01  # of a sum of probabilities in bfloat16

_IN9 = {
    "dog": "151-170 173-268",
    "bird": "7-24 87-100 127-146",
    "wheeled vehicle": (
        "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 675 690 705 717 "
        "734 751 757 791 802-803 817 820 829 847 864 866-867 870 880"
    ),
    "reptile": "33-68",
    "carnivore": "269-280 286-299 356-362 387-388",
    "insect": "300-326",
    "musical instrument": (
        "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889"
    ),
    "primate": "365-384",
    "fish": "0-6 389-397",
}
_CUE_CONFLICT = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": ("152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268"),
    "elephant": "385-386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}

Decide = Callable[["Groups", np.ndarray, Name], np.ndarray]


@dataclass(frozen=True)
class Groups:
    """The groups of a test set.

    Attributes:
      title: what they are called in messages.
      names: of the groups, in the order of their numbers.
      members: the ImageNet classes of each.
    """

    title: str
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @cached_property
    def of_class(self) -> np.ndarray:
        """The group of each ImageNet class, int64 (1000,); `NONE` where it has none."""
        table = np.full(IMAGENET, NONE, np.int64)
        for group, members in enumerate(self.members):
            table[list(members)] = group
        return table


def by_highest_class(groups: Groups, scores: np.ndarray, name: Name) -> np.ndarray:
    """The group of the best of ImageNet's 1,000 classes (Xiao et al., 2020), `NONE` where that class has none.

    Args:
      scores: logits (m, 1000) or labels (m,).
    """
    found: np.ndarray = groups.of_class[highest(scores)]
    return found


def by_mean_probability(groups: Groups, scores: np.ndarray, name: Name) -> np.ndarray:
    """The group whose classes have the highest mean probability (Geirhos et al., 2019); the first of equal ones.

    Args:
      scores: (m, 1000) logits, or probabilities: rows of numbers of 0 or more that sum to 1.
    Raises:
      ValueError: scores are labels, or infinite.
    """
    if scores.ndim == 1:
        raise ValueError(
            f"audit: answer of the classifier is labels of {IMAGENET} classes, expected logits or probabilities "
            f"(m, {IMAGENET}): {groups.title} are compared by mean probabilities. Return labels of the "
            f"{len(groups.names)} categories, and pass classes={len(groups.names)}."
        )
    endless = (scores == np.inf).any(axis=1)
    if endless.any():
        raise ValueError(
            f"audit: logits of the classifier for {name(int(endless.argmax()))} are inf, expected numbers."
        )
    chances = probabilities(scores)
    means = np.stack([chances[:, list(members)].mean(axis=1) for members in groups.members], axis=1)
    return highest(means)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Rows that are probabilities as they are, and the softmax of the others; float64."""
    values = scores.astype(np.float64)
    given = (values >= 0).all(axis=1) & (abs(values.sum(axis=1) - 1) < _ROUNDING)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.where(given[:, None], values, powers / powers.sum(axis=1, keepdims=True))


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list like "1-3 7"."""
    ends = [part.partition("-") for part in text.split()]
    return tuple(number for first, _, last in ends for number in range(int(first), int(last or first) + 1))


def _groups(title: str, content: dict[str, str]) -> Groups:
    return Groups(title, tuple(content), tuple(_numbers(text) for text in content.values()))


IN9 = _groups("ImageNet-9's groups", _IN9)
CUE_CONFLICT = _groups("Cue Conflict's categories", _CUE_CONFLICT)
