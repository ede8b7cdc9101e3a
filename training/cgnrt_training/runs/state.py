"""The state of a training run: named parts that are saved together, restored together, and checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cgnrt.errors import CheckpointError

from ..checkpoints import first_line, load_state


class Stateful(Protocol):
    """What modules, optimizers, gradient scalers and schedulers of torch are, and the classes below."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


Part: TypeAlias = "Stateful | Mapping[str, Part] | None"


class State:
    """Everything that the next step of a run depends on.

    Args:
      parts: by name: modules (averaged weights too), optimizers, whatever else has `state_dict` and
        `load_state_dict`, a mapping of such parts, or None for a part that this run does not have.
      values: by name: plain values or tensors at the start of the run. A restored one has the same type.
    """

    def __init__(self, parts: Mapping[str, Part], values: Mapping[str, Any] | None = None) -> None:
        self.parts = dict(parts)
        self.values = dict(values or {})
        self.step = 0  # steps that are done

    def to_dict(self) -> dict[str, Any]:
        """What `restore` takes: `step`, the values and the parts by name."""
        return {"step": self.step, **self.values, **{name: _saved(part) for name, part in self.parts.items()}}

    def restore(self, content: Any, subject: str) -> None:
        """Take up what a checkpoint holds.

        Args:
          content: has the entries of `to_dict`; others are ignored.
          subject: the checkpoint's name, for errors.
        Raises:
          CheckpointError: an entry is missing or does not fit; the message names it.
        """
        needed = ["step", *self.values, *(name for name, part in self.parts.items() if not _optional(part))]
        missing = [name for name in needed if name not in content] if isinstance(content, Mapping) else needed
        if missing:
            raise CheckpointError(
                f"resume '{subject}': {', '.join(missing)} is missing, expected the state of this run. "
                f"Start anew with --force."
            )
        step = content["step"]
        if type(step) is not int or step < 0:
            raise _misfit("step", f"{step!r:.40}, expected a whole number >= 0", subject)
        values = {name: _checked(name, content[name], start, subject) for name, start in self.values.items()}
        for name, part in self.parts.items():
            if name in content:
                _restore(name, part, content[name], subject)
        self.step, self.values = step, values


class RandomState:
    """torch's random state on one device. A run that comes from another device goes on with this one's own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state_dict(self) -> Tensor:
        return torch.get_rng_state() if self.device.type == "cpu" else torch.cuda.get_rng_state(self.device)

    def load_state_dict(self, state: Tensor, /) -> None:
        if self.device.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, self.device)


class GeneratorState:
    """The state of a random generator of the CPU that a run draws from."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> Tensor:
        return self.generator.get_state()

    def load_state_dict(self, state: Tensor, /) -> None:
        self.generator.set_state(state)


def random_parts(device: torch.device) -> dict[str, Part]:
    """The random state of the CPU, and of the device if that is another, as parts `rng` and `rng_device`."""
    parts: dict[str, Part] = {"rng": RandomState(torch.device("cpu"))}
    if device.type != "cpu":
        parts["rng_device"] = RandomState(device)
    return parts


class Gradients:
    """The gradients that a module's parameters hold, for a checkpoint in the middle of an accumulation."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        parameters = dict(self.module.named_parameters())
        for name, gradient in state.items():
            if gradient.shape != parameters[name].shape:
                expected = tuple(parameters[name].shape)
                raise ValueError(f"gradient of {name} is {tuple(gradient.shape)}, expected {expected}")
        for name, parameter in parameters.items():
            parameter.grad = state[name].to(parameter, copy=True) if name in state else None


# Those that have the shape of their parameter, of Adam and its kin and of SGD.
_MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}


def _optional(part: Part) -> bool:
    return isinstance(part, RandomState) and part.device.type != "cpu"


def _saved(part: Part) -> Any:
    if isinstance(part, Mapping):
        return {name: _saved(inner) for name, inner in part.items()}
    return None if part is None else part.state_dict()


def _restore(name: str, part: Part, state: Any, subject: str) -> None:
    if isinstance(part, Mapping):
        if not isinstance(state, Mapping) or set(state) != set(part):
            raise _misfit(name, f"not what it was saved as, expected entries {', '.join(part)}", subject)
        for inner, piece in part.items():
            _restore(f"{name}.{inner}", piece, state[inner], subject)
    elif isinstance(part, nn.Module):
        load_state(part, state, subject)
    elif part is not None:
        try:
            if isinstance(part, Optimizer):
                _check_optimizer(part, state)
            part.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise _misfit(
                name, f"of another run ({first_line(error)}), expected this run's", subject
            ) from error


def _check_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Check the shapes of the moments, which torch's own `load_state_dict` leaves unchecked."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, moments in state["state"].items():
        expected = tuple(parameters[index].shape)
        for name in _MOMENTS & set(moments):
            if (found := tuple(moments[name].shape)) != expected:
                raise ValueError(f"{name} of parameter {index} is {found}, expected {expected}")


def _checked(name: str, value: Any, start: Any, subject: str) -> Any:
    """A restored value, of the type (a tensor: also of the shape) of the one at the start."""
    if isinstance(start, Tensor) and isinstance(value, Tensor):
        if (value.shape, value.dtype) == (start.shape, start.dtype):
            return value.to(start.device)
        expected = f"{tuple(start.shape)} {start.dtype}"
        raise _misfit(name, f"{tuple(value.shape)} {value.dtype}, expected {expected}", subject)
    if type(value) is not type(start):
        raise _misfit(name, f"{value!r:.40}, expected a value of type {type(start).__name__}", subject)
    return value


def _misfit(name: str, found: str, subject: str) -> CheckpointError:
    return CheckpointError(f"resume '{subject}': {name} is {found}. Start anew with --force.")
