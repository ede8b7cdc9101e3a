"""What tells one mechanism's computation from another's."""

from __future__ import annotations

import hashlib

from cgnrt.plan import Mechanism


def graph_digest(mechanism: Mechanism) -> str:
    """SHA-256 (hex) of the graph and its weights: the same in every plan that has them."""
    digest = hashlib.sha256(hashlib.sha256(mechanism.graph).digest())
    digest.update(hashlib.sha256(mechanism.weights if mechanism.weights is not None else b"").digest())
    return digest.hexdigest()
