"""What an audit of photos counts, and the photos that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cgnrt.auditing.rates import Rate
from cgnrt.real.photo_audit.places import CENTRE, CORNERS, SIDES


@dataclass(frozen=True)
class PhotoRates:
    """How often a classifier's answers are right, or stay, when one thing of a photo is changed.

    Attributes:
      accuracy: the rate of right answers, by what is shown: "photo", the photo itself; "same" and "other", its object
        on the background of a photo of the same class, of another one; "grey", on grey; "texture", the photo with its
        object's texture replaced by a patch grid of another class.
      keeps: the rate of answers that are the same as that for the photo itself: "same", "other", "grey", "texture".
      background_alone: the rate at which the background without the object gets the label of the object.
      texture_follows: the rate at which the answer for "texture" is the class of the texture.
      by_position: the rate of right answers with the object at a third of its size in each cell of a 3 x 3 grid over
        its own background: "top left", "top" and so on; empty without places.
      by_size: the rate of right answers by the factor of the object's area, over its own background; likewise.
    """

    accuracy: Mapping[str, Rate]
    keeps: Mapping[str, Rate]
    background_alone: Rate
    texture_follows: Rate
    by_position: Mapping[str, Rate]
    by_size: Mapping[float, Rate]

    @property
    def background_gap(self) -> float:
        """Accuracy on backgrounds of the same class less that on those of other classes (Table 4)."""
        return self.accuracy["same"].value - self.accuracy["other"].value

    @property
    def centre_bias(self) -> float | None:
        """1 - (lowest accuracy in a corner + lowest at a side) / (2 x accuracy in the centre).

        The equation of ForNet's center bias (Nauen et al., arXiv 2503.09399, "Center Bias"). None without places, or if
        no answer is right in the centre.
        """
        if not self.by_position or not self.by_position[CENTRE].count:
            return None
        corner, side = (min(self.by_position[name].value for name in names) for names in (CORNERS, SIDES))
        return 1 - (corner + side) / (2 * self.by_position[CENTRE].value)

    @property
    def size_bias(self) -> dict[float, float]:
        """Accuracy at a factor f of the object's area over that at f = 1, by f.

        ForNet's size bias (Nauen et al., arXiv 2503.09399, "Size Bias"). Empty without places, or if no answer is right
        at f = 1.
        """
        if not self.by_size or not self.by_size[1.0].count:
            return {}
        return {size: rate.value / self.by_size[1.0].value for size, rate in self.by_size.items()}


@dataclass(frozen=True)
class Example:
    """A photo that the classifier has right, and loses when something else changes.

    Attributes:
      name: the photo's.
      label: the name of its class.
      answers: the names of the answers' classes by what is shown, the keys of `PhotoRates.accuracy` and "background".
      images: what was shown, uint8 (h, w, 3); not in the JSON.
    """

    name: str
    label: str
    answers: Mapping[str, str]
    images: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
