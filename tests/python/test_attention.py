"""fastattention.attention and flash_attn_func against attention in numpy float64."""
import concurrent.futures
import json

import ml_dtypes
import numpy
import pytest

import fastattention
from fastattention import attention, flash_attn_func
from float64_attention import attention as reference

TYPES = {"f32": numpy.float32, "f16": numpy.float16, "bf16": ml_dtypes.bfloat16}
# max|error| / max|v|: fp32 from the project's goal; the 16-bit types round p and o, each by half a unit in the last
# place, and their inputs are exact in the reference: two roundings of 2^-9 (bf16) and 2^-12 (f16), doubled.
TOLERANCE = {"f32": 1e-5, "f16": 2.0 ** -10, "bf16": 2.0 ** -7}


def random(rng, *shape, dtype="f32"):
    return rng.standard_normal(shape, numpy.float32).astype(TYPES[dtype])


def qkv(rng, b=2, sq=5, skv=9, hq=4, hkv=2, d=16, dv=None, dtype="f32"):
    return (random(rng, b, sq, hq, d, dtype=dtype), random(rng, b, skv, hkv, d, dtype=dtype),
            random(rng, b, skv, hkv, dv or d, dtype=dtype))


def assert_close(got, want, v, dtype="f32"):
    assert got.shape == want.shape
    error = abs(got.astype("float64") - want).max(initial=0)
    assert error <= TOLERANCE[dtype] * abs(v.astype("float64")).max()


@pytest.fixture
def rng():
    return numpy.random.default_rng(20260101)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 5, 9, 4, 2, 16), (1, 33, 65, 6, 1, 40), (1, 1, 300, 8, 2, 64),
                                   (1, 130, 130, 2, 2, 128), (1, 9, 3, 2, 1, 8)])
@pytest.mark.parametrize("causal", [False, True])
def test_flash_attn_func(rng, dtype, shape, causal):
    q, k, v = qkv(rng, *shape, dtype=dtype)
    out = flash_attn_func(q, k, v, causal=causal)
    assert out.dtype == q.dtype
    assert_close(out, reference(q, k, v, causal=causal)[0], v, dtype)


FEATURES = {
    "scale": dict(scale=0.3),
    "negative scale": dict(scale=-0.2),
    "window": dict(window=(3, 1)),
    "left window": dict(window=(4, -1), causal=True),
    "softcap": dict(softcap=1.5),
    "alibi": dict(alibi_slopes=[0.5, 0.25, 0.125, 0.0]),
    "alibi a batch": dict(alibi_slopes=[[0.5, 0.25, 0.125, 0.0], [0.1, 0.2, 0.3, 0.4]]),
    "sinks": dict(sinks=[0.0, 1.0, -2.0, 5.0]),
    "all at once": dict(scale=0.2, softcap=2.0, window=(5, 2), alibi_slopes=[0.5, 0.25, 0.125, 1.0], causal=True,
                        sinks=[0.0, 1.0, -2.0, 5.0]),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features(rng, name):
    q, k, v = qkv(rng)
    o, lse = attention(q, k, v, return_lse=True, **FEATURES[name])
    want, want_lse = reference(q, k, v, **FEATURES[name])
    assert_close(o, want, v)
    numpy.testing.assert_allclose(lse, want_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 5, 9), (1, 1, 5, 9), (2, 1, 1, 9), (4, 5, 9), (5, 9), (9,)])
def test_bias_and_mask_broadcast(rng, shape):
    q, k, v = qkv(rng)
    bias, mask = random(rng, *shape), rng.random(shape) < 0.7
    assert_close(attention(q, k, v, bias=bias), reference(q, k, v, bias=bias)[0], v)
    assert_close(attention(q, k, v, mask=mask), reference(q, k, v, mask=mask)[0], v)
    assert_close(attention(q, k, v, mask=mask.astype("uint8") * 7), reference(q, k, v, mask=mask)[0], v)


def test_value_head_size_of_its_own(rng):
    q, k, v = qkv(rng, d=24, dv=10)
    assert_close(attention(q, k, v), reference(q, k, v)[0], v)


def test_rows_without_a_key(rng):
    q, k, v = qkv(rng, sq=6, skv=3)
    o, lse = attention(q, k, v, causal=True, return_lse=True)
    assert (o[:, :3] == 0).all() and (lse[:, :, :3] == -numpy.inf).all() and numpy.isfinite(lse[:, :, 3:]).all()
    out, flash_lse, probabilities = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert (out == o).all() and (flash_lse[:, :, :3] == numpy.inf).all() and probabilities is None


def test_no_keys_and_no_queries(rng):
    q, k, v = qkv(rng, skv=0)
    assert (attention(q, k, v) == 0).all()
    q, k, v = qkv(rng, sq=0)
    assert attention(q, k, v).shape == (2, 0, 4, 16)


STRIDED = {
    "bhsd memory": lambda x: numpy.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
    "sbhd memory": lambda x: numpy.ascontiguousarray(x.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3),
    "part of a larger array": lambda x: numpy.pad(x, ((1, 1), (2, 0), (0, 1), (3, 5)))[1:-1, 2:, :-1, 3:-5],
    "backwards": lambda x: numpy.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "innermost not 1": lambda x: numpy.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2),
    "every other": lambda x: numpy.repeat(x, 2, axis=3)[..., ::2],
    "innermost backwards": lambda x: numpy.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "read-only": lambda x: numpy.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: numpy.frombuffer(b"x" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", STRIDED)
def test_strides(rng, name, dtype):
    q, k, v = qkv(rng, dtype=dtype)
    want = attention(q, k, v, causal=True)
    assert (attention(*map(STRIDED[name], (q, k, v)), causal=True) == want).all()


def test_broadcast_batch(rng):
    q, k, v = qkv(rng)
    k, v = (numpy.broadcast_to(x[:1], x.shape) for x in (k, v))
    assert_close(attention(q, k, v), reference(q, k, v)[0], v)


def test_layout_bhsd(rng):
    q, k, v = qkv(rng)
    want = attention(q, k, v)
    got = attention(*(x.transpose(0, 2, 1, 3) for x in (q, k, v)), layout="bhsd")
    assert (got.transpose(0, 2, 1, 3) == want).all()


def test_out(rng):
    q, k, v = qkv(rng)
    out = numpy.full((2, 5, 8, 16), 7, numpy.float32)[:, :, ::2]
    assert attention(q, k, v, out=out) is out
    assert (out == attention(q, k, v)).all()


def test_ragged(rng):
    ends_q, ends_kv = [0, 3, 3, 10], [0, 5, 6, 20]
    q, k, v = random(rng, 10, 4, 16), random(rng, 20, 2, 16), random(rng, 20, 2, 16)
    o, lse = attention(q, k, v, cu_seqlens_q=ends_q, cu_seqlens_kv=numpy.array(ends_kv, "int64"), causal=True,
                       return_lse=True)
    assert o.shape == q.shape and lse.shape == (4, 10)
    for a, b, c, d in zip(ends_q, ends_q[1:], ends_kv, ends_kv[1:]):
        want, want_lse = reference(q[None, a:b], k[None, c:d], v[None, c:d], causal=True)
        assert_close(o[a:b], want[0], v)
        numpy.testing.assert_allclose(lse[:, a:b], want_lse[0], rtol=1e-5, atol=1e-5)


def paged(rng, lengths, pages=7, slots=4, heads=2, dim=16):
    """(k pages, v pages, table, k, v as plain lists); unused slots and pages hold NaN, unused entries nonsense."""
    k, v = (numpy.full((pages, slots, heads, dim), numpy.nan, numpy.float32) for _ in "kv")
    free = list(rng.permutation(pages))
    table = numpy.full((len(lengths), 3), 2**30, numpy.int32)
    plain = []
    for b, length in enumerate(lengths):
        rows = random(rng, 2, length, heads, dim)
        plain.append(rows)
        for page in range(-(-length // slots)):
            table[b, page] = free.pop()
            part = rows[:, page * slots:(page + 1) * slots]
            k[table[b, page], :part.shape[1]], v[table[b, page], :part.shape[1]] = part
    return k, v, table, plain


def test_paged(rng):
    lengths = [9, 4, 1]
    k, v, table, plain = paged(rng, lengths)
    q = random(rng, 3, 2, 4, 16)
    o = attention(q, k, v, page_table=table, seqlens_kv=lengths, causal=True)
    for b in range(3):
        want, _ = reference(q[b:b + 1], plain[b][:1], plain[b][1:], causal=True)
        assert_close(o[b:b + 1], want, plain[b][1])


def test_seqlens(rng):
    q, k, v = qkv(rng)
    k[0, 4:], v[0, 4:] = numpy.nan, numpy.nan
    o = attention(q, k, v, seqlens_kv=[4, 9])
    assert_close(o[:1], reference(q[:1], k[:1, :4], v[:1, :4])[0], v[:1, :4])
    assert_close(o[1:], reference(q[1:], k[1:], v[1:])[0], v[1:])


def test_appending_with_rotary(rng):
    q, k_new, v_new = qkv(rng, sq=2, skv=2)
    k, v = numpy.full((2, 12, 2, 16), numpy.nan, numpy.float32), numpy.full((2, 12, 2, 16), numpy.nan, numpy.float32)
    lengths = [6, 3]
    for b, n in enumerate(lengths):
        k[b, :n], v[b, :n] = random(rng, n, 2, 16), random(rng, n, 2, 16)
    angle = numpy.arange(12)[:, None] / 100.0 ** (numpy.arange(8) / 8)
    cos, sin = numpy.cos(angle), numpy.sin(angle)

    def rotate(x, start):  # x [n, heads, 16]: pairs (d, d + 8)
        c, s = (t[start:start + len(x), None] for t in (cos, sin))
        return numpy.concatenate([x[..., :8] * c - x[..., 8:] * s, x[..., :8] * s + x[..., 8:] * c], axis=-1)

    before = k.copy(), v.copy()
    o = attention(q, k, v, seqlens_kv=lengths, k_new=k_new, v_new=v_new, rotary_cos=cos, rotary_sin=sin, causal=True)
    for b, n in enumerate(lengths):
        numpy.testing.assert_allclose(k[b, n:n + 2], rotate(k_new[b], n), rtol=1e-6, atol=1e-6)
        assert (v[b, n:n + 2] == v_new[b]).all() and (k[b, :n] == before[0][b, :n]).all()
        assert numpy.isnan(k[b, n + 2:]).all() and numpy.isnan(v[b, n + 2:]).all()
        want, _ = reference(rotate(q[b], n)[None], k[b:b + 1, :n + 2], v[b:b + 1, :n + 2], causal=True)
        assert_close(o[b:b + 1], want, v[b, :n + 2])


@pytest.mark.parametrize("dtype, limit", [("int8", 127), ("float8_e4m3fn", 448)])
def test_quantised_cache(rng, dtype, limit):
    q, k, v = qkv(rng)
    stored, plain = [], []
    for x in (k, v):
        scale = abs(x).max(axis=3) / limit  # a token and head
        held = (x / scale[..., None])
        held = held.round().astype("int8") if dtype == "int8" else held.astype(ml_dtypes.float8_e4m3fn)
        stored += [held, scale]
        plain.append(held.astype(numpy.float32) * scale[..., None])
    o = attention(q, stored[0], stored[2], k_scale=stored[1], v_scale=stored[3])
    assert_close(o, reference(q, *plain)[0], plain[1])
    o = attention(q, stored[0], stored[2], k_scale=0.01, v_scale=[[[0.5, 2.0]]])
    want = reference(q, stored[0].astype("f4") * 0.01, stored[2].astype("f4") * numpy.array([0.5, 2.0])[:, None])[0]
    assert_close(o, want, stored[2].astype("f4") * 2)


def test_every_kernel_by_name(rng):
    q, k, v = qkv(rng, dtype="bf16", d=64)
    done = []
    for name in fastattention.kernels():
        try:
            o = attention(q, k, v, kernel=name)
        except fastattention.UnsupportedError:
            continue
        done.append(name)
        assert_close(o, reference(q, k, v)[0], v, "bf16")
    assert done


def test_kernels_are_those_of_the_device(fastattn):
    info = json.loads(fastattn("info", "--json", "-").stdout)["kernels"]
    for device in ("cpu", "cuda", "abacus"):
        here = [kernel for kernel in info if kernel["device"] == device and kernel["available"]]
        ordered = sorted(here, key=lambda kernel: kernel["baseline"])
        assert fastattention.kernels(device) == [kernel["name"] for kernel in ordered]
    assert fastattention.kernels("cpu:0") == fastattention.kernels("cpu")
    assert "prefill_c" in fastattention.kernels() == fastattention.kernels("cpu")


def test_threads_share_plans_and_get_the_same_bits(rng):
    problems = [qkv(rng, sq=n, skv=40 + n, d=32) for n in (1, 7, 20)]
    want = [attention(*p, causal=True, threads=1) for p in problems]

    def work(index):
        return all((attention(*p, causal=True, threads=1) == w).all() for p, w in zip(problems, want))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_more_problems_than_plans_are_kept(rng):
    for n in range(1, 160):
        q, k, v = qkv(rng, b=1, sq=1, skv=n, hq=1, hkv=1, d=4)
        assert_close(attention(q, k, v), reference(q, k, v)[0], v)
