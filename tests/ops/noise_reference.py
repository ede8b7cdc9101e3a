"""The noise in plain NumPy, written from the specification: what the compiled noise must equal bit by bit.

Run as a script, it writes noise_golden.json anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

GOLDEN = Path(__file__).with_name("noise_golden.json")
F = np.float32
MASK = 0xFFFFFFFF

# fmt: off
CENTRE = [113157.312, -41477.3086, 8135.61182, -579.078979, 86.31427, 14.5053568, 5.78952074, 2.62484026, 2.50662827]
TAIL = [2.41089401e-06, -8.3398354e-06, 9.25349104e-06, -3.24607681e-05, 0.000169434905, -0.000595222344,
        0.0020814701, -0.00772413192, 0.0296793953, -0.121172048, 0.577103019]
LOG = [0.0873362124, -0.144418702, 0.149792865, -0.16552335, 0.19953613, -0.250024915, 0.333342254, -0.499999821]
# fmt: on


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox 4x32-10 of one counter (four words) and one key (two)."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (second >> 32) ^ x1 ^ k0, second & MASK, (first >> 32) ^ x3 ^ k1, first & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [x0, x1, x2, x3]


def words(seed: int, index: int, slot: int, size: int) -> npt.NDArray[np.uint32]:
    """The words of one sample's draw."""
    blocks = [
        philox([index & MASK, index >> 32, slot, block], [seed & MASK, seed >> 32])
        for block in range((size + 3) // 4)
    ]
    return np.array(blocks, np.uint32).reshape(-1)[:size]


def _horner(coefficients: Sequence[float], x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    total = np.full_like(x, F(coefficients[0]))
    for coefficient in coefficients[1:]:
        total = total * x + F(coefficient)
    return total


def _minus_log(p: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    root = np.int32(0x3F3504F3)
    shifted = p.view(np.int32) - root
    exponent = (shifted >> 23).astype(np.float32)
    f = ((shifted & 0x007FFFFF) + root).astype(np.int32).view(np.float32) - F(1)
    high, low = F(float.fromhex("0x1.62ep-1")), F(float.fromhex("0x1.0bfbe8p-15"))
    fraction = f + f * f * _horner(LOG, f) + exponent * low
    return -(exponent * high + fraction)


def _upper_quantile(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centre = _horner(CENTRE, q * q) * q
    s = np.sqrt(_minus_log(p))
    tail = F(1.41421354) * s - _horner(TAIL, s - F(3))
    return np.where(q < F(0.375), centre, tail)


def _tails(
    drawn: npt.NDArray[np.uint32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    upper = drawn >= 0x80000000
    k = np.where(upper, ~drawn, drawn).astype(np.int64)
    unit = F(2.0**-32)
    p = (k.astype(np.float32) + F(0.5)) * unit
    q = ((0x7FFFFFFF - k).astype(np.float32) + F(0.5)) * unit
    return p, q, np.where(upper, F(1), F(-1))


def normal(drawn: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Standard normal numbers of words."""
    p, q, sign = _tails(drawn)
    return _upper_quantile(p, q) * sign


def truncated_normal(drawn: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Normal numbers truncated to [-2, 2] of words."""
    p, q, sign = _tails(drawn)
    inside, outside = F(0.954499736), F(0.0227501319)
    return np.minimum(_upper_quantile(p * inside + outside, q * inside), F(2)) * sign


def integers(drawn: npt.NDArray[np.uint32], bound: int) -> npt.NDArray[np.int32]:
    """Integers below `bound` of words."""
    return ((drawn.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.int32)


def golden() -> list[dict[str, object]]:
    """The golden draws: floats by their bits in hexadecimal."""
    size = 6
    draws = []
    for seed, index, slot in [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (0, 0, 1),
        (20261124, 123456789, 7),
        (2**64 - 1, 2**63 - 1, 2**32 - 1),
    ]:
        drawn = words(seed, index, slot, size)
        draws.append(
            {
                "seed": seed,
                "index": index,
                "slot": slot,
                "words": [f"{word:08x}" for word in drawn],
                "normal": [f"{bits:08x}" for bits in normal(drawn).view(np.uint32)],
                "truncated_normal": [f"{bits:08x}" for bits in truncated_normal(drawn).view(np.uint32)],
                "integers_below_10": integers(drawn, 10).tolist(),
                "integers_below_1000": integers(drawn, 1000).tolist(),
            }
        )
    return draws


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
