"""Compares a compiled module with its stub: names, parameters and defaults. pybind11 writes them into docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import cgnrt

Definition = ast.FunctionDef | ast.ClassDef


def differences(module: ModuleType, stub: Path) -> list[str]:
    """What the module and its stub do not agree on, a line each."""
    declared = _declared(stub)
    found = {name for name in vars(module) if not name.startswith(("_", "emulator_"))}
    lines = [
        f"{name}: only in {stub.name if name in declared else 'the module'}" for name in found ^ set(declared)
    ]
    for name in found & set(declared):
        lines += _compare(name, getattr(module, name), declared[name])
    return sorted(lines)


def _declared(stub: Path) -> dict[str, Definition]:
    declared: dict[str, Definition] = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, Definition):
            declared[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cgnrt."):
            origin = _declared(Path(cgnrt.__file__).parent / f"{node.module.removeprefix('cgnrt.')}.pyi")
            declared |= {alias.name: origin[alias.name] for alias in node.names}
    return declared


def _compare(name: str, thing: Any, declared: Definition) -> list[str]:
    if isinstance(declared, ast.FunctionDef):
        found, expected = parameters_of(thing), _parameters(declared.args)
        # pybind11 writes "arg0" for a parameter without a name.
        named = [b if re.match(r"arg\d+$", a) else a for a, b in zip(found, expected, strict=False)]
        same = len(found) == len(expected) and named == expected
        return [] if same else [f"{name}: {found} in the module, {expected} in the stub"]
    members = {node.name: node for node in declared.body if isinstance(node, ast.FunctionDef)}
    public = {member for member in vars(thing) if not member.startswith("_")}
    lines = [
        f"{name}.{member}: only in one of the two" for member in public ^ {m for m in members if m[0] != "_"}
    ]
    for member, node in members.items():
        if member == "__buffer__":
            continue  # a slot of C until Python 3.12
        if member not in vars(thing):
            lines.append(f"{name}.{member}: only in the stub")
        elif _is_property(node) != isinstance(vars(thing)[member], property):
            lines.append(f"{name}.{member}: a property in one of the two")
        elif not _is_property(node) and inspect.getdoc(getattr(thing, member)):
            lines += _compare(f"{name}.{member}", getattr(thing, member), node)
    return lines


def _is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)


def parameters_of(function: Any) -> list[str]:
    """The parameters of a compiled function, as `_parameters` writes them."""
    line = (inspect.getdoc(function) or "").splitlines()[0]
    (definition,) = ast.parse(f"def {line.partition(' -> ')[0]}: ...").body
    assert isinstance(definition, ast.FunctionDef)
    return _parameters(definition.args)


def _parameters(arguments: ast.arguments) -> list[str]:
    """'name' or 'name=default' for each, '*' before those that are passed by keyword."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    lines = [_text(a.arg, default) for a, default in zip(positional, defaults, strict=True)]
    if arguments.kwonlyargs:
        lines.append("*")
        lines += [_text(a.arg, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return lines


def _text(name: str, default: ast.expr | None) -> str:
    return name if default is None else f"{name}={ast.unparse(default)}"
