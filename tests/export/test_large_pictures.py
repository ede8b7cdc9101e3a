"""Parity where a sample takes seconds: few samples, both ends of the truncation, tolerances set by the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cgnrt_export import ExportError, MechanismModule
from cgnrt_export.mechanism import check_mechanisms
from cgnrt_export.parity import BATCH_SIZES, FP32_TOLERANCE, LARGE_TOLERANCE, _check_fp32
from cgnrt_export.report import Measure
from cgnrt_export.runners import choose_batch_sizes, draw_inputs, is_large

Make = Callable[..., dict[str, MechanismModule]]


def test_few_samples_of_large_pictures() -> None:
    small, large = (32, 32), (256, 256)
    assert not is_large(small)
    assert is_large((128, 128))
    assert choose_batch_sizes(None, BATCH_SIZES, small, 10) == BATCH_SIZES
    assert sum(choose_batch_sizes(None, BATCH_SIZES, small, 1000)) >= 256
    assert choose_batch_sizes(None, BATCH_SIZES, large, 1000) == (1, 3)
    assert choose_batch_sizes((2,), BATCH_SIZES, large, 1000) == (2,)
    assert choose_batch_sizes((2,), BATCH_SIZES, small, 5) == (2, 2, 2)


@pytest.mark.parametrize("sizes", [(1, 3), (4,), (1, 1)])
def test_truncations_are_mixed_and_reach_both_ends(own: Make, sizes: tuple[int, ...]) -> None:
    mechanisms = check_mechanisms(own())
    batches = list(draw_inputs(mechanisms, sizes, 0, (0.25, 0.75)))
    for name in mechanisms:
        truncations = torch.cat([batch.mechanisms[name]["truncation"] for batch in batches])[:, 0]
        assert truncations.min() == 0.25
        assert truncations.max() == 0.75
        assert len(truncations.unique()) == sum(sizes)
        # The noise is multiplied by its own sample's: with other truncations it is the same except for the factor.
        other = list(draw_inputs(mechanisms, sizes, 0, (0.5, 1.0)))
        for batch, twin in zip(batches, other, strict=True):
            one, two = batch.mechanisms[name], twin.mechanisms[name]
            torch.testing.assert_close(one["noise"] / one["truncation"], two["noise"] / two["truncation"])


def _measures(error: float) -> dict[str, list[Measure]]:
    return {"composite": [Measure("fp32", "openvino", error, None, 60.0)]}


def test_the_tolerance_follows_the_network() -> None:
    widths = {"composite": 2.0}
    _check_fp32(_measures(9e-5), widths, FP32_TOLERANCE, {"composite": None})
    _check_fp32(_measures(9e-4), widths, LARGE_TOLERANCE, {"composite": 1e-5})
    # A network whose own rounding is that large cannot be computed better.
    _check_fp32(_measures(3.9e-3), widths, LARGE_TOLERANCE, {"composite": 1e-3})
    for error, tolerance, own in (
        (1.1e-4, FP32_TOLERANCE, 1e-5),
        (1.1e-3, LARGE_TOLERANCE, None),
        (4.1e-3, LARGE_TOLERANCE, 1e-3),
    ):
        with pytest.raises(ExportError, match="the largest fp32 error of the composite by openvino is"):
            _check_fp32(_measures(error), widths, tolerance, {"composite": own})


def test_rolls_are_drawn_within_the_picture(own: Make) -> None:
    mechanisms = check_mechanisms(own(texture={"roll": True}))
    (batch,) = draw_inputs(mechanisms, (50,), 0)
    assert batch.rolls.dtype == np.int32
    assert batch.rolls[:, 0].max() == 7
    assert not batch.rolls[:, 1].any()
