"""Settings of jobs: frozen dataclasses, flat or of sections, that TOML files and `--set` change.

Every layer is checked: an unknown key is an error that names the close ones, a value has the type of its field, and the
dataclass checks the rest when it is made.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cgnrt._support.reading import read_text

Settings = TypeVar("Settings")


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain nested dicts and lists, for JSON and checkpoints."""
    return {key: _plain(value) for key, value in asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(kind: type[Settings], content: Any) -> Settings:
    """The inverse of `to_dict`; what the content lacks has its default.

    Raises:
      ValueError: the content is not a table, lacks a setting without a default, or `override` refuses it.
    """
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]  # type: ignore[arg-type]
    if not isinstance(content, Mapping) or any(name not in content for name in needed):
        expected = f" with {', '.join(needed)}" if needed else ""
        raise ValueError(f"configure: settings are {content!r:.200}, expected a table{expected}.")
    types = get_type_hints(kind)
    return override(kind(**{name: _convert(content[name], types[name], name) for name in needed}), content)


def override(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """New settings with some values changed; sections are nested mappings.

    Raises:
      ValueError: an unknown key (the message names close ones), or a value of the wrong type or range.
    """
    return _override(settings, overrides, "")  # type: ignore[no-any-return]


def from_texts(base: Settings, texts: Sequence[str]) -> Settings:
    """Settings changed by texts as `--set` takes them, like "lr=0.01".

    Raises:
      ValueError: as `parse_settings` and `override`.
    """
    return override(base, parse_settings(texts))


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Turn `["loss.binary=0.3", "seed=1"]` into nested overrides. Values are TOML; a bare word is a string.

    Raises:
      ValueError: a text is not `key=value`, `section.key=value` or of sections in sections.
    """
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        *sections, name = key.split(".")
        if not (equals and all([*sections, name])):
            raise ValueError(
                f"configure: --set is '{text}', expected KEY=VALUE, as seed=1 or loss.binary=0.3 in a section."
            )
        target = overrides
        for depth, section in enumerate(sections, 1):
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                where = ".".join(sections[:depth])
                raise ValueError(f"configure: --set gives {where} twice, as a value and as a section.")
        try:
            target[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            target[name] = value
    return overrides


def recipes(package: str) -> dict[str, str]:
    """The text of the TOML recipes that come with a package, in its folder `configs`, by name."""
    folder = resources.files(package) / "configs"
    return {
        entry.name.removesuffix(".toml"): entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def load_toml(name: str | os.PathLike[str], package: str) -> dict[str, Any]:
    """Read overrides from a TOML file, or from a recipe of `package` by its name.

    Raises:
      ValueError: there is no such file or recipe, or it is not TOML.
    """
    path = Path(name)
    shipped = recipes(package)
    try:
        text = shipped[str(name)] if str(name) in shipped and not path.exists() else read_text(path)
        return tomllib.loads(text)
    except OSError as error:
        raise ValueError(
            f"load '{name}': file is unreadable ({error.strerror}), expected a TOML file or one of the "
            f"recipes {', '.join(shipped)}.{_close(str(name), list(shipped))}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"load '{name}': content is not TOML ({error}), expected [section] key = value."
        ) from error


def differences(old: Any, new: Any) -> list[str]:
    """`key (old -> new)`, or `section.key (...)`, of every setting that differs."""
    a, b = flat(old), flat(new)
    return [f"{key} ({a[key]} -> {value})" for key, value in b.items() if a[key] != value]


def flat(settings: Any) -> dict[str, Any]:
    """All settings by `key` or `section.key`."""
    out: dict[str, Any] = {}
    for name, value in to_dict(settings).items():
        if isinstance(value, dict):
            out |= {f"{name}.{key}": entry for key, entry in value.items()}
        else:
            out[name] = value
    return out


def check(name: str, value: object, allowed: bool, rule: str) -> None:
    """For the checks of a dataclass itself.

    Raises:
      ValueError: the value is not allowed; the message gives the rule.
    """
    if not allowed:
        raise ValueError(f"configure: {name} is {value!r}, expected {rule}.")


def check_numbers(
    settings: Any,
    *,
    positive: Collection[str],
    fractions: Collection[str],
    within: Mapping[str, tuple[float, float]],
) -> None:
    """Check the numbers of all sections, each by the last part of its key.

    All are finite and >= 0. Whole numbers and learning rates (`lr_...`) are above 0, unless `within` says otherwise.

    Args:
      positive: others that are above 0.
      fractions: those in [0, 1).
      within: the lowest and the highest value of those that have both.
    Raises:
      ValueError: a number is not allowed; the message gives the rule.
    """
    for key, value in flat(settings).items():
        name = key.rpartition(".")[2]
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int | float)]
        check(key, value, all(map(math.isfinite, numbers)), "a finite number")
        if name in within:
            low, high = within[name]
            check(key, value, low <= value <= high, f"in {low}..{high}")
        elif type(value) is int or name.startswith("lr_") or name in positive:
            check(key, value, value > 0, "> 0")
        elif name in fractions:
            check(key, value, 0 <= value < 1, "in [0, 1)")
        else:
            check(key, value, all(number >= 0 for number in numbers), ">= 0")


def check_positive(settings: Any, *names: str) -> None:
    """Raise ValueError where one of the settings is not a finite number above 0."""
    for name in names:
        value = getattr(settings, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        check(name, value, number and 0 < value < math.inf, "a number > 0")


def check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError, with the close ones, where a value is not one of those allowed."""
    if value not in allowed:
        raise ValueError(
            f"configure: {name} is {value!r}, expected one of {', '.join(allowed)}.{_close(str(value), allowed)}"
        )


def _override(part: Any, overrides: Mapping[str, Any], prefix: str) -> Any:
    types = get_type_hints(type(part))
    known = [f.name for f in fields(part)]
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        where = f"{prefix}{name}"
        if name not in known:
            everything = [f"{prefix}{key}" for key in known]
            raise ValueError(
                f"configure: key is '{where}', expected one of {', '.join(everything)}."
                f"{_close(where, everything)}"
            )
        current = getattr(part, name)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ValueError(f"configure: {where} is {value!r}, expected a section with keys.")
            values[name] = _override(current, value, f"{where}.")
        else:
            values[name] = _convert(value, types[name], where)
    return replace(part, **values)


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        check_one_of(where, value, get_args(kind))
        return value
    if origin is tuple:
        length = len(get_args(kind))
        if isinstance(value, list | tuple) and len(value) == length:
            return tuple(_convert(entry, float, where) for entry in value)
        rule = f"a list of {length} numbers"
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        rule = "a number"
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    else:
        rule = {int: "a whole number", bool: "true or false"}.get(kind, "a text")
    raise ValueError(f"configure: {where} is {value!r}, expected {rule}.")


def _close(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""
