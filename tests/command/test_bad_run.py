"""Bad input to `fastattn run`: one line on standard error, the right exit code, nothing written."""
import os
import resource
import struct

import numpy
import pytest


@pytest.fixture
def folder(tmp_path):
    random = numpy.random.default_rng(1)
    for name, shape in {"q": (2, 5, 4, 8), "k": (2, 7, 2, 8), "v": (2, 7, 2, 8)}.items():
        numpy.save(tmp_path / f"{name}.npy", random.standard_normal(shape).astype("f4"))
    return tmp_path


@pytest.fixture
def refused(fastattn, folder):
    """refused(code, *more, says=...): the run fails as it should. Options given later win over the good ones."""

    def call(code, *more, says=(), without=(), **options):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        files = {"q": "q.npy", "k": "k.npy", "v": "v.npy", "out": "o.npy"}
        given = {f"--{flag}": folder / name for flag, name in files.items() if flag not in without}
        arguments = [word for both in given.items() for word in both]
        done = fastattn("run", *arguments, *more, **options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert done.stderr.startswith("fastattn run: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
        for words in [says] if isinstance(says, str) else says:
            assert words in done.stderr, done.stderr
        assert done.stdout == ""
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return done.stderr

    return call


def save(folder, name, array, **how):
    path = folder / f"bad_{name}.npy"
    numpy.save(path, array, **how)
    return path


# ------------------------------------------------------------------------------------------------ shapes

@pytest.mark.parametrize("name, shape, says", [
    ("q", (2, 5, 4), "bad_q.npy has shape (2, 5, 4)"),
    ("q", (5,), "(batch, seq, heads, dim)"),
    ("q", (), "bad_q.npy has shape ()"),
    ("q", (1, 2, 5, 4, 8), "more than 4 dimensions"),
    ("q", (2, 5, 4, 9), ["head size 9", "k.npy has 8"]),
    ("k", (2, 7, 2, 6), ["head size 8", "bad_k.npy has 6"]),
    ("k", (2, 6, 2, 8), ["length 6", "v.npy has 7"]),
    ("k", (2, 7, 1, 8), "number of heads"),
    ("v", (3, 7, 2, 8), "batch"),
    ("q", (1, 5, 4, 8), "batch"),
    ("q", (2, 5, 3, 8), "multiple"),
    ("q", (2, 0, 4, 8), "empty"),
    ("q", (0, 5, 4, 8), "empty"),
    ("q", (2, 5, 0, 8), "empty"),
    ("q", (2, 5, 4, 0), "empty"),
    ("k", (2, 0, 2, 8), "empty"),
    ("v", (2, 7, 2, 0), "empty"),
])
def test_shapes(refused, folder, name, shape, says):
    refused(2, f"--{name}", save(folder, name, numpy.ones(shape, "f4")), says=says)


def test_head_sizes_beyond_the_largest(refused, folder):
    more = []
    for name, heads in (("q", 4), ("k", 2)):
        more += [f"--{name}", save(folder, name, numpy.ones((2, 7, heads, 577), "f4"))]
    refused(2, *more, says="576")


@pytest.mark.parametrize("flag, shape, dtype", [
    ("alibi", (3,), "f4"), ("alibi", (4, 2), "f4"), ("alibi", (2, 4, 1), "f4"), ("alibi", (), "f4"),
    ("sinks", (2,), "f4"), ("sinks", (2, 4), "f4"),
    ("bias", (2, 4, 5, 6), "f4"), ("bias", (3, 4, 5, 7), "f4"), ("bias", (5, 1), "f4"), ("bias", (), "f4"),
    ("mask", (2, 2, 5, 7), "bool"), ("mask", (7, 5), "bool"), ("mask", (2, 4, 5, 1), "u1"),
])
def test_shapes_of_the_rest(refused, folder, flag, shape, dtype):
    refused(2, f"--{flag}", save(folder, flag, numpy.ones(shape, dtype)), says=f"bad_{flag}.npy has shape")


# ------------------------------------------------------------------------------------------------- types

@pytest.mark.parametrize("dtype", ["f8", "i4", "i8", "bool", "c8", ">f4", "U3", "M8[s]", [("a", "f4"), ("b", "i4")]])
def test_types_of_q(refused, folder, dtype):
    refused(2, "--q", save(folder, "q", numpy.zeros((2, 5, 4, 8), dtype)), says=["bad_q.npy", "float32, float16"])


def test_types_of_qkv_differ(refused, folder):
    refused(2, "--v", save(folder, "v", numpy.ones((2, 7, 2, 8), "f2")), says=["float32", "float16", "one type"])


@pytest.mark.parametrize("flag, shape, dtype", [
    ("alibi", (4,), "f8"), ("alibi", (4,), "f2"), ("sinks", (4,), "i4"), ("bias", (5, 7), "f8"),
    ("mask", (5, 7), "f4"),
    ("mask", (5, 7), "i1"), ("mask", (5, 7), "i4"), ("cu-seqlens-q", (3,), "f4"),
    ("cu-seqlens-k", (3,), "u1"),
])
def test_types_of_the_rest(refused, folder, flag, shape, dtype):
    refused(2, f"--{flag}", save(folder, flag, numpy.ones(shape, dtype)), says="numpy type")


def test_objects_are_not_unpickled(refused, folder):
    path = save(folder, "q", numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(2, "--q", path, says="numpy type '|O'")


def test_fortran_order(refused, folder):
    refused(2, "--q", save(folder, "q", numpy.asfortranarray(numpy.ones((2, 5, 4, 8), "f4"))), says="Fortran order")


# ------------------------------------------------------------------------------------------------ ragged

@pytest.mark.parametrize("lengths, says", [
    ([0, 3, 5], "must end with the 10 rows"), ([0, 3, 11], "has 10 rows"), ([1, 3, 10], "start with 0"),
    ([0, 7, 3, 10], "falls from 7 to 3"), ([0, -3, 10], "falls from 0 to -3"), ([0], "(batch + 1,)"),
    ([], "(batch + 1,)"),
    ([[0, 10]], "(batch + 1,)"), ([0, 2 ** 40], "has 10 rows"), ([-2 ** 63, 10], "start with 0"),
    ([0, 5, 10, 10], "batch"),
])
def test_cumulative_lengths(refused, folder, lengths, says):
    more = ["--q", save(folder, "q", numpy.ones((10, 4, 8), "f4")),
            "--cu-seqlens-q", save(folder, "cu", numpy.array(lengths, "i8"))]
    refused(2, *more, says=says)


def test_ragged_wants_rank_3(refused, folder):
    refused(2, "--cu-seqlens-q", save(folder, "cu", numpy.array([0, 5, 10], "i4")), says="(total, heads, dim)")
    refused(2, "--k", save(folder, "k", numpy.ones((14, 2, 8), "f4")), says="without cumulative lengths")


# ------------------------------------------------------------------------------------------------- files

MAGIC = b"\x93NUMPY"


def header(text, version=1, length=None):
    text = text.encode()
    length = len(text) if length is None else length
    return MAGIC + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", length) + text


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, 4, 8), }\n"


@pytest.mark.parametrize("content", [
    b"", b"\x93", b"\x93NUMP", b"not numpy at all, but some text", b"PK\x03\x04" + b"\0" * 100, MAGIC,
    MAGIC + b"\x01",
    MAGIC + b"\x00\x00\x10\x00", MAGIC + b"\x04\x00\x10\x00\x00\x00", MAGIC + b"\xff\xff\x10\x00",
    MAGIC + b"\x01\x00\xff",
    header(GOOD, length=60000), header(GOOD, version=2, length=2 ** 32 - 1),
    header(GOOD, version=3, length=10 ** 6),
    header(GOOD, length=10), header("", length=0), header("{}"), header("{'descr': '<f4'}"),
    header("[1, 2]"), header("\0" * 64),
    header(GOOD.replace("False", "Maybe")), header(GOOD.replace("'shape'", "'shapes'")),
    header(GOOD.replace("(2, 5, 4, 8)", "(2, 5, 4, 8")),
    header(GOOD.replace("(2, 5, 4, 8)", "(-2, 5, 4, 8)")),
    header(GOOD.replace("(2, 5, 4, 8)", "(2.0, 5, 4, 8)")), header(GOOD.replace("(2, 5, 4, 8)", "'2548'")),
    header(GOOD.replace("(2, 5, 4, 8)", "(99999999999999999999, 5, 4, 8)")),
    header(GOOD.replace("'<f4'", "'<f4")),
    header(GOOD.replace("'<f4'", "'" + "f" * 1000 + "'")), header("{" * 5000), header("{'a" * 2000),
    header(GOOD), header(GOOD) + b"\0" * (2 * 5 * 4 * 8 * 4 - 1),
    header(GOOD.replace("(2, 5, 4, 8)", "(4611686018427387904, 1, 4, 8)")),
    header(GOOD.replace("(2, 5, 4, 8)", "(4294967296, 4294967296, 4294967296, 8)")),
    header(GOOD.replace("(2, 5, 4, 8)", "(9223372036854775807, 9223372036854775807, 2, 2)")),
    header(GOOD.replace("(2, 5, 4, 8)", "(1000000, 1000000, 4, 8)")),
], ids=lambda content: f"{len(content)}_bytes")
def test_files_that_are_not_whole_npy(refused, folder, content):
    path = folder / "bad.npy"
    path.write_bytes(content)
    refused(1, "--q", path, says="bad.npy")


def test_cut_anywhere(fastattn, folder):
    """Every prefix of a good file is refused."""
    whole = (folder / "v.npy").read_bytes()
    cut = folder / "cut.npy"
    for length in list(range(0, 140, 3)) + [len(whole) - 1]:
        cut.write_bytes(whole[:length])
        done = fastattn("run", "--q", folder / "q.npy", "--k", folder / "k.npy", "--v", cut, "--out", folder / "o.npy")
        assert done.returncode == 1 and done.stderr.count("\n") == 1, (length, done.stderr)
        assert not (folder / "o.npy").exists()


def test_damaged_bytes_of_the_header_never_crash(fastattn, folder):
    whole = (folder / "v.npy").read_bytes()
    random = numpy.random.default_rng(5)
    bad = folder / "bad.npy"
    for _ in range(60):
        content = bytearray(whole)
        for at in random.integers(0, 128, random.integers(1, 4)):
            content[at] = random.integers(0, 256)
        bad.write_bytes(content)
        done = fastattn("run", "--q", folder / "q.npy", "--k", folder / "k.npy", "--v", bad, "--out", folder / "o.npy")
        assert done.returncode in (0, 1, 2) and done.stderr.count("\n") == (done.returncode != 0), done
        assert (folder / "o.npy").exists() == (done.returncode == 0)
        (folder / "o.npy").unlink(missing_ok=True)


def test_missing_and_unreadable_files(refused, folder):
    refused(1, "--q", folder / "none.npy", says="No such file")
    refused(1, "--q", folder, says="Is a directory")
    refused(1, "--mask", folder / "none.npy", says="No such file")
    refused(1, "--q", folder / "a\nname\x1b[1m.npy", says="a?name?[1m.npy")


def test_endless_and_empty_devices(refused):
    refused(1, "--q", "/dev/zero", says="not a .npy file")
    refused(1, "--q", "/dev/null", says="not a .npy file")


# ----------------------------------------------------------------------------------------------- outputs

@pytest.mark.parametrize("flag", ["out", "lse", "json"])
def test_unwritable_outputs(refused, folder, flag):
    refused(1, f"--{flag}", folder / "none" / "x", says="cannot write")
    refused(1, f"--{flag}", folder, says="Is a directory")
    refused(1, f"--{flag}", "/proc/x", says="cannot write")
    refused(1, f"--{flag}", folder / ("x" * 250), says="File name too long")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_outputs_without_permission(refused, folder):
    (folder / "locked").mkdir(mode=0o555)
    refused(1, "--out", folder / "locked" / "o.npy", says="Permission denied")


def test_unwritable_before_reading(refused, folder):
    """An unwritable place is said first: reading and computing could take long."""
    refused(1, "--out", folder / "none" / "x", "--q", folder / "none.npy", says="cannot write")


def test_full_device(refused):
    refused(1, "--out", "/dev/full", says=["/dev/full", "No space left"])


def test_outputs_that_collide(refused, folder):
    refused(2, "--lse", folder / "o.npy", says="named twice")
    refused(2, "--out", "-", "--json", "-", says="standard output")


# ----------------------------------------------------------------------------------------------- options

@pytest.mark.parametrize("more, says", [
    (["--scale", "nan"], "--scale"), (["--scale", "inf"], "--scale"), (["--scale", "0"], "--scale"),
    (["--scale", "1e300"], "--scale"), (["--scale", ""], "--scale"), (["--scale", "1x"], "--scale"),
    (["--softcap", "nan"], "softcap"), (["--softcap", "-1"], "softcap"), (["--softcap", "inf"], "softcap"),
    (["--softcap", "x"], "--softcap"),
    (["--window", "1"], "--window"), (["--window", "1,2,3"], "--window"), (["--window", "a,b"], "--window"),
    (["--window", "1,"], "--window"), (["--window", "-2,0"], "window"),
    (["--window", "99999999999999999999,0"], "--window"),
    (["--layout", "sbhd"], "bshd, bhsd"), (["--dtype", "f64"], "f32, f16, bf16"),
    (["--dtype", "int8"], "f32, f16, bf16"),
    (["--device", "tpu"], "unknown device 'tpu'"), (["--device", "cpu:99"], "device"),
    (["--device", ""], "device"),
    (["--kernel", "nonsense"], "unknown kernel 'nonsense'"), (["--threads", "-1"], "threads"),
    (["--threads", "x"], "--threads"), (["--threads", "99999999999"], "--threads"),
    (["--kv-splits", "-1"], "kv_splits"),
    (["--kv-splits", "100000"], "kv_splits"),
    (["--causl"], "did you mean --causal"), (["--nonsense"], "--help"), (["stray"], "'stray'"),
    (["--causal=1"], "--causal"),
    (["--window"], "--window needs a value"),
])
def test_options(refused, more, says):
    code = 1 if more == ["--device", "cpu:99"] else 2
    refused(code, *more, says=says)


@pytest.mark.parametrize("flag", ["q", "k", "v", "out"])
def test_needed_options(refused, flag):
    refused(2, without=[flag], says=f"--{flag} is missing")


def test_kernel_that_lacks_a_feature_says_so(refused, fastattn, folder):
    done = fastattn("run", *[w for f in "qkv" for w in (f"--{f}", folder / f"{f}.npy")], "--out", folder / "o.npy",
                    "--kernel", "prefill_bf16_amx")
    if "unknown kernel" in done.stderr:
        pytest.skip("not an x86 build")
    refused(1, "--kernel", "prefill_bf16_amx", says="prefill_bf16_amx")


# ------------------------------------------------------------------------------------------------ memory

def limit(megabytes):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def sanitized(fastattn):
    """A sanitizer's shadow memory is larger than any limit that would prove something."""
    return fastattn("--version", preexec_fn=limit(1024)).returncode != 0


def test_too_little_memory(refused, fastattn, folder):
    if sanitized(fastattn):
        pytest.skip("a sanitized build")
    large = save(folder, "large", numpy.zeros((2, 4096, 64, 128), "f4"))  # 268 MB
    more = ["--threads", "1", "--k", large, "--v", large, "--q", save(folder, "q", numpy.ones((2, 1, 64, 128), "f4"))]
    for megabytes in (300, 500, 700):
        refused(1, *more, says="memory", preexec_fn=limit(megabytes))


def test_headers_that_promise_more_than_memory(refused, fastattn, folder):
    """A sparse file as large as its header says: the memory is refused, not taken."""
    if sanitized(fastattn):
        pytest.skip("a sanitized build")
    path = folder / "huge.npy"
    with open(path, "wb") as file:
        file.write(header(GOOD.replace("(2, 5, 4, 8)", "(1024, 1024, 64, 8)")))
        file.truncate(file.tell() + 2 ** 31)
    before = path.stat().st_size
    done = fastattn("run", "--q", path, "--k", folder / "k.npy", "--v", folder / "v.npy", "--out", folder / "o.npy",
                    preexec_fn=limit(1024))
    assert done.returncode == 1 and "memory" in done.stderr and done.stderr.count("\n") == 1
    assert path.stat().st_size == before and not (folder / "o.npy").exists()
