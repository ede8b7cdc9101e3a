"""Images of the same noise that differ in labels alone: an image, its counterfactuals, its interventions (Sec. 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cgnrt.batch import Batch
from cgnrt.render.renderer import Renderer
from cgnrt.request import Request
from cgnrt.sampling import MECHANISMS, Labels


@dataclass(frozen=True)
class Related:
    """The noise and rolls of n samples, for any labels. Made by `Generator.related`."""

    renderer: Renderer
    request: Request

    @property
    def labels(self) -> Labels:
        """What the samples draw with `labels="independent"`, int64 (n,) each."""
        return self.request.labels

    @property
    def shared_labels(self) -> Labels:
        """What they draw with `labels="shared"`."""
        options = replace(self.request.options, labels="shared")
        draw = self.request.sampler.labels
        return Labels(*(draw(options, name, self.request.indices) for name in MECHANISMS))

    def render(self, labels: Sequence[Labels]) -> list[Batch]:
        """A Batch for each of the labels, int64 (n,) class indices each, to the last bit as a call would give it.

        A mechanism runs once for the variants that agree in its labels; images of all variants are held at once.

        Raises:
          ValueError: labels have another shape, or a class is not there.
        """
        n = len(self.request.indices)
        variants = [Labels(*(np.asarray(column) for column in variant)) for variant in labels]
        for k, variant in enumerate(variants):
            for name, column in zip(MECHANISMS, variant, strict=True):
                classes = self.request.sampler.mechanisms[name].classes
                if column.shape != (n,) or column.dtype.kind != "i":
                    raise ValueError(
                        f"render: labels[{k}] of {name} are {column.dtype} {column.shape}, expected int64 ({n},)."
                    )
                if n and not 0 <= column.min() <= column.max() < classes:
                    raise ValueError(
                        f"render: labels[{k}] of {name} are {column.min()}..{column.max()}, expected "
                        f"0..{classes - 1}."
                    )
        return self.renderer.render_variants([replace(self.request, labels=variant) for variant in variants])
