"""The errors of cgnrt. Bad arguments are `ValueError` or `TypeError`; everything else is a `CgnrtError`.

Messages follow one template: `<operation> <subject>: <field> is <got>, expected <rule>. <next step>`.
"""

from __future__ import annotations


class CgnrtError(Exception):
    """Base of all errors that cgnrt raises on its own account."""


class PlanError(CgnrtError):
    """A plan file is missing, damaged, foreign or hostile, or could not be written."""


class BackendError(CgnrtError):
    """An engine cannot run what was asked of it: wrong device, precision or graph."""


class MissingDependencyError(BackendError):
    """A package that the asked-for feature needs is not installed."""


class CheckpointError(CgnrtError):
    """A checkpoint is missing, damaged, of another model, or holds more than tensors and plain values."""
