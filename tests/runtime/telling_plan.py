"""A plan whose images tell their labels, and classifiers that read them there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from cgnrt.plan import write_plan

K, N = 3, 300
LEVELS = np.array([-1.0, 0.0, 1.0])  # before tanh


def pictures(name: str) -> np.ndarray:
    """What the mechanism paints for each class, before its activation: (k, channels, 8, 8).

    A mask that is on below and, in row 0, at the column of its class; foregrounds whose channel 0 tells their
    class, backgrounds whose channel 1 does, and channel 2 tells the two apart.
    """
    painted = np.full((K, 1 if name == "shape" else 3, 8, 8), -50.0)
    if name == "shape":
        painted[:, :, 4:] = 50
        painted[np.arange(K), 0, 0, np.arange(K)] = 50
    else:
        painted[:, 0 if name == "texture" else 1] = LEVELS[:, None, None]
        painted[:, 2] = 50 if name == "texture" else -50
    return painted


def shape_of(images: np.ndarray) -> np.ndarray:
    return images[:, 2, 0, :K].argmax(axis=1)


def texture_of(images: np.ndarray) -> np.ndarray:
    return np.abs(images[:, 0, 5, 5, None] - np.tanh(LEVELS)).argmin(axis=1)


def background_of(images: np.ndarray) -> np.ndarray:
    return np.abs(images[:, 1, 2, 5, None] - np.tanh(LEVELS)).argmin(axis=1)


def write_telling_plan(
    make_golden: ModuleType,
    path: Path,
    blind: tuple[str, ...] = (),
    classes: dict[str, int] | None = None,
    names: dict[str, list[str]] | None = None,
) -> Path:
    """A plan of such mechanisms; those that are `blind` look alike for all classes.

    Args:
      classes: how many of each mechanism, where they are not K; more than K look alike.
      names: of the classes of each mechanism.
    """
    manifest, members = make_golden.make_plan()
    for name in make_golden.PICTURES:
        painted = pictures(name)
        if name in blind:
            painted[:] = painted[0]
        k = (classes or {}).get(name, K)
        weight = np.zeros((painted[0].size, make_golden.NOISE + K), "<f4")
        weight[:, make_golden.NOISE :] = painted.reshape(K, -1).T
        members[f"mechanisms/{name}.weights"] = weight.tobytes() + bytes(4 * len(weight))
        members[f"mechanisms/{name}.embedding"] = np.eye(k, K, dtype="<f4").tobytes()
        manifest["mechanisms"][name] |= {
            "classes": (names or {}).get(name, [f"{name} {i}" for i in range(k)]),
            "embedding": {"member": f"mechanisms/{name}.embedding", "shape": [k, K]},
            "roll": False,
        }
    write_plan(path, manifest, members)
    return path
