"""Messages of the plan package, by the project's one template."""

from __future__ import annotations

from cgnrt.errors import PlanError

EXPORT_AGAIN = "Export it again with cgnrt-export."
COPY_AGAIN = "The file is damaged or was cut short: copy it again, or export it again with cgnrt-export."


def show(value: object, limit: int = 80) -> str:
    """`repr` of a value that came from a file, cut to a length that fits a message."""
    text = repr(value if not isinstance(value, str | bytes) else value[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refuse(field: str, got: object, rule: str, next_step: str = EXPORT_AGAIN) -> PlanError:
    """The error for one field; the operation and the file's name are put in front where they are known.

    Args:
      field: what was looked at, e.g. `mechanisms.shape.noise.size`.
      got: what was found; words (`str`) are used as they are, so pass `show(value)` for foreign text.
      rule: what was expected instead.
      next_step: what the reader of the message can do.
    """
    found = got if isinstance(got, str) else show(got)
    return PlanError(f"{field} is {found}, expected {rule}. {next_step}")


def within(context: str, error: PlanError) -> PlanError:
    """The same error with its context (an operation and a file, or a part of one) in front."""
    return PlanError(f"{context}: {error}")
