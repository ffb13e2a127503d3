"""Every wrong argument gives one line that names it, what was given and what is allowed."""
import numpy
import pytest

import fastattention
from fastattention import ArgumentError, UnsupportedError, attention, flash_attn_func


def zeros(*shape, dtype=numpy.float32):
    return numpy.zeros(shape, dtype)


Q, K, V = zeros(2, 5, 4, 16), zeros(2, 9, 2, 16), zeros(2, 9, 2, 16)
CASES = {
    "not an array": (dict(q=[[1.0]]), "q is a list.*__dlpack__"),
    "float64": (dict(q=Q.astype("f8")), "q is of type float64.*float32 or float16 or bfloat16"),
    "big-endian": (dict(k=K.astype(">f4")), "k is of type >f4"),
    "integers": (dict(v=V.astype("i4")), "v is of type int32"),
    "complex": (dict(v=V.astype("c8")), "v is of type complex64"),
    "rank": (dict(q=Q[0]), r"q has 3 dimensions \(5, 4, 16\).*4"),
    "mixed types": (dict(q=Q.astype("f2")), "float16, float32 and float32"),
    "int8 without scales": (dict(k=K.astype("i1"), v=V.astype("i1")), "k is of type int8"),
    "one scale": (dict(k=K.astype("i1"), v=V.astype("i1"), k_scale=1.0), "v_scale is missing"),
    "scale's shape": (dict(k=K.astype("i1"), v=V.astype("i1"), k_scale=zeros(3), v_scale=1.0), r"k_scale.*\(3,\).*\(2, 9, 2\)"),
    "key head size": (dict(k=K[..., :8]), r"k has the shape \(2, 9, 2, 8\)"),
    "lengths of k and v": (dict(v=V[:, :8]), r"v \(2, 8, 2, 16\)"),
    "heads of k and v": (dict(v=V[:, :, :1]), r"v \(2, 9, 1, 16\)"),
    "batch": (dict(k=K[:1], v=V[:1]), "q holds 2 sequences and k 1"),
    "heads do not divide": (dict(q=Q[:, :, :3]), "heads"),
    "head size": (dict(q=zeros(2, 5, 4, 600), k=zeros(2, 9, 2, 600)), "600"),
    "no head": (dict(q=Q[:, :, :0]), "heads"),
    "layout": (dict(layout="shbd"), "shbd.*bshd.*bhsd"),
    "NaN scale": (dict(scale=float("nan")), "scale"),
    "zero scale": (dict(scale=0.0), "scale is 0"),
    "infinite softcap": (dict(softcap=float("inf")), "softcap"),
    "negative softcap": (dict(softcap=-1.0), "softcap"),
    "window": (dict(window=(-2, 0)), "window"),
    "slopes": (dict(alibi_slopes=zeros(3)), r"alibi_slopes.*\(3,\).*\(4,\)"),
    "slopes' type": (dict(alibi_slopes=["a"] * 4), "alibi_slopes is of type"),
    "sinks": (dict(sinks=zeros(2)), r"sinks.*\(2,\).*\(4,\)"),
    "bias' shape": (dict(bias=zeros(5, 8)), r"bias has the shape \(5, 8\).*\(2, 4, 5, 9\)"),
    "bias' rank": (dict(bias=zeros(1, 1, 1, 5, 9)), "bias has the shape"),
    "bias without keys": (dict(bias=zeros(5, 1)), "bias has the shape"),
    "bias' type": (dict(bias=zeros(5, 9, dtype="f8")), "bias is of type float64"),
    "mask's type": (dict(mask=zeros(5, 9)), "mask is of type float32.*bool or uint8"),
    "lengths": (dict(seqlens_kv=[4]), r"seqlens_kv.*\(1,\).*\(2,\)"),
    "length beyond": (dict(seqlens_kv=[4, 10]), "seqlens_kv"),
    "negative length": (dict(seqlens_kv=[-1, 9]), "seqlens_kv"),
    "lengths' type": (dict(seqlens_kv=[4.5, 3]), "seqlens_kv is of type float64"),
    "lengths beyond 32 bits": (dict(seqlens_kv=[2**40, 3]), "seqlens_kv holds values beyond 32 bits"),
    "window of one": (dict(window=(256,)), r"window is \(256,\)"),
    "window of words": (dict(window=("a", 1)), "window is .'a', 1"),
    "window of fractions": (dict(window=(1.5, 1)), "window is"),
    "kernel by number": (dict(kernel=5), "kernel is 5"),
    "scales without need": (dict(k_scale=1.0, v_scale=1.0), "k_scale is given but k and v are float32"),
    "page table's rank": (dict(page_table=[0, 1]), r"page_table has the shape \(2,\)"),
    "page beyond": (dict(page_table=[[0], [2]]), "page"),
    "negative page": (dict(page_table=[[0], [-1]]), "page"),
    "more than the table": (dict(page_table=[[0], [1]], max_seqlen_kv=10), "room for 9"),
    "k_new alone": (dict(k_new=zeros(2, 1, 2, 16)), "together"),
    "k_new's shape": (dict(k_new=zeros(2, 1, 2, 8), v_new=zeros(2, 1, 2, 16), seqlens_kv=[1, 1]), "k_new has the shape"),
    "unequal news": (dict(k_new=zeros(2, 1, 2, 16), v_new=zeros(2, 2, 2, 16), seqlens_kv=[1, 1]), "v_new has the shape"),
    "appending without lengths": (dict(k_new=zeros(2, 1, 2, 16), v_new=zeros(2, 1, 2, 16)), "seqlens_kv"),
    "rotary alone": (dict(rotary_cos=zeros(9, 8)), "together"),
    "out's shape": (dict(out=zeros(2, 5, 4, 8)), r"out has the shape \(2, 5, 4, 8\)"),
    "out's type": (dict(out=Q.astype("f2")), "out is of type float16"),
    "out read-only": (dict(out=numpy.frombuffer(Q.tobytes(), "f4").reshape(Q.shape)), "writable"),
    "out overlapping itself": (dict(out=numpy.lib.stride_tricks.as_strided(Q.copy(), Q.shape, (0, 0, 0, 4))), "o"),
    "kernel": (dict(kernel="no_such_kernel"), "no_such_kernel"),
    "device": (dict(device="abacus"), "abacus"),
    "threads": (dict(threads=-1), "threads"),
    "splits": (dict(kv_splits=-1), "kv_splits"),
}


@pytest.mark.parametrize("name", CASES)
def test_line(name):
    change, pattern = CASES[name]
    with pytest.raises((ArgumentError, UnsupportedError), match=pattern) as caught:
        attention(**{"q": Q, "k": K, "v": V, **change})
    assert "\n" not in str(caught.value) and str(caught.value)


def test_ragged_lines():
    q, k = zeros(10, 4, 16), zeros(12, 2, 16)
    for ends, pattern in (([0], "cu_seqlens_q"), ([0, 11], "cu_seqlens_q"), ([0, 5, 3], "cu_seqlens_q"),
                          ([1, 10], "cu_seqlens_q"), ([[0, 10]], "cu_seqlens_q")):
        with pytest.raises(ArgumentError, match=pattern):
            attention(q, k, k, cu_seqlens_q=ends, cu_seqlens_kv=[0, 12] if len(ends) != 3 else [0, 6, 12])


def test_dropout():
    with pytest.raises(UnsupportedError, match="dropout_p is 0.1"):
        flash_attn_func(Q, K, V, dropout_p=0.1)


def test_exceptions_are_also_the_builtin_ones():
    assert issubclass(ArgumentError, ValueError) and issubclass(UnsupportedError, NotImplementedError)
    assert issubclass(fastattention.OutOfMemoryError, MemoryError)
    with pytest.raises(ValueError):
        attention(Q, K, V, scale=float("inf"))


def test_appending_to_a_cache_that_cannot_be_written():
    new = zeros(2, 1, 2, 16)
    frozen = K.copy()
    frozen.flags.writeable = False
    for cache in (frozen, numpy.asfortranarray(K)):
        with pytest.raises(ArgumentError, match="k is appended to in place"):
            attention(Q[:, :1], cache, V.copy(), k_new=new, v_new=new, seqlens_kv=[1, 1])


def test_nothing_is_written_on_error():
    out = numpy.full(Q.shape, 7, numpy.float32)
    with pytest.raises(ArgumentError):
        attention(Q, K, V, out=out, seqlens_kv=[4, 10])
    assert (out == 7).all()


def test_appended_scales_must_be_the_callers_own():
    new, cache = zeros(2, 1, 2, 16), zeros(2, 9, 2, 16, dtype=numpy.int8)
    frozen = numpy.ones((2, 9, 2), numpy.float32)
    frozen.flags.writeable = False
    for scale in (numpy.ones((2, 9, 2)), frozen, [[[1.0, 1.0]]]):
        with pytest.raises(ArgumentError, match="k_scale.*appending stores scales"):
            attention(Q[:, :1], cache, cache.copy(), k_new=new, v_new=new, seqlens_kv=[1, 1], k_scale=scale,
                      v_scale=numpy.ones((2, 9, 2), numpy.float32))
