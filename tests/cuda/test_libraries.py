"""On a GPU: tensors of torch, CuPy and JAX in and out, captured graphs, sizes beyond 32 bits, and other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_arrays import array_of
from module_ops import core

from cgnrt import cuda, ops

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)
M, F, B = (RNG.random((8, c, 64, 64), dtype=np.float32) for c in (1, 3, 3))
INDEX = RNG.integers(0, 8, (20, 3)).astype(np.int32)
ROLLS = RNG.integers(-99, 99, (20, 2, 2)).astype(np.int32)
EXPECTED = core.compose(M, F, B, INDEX, rolls=ROLLS)


def composed(m: Any, f: Any, b: Any) -> Any:
    """In torch, an operation at a time: each rounds, as the op does."""
    return m.float() * f.float() + (1 - m.float()) * b.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("half", [False, True])
def test_torch_in_and_out(dtype: Any, layout: str, half: bool) -> None:
    m, f, b = (torch.rand(64, c, 256, 256, device="cuda") for c in (1, 3, 3))
    if half:
        m, f, b = m.half(), f.half(), b.half()
    expected = composed(m, f, b) * 255
    if layout == "NHWC":
        expected = expected.permute(0, 2, 3, 1).contiguous()
    expected = expected.round().to(dtype) if dtype == torch.uint8 else expected.to(dtype)
    name = str(dtype).removeprefix("torch.")
    batch = torch.from_dlpack(ops.compose(m, f, b, dtype=name, layout=layout, scale=255))
    assert batch.dtype == dtype
    assert torch.equal(batch, expected)
    out = torch.zeros_like(expected)
    assert ops.compose(m, f, b, dtype=name, layout=layout, scale=255, out=out) is out
    assert torch.equal(out, expected)


def test_torch_on_a_stream_of_its_own() -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        given = [torch.from_numpy(x).cuda(non_blocking=True) for x in (M, F, B, INDEX)]
        rolls = torch.from_numpy(ROLLS).cuda(non_blocking=True)
        torch.cuda._sleep(10_000_000)
        given[1] = given[1] * 2
        batch = torch.from_dlpack(ops.compose(*given, rolls=rolls, stream=side.cuda_stream))
        result = batch.cpu()
    expected = core.compose(M, F * 2, B, INDEX, rolls=ROLLS)
    np.testing.assert_array_equal(result.numpy(), expected)


def test_torch_noise() -> None:
    indices = torch.arange(5000, device="cuda") * 2**40
    for kind in ("normal", "truncated_normal"):
        drawn = torch.from_dlpack(getattr(ops, kind)(3, indices, 1, 130))
        np.testing.assert_array_equal(
            drawn.cpu().numpy(), getattr(core, kind)(3, indices.cpu().numpy(), 1, 130)
        )


def test_a_graph_of_torch() -> None:
    given = [torch.from_numpy(x).cuda() for x in (M, F, B, INDEX)]
    rolls = torch.from_numpy(ROLLS).cuda()
    indices = torch.arange(20, device="cuda")
    out = torch.zeros(EXPECTED.shape, device="cuda")
    noise = torch.zeros(20, 32, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        ops.compose(*given, rolls=rolls, out=out, stream=stream)
        ops.normal(7, indices, 0, 32, out=noise, stream=stream)
    assert not out.any()
    for shift in (0, 100):
        indices += shift
        out.zero_()
        graph.replay()
        np.testing.assert_array_equal(out.cpu().numpy(), EXPECTED)
        np.testing.assert_array_equal(noise.cpu().numpy(), core.normal(7, np.arange(20) + shift, 0, 32))


def test_memory_freed_while_torch_captures() -> None:
    """What torch lets go of then goes back to our stream later, and our stream stays out of its graph."""
    ours, side = cuda.Stream(0), torch.cuda.Stream()
    given = [array_of(x, ours) for x in (M, F, B, INDEX)]
    out = torch.zeros(EXPECTED.shape, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        lent = [torch.from_dlpack(x) for x in given]
        left = torch.from_dlpack(array_of(F, ours))
        rolls = torch.from_numpy(ROLLS).cuda()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=side):
        ops.compose(*lent, rolls=rolls, out=out, stream=side.cuda_stream)
        del left
        array_of(F, ours)  # takes what is free on our stream, and is not a part of the graph
    ours.synchronize()
    graph.replay()
    np.testing.assert_array_equal(out.cpu().numpy(), EXPECTED)


def test_cupy_arrays() -> None:
    cupy = pytest.importorskip("cupy")
    given = [cupy.asarray(x) for x in (M, F, B, INDEX)]
    batch = cupy.from_dlpack(ops.compose(*given, rolls=cupy.asarray(ROLLS)))
    np.testing.assert_array_equal(cupy.asnumpy(batch), EXPECTED)
    out = cupy.zeros(EXPECTED.shape, cupy.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        ops.compose(*given, rolls=cupy.asarray(ROLLS), out=out, stream=stream.ptr)
        np.testing.assert_array_equal(cupy.asnumpy(out), EXPECTED)


def test_jax_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the card
    jax = pytest.importorskip("jax")
    if not any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this build of JAX has no GPU")
    gpu = jax.devices("gpu")[0]
    given = [jax.device_put(x, gpu) for x in (M, F, B, INDEX)]
    batch = jax.dlpack.from_dlpack(ops.compose(*given, rolls=jax.device_put(ROLLS, gpu)))
    np.testing.assert_array_equal(np.asarray(batch), EXPECTED)


def test_pools_of_more_than_32_bits() -> None:
    """The last entry of a pool of 2.4 billion values."""
    count = 12_000
    f = torch.empty(count, 3, 256, 256, dtype=torch.float16, device="cuda")
    f[-1] = torch.rand(3, 256, 256, device="cuda")
    m = torch.rand(2, 1, 256, 256, device="cuda").half()
    b = torch.rand(2, 3, 256, 256, device="cuda").half()
    index = torch.tensor([[0, count - 1, 1], [1, count - 1, 0]], device="cuda")
    rolls = torch.tensor([[[3, 5], [0, 0]], [[0, 0], [-9, 1000]]], device="cuda")
    batch = torch.from_dlpack(ops.compose(m, f, b, index))
    assert torch.equal(batch, composed(m, f[-1:], b.flip(0)))
    batch = torch.from_dlpack(ops.compose(m, f, b, index, rolls=rolls))
    rolled = [f[-1].roll((3, 5), (1, 2)), f[-1]], [b[1], b[0].roll((-9, 1000), (1, 2))]
    assert torch.equal(batch, composed(m, torch.stack(rolled[0]), torch.stack(rolled[1])))


def test_many_samples() -> None:
    """More than the 65,535 that two of a grid's axes hold."""
    m, f, b = (torch.rand(100, c, 8, 8, device="cuda") for c in (1, 3, 3))
    index = torch.randint(0, 100, (200_000, 3), device="cuda")
    batch = torch.from_dlpack(ops.compose(m, f, b, index))
    assert torch.equal(batch, composed(m[index[:, 0]], f[index[:, 1]], b[index[:, 2]]))


def test_every_device_of_the_machine() -> None:
    for device in range(torch.cuda.device_count()):
        given = [torch.from_numpy(x).to(f"cuda:{device}") for x in (M, F, B, INDEX)]
        batch = ops.compose(*given, rolls=torch.from_numpy(ROLLS).to(f"cuda:{device}"))
        assert batch.device == device
        np.testing.assert_array_equal(batch.numpy(), EXPECTED)
        drawn = ops.normal(1, torch.arange(9, device=f"cuda:{device}"), 0, 8)
        assert drawn.device == device
        np.testing.assert_array_equal(drawn.numpy(), core.normal(1, np.arange(9), 0, 8))
    assert torch.cuda.current_device() == 0
