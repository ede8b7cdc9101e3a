"""Rewrites of the many small layers and look-ups of conditional batch norm, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from cgnrt_export.inference import inference_form
from cgnrt_export.rewrites.duplicates import merge_duplicates
from cgnrt_export.rewrites.fills import shrink_fills
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.slices import hoist_slices
from cgnrt_export.rewrites.wide import merge_linears, merge_lookups

Rewritten = Callable[..., fx.GraphModule]
Calls = Callable[[fx.GraphModule], list[str]]


class Layers(nn.Module):
    """A function of a value and layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


class Tables(nn.Module):
    """A function of row numbers 0..6 and tables of 7 rows."""

    def __init__(
        self, function: Callable[..., Tensor], *widths: int, rows: tuple[int, ...] = (7, 7, 7)
    ) -> None:
        super().__init__()
        self.function = function
        for k, width in enumerate(widths):
            self.register_buffer(f"t{k}", torch.randn(rows[k], width))

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        return self.function(x, row, *self.buffers())


def _inputs() -> dict[str, Tensor]:
    return {"x": torch.randn(3, 4, dtype=torch.float64), "row": torch.tensor([6, 0, 3])}


def _cat(x: Tensor, *layers: nn.Module) -> Tensor:
    return torch.cat([torch.tanh(layer(x)) for layer in layers], 1)


def test_linear_layers_on_one_value_become_one(rewritten: Rewritten, calls: Calls) -> None:
    for biases, wide_bias in (((False, False, False), False), ((False, True, False), True)):
        layers = [nn.Linear(5, width, bias=bias) for width, bias in zip((2, 7, 3), biases, strict=True)]
        traced = rewritten(merge_linears, Layers(_cat, *layers), 5, times=3)
        assert calls(traced).count("linear") == 1
        (linear,) = (node for node in traced.graph.nodes if "linear" in str(node.target))
        assert (linear.args[2] is not None) == wide_bias
        assert linear.meta["val"].shape[1] == 12


def test_linear_layers_on_other_values_or_ranks_stay(rewritten: Rewritten) -> None:
    two = (nn.Linear(5, 2), nn.Linear(5, 3))
    rewritten(merge_linears, Layers(lambda x, a, b: torch.cat([a(x), b(x * 2)], 1), *two), 5, times=0)
    rewritten(merge_linears, Layers(_cat, nn.Linear(5, 3)), 5, times=0)
    rewritten(merge_linears, Layers(lambda x, a, b: torch.cat([a(x), b(x)], 2), *two), 4, 5, times=0)

    def written(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        y = x * 2
        first = a(y)
        y.add_(1)
        return torch.cat([first, b(y)], 1)

    rewritten(merge_linears, Layers(written, *two), 5, times=0)


LOOKUPS = {
    "index_select": lambda table, row: table.index_select(0, row),
    "indexed": lambda table, row: table[row],
    "embedding": lambda table, row: F.embedding(row, table),
}


@pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)
def test_lookups_of_the_same_rows_become_one(
    look_up: Callable[[Tensor, Tensor], Tensor], rewritten: Rewritten, calls: Calls
) -> None:
    def function(x: Tensor, row: Tensor, *tables: Tensor) -> Tensor:
        return torch.cat([torch.tanh(look_up(table, row)) for table in tables], 1) + x[:, :1]

    traced = rewritten(merge_lookups, Tables(function, 2, 5, 3), times=3, inputs=_inputs())
    assert sum(calls(traced).count(name) for name in ("index", "index_select", "embedding")) == 1


def test_negative_rows_still_count_from_the_end(rewritten: Rewritten) -> None:
    def function(x: Tensor, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
        last = row - 7
        return torch.cat([a[last], b[last]], 1) + x[:, :1]

    rewritten(merge_lookups, Tables(function, 2, 5), times=2, inputs=_inputs())


def test_lookups_of_other_rows_tables_or_columns_stay(rewritten: Rewritten) -> None:
    def other_rows(x: Tensor, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a.index_select(0, row), b.index_select(0, 6 - row)], 1) + x[:, :1]

    def same_rows(x: Tensor, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a.index_select(0, row), b.index_select(0, row)], 1) + x[:, :1]

    def columns(x: Tensor, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (a.index_select(1, row).sum() + b.index_select(1, row).sum()) * x

    rewritten(merge_lookups, Tables(other_rows, 2, 5), times=0, inputs=_inputs())
    rewritten(merge_lookups, Tables(same_rows, 2, 5, rows=(7, 8)), times=0, inputs=_inputs())
    rewritten(merge_lookups, Tables(columns, 7, 7), times=0, inputs=_inputs())


def test_arithmetic_moves_above_the_slices(rewritten: Rewritten, calls: Calls) -> None:
    def function(x: Tensor) -> Tensor:
        wide, factor = torch.tanh(x), x[:, 11:]
        parts = [wide[:, a:b] for a, b in ((0, 3), (3, 5), (5, 9))]
        return torch.cat([torch.rsqrt((part * factor + 1).abs()) for part in parts], 1)

    traced = rewritten(_ready(hoist_slices), Layers(function), 12, times=3 * 4)
    for name in ("mul", "add", "abs", "rsqrt"):
        assert calls(traced).count(name) == 1


def test_arithmetic_on_two_values_and_constants(rewritten: Rewritten, calls: Calls) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(5))

        def forward(self, x: Tensor, row: Tensor) -> Tensor:
            left, right = torch.tanh(x), torch.sigmoid(x)
            first = left[:, :3] * self.a - right[:, 4:7]
            second = left[:, 3:8] * self.b - right[:, 7:12]
            return torch.cat([first, second], 1) * row[:, None]

    inputs = {"x": torch.randn(3, 12, dtype=torch.float64), "row": torch.randn(3, dtype=torch.float64)}
    traced = rewritten(_ready(hoist_slices), Two(), times=4, inputs=inputs)
    assert calls(traced).count("sub") == 1


STAY = {
    "not neighbours": lambda w, v: (w[:, :3] * 2, w[:, 4:6] * 2),
    "other order in the second value": lambda w, v: (w[:, :3] * v[:, 3:6], w[:, 3:6] * v[:, :3]),
    "other numbers": lambda w, v: (w[:, :3] * 2, w[:, 3:6] * 3),
    "another call": lambda w, v: (w[:, :3] * 2, w[:, 3:6] + 2),
    "one column for all": lambda w, v: (w[:, :1] * v, w[:, 1:2] * v),
    "scalar on the other side": lambda w, v: (2 - w[:, :3], w[:, 3:6] - 2),
    "overlapping": lambda w, v: (w[:, :4] * 2, w[:, 3:6] * 2),
    "alpha": lambda w, v: (w[:, :3].add(1, alpha=2), w[:, 3:6].add(1, alpha=3)),
}


@pytest.mark.parametrize("function", STAY.values(), ids=STAY)
def test_other_arithmetic_stays(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rewritten: Rewritten
) -> None:
    def joined(x: Tensor) -> Tensor:
        return torch.cat(function(torch.tanh(x), torch.sigmoid(x)), 1)

    rewritten(_ready(hoist_slices), Layers(joined), 12, times=0)


def _ready(rewrite: Callable[[fx.GraphModule], int]) -> Callable[[fx.GraphModule], int]:
    """A rewrite behind those that always come before it."""

    def apply(module: fx.GraphModule) -> int:
        remove_no_ops(module)
        merge_duplicates(module)
        return rewrite(module)

    return apply


def test_fills_become_numbers_where_they_are_broadcast(rewritten: Rewritten, calls: Calls) -> None:
    traced = rewritten(
        shrink_fills,
        Layers(lambda x: torch.where(x > 0, torch.ones_like(x), x * torch.full_like(x, 3))),
        4,
        times=2,
    )
    assert calls(traced) == ["gt", "mul", "where"]
    rewritten(shrink_fills, Layers(lambda x: torch.cat([x, torch.zeros_like(x)], 1)), 4, times=0)
    # The fill alone has the result's shape, or its dtype.
    rewritten(shrink_fills, Layers(lambda x: x[:, :1] + torch.ones_like(x)), 4, times=0)
    rewritten(shrink_fills, Layers(lambda x: (x > 0) + torch.ones_like(x)), 4, times=0)


class ConditionalNorm(nn.Module):
    """Batch norm as BigGAN has it: statistics by truncation, scale and shift from a vector."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain, self.offset = nn.Linear(6, channels, bias=False), nn.Linear(6, channels, bias=False)
        self.register_buffer("means", torch.randn(7, channels))
        self.register_buffer("variances", torch.rand(7, channels) + 0.5)

    def forward(self, x: Tensor, vector: Tensor, rows: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
        def blend(table: Tensor) -> Tensor:
            return table[rows[0]] * weight + table[rows[1]] * (1 - weight)

        scale = (1 + self.gain(vector)) * torch.rsqrt(blend(self.variances) + 1e-4)
        shift = self.offset(vector) - blend(self.means) * scale
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(6, 8 * 2 * 2)
        self.norms = nn.ModuleList(ConditionalNorm(channels) for channels in (8, 5, 4))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((8, 5), (5, 4), (4, 9)))

    def forward(self, vector: Tensor, truncation: Tensor) -> Tensor:
        position = truncation[:, 0] * 6
        first = position.floor().clamp(0, 6).to(torch.int64)
        rows = (first, (first + 1).clamp(max=6))
        x = self.start(vector).unflatten(1, (8, 2, 2))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            weight = torch.where(position == first, torch.ones_like(position), position - first)[:, None]
            x = conv(F.interpolate(F.relu_(norm(x, vector, rows, weight)), scale_factor=2))
        return torch.tanh(x[:, :3])


def test_conditional_batch_norm_as_one_chain_of_vectors(
    settle: Callable[[nn.Module], nn.Module], calls: Calls
) -> None:
    module = settle(Chain())
    inputs = {
        "vector": torch.randn(3, 6, dtype=torch.float64),
        "truncation": torch.tensor([[0.5], [0.37], [1.0]], dtype=torch.float64),
    }
    form = inference_form(module, inputs)
    torch.testing.assert_close(
        form.module(*inputs.values()), module(*inputs.values()), atol=1e-12, rtol=1e-12
    )
    names = calls(form.module)
    assert names.count("linear") == 1
    assert names.count("rsqrt") == names.count("where") == 1
    assert names.count("index") == 2
    assert names.count("mul") == 1 + 2 + 1 + 1 + 3  # position; blend; scale; mean; one for each picture
    assert names.count("conv_transpose2d") == 3
    assert form.rewrites["convolutions cut to the channels read"] == 1
