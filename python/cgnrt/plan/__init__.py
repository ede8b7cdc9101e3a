"""The plan file: reading, checking and writing. `docs/plan-format.md` is its specification."""

from __future__ import annotations

from cgnrt.plan.bank import Bank
from cgnrt.plan.bank_writer import BankContents, write_bank
from cgnrt.plan.limits import FORMAT_VERSION, MAX_BATCH, MECHANISMS, PICTURES, PRE_MASK, STREAM_VERSION
from cgnrt.plan.manifest import (
    BankSource,
    BankSpec,
    CgnManifest,
    EmbeddingSpec,
    HalfStorage,
    MechanismSpec,
    MemberSpec,
    NoiseSpec,
    SaliencyManifest,
    SaliencySpec,
    TensorSpec,
    Truncation,
)
from cgnrt.plan.network import Mechanism, Network, SaliencyNetwork
from cgnrt.plan.onnx.graph import ExternalInitializer, external_initializers, relocate, validate_graph
from cgnrt.plan.reader import Plan, SaliencyPlan, open_any
from cgnrt.plan.weights import Weights
from cgnrt.plan.writer import write_plan

__all__ = [
    "FORMAT_VERSION",
    "MAX_BATCH",
    "MECHANISMS",
    "PICTURES",
    "PRE_MASK",
    "STREAM_VERSION",
    "Bank",
    "BankContents",
    "BankSource",
    "BankSpec",
    "CgnManifest",
    "EmbeddingSpec",
    "ExternalInitializer",
    "HalfStorage",
    "Mechanism",
    "MechanismSpec",
    "MemberSpec",
    "Network",
    "NoiseSpec",
    "Plan",
    "SaliencyManifest",
    "SaliencyNetwork",
    "SaliencyPlan",
    "SaliencySpec",
    "TensorSpec",
    "Truncation",
    "Weights",
    "external_initializers",
    "open_any",
    "relocate",
    "validate_graph",
    "write_bank",
    "write_plan",
]
