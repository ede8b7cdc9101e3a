"""What is said of pictures: does a judge see their classes, and are those of one class as different as photos are?"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .judge import Judge, accuracy, inception_score
from .lpips import Lpips, diversity
from .pictures import Pictures


@dataclass(frozen=True)
class Scores:
    """Of n pictures; None where it was not asked for.

    Attributes:
      accuracy: the share in which the judge sees the class that they should show.
      inception_score: over these classes, with the judge in Inception's place; it grows with n.
      lpips: mean distance between pictures of a class.
      lpips_photos: the same of photos.
    """

    samples: int
    accuracy: float | None = None
    inception_score: float | None = None
    lpips: float | None = None
    lpips_photos: float | None = None

    @property
    def diversity(self) -> float | None:
        """How different pictures of a class are, photos being 1."""
        if self.lpips is None or not self.lpips_photos:
            return None
        return self.lpips / self.lpips_photos

    def to_dict(self) -> dict[str, float]:
        """For JSON: what was asked for."""
        found = asdict(self) | {"diversity": self.diversity}
        return {name: round(value, 4) for name, value in found.items() if value is not None}


def measure(
    pictures: Pictures, judge: Judge | None, lpips: Lpips | None = None, photos: Pictures | None = None
) -> Scores:
    """Look at pictures.

    Args:
      judge: None leaves accuracy and Inception score out.
      lpips: None leaves the distances out.
      photos: of the same classes; None leaves their distance out.
    Raises:
      ValueError: LPIPS is asked for and no class has two pictures.
    """
    found: dict[str, float] = {}
    if judge is not None:
        probabilities = judge.probabilities(pictures.images)
        found["accuracy"] = accuracy(probabilities, pictures.labels)
        found["inception_score"] = inception_score(probabilities)
    if lpips is not None:
        found["lpips"] = diversity(lpips, pictures.images, pictures.labels)
        if photos is not None:
            found["lpips_photos"] = diversity(lpips, photos.images, photos.labels)
    return Scores(len(pictures.images), **found)
