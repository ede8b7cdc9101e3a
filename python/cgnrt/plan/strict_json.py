"""JSON from a file that may be hostile: limited in size and depth, no key twice, no NaN.

Python's own parser reads it; what is checked here by hand is what that parser and other JSON packages accept without
an error: a key that comes twice (readers differ in which one they take), NaN and Infinity, numbers of any length,
characters that steer a terminal. A schema package would check none of these.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from cgnrt.errors import COPY_AGAIN, PlanError, refuse, show
from cgnrt.plan.limits import (
    MAX_INTEGER_DIGITS,
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    MAX_MANIFEST_BYTES,
    MAX_STRING_CHARS,
)

# Control characters (a name must not steer the terminal it is printed on), lone surrogates (they cannot be
# printed at all), line separators and bidirectional overrides (a name must look like what it is).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_json(raw: bytes) -> Any:
    """Parse one JSON document.

    Raises:
      PlanError: too large, too deep, not UTF-8, not JSON, a doubled key, a number that is not finite or does
        not fit 64 bits, or a string that is too long or holds control characters.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise refuse("manifest size", f"{len(raw)} bytes", f"<= {MAX_MANIFEST_BYTES}")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise refuse("manifest", f"not UTF-8 at byte {error.start}", "JSON in UTF-8", COPY_AGAIN) from None
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        raise refuse("manifest", found, "one JSON object", COPY_AGAIN) from None
    except RecursionError:
        raise _too_deep() from None
    check_json(value)
    return value


def check_json(value: Any, what: str = "manifest") -> None:
    """Refuse values that JSON or a terminal cannot carry. Iterative: depth must not be able to hurt."""
    pending: list[tuple[Any, int]] = [(value, 1)]
    count = 0
    while pending:
        item, depth = pending.pop()
        count += 1
        if count > MAX_JSON_VALUES:
            raise refuse(what, f"over {MAX_JSON_VALUES} values", f"<= {MAX_JSON_VALUES}")
        if depth > MAX_JSON_DEPTH:
            raise _too_deep()
        if isinstance(item, str):
            _check_text(item, what)
        elif isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise refuse(f"{what} key", key, "a string")
                _check_text(key, what)
            pending += [(part, depth + 1) for part in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(part, depth + 1) for part in item]
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise refuse(f"{what} number", item, "finite")
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**63:
                raise refuse(f"{what} number", f"over {2**63}", "a signed 64-bit integer")
        elif item is not None:
            raise refuse(f"{what} value", show(type(item).__name__), "a JSON value")


def _check_text(text: str, what: str) -> None:
    if len(text) > MAX_STRING_CHARS:
        raise refuse(f"{what} string", f"{len(text)} characters long", f"<= {MAX_STRING_CHARS}")
    if _UNPRINTABLE.search(text):
        raise refuse(f"{what} string", ascii(text[:60]), "text without control characters")


def _too_deep() -> PlanError:
    return refuse("manifest nesting", f"over {MAX_JSON_DEPTH} levels", f"<= {MAX_JSON_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise refuse("manifest key", f"{key[:60]!a} twice in one object", "each key once")
            seen.add(key)
    return result


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise refuse("manifest number", f"{len(text)} characters long", f"<= {MAX_INTEGER_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise refuse("manifest number", show(text), "finite")
    return value


def _constant(text: str) -> float:
    raise refuse("manifest number", text, "finite (JSON has no NaN or Infinity)")
