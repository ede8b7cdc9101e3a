"""The errors of cgnrt. Bad arguments are `ValueError` or `TypeError`; everything else is a `CgnrtError`.

Messages have one of two forms:

    <operation> <subject>: <field> is <got>, expected <rule>. <next step>          a value is wrong
    <operation> <subject>: <thing> is missing / not supported. <next step>         something is absent
"""

from __future__ import annotations

EXPORT_AGAIN = "Export it again with cgnrt-export."
COPY_AGAIN = "The file is damaged or was cut short: copy it again, or export it again with cgnrt-export."


class CgnrtError(Exception):
    """Base of all errors that cgnrt raises on its own account.

    Messages quote files, names and engines that may be hostile: as text they are safe to print on a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class PlanError(CgnrtError):
    """A plan file is missing, damaged, foreign or hostile, or could not be written."""


class BackendError(CgnrtError):
    """An engine cannot run what was asked of it: wrong device, precision or graph."""


class MissingDependencyError(BackendError):
    """A package that the asked-for feature needs is not installed."""


class CheckpointError(CgnrtError):
    """A checkpoint is missing, damaged, of another model, or holds more than tensors and plain values."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Text with everything escaped that could steer a terminal or change the order of what it shows.

    For whatever comes from elsewhere: values and names of files, messages of engines. Escape sequences become
    `\\x1b[31m`, bidirectional controls `\\u202e`, spaces without width `\\u200b`, and bytes of a file name that are
    not UTF-8 `\\udcff`.

    Args:
      keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: object) -> str:
    """An error of an engine or a library as printable text, its lines joined, for a message of ours."""
    return printable(" ".join(str(text).split()), keep="")


def show(value: object, limit: int = 80) -> str:
    """`repr` of a value that came from a file, cut to a length that fits a message."""
    text = repr(value if not isinstance(value, str | bytes) else value[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refuse(field: str, got: object, rule: str, next_step: str = EXPORT_AGAIN) -> PlanError:
    """The error for one field of a plan; `within` puts the operation and the file's name in front.

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
