"""A plan of very many classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cgnrt.plan import Plan, write_plan


def imagenet_sized(root: Path, path: Path) -> Path:
    """The small ImageNet-like CGN with ImageNet's thousand class names."""
    names = (root / "training/cgnrt_training/imagenet/classes.txt").read_text().splitlines()
    with Plan.open(root / "tests/runtime/golden/small_cgn.plan") as plan:
        manifest = plan.manifest.to_dict()
        members = {name: bytes(plan.member(name)) for name in plan.members if name != "manifest.json"}
    del manifest["members"]
    tables: dict[str, np.ndarray] = {}
    for mechanism in manifest["mechanisms"].values():
        table = mechanism["embedding"]
        few = np.frombuffer(members[table["member"]], np.float32).reshape(table["shape"])
        tables[table["member"]] = np.resize(few, (len(names), few.shape[1]))
        table["shape"][0] = len(names)
        mechanism["classes"] = names
    write_plan(path, manifest, members | {name: table.tobytes() for name, table in tables.items()})
    return path
