"""Wrong arguments with tensors on a GPU, where there is none: what is said before the device is asked for."""
import sys
import types

import numpy
import pytest

from fastattention import ArgumentError, UnsupportedError, attention, flash_attn_func


class OnGpu:
    def __dlpack_device__(self):
        return 2, 0  # DLPack's CUDA

    def __dlpack__(self):
        raise AssertionError("must not be read")


@pytest.mark.parametrize("change, pattern", [
    (dict(layout="xyz"), "layout is 'xyz'.*bshd.*bhsd"), (dict(scale=0), "scale is 0"), (dict(scale=0.0), "scale is 0"),
    (dict(window=3), "window is 3"), (dict(window=(1, 2, 3)), "window is"), (dict(kernel=5), "kernel is 5"),
])
def test_said_as_on_the_cpu(change, pattern):
    lines = []
    for array in (numpy.zeros((1, 2, 2, 16), "f4"), OnGpu()):
        with pytest.raises(ArgumentError, match=pattern) as caught:
            attention(array, array, array, **change)
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]


@pytest.mark.parametrize("name", ["bias", "mask", "cu_seqlens_q", "cu_seqlens_kv", "max_seqlen_q", "max_seqlen_kv",
                                  "seqlens_kv", "page_table", "k_new", "v_new", "rotary_cos", "rotary_sin",
                                  "rotary_interleaved", "k_scale", "v_scale"])
def test_nothing_is_ignored(name):
    with pytest.raises(UnsupportedError, match=f"^{name} is given with tensors on a GPU"):
        attention(OnGpu(), OnGpu(), OnGpu(), **{name: 1})


def test_arrays_that_are_not_torch_tensors():
    with pytest.raises(ArgumentError, match="q is a OnGpu on a GPU.*torch.from_dlpack"):
        flash_attn_func(OnGpu(), OnGpu(), OnGpu())


class Tensor(OnGpu):
    """As much of torch's as is looked at before any computing."""
    shape, dtype, device = (1, 2, 2, 16), "float16", "cuda:0"

    def __init__(self, requires_grad=False):
        self.requires_grad = requires_grad

    def dim(self):
        return 4

    def stride(self, _):
        raise AssertionError("went on to compute")


@pytest.fixture
def torch(monkeypatch):
    module = types.SimpleNamespace(Tensor=Tensor, float32="float32", float16="float16", bfloat16="bfloat16",
                                   is_grad_enabled=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.mark.parametrize("name", ["alibi_slopes", "sinks", "out"])
@pytest.mark.parametrize("given", [numpy.ones((1, 2, 2, 16), "f2"), [0.5, 0.25]])
def test_arrays_beside_torch_tensors(torch, name, given):
    with pytest.raises(ArgumentError, match=f"{name} is a {type(given).__name__};.*must be a torch tensor"):
        attention(Tensor(), Tensor(), Tensor(), **{name: given})


@pytest.mark.parametrize("name", ["q", "k", "v", "alibi_slopes", "sinks", "out"])
def test_gradients(torch, name):
    arrays = {**{other: Tensor() for other in "qkv"}, name: Tensor(requires_grad=True)}
    line = rf"{name} requires a gradient; inference only: use torch.no_grad\(\) or detach"
    with pytest.raises(UnsupportedError, match=line):
        attention(**arrays)
    torch.is_grad_enabled = lambda: False
    with pytest.raises(AssertionError, match="went on to compute"):
        attention(**arrays)
