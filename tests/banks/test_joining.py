"""`banks.join` and `cgnrt bank --shape A --texture B --background C`: mechanisms of several plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cgnrt
from cgnrt import banks
from cgnrt.cli import main
from cgnrt.errors import CgnrtError, PlanError
from cgnrt.plan import Plan

from .test_arrays import IMAGES, LABELS, MASKS


def photos(path: Path, **options: object) -> Path:
    banks.from_arrays(path, IMAGES[:, :64, 16:80], MASKS[:, :64, 16:80], LABELS, **options)  # type: ignore[arg-type]
    return path


def test_networks_and_banks_together(root: Path, demo_plan: Path, tmp_path: Path) -> None:
    wildlife, bank, out = root / "plans" / "wildlife.plan", tmp_path / "bank.plan", tmp_path / "out.plan"
    banks.from_plan(bank, root / "plans" / "colored.plan", 20)
    given = ["bank", "--shape", str(bank), "--texture", str(wildlife), "--background", str(demo_plan)]
    assert main([*given, "-o", str(out)]) == 0
    batch = cgnrt.Generator(out).sample(6, seed=4, parts=True)
    theirs = cgnrt.Generator(wildlife).sample(6, seed=4, parts=True)
    assert np.array_equal(batch.foreground, theirs.foreground)
    assert np.array_equal(batch.mask, cgnrt.Generator(bank).sample(6, seed=4, parts=True).mask)
    with Plan.open(out) as plan:
        assert len(plan.networks) == 2
        said = plan.manifest.training_data
        assert said is not None
        assert "wildlife" in said
        assert "double-colored" in said
        assert plan.manifest.sources[0]["name"].endswith("as a bank")
    assert main([*given, "-o", str(out)]) == 1  # not over what is there
    assert main([*given, "-o", str(out), "--force"]) == 0


def test_open_plans_stay_open(demo_plan: Path, golden_bank_plan: Path, tmp_path: Path) -> None:
    with Plan.open(golden_bank_plan) as plan:
        banks.join(tmp_path / "out.plan", shape=plan, texture=plan, background=golden_bank_plan)
        plan.verify_banks()
        with Plan.open(tmp_path / "out.plan") as made:
            assert np.array_equal(made.banks["texture"].pictures, plan.banks["texture"].pictures)


def test_sizes_have_to_fit(demo_plan: Path, golden_plan: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="sizes are 32 x 32 for shape, 8 x 8 for texture, 32 x 32 for background"
    ):
        banks.join(tmp_path / "out.plan", shape=demo_plan, texture=golden_plan, background=demo_plan)


def test_one_name_has_one_number(tmp_path: Path) -> None:
    cats = photos(tmp_path / "cats.plan", classes=["cat", "dog"])
    dogs = photos(tmp_path / "dogs.plan", classes=["dog", "cat"])
    with pytest.raises(
        ValueError,
        match=r"join: class 'cat' is 0 for shape \('.*cats.plan'\) and 1 for texture \('.*dogs.plan'\), expected one",
    ):
        banks.join(tmp_path / "out.plan", shape=cats, texture=dogs, background=cats)
    # Other classes, and other numbers of them, are another matter: digits and colours.
    other = photos(tmp_path / "other.plan", classes=["red", "green"])
    banks.join(tmp_path / "out.plan", shape=cats, texture=other, background=cats)
    assert cgnrt.Generator(tmp_path / "out.plan").classes["texture"] == ("red", "green")


def test_numbers_that_differ_in_one_of_the_plans_may_differ(demo_plan: Path, tmp_path: Path) -> None:
    banks.from_plan(tmp_path / "bank.plan", demo_plan, 20)
    textures, backgrounds = (cgnrt.Generator(demo_plan).classes[name] for name in ("texture", "background"))
    assert textures.index("yellow") != backgrounds.index("yellow")
    banks.join(tmp_path / "out.plan", shape=demo_plan, texture=tmp_path / "bank.plan", background=demo_plan)
    assert cgnrt.Generator(tmp_path / "out.plan").classes["background"] == backgrounds


def test_a_texture_that_follows_its_shape_needs_it(tmp_path: Path) -> None:
    own = photos(tmp_path / "own.plan", texture="own")
    other = photos(tmp_path / "other.plan")
    with pytest.raises(ValueError, match="follows shape, expected shape of the same plan"):
        banks.join(tmp_path / "out.plan", shape=other, texture=own, background=other)
    banks.join(tmp_path / "out.plan", shape=own, texture=own, background=other)


def test_what_is_no_plan(demo_plan: Path, golden_saliency_plan: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="kind"):
        banks.join(tmp_path / "out.plan", shape=demo_plan, texture=golden_saliency_plan, background=demo_plan)
    (tmp_path / "out.plan").write_text("mine")
    with pytest.raises(CgnrtError, match="the file exists"):
        banks.join(tmp_path / "out.plan", shape=demo_plan, texture=demo_plan, background=demo_plan)
