from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cgnrt_training.mnist.config import RECIPES, VARIANTS, Config, reference
from cgnrt_training.settings import (
    differences,
    from_dict,
    from_texts,
    load_toml,
    override,
    parse_settings,
    recipes,
    to_dict,
)


def test_reference_values() -> None:
    """Spot checks against the authors' settings."""
    colored, double, wildlife = (reference(variant) for variant in VARIANTS)
    assert (colored.loss.binary, double.loss.binary, wildlife.loss.binary) == (0.1, 0.3, 0.3)
    assert double.loss.perceptual == (0.0, 0.05, 0.0, 0.05)
    assert (double.model.init, double.model.gain) == ("orthogonal", 0.2)
    assert (wildlife.model.init, wildlife.model.gain) == ("normal", 0.03)
    assert (wildlife.discriminator.kind, wildlife.discriminator.width) == ("conv", 32)
    assert (colored.train.batch_size, colored.optimizer.lr_generator) == (16, 2e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_through_json(variant: str) -> None:
    config = override(reference(variant), {"train": {"seed": 5}, "loss": {"perceptual": [1, 0, 0, 0.5]}})
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference("colored").loss.binary = 1.0  # type: ignore[misc]


def test_settings() -> None:
    parsed = parse_settings(["loss.binary=1", "model.init = normal", "loss.perceptual=[0, 0.5, 0, 0]"])
    config = override(reference("colored"), parsed)
    assert config.loss.binary == 1.0
    assert config.model.init == "normal"
    assert config.loss.perceptual == (0.0, 0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.binry=1", r"key is 'loss.binry', expected one of loss.binary, .*Did you mean loss.binary"),
        ("los.binary=1", r"key is 'los', expected one of variant, model, .*Did you mean loss"),
        ("loss.binary", "--set is 'loss.binary', expected KEY=VALUE"),
        ("binary=1", "key is 'binary', expected one of variant, model, .*"),
        ("a.b.c=1", "key is 'a', expected one of variant"),
        ("loss..binary=1", "--set is 'loss..binary=1', expected KEY=VALUE"),
        ("loss.binary.c=1", "loss.binary is {'c': 1}, expected a number"),
        ("loss=1", "loss is 1, expected a section with keys"),
        ("variant=wild", "variant is 'wild', expected one of .*Did you mean wildlife"),
        ("loss.binary=high", "loss.binary is 'high', expected a number"),
        ("loss.binary=true", "loss.binary is True, expected a number"),
        ("loss.binary=-1", r"loss.binary is -1.0, expected >= 0"),
        ("loss.binary=nan", r"loss.binary is nan, expected a finite number"),
        ("loss.binary=inf", r"loss.binary is inf, expected a finite number"),
        ("loss.perceptual=[1, 2]", r"loss.perceptual is \[1, 2\], expected a list of 4 numbers"),
        ("loss.mask_low=1", r"loss.mask_low is 1.0, expected in \[0, 1\)"),
        ("loss.mask_high=0.1", r"loss.mask_high is 0.1, expected in \(loss.mask_low, 1\]"),
        ("train.steps=0", "train.steps is 0, expected > 0"),
        ("train.teach_from=-1", r"train.teach_from is -1, expected in 0\.\."),
        ("optimizer.reach_factor=0", "optimizer.reach_factor is 0.0, expected > 0"),
        ("train.steps=1.5", "train.steps is 1.5, expected a whole number"),
        ("train.seed=-1", r"train.seed is -1, expected in 0\.\."),
        ("train.ema=1", r"train.ema is 1.0, expected in \[0, 1\)"),
        ("train.texture_reuse=3", "train.batch_size is 16, expected a multiple of train.texture_reuse 3"),
        ("optimizer.final_lr=2", r"optimizer.final_lr is 2.0, expected in 0\.\.1"),
        ("discriminator.kind=deep", "discriminator.kind is 'deep', expected one of linear, conv"),
        ("discriminator.projection=1", "discriminator.projection is 1, expected true or false"),
    ],
)
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_texts(reference("colored"), [setting])


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match=r"variant is 'wild', expected one of .*Did you mean wildlife"):
        reference("wild")


def test_section_must_be_a_section() -> None:
    with pytest.raises(ValueError, match="loss is 3, expected a section with keys"):
        override(reference("colored"), {"loss": 3})


def test_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[train]\nsteps = 7\n")
    assert override(reference("colored"), load_toml(tmp_path / "a.toml", RECIPES)).train.steps == 7
    (tmp_path / "b.toml").write_text("[train\n")
    with pytest.raises(ValueError, match="content is not TOML"):
        load_toml(tmp_path / "b.toml", RECIPES)
    with pytest.raises(ValueError, match="No such file"):
        load_toml(tmp_path / "c.toml", RECIPES)


@pytest.mark.parametrize("name", list(recipes(RECIPES)))
def test_shipped_recipes_apply(name: str) -> None:
    override(reference("double-colored"), load_toml(name, RECIPES))


def test_unknown_recipe_names_the_close_ones() -> None:
    with pytest.raises(ValueError, match="Did you mean fast"):
        load_toml("fst", RECIPES)


def test_differences() -> None:
    old = reference("colored")
    assert differences(old, old) == []
    assert differences(old, override(old, {"train": {"steps": 3}})) == ["train.steps (46875 -> 3)"]
