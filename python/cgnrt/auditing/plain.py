"""Results of audits as plain values, which JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from cgnrt.auditing.rates import Rate


def read_json(text: str) -> Any:
    """The content of JSON text.

    Raises:
      ValueError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"read audit: content is not JSON ({error}), expected what to_json wrote."
        ) from error


def check_format(content: Any, name: str, version: int) -> None:
    """Check that content is what `to_dict` of such an audit wrote.

    Raises:
      ValueError: it is something else, or of another version.
    """
    if not isinstance(content, Mapping) or content.get("format") != name:
        raise ValueError(f"read audit: format is not '{name}', expected what to_dict wrote.")
    if content.get("format_version") != version:
        raise ValueError(
            f"read audit: format version is {content.get('format_version')!r}, expected {version}. Upgrade cgnrt."
        )


def rate_to_dict(rate: Rate) -> dict[str, Any]:
    """Plain values that `rate_from_dict` reads, and the rate's `value` (None for n = 0)."""
    return {**asdict(rate), "value": rate.value if rate.n else None}


def rate_from_dict(content: Mapping[str, Any]) -> Rate:
    """The rate that `rate_to_dict` wrote.

    Raises:
      KeyError, TypeError, ValueError: the content is not a rate.
    """
    rate = Rate(*(content[field.name] for field in fields(Rate)))
    whole = type(rate.count) is int and type(rate.n) is int and 0 <= rate.count <= rate.n
    if not whole or not 0 <= rate.low <= rate.high <= 1:
        raise ValueError(f"a rate is {dict(content)!r}")
    return rate
