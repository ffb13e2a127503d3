"""Arrays of other libraries, through DLPack alone."""
import ctypes
import gc

import ml_dtypes
import numpy
import pytest

from fastattention import ArgumentError, attention
from fastattention import _arrays


class Foreign:
    """A DLPack producer that knows nothing of numpy or of us: its own capsule, its own deleter, which it counts."""

    alive = 0

    def __init__(self, array, device=1):
        self.memory, self.device = array, device
        self.bfloat16 = array.dtype == ml_dtypes.bfloat16

    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self):
        stored = self.memory.view("u2") if self.bfloat16 else self.memory
        capsule = _arrays._export(stored, "bfloat16" if self.bfloat16 else self.memory.dtype.name)
        return capsule


def inputs(dtype):
    rng = numpy.random.default_rng(7)
    return [rng.standard_normal((2, 6, 4, 16)).astype(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("arrange", [lambda x: x, lambda x: x[:, ::-1], lambda x: x.transpose(0, 1, 3, 2).swapaxes(2, 3),
                                     lambda x: numpy.asfortranarray(x)])
def test_same_as_numpy(dtype, arrange):
    q, k, v = map(arrange, inputs(dtype))
    want = attention(q, k, v, causal=True)
    got = attention(Foreign(q), Foreign(k), Foreign(v), causal=True)
    assert got.dtype == numpy.dtype(dtype).name and got.shape == want.shape
    assert (got.storage.view(want.dtype) == want).all()


def test_result_goes_on_by_dlpack_and_back_in():
    q, k, v = inputs(numpy.float32)
    o, lse = attention(Foreign(q), Foreign(k), Foreign(v), return_lse=True)
    assert (numpy.from_dlpack(o) == attention(q, k, v)).all()
    assert numpy.from_dlpack(lse).shape == (2, 4, 6)
    assert (attention(o, k, v).storage == attention(attention(q, k, v), k, v)).all()


def test_nothing_is_kept_after_the_call():
    q, k, v = map(Foreign, inputs(numpy.float32))
    gc.collect()
    before = len(_arrays._exported)
    o = attention(q, k, v)
    consumed = numpy.from_dlpack(o)
    unconsumed = o.__dlpack__()
    assert len(_arrays._exported) == before + 2
    del consumed, unconsumed, o
    gc.collect()
    assert len(_arrays._exported) == before


def test_the_memory_outlives_the_array():
    q, k, v = inputs(numpy.float32)
    want = attention(q, k, v)
    consumed = numpy.from_dlpack(attention(*map(Foreign, (q, k, v))))
    gc.collect()
    assert (consumed == want).all()


def test_masks_and_small_parameters():
    q, k, v = inputs(numpy.float32)
    mask = numpy.random.default_rng(1).random((2, 1, 6, 6)) < 0.5
    slopes = numpy.array([1, 0.5, 0.25, 0.125], numpy.float32)
    want = attention(q, k, v, mask=mask, alibi_slopes=slopes)
    assert (attention(q, k, v, mask=Foreign(mask), alibi_slopes=Foreign(slopes)) == want).all()


def test_another_device():
    q, k, v = inputs(numpy.float32)
    with pytest.raises(ArgumentError, match="k is on a device of DLPack type 2.*CPU"):
        attention(q, Foreign(k, device=2), v)


def test_capsule_of_another_type():
    q, k, v = inputs(numpy.float32)
    with pytest.raises(ArgumentError, match="v is of type int64"):
        attention(q, k, Foreign(v.astype("int64")))


def test_struct_is_that_of_dlpack():
    """Offsets of dlpack.h, version 0.x, on a 64-bit machine."""
    tensor = _arrays._DLTensor
    assert [getattr(tensor, name).offset for name, _ in tensor._fields_] == [0, 8, 12, 16, 20, 21, 22, 24, 32, 40]
    assert ctypes.sizeof(_arrays._DLManagedTensor) == 64


def test_torch():
    torch = pytest.importorskip("torch")
    q, k, v = (torch.randn(1, 6, 4, 16, dtype=torch.bfloat16) for _ in range(3))
    o = attention(q, k, v)
    assert isinstance(o, torch.Tensor) and o.dtype == torch.bfloat16
    want = torch.nn.functional.scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v)))
    assert (o.double() - want.transpose(1, 2)).abs().max() <= 2.0 ** -7 * v.abs().max()


class Versioned:
    """numpy's own DLPack 1.0, which knows read-only memory."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, *, max_version=None):
        return self.array.__dlpack__(max_version=max_version)


def test_read_only_memory_is_read_and_never_written():
    q, k, v = inputs(numpy.float32)
    want = attention(q, k, v)
    for x in (q, k, v):
        x.flags.writeable = False
    assert (numpy.asarray(attention(*map(Versioned, (q, k, v))).storage) == want).all()
    with pytest.raises(ArgumentError, match="out .*writable"):
        attention(q, k, v, out=Versioned(q))
    out = numpy.zeros_like(q)
    attention(q, k, v, out=Versioned(out))
    assert (out == want).all()
