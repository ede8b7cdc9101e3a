"""All settings of a training run, on one page: defaults, their places, and how they are changed.

The defaults are the values of the paper and of the authors' code ("ref."). Three layers lie on top of each
other: the variant's values, a TOML file, and `--set section.key=value`. An unknown key is an error.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

Variant = Literal["colored", "double-colored", "wildlife"]
N_CLASSES = 10
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class ModelConfig:
    """The CGN (App. B)."""

    noise_size: int = 32  # z of each mechanism; ref.
    channels: int = 32  # width of the last convolutions; ref.
    init: Literal["orthogonal", "normal"] = "orthogonal"  # ref., by variant
    gain: float = 0.1  # ref., by variant
    match_borders: bool = False  # backgrounds start in the colours of the images' border; not in ref.


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Judges composites (Sec. 3.1: an adversarial loss suffices on MNIST)."""

    kind: Literal["linear", "conv", "strided"] = "linear"  # ref., by variant; strided is not in ref.
    width: int = 512  # ref., by variant: 512 linear, 32 conv
    dropout: float = 0.4  # ref.; linear and strided
    contrast: bool = False  # also look at the standardised image; not in ref., for low-contrast classes
    projection: bool = False  # each class judges by its own weights too; not in ref., learns labels faster


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses."""

    binary: float = 0.1  # pixel-wise binary entropy of the mask, Eq. 3; ref., by variant
    mask: float = 0.0  # mask interval, Eq. 3; 0 in ref. on MNIST
    mask_low: float = 0.1  # tau of Eq. 3: no mask covers less
    mask_high: float = 0.9  # 1 - tau of Eq. 3: no mask covers more
    surroundings: float = 0.0  # backgrounds should look like the border of real images; not in ref.
    border: float = 0.0  # mean mask at the picture's border; not in ref., against inverted masks
    smooth: float = 0.0  # total variation of the mask; not in ref., against speckle
    # Not in ref.; what teacher.py says. Without reconstruction there is no teacher, and the others are idle.
    reconstruction: float = 0.0  # squared error of the masks of real images, drawn again
    kl: float = 0.006  # a nat of the encoder's distance from N(0, 1)
    mask_gradient: float = 1.0  # share of the adversarial gradient that reaches masks after train.teach_from
    perceptual: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # Gram losses, shallow to deep; ref.


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for both networks."""

    lr_generator: float = 2e-4  # ref.
    lr_discriminator: float = 2e-4  # ref.
    reach_factor: float = 1.0  # on the rate of the textures' last batch norm, which sets contrast; 1 in ref.
    beta1: float = 0.5  # ref.
    beta2: float = 0.999  # ref.
    final_lr: float = 1.0  # fraction of the learning rates left at the last step (cosine); ref. constant


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 46_875  # 15 epochs of 50,000 images; ref.
    batch_size: int = 16  # ref.
    texture_reuse: int = 1  # shapes of one class in a row that share a texture and a background; 1 in ref.
    teach_from: int = 200  # first step of loss.mask_gradient: by then masks are found in real images
    ema: float = 0.0  # decay of averaged weights, which are then what is saved; 0 is off, as in ref.
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind, in steps between two."""

    scalars_every: int = 50
    samples_every: int = 1000
    checkpoint_every: int = 1000


@dataclass(frozen=True)
class Config:
    """A whole run."""

    variant: Variant
    model: ModelConfig = field(default_factory=ModelConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, for JSON and checkpoints."""
        return {
            name: {key: list(v) if isinstance(v, tuple) else v for key, v in section.items()}
            if isinstance(section, dict)
            else section
            for name, section in asdict(self).items()
        }


# What the authors' code sets for each variant, by section (their cfg.yaml files).
_REFERENCE: dict[Variant, dict[str, dict[str, Any]]] = {
    "colored": {
        "loss": {"binary": 0.1, "perceptual": [0.05, 0.1, 0.01, 0.0]},
        "model": {"init": "orthogonal", "gain": 0.1},
    },
    "double-colored": {
        "loss": {"binary": 0.3, "perceptual": [0.0, 0.05, 0.0, 0.05]},
        "model": {"init": "orthogonal", "gain": 0.2},
    },
    "wildlife": {
        "loss": {"binary": 0.3, "perceptual": [0.01, 0.05, 0.0, 0.01]},
        "model": {"init": "normal", "gain": 0.03},
        "discriminator": {"kind": "conv", "width": 32},
    },
}

_POSITIVE = {
    "texture_reuse",
    "noise_size",
    "channels",
    "width",
    "steps",
    "batch_size",
    "scalars_every",
    "samples_every",
} | {
    "checkpoint_every",
    "lr_generator",
    "lr_discriminator",
    "reach_factor",
}
_UNIT = {"mask_low", "dropout", "ema", "beta1", "beta2"}  # in [0, 1)


def reference(variant: str) -> Config:
    """The paper's and the authors' values for "colored", "double-colored" or "wildlife".

    Raises:
      ValueError: an unknown variant; the message names the close ones.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"configure: variant is '{variant}', expected one of {', '.join(VARIANTS)}."
            f"{_close(variant, VARIANTS)}"
        )
    return override(Config(variant=variant), _REFERENCE[variant])


def load_toml(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read overrides from a TOML file, or from a recipe of this package by its name (see `recipes()`).

    Raises:
      ValueError: there is no such file or recipe, or it is no TOML.
    """
    path = Path(name)
    shipped = recipes()
    try:
        text = shipped[str(name)] if str(name) in shipped and not path.exists() else path.read_text("utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ValueError(
            f"load '{name}': file is unreadable ({error.strerror}), expected a TOML file or one of the "
            f"recipes {', '.join(shipped)}.{_close(str(name), list(shipped))}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"load '{name}': content is no TOML ({error}), expected [section] key = value."
        ) from error


def recipes() -> dict[str, str]:
    """The text of the TOML recipes that come with the package, by name."""
    folder = resources.files("cgnrt_training") / "configs"
    return {
        entry.name.removesuffix(".toml"): entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn `["loss.binary=0.3", ...]` into nested overrides. Values are TOML; a bare word is a string.

    Raises:
      ValueError: a setting is not `section.key=value`.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and section and name):
            raise ValueError(
                f"configure: --set is '{setting}', expected section.key=value, as loss.binary=0.3."
            )
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        overrides.setdefault(section, {})[name] = value
    return overrides


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A new config with nested overrides applied and checked.

    Raises:
      ValueError: an unknown key (the message names close ones), or a value of the wrong type or range.
    """
    changed: Config = _override(config, overrides, "")
    _check(changed)
    return changed


def from_dict(content: Mapping[str, Any]) -> Config:
    """The inverse of `Config.to_dict`, checked likewise."""
    rest = {key: value for key, value in content.items() if key != "variant"}
    return override(reference(str(content.get("variant"))), rest)


def differences(old: Config, new: Config) -> list[str]:
    """`section.key` of every setting that differs, with both values."""
    a, b = _flat(old.to_dict()), _flat(new.to_dict())
    return [f"{key} ({a[key]} -> {b[key]})" for key in a if a[key] != b[key]]


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            out |= {f"{name}.{key}": entry for key, entry in value.items()}
        else:
            out[name] = value
    return out


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
        if value in get_args(kind):
            return value
        rule = f"one of {', '.join(map(str, get_args(kind)))}"
    elif origin is tuple:
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
        rule = {"int": "a whole number", "bool": "true or false"}.get(kind.__name__, f"a {kind.__name__}")
    raise ValueError(f"configure: {where} is {value!r}, expected {rule}.")


def _check(config: Config) -> None:
    for key, value in _flat(config.to_dict()).items():
        name = key.rpartition(".")[2]
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            rule = "a finite number"
        elif name in _POSITIVE and value <= 0:
            rule = "> 0"
        elif name in _UNIT and not 0 <= value < 1:
            rule = "in [0, 1)"
        elif name == "final_lr" and not 0 <= value <= 1:
            rule = "in [0, 1]"
        elif name == "seed" and not 0 <= value < 2**63:
            rule = "in 0..2^63-1"
        elif any(isinstance(number, float) and number < 0 for number in numbers):
            rule = ">= 0"
        else:
            continue
        raise ValueError(f"configure: {key} is {value}, expected {rule}.")
    if not config.loss.mask_low < config.loss.mask_high <= 1:
        raise ValueError(
            f"configure: loss.mask_high is {config.loss.mask_high}, expected in (loss.mask_low, 1]."
        )
    batch_size, reuse = config.train.batch_size, config.train.texture_reuse
    if batch_size % reuse:
        raise ValueError(
            f"configure: train.batch_size is {batch_size}, expected a multiple of "
            f"train.texture_reuse {reuse}."
        )


def _close(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""
