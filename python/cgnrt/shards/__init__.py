"""Data sets on disk: a range of a stream in shards. A run that was killed can be resumed.

    from cgnrt import shards
    shards.generate("cgn.plan", 1_000_000, "out", format="webdataset", image="webp", seed=0)
    problems = shards.verify("out")

docs/data-sets.md describes the files.
"""

from __future__ import annotations

from cgnrt.shards.manifest import DataSetManifest as Manifest
from cgnrt.shards.manifest import ShardRecord
from cgnrt.shards.run import generate
from cgnrt.shards.verification import verify

__all__ = ["Manifest", "ShardRecord", "generate", "verify"]
