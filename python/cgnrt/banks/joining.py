"""`join`: mechanisms of several plans in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

from cgnrt._support.files import refuse_existing
from cgnrt.errors import show
from cgnrt.plan import MECHANISMS, Plan, write_bank
from cgnrt.plan.limits import MAX_STRING_CHARS

AnyPlan = str | os.PathLike[str] | Plan


def join(
    path: str | os.PathLike[str],
    *,
    shape: AnyPlan,
    texture: AnyPlan,
    background: AnyPlan,
    force: bool = False,
) -> str:
    """Write a plan whose mechanisms are those of other plans: banks, networks, or both.

    Real masks with a CGN's textures, for example. Mechanisms may have other classes, as digits and colours have. Where
    two have classes of one name, these have one number, unless one of the plans has both mechanisms' classes so:
    `labels="shared"` draws numbers.

    Args:
      path: the plan to make.
      shape, texture, background: the plan that gives each.
      force: replace an existing file.
    Returns:
      The digest of the new plan.
    Raises:
      PlanError: one is not a plan, the file exists, or the disk is full.
      ValueError: sizes or classes do not fit together.
    """
    refuse_existing(Path(path), force=force)
    with ExitStack() as stack:
        opened: dict[str, Plan] = {}
        for given in (shape, texture, background):
            if not isinstance(given, Plan) and os.fspath(given) not in opened:
                opened[os.fspath(given)] = stack.enter_context(Plan.open(given))
        plans = {
            name: given if isinstance(given, Plan) else opened[os.fspath(given)]
            for name, given in zip(MECHANISMS, (shape, texture, background), strict=True)
        }
        _check_classes({name: plan.mechanisms[name].classes for name, plan in plans.items()}, plans)
        unlike = {plan.manifest.noise_mode for plan in plans.values()}
        return write_bank(
            path,
            shape=plans["shape"],
            texture=plans["texture"],
            background=plans["background"],
            family="joined",
            noise_mode=unlike.pop() if len({plan.digest for plan in plans.values()}) == 1 else None,
            training_data=_training_data(plans),
            force=force,
        )


def _check_classes(names: Mapping[str, Sequence[str]], plans: Mapping[str, Plan]) -> None:
    """Refuse classes of one name that have different numbers in two mechanisms, unless a given plan has them so.

    Raises:
      ValueError: there are some.
    """
    for one, other in combinations(MECHANISMS, 2):
        if len(names[one]) != len(names[other]):
            continue  # labels="shared" is refused then
        if any(
            (plan.mechanisms[one].classes, plan.mechanisms[other].classes) == (names[one], names[other])
            for plan in plans.values()
        ):
            continue  # as the colours of digits and of backgrounds
        numbers = {name: k for k, name in enumerate(names[other])}
        for k, name in enumerate(names[one]):
            if numbers.get(name, k) != k:
                raise ValueError(
                    f"join: class {show(name)} is {k} for {one} ('{plans[one].path}') and {numbers[name]} for {other} "
                    f"('{plans[other].path}'), expected one number: one label for all mechanisms would mean two "
                    "classes. Make the plans of the same classes, in one order."
                )


def _training_data(plans: Mapping[str, Plan]) -> str | None:
    """What the plans say of their data, each once."""
    said = dict.fromkeys(plan.manifest.training_data for plan in plans.values())
    return "; ".join(text for text in said if text is not None)[:MAX_STRING_CHARS] or None
