"""What a user's modules must be, and the message for each way in which they are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgnrt_export import MechanismModule
from cgnrt_export.mechanism import check_mechanisms

Make = Callable[..., dict[str, MechanismModule]]


class Returns(nn.Module):
    """A mechanism that gives what a function makes of (noise, class_embedding)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Any:
        return self.function(noise, class_embedding)


def _grey(n: int, channels: int = 3, size: int = 8, value: float = 0.5) -> Tensor:
    return torch.full((n, channels, size, size), value)


def test_good_mechanisms_pass(own: Make) -> None:
    given = own(texture={"embedding": nn.Embedding(3, 4), "module": Returns(lambda u, e: _grey(len(u)))})
    given["background"] = MechanismModule(
        Returns(lambda u, e: _grey(len(u))), np.ones((2, 1)), ("x", "y"), noise_size=7, roll=True
    )
    given["shape"].module.train()
    checked = check_mechanisms(given)
    assert [mechanism.range for mechanism in checked.values()] == [(0, 1), (-1, 1), (-1, 1)]
    assert [mechanism.picture for mechanism in checked.values()] == ["mask", "foreground", "background"]
    assert checked["background"].embedding.dtype == torch.float32
    assert checked["background"].resolution == (8, 8)
    assert not checked["shape"].module.training
    assert given["shape"].module.training, "the user's module was changed"


def test_half_precision_modules_are_run_in_float32(own: Make) -> None:
    given = own()
    given["texture"].module.half()
    checked = check_mechanisms(given)
    assert next(checked["texture"].module.parameters()).dtype == torch.float32
    assert next(given["texture"].module.parameters()).dtype == torch.float16


def test_the_three_mechanisms(own: Make) -> None:
    given = own()
    with pytest.raises(
        ValueError, match="export: mechanisms are 'shape', 'texture', expected exactly 'shape', 'tex"
    ):
        check_mechanisms({name: given[name] for name in ("shape", "texture")})
    with pytest.raises(ValueError, match="export: mechanisms are missing, expected exactly"):
        check_mechanisms({})
    with pytest.raises(
        TypeError, match="export mechanism 'texture': it is a Linear, expected a MechanismModule"
    ):
        check_mechanisms(given | {"texture": nn.Linear(1, 1)})


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"module": torch.tanh},
            TypeError,
            "module is a builtin_function_or_method, expected a torch.nn.Module",
        ),
        (
            {"embedding": torch.ones(3)},
            ValueError,
            "embedding is torch.float32 (3,), expected floats (classes, e)",
        ),
        (
            {"embedding": torch.ones(3, 2, dtype=torch.int64)},
            ValueError,
            "embedding is torch.int64 (3, 2), expected floats (classes, e)",
        ),
        ({"embedding": "abc"}, TypeError, "embedding is a str, expected a tensor"),
        (
            {"embedding": torch.full((3, 2), float("nan"))},
            ValueError,
            "embedding has NaN or infinite values, expected finite ones",
        ),
        (
            {"classes": ["a", "b"]},
            ValueError,
            "classes has 2 names, expected 3, one for each row of the embedding",
        ),
        ({"classes": ["a", "b", "a"]}, ValueError, "classes has 'a' twice, expected unique names"),
        ({"classes": ["a", 1, "b"]}, ValueError, "classes[1] is 1, expected a name"),
        ({"classes": "abc"}, TypeError, "classes is a str, expected a sequence of names"),
        ({"noise_size": 0}, ValueError, "noise_size is 0, expected an int of at least 1"),
        ({"noise_size": True}, ValueError, "noise_size is True, expected an int of at least 1"),
        (
            {"noise_distribution": "uniform"},
            ValueError,
            "noise_distribution is 'uniform', expected 'normal' or 'truncated_normal'",
        ),
        (
            {"range": (1, -1)},
            ValueError,
            "range is (1, -1), expected finite numbers (low, high) with low < high",
        ),
        ({"range": 5}, ValueError, "range is 5, expected (low, high)"),
    ],
)
def test_fields(own: Make, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"export mechanism 'texture': {message}")):
        check_mechanisms(own(texture=fields))


def _needs_three(noise: Tensor, class_embedding: Tensor) -> Tensor:
    raise TypeError("forward() missing 1 required positional argument: 'truncation'")


BAD_OUTPUTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], type[Exception], str]] = {
    "other inputs": (
        _needs_three,
        ValueError,
        "calling it with noise (3, 3), class_embedding (3, 2) gave TypeError: forward() missing 1 required "
        "positional argument: 'truncation', expected a picture from (noise, class_embedding) for any batch size",
    ),
    "a tuple": (lambda u, e: (u, e), TypeError, "output is a tuple, expected one tensor"),
    "too few axes": (
        lambda u, e: u,
        ValueError,
        "output shape is (3, 3) for a batch of 3, expected (3, 3, h, w): a picture has three",
    ),
    "one channel": (
        lambda u, e: _grey(len(u), 1),
        ValueError,
        "output shape is (3, 1, 8, 8) for a batch of 3",
    ),
    "doubled batch": (
        lambda u, e: _grey(2 * len(u)),
        ValueError,
        "output shape is (6, 3, 8, 8) for a batch of 3",
    ),
    "float64": (
        lambda u, e: _grey(len(u)).double(),
        ValueError,
        "output is torch.float64, expected torch.float32",
    ),
    "NaN": (
        lambda u, e: _grey(len(u)) / 0 * 0,
        ValueError,
        "output has NaN or infinite values, expected finite",
    ),
    "too bright": (
        lambda u, e: _grey(len(u), value=1.5),
        ValueError,
        "output values are 1.5 to 1.5, expected within [-1, 1]. End the module with a bounded layer",
    ),
    "noise inside": (
        lambda u, e: torch.rand(len(u), 3, 8, 8),
        ValueError,
        "two calls with the same inputs differ by ",
    ),
    "dropout that stays on": (
        lambda u, e: F.dropout(_grey(len(u)), 0.5, training=True),
        ValueError,
        "expected the same output in eval mode. Draw no random numbers inside, and switch dropout off",
    ),
    "statistics over the batch": (
        lambda u, e: torch.tanh(
            F.batch_norm(u, torch.zeros(3), torch.ones(3), training=True)[:, :, None, None].expand(
                -1, 3, 8, 8
            )
        ),
        ValueError,
        "gave ValueError: Expected more than 1 value per channel",
    ),
    "the batch's mean": (
        lambda u, e: torch.tanh(u - u.mean(0))[:, :, None, None].expand(-1, 3, 8, 8),
        ValueError,
        "alone and in a batch of 3, expected each to depend on its own inputs only",
    ),
    "a fixed batch size": (
        lambda u, e: torch.tanh(u.reshape(3, 3, 1, 1)).expand(3, 3, 8, 8),
        ValueError,
        "class_embedding (1, 2) gave RuntimeError: shape '[3, 3, 1, 1]' is invalid",
    ),
    "a size from the batch": (
        lambda u, e: _grey(len(u), size=5 + len(u)),
        ValueError,
        "output shape is (1, 3, 6, 6) for a batch of 1, expected (1, 3, 8, 8)",
    ),
}


@pytest.mark.parametrize(("function", "error", "message"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_outputs(
    own: Make, function: Callable[[Tensor, Tensor], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        check_mechanisms(own(texture=Returns(function)))
    assert str(caught.value).startswith("export mechanism 'texture': ")


def test_a_mask_has_one_channel_and_stays_in_0_to_1(own: Make) -> None:
    with pytest.raises(ValueError, match=r"output shape is \(3, 3, 8, 8\) .*: a mask has one channel"):
        check_mechanisms(own(shape=Returns(lambda u, e: _grey(len(u)))))
    with pytest.raises(ValueError, match=r"output values are -0\.5 to -0\.5, expected within \[0, 1\]"):
        check_mechanisms(own(shape=Returns(lambda u, e: _grey(len(u), 1, value=-0.5))))
    with pytest.raises(ValueError, match=r"range is \(-1, 1\), expected within \(0, 1\): it is a mask"):
        check_mechanisms(own(shape={"range": (-1, 1)}))


def test_mechanisms_must_fit_together(own: Make) -> None:
    with pytest.raises(
        ValueError, match="resolution is shape 8 x 8, texture 8 x 8, background 16 x 16, expe"
    ):
        check_mechanisms(own(background=Returns(lambda u, e: _grey(len(u), size=16))))
    with pytest.raises(
        ValueError, match=r"range is \(-1\.0, 1\.0\) for the texture and \(0\.0, 1\.0\) for the back"
    ):
        check_mechanisms(own(background={"module": Returns(lambda u, e: _grey(len(u))), "range": (0, 1)}))
    with pytest.raises(
        ValueError, match="noise is shape 3 truncated_normal, texture 3 normal, background 3 normal, e"
    ):
        check_mechanisms(own(shape={"noise_distribution": "truncated_normal"}), shared_noise=True)


def test_a_module_that_cannot_be_copied(own: Make) -> None:
    module = Returns(lambda u, e: _grey(len(u)))
    module.cache = torch.ones(1, requires_grad=True) * 2  # a result of a computation, not a leaf
    with pytest.raises(
        ValueError, match="mechanism 'texture': copying the module gave RuntimeError: Only Ten"
    ):
        check_mechanisms(own(texture=module))
