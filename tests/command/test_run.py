"""`fastattn run` against a float64 attention over features, layouts and types."""
import json

import numpy
import pytest

from arrays_reference import attention, bf16

# float32: exact to the project's promise. The 16-bit types round P and o as well (8 and 11 bits).
LIMIT = {"f32": 1e-5, "f16": 2.0 ** -9, "bf16": 2.0 ** -6}


class Case:
    def __init__(self, fastattn, tmp_path, seed=7):
        self.fastattn, self.folder = fastattn, tmp_path
        self.random = numpy.random.default_rng(seed)
        self.arguments = []

    def array(self, *shape, dtype="f4"):
        return self.random.standard_normal(shape).astype(dtype)

    def save(self, flag, array):
        path = self.folder / f"{flag}.npy"
        numpy.save(path, array)
        self.arguments += [f"--{flag}", path]
        return array

    def qkv(self, b, sq, skv, hq, hkv, d, dv=None, dtype="f4", layout="bshd"):
        self.q, self.k, self.v = self.array(b, sq, hq, d, dtype=dtype), self.array(b, skv, hkv, d, dtype=dtype), \
            self.array(b, skv, hkv, dv or d, dtype=dtype)
        if layout == "bhsd":
            self.q, self.k, self.v = (numpy.ascontiguousarray(x.swapaxes(1, 2)) for x in (self.q, self.k, self.v))
            self.arguments += ["--layout", "bhsd"]
        for flag in "qkv":
            self.save(flag, getattr(self, flag))

    def run(self, *more):
        out, lse = self.folder / "o.npy", self.folder / "lse.npy"
        done = self.fastattn("run", *self.arguments, "--out", out, "--lse", lse, *more)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return numpy.load(out), numpy.load(lse)

    def check(self, expected, dtype="f32", more=(), values=None):
        o, lse = self.run(*more)
        expected_o, expected_lse = expected
        assert o.shape == expected_o.shape and lse.shape == expected_lse.shape
        assert o.dtype == ("f2" if dtype == "f16" else "f4") and lse.dtype == "f4"
        largest = abs(self.v if values is None else values).max()
        assert abs(o - expected_o).max() <= LIMIT[dtype] * largest
        empty = numpy.isneginf(expected_lse)
        assert (numpy.isneginf(lse) == empty).all()
        if not empty.all():
            assert abs(lse[~empty] - expected_lse[~empty]).max() <= (1e-4 if dtype == "f32" else 3e-2)
        return o


@pytest.fixture
def case(fastattn, tmp_path):
    return Case(fastattn, tmp_path)


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 5, 7, 4, 2, 16), (1, 70, 130, 6, 1, 40), (3, 33, 17, 3, 3, 65),
                                   (1, 128, 128, 8, 8, 64), (1, 1, 300, 8, 2, 128)])
def test_shapes_and_layouts(case, shape, layout):
    case.qkv(*shape, layout=layout)
    case.check(attention(case.q, case.k, case.v, layout=layout))


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
def test_head_size_of_v_differs(case, layout):
    case.qkv(2, 20, 30, 4, 2, 48, dv=24, layout=layout)
    case.check(attention(case.q, case.k, case.v, layout=layout))


@pytest.mark.parametrize("queries, keys", [(40, 40), (10, 50), (50, 10), (1, 64)])
def test_causal_is_bottom_right(case, queries, keys):
    case.qkv(1, queries, keys, 2, 1, 32)
    case.check(attention(case.q, case.k, case.v, causal=True), more=["--causal"])


@pytest.mark.parametrize("window", [(3, 0), (0, 0), (-1, 5), (8, -1), (2, 2), (100, 100)])
def test_window(case, window):
    case.qkv(1, 37, 41, 2, 2, 24)
    case.check(attention(case.q, case.k, case.v, window=window), more=["--window", f"{window[0]},{window[1]}"])


def test_softcap_and_scale(case):
    case.qkv(1, 19, 23, 2, 2, 16)
    case.check(attention(case.q, case.k, case.v, softcap=2.5, scale=-0.7), more=["--softcap", "2.5", "--scale", "-0.7"])


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_alibi(case, shape):
    case.qkv(2, 21, 31, 4, 2, 16)
    slopes = case.save("alibi", abs(case.array(*shape)))
    case.check(attention(case.q, case.k, case.v, slopes=slopes, causal=True), more=["--causal"])


@pytest.mark.parametrize("shape", [(2, 4, 21, 31), (1, 1, 21, 31), (2, 1, 1, 31), (1, 4, 21, 31), (21, 31), (4, 1, 31)])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_bias_broadcasts(case, shape, dtype):
    case.qkv(2, 21, 31, 4, 2, 16)
    bias = case.save("bias", case.array(*shape, dtype=dtype))
    case.check(attention(case.q, case.k, case.v, bias=bias))


@pytest.mark.parametrize("dtype", ["bool", "u1"])
@pytest.mark.parametrize("shape", [(2, 4, 21, 31), (1, 1, 21, 31), (2, 1, 1, 31), (21, 31)])
def test_mask_selects(case, shape, dtype):
    case.qkv(2, 21, 31, 4, 2, 16)
    keep = case.array(*shape) > 0
    keep[..., :7, :] = keep[..., :7, :] & (shape[-2] == 1)  # rows that keep nothing
    case.save("mask", keep if dtype == "bool" else keep.astype("u1") * 9)
    o = case.check(attention(case.q, case.k, case.v, mask=keep))
    if shape[-2] == 21:
        assert (o[:, :7] == 0).all()


def test_what_is_masked_out_may_be_nan(case):
    case.qkv(1, 8, 12, 2, 2, 16)
    expected = attention(case.q, case.k[:, :9], case.v[:, :9])
    case.k[:, 9:], case.v[:, 9:] = numpy.nan, numpy.inf
    case.save("k", case.k), case.save("v", case.v)
    case.save("mask", numpy.arange(12)[None, :].repeat(8, 0) < 9)
    case.check(expected, values=case.v[:, :9])


def test_sinks(case):
    case.qkv(2, 12, 9, 4, 2, 16)
    sinks = case.save("sinks", 2 * case.array(4))
    case.check(attention(case.q, case.k, case.v, sinks=sinks, causal=True), more=["--causal"])


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
@pytest.mark.parametrize("integer", ["i4", "i8"])
def test_ragged(case, layout, integer):
    cu_q, cu_k = numpy.array([0, 5, 5, 29, 30], integer), numpy.array([0, 11, 20, 20, 53], integer)
    case.q, case.k, case.v = case.array(30, 6, 24), case.array(53, 2, 24), case.array(53, 2, 24)
    if layout == "bhsd":
        case.q, case.k, case.v = (numpy.ascontiguousarray(x.swapaxes(0, 1)) for x in (case.q, case.k, case.v))
    for flag in "qkv":
        case.save(flag, getattr(case, flag))
    case.save("cu-seqlens-q", cu_q), case.save("cu-seqlens-k", cu_k)
    case.check(attention(case.q, case.k, case.v, layout=layout, cu_q=cu_q, cu_k=cu_k, causal=True),
               more=["--causal", "--layout", layout])


def test_everything_at_once(case):
    case.qkv(2, 45, 67, 6, 2, 40, dv=56)
    rules = dict(slopes=case.save("alibi", abs(case.array(2, 6))), bias=case.save("bias", case.array(1, 6, 45, 67)),
                 mask=case.save("mask", case.array(2, 1, 45, 67) > -0.5), sinks=case.save("sinks", case.array(6)))
    case.check(attention(case.q, case.k, case.v, causal=True, window=(30, 2), softcap=4.0, scale=0.3, **rules),
               more=["--causal", "--window", "30,2", "--softcap", "4", "--scale", "0.3"])


@pytest.mark.parametrize("splits", [1, 2, 7])
def test_kv_splits(case, splits):
    case.qkv(1, 3, 500, 4, 2, 64)
    case.check(attention(case.q, case.k, case.v, causal=True), more=["--causal", "--kv-splits", splits])


@pytest.mark.parametrize("causal", [[], ["--causal"]])
def test_float16_files_compute_and_write_float16(case, causal):
    case.qkv(2, 70, 90, 4, 2, 64, dtype="f2")
    case.check(attention(case.q, case.k, case.v, causal=bool(causal)), dtype="f16", more=causal)


@pytest.mark.parametrize("queries", [1, 70])
def test_bfloat16_from_float32_files(case, queries):
    case.qkv(1, queries, 90, 4, 2, 64)
    case.check(attention(*map(bf16, (case.q, case.k, case.v))), dtype="bf16", more=["--dtype", "bf16"])


def test_dtype_converts(case):
    case.qkv(1, 20, 20, 2, 2, 32, dtype="f2")
    case.check(attention(case.q, case.k, case.v), dtype="f32", more=["--dtype", "f32"])
    case.arguments.clear()
    case.qkv(1, 20, 20, 2, 2, 32)
    case.check(attention(*(x.astype("f2") for x in (case.q, case.k, case.v))), dtype="f16", more=["--dtype", "f16"])


def test_infinities_and_subnormals_of_float16_survive(case):
    case.qkv(1, 1, 1, 1, 1, 8, dtype="f2")
    case.v[...] = numpy.array([numpy.inf, -numpy.inf, 6e-8, -6e-8, 65504, -65504, 6.1e-5, 0], "f2")
    case.save("v", case.v)
    o, _ = case.run()
    assert (o == case.v).all()
    o, _ = case.run("--dtype", "f32")
    assert (o == case.v.astype("f4")).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(case, threads):
    case.qkv(1, 50, 60, 4, 4, 32)
    case.check(attention(case.q, case.k, case.v), more=["--threads", threads])


def families(fastattn):
    kernels = json.loads(fastattn("info", "--json", "-").stdout)["kernels"]
    return sorted({k["arch"] for k in kernels if k["available"] and k["device"] == "cpu"})


def test_every_family_that_takes_it_agrees(case, fastattn):
    case.qkv(1, 130, 150, 4, 2, 64)
    expected = attention(case.q, case.k, case.v, causal=True)
    for family in families(fastattn):
        out = case.folder / f"{family}.npy"
        done = fastattn("run", *case.arguments, "--out", out, "--causal", "--kernel", family)
        if done.returncode == 0:
            assert abs(numpy.load(out) - expected[0]).max() <= 1e-5 * abs(case.v).max(), family
        else:
            assert done.returncode == 1 and "does not do" in done.stderr and not out.exists(), family


def test_the_same_inputs_give_the_same_bits(case):
    case.qkv(2, 100, 120, 4, 2, 64)
    first, second = case.run("--causal"), case.run("--causal")
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(case, version):
    case.qkv(1, 5, 6, 2, 2, 8)
    for flag in "qkv":
        with open(case.folder / f"{flag}.npy", "wb") as file:
            numpy.lib.format.write_array(file, getattr(case, flag), version=version)
    case.check(attention(case.q, case.k, case.v))


def test_our_npy_is_numpys_own(case):
    """Byte for byte what numpy.save writes."""
    case.qkv(1, 5, 6, 2, 2, 8)
    o, _ = case.run()
    numpy.save(case.folder / "again.npy", o)
    assert (case.folder / "again.npy").read_bytes() == (case.folder / "o.npy").read_bytes()


def test_text_says_what_was_written(case):
    case.qkv(1, 5, 6, 2, 2, 8)
    done = case.fastattn("run", *case.arguments, "--out", case.folder / "o.npy")
    assert done.returncode == 0 and "float32 (1, 5, 2, 8)" in done.stdout and "kernel " in done.stdout


def test_json_row(case, tmp_path):
    case.qkv(1, 5, 6, 2, 1, 8)
    for where in ("-", tmp_path / "run.json"):
        done = case.fastattn("run", *case.arguments, "--out", tmp_path / "o.npy", "--causal", "--json", where)
        assert done.returncode == 0
        rows = json.loads(done.stdout if where == "-" else where.read_text())
        assert len(rows) == 1
        assert rows[0]["op"] == "run" and rows[0]["shape"] == [1, 2, 1, 5, 6, 8, 8] and rows[0]["causal"] is True
        assert rows[0]["dtype"] == "f32" and rows[0]["kernel"] and rows[0]["ms"] >= 0 and rows[0]["threads"] >= 1


def test_output_replaces_a_file_and_keeps_its_neighbours(case):
    case.qkv(1, 5, 6, 2, 2, 8)
    (case.folder / "o.npy").write_text("old")
    before = {path.name for path in case.folder.iterdir()} | {"lse.npy"}
    case.run()
    assert {path.name for path in case.folder.iterdir()} == before
    assert (case.folder / "o.npy").stat().st_mode & 0o777 == (case.folder / "q.npy").stat().st_mode & 0o777


def test_output_may_be_one_of_the_inputs(case):
    case.qkv(1, 5, 6, 2, 2, 8)
    done = case.fastattn("run", *case.arguments, "--out", case.folder / "q.npy")
    assert done.returncode == 0
    assert abs(numpy.load(case.folder / "q.npy") - attention(case.q, case.k, case.v)[0]).max() < 1e-4


def test_output_to_a_device_and_to_standard_output(case):
    case.qkv(1, 5, 6, 2, 2, 8)
    assert case.fastattn("run", *case.arguments, "--out", "/dev/null").returncode == 0
    done = case.fastattn("run", *case.arguments, "--out", "-")
    assert done.returncode == 0 and "NUMPY" in done.stdout[:8] and "kernel" not in done.stdout
