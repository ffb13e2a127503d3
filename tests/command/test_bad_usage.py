"""Wrong use of the command itself: one line, exit code 2, and a suggestion where one is near."""
import pytest

SUBCOMMANDS = ["info", "run", "check", "bench", "tune", "report", "generate", "perplexity"]


def refused(done, code, *says):
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("fastattn") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert done.stdout == ""
    for words in says:
        assert words in done.stderr, done.stderr


def test_no_subcommand(fastattn):
    refused(fastattn(), 2, "subcommand", "--help")


@pytest.mark.parametrize("given, meant", [("rnu", "run"), ("chekc", "check"), ("benchmark", None), ("inf", "info"),
                                          ("", None), ("x\ny", None), ("--run", "run"), ("a" * 5000, None)])
def test_unknown_subcommand(fastattn, given, meant):
    refused(fastattn(given), 2, "unknown subcommand", f"did you mean {meant}" if meant else "--help")


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_unknown_option(fastattn, subcommand):
    done = fastattn(subcommand, "--thread", "1")
    if "not in this build" in done.stderr:
        pytest.skip("built without the model runner")
    refused(done, 2, f"fastattn {subcommand}: unknown option --thread; did you mean --threads?")
    refused(fastattn(subcommand, "--zzzzzz=1"), 2, f"unknown option --zzzzzz; `fastattn {subcommand} --help`")
    refused(fastattn(subcommand, "-Z"), 2, "unknown option -Z")


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_option_without_its_value(fastattn, subcommand):
    done = fastattn(subcommand, "--threads")
    if "not in this build" in done.stderr:
        pytest.skip("built without the model runner")
    refused(done, 2, "--threads needs a value")


@pytest.mark.parametrize("more, code, says", [
    (["--device", "tpu"], 2, "unknown device 'tpu'"), (["--threads", "-2"], 2, "threads"), (["x"], 2, "'x'"),
    (["--json", "/none/x.json"], 1, "cannot write /none/x.json"), (["--kernel"], 2, "--kernel needs a value"),
    (["--kernel", "nope"], 2, "unknown kernel 'nope'"), (["--kernel", "nope", "--json", "-"], 2, "unknown kernel 'nope'"),
])
def test_info(fastattn, more, code, says):
    done = fastattn("info", *more)
    assert done.stdout == "" or code == 1
    assert done.returncode == code and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("more, says", [
    (["-k", "nonsense"], "nonsense"), (["--cases", "0"], "--cases"), (["--cases", "-5"], "--cases"),
    (["--cases", "x"], "--cases"),
    (["--seed", "-1"], "--seed"), (["--device", "tpu"], "unknown device"), (["--threads", "-1"], "threads"),
    (["stray"], "stray"),
])
def test_check(fastattn, more, says):
    refused(fastattn("check", *more), 2, "fastattn check: ", says)


SHAPE = ["--shape", "1,2,2,16,16,8"]


@pytest.mark.parametrize("more, says", [
    ([], "prefill"), (SHAPE, "prefill"), (["prefil", *SHAPE], "unknown operation 'prefil'"),
    (["prefill"], "--shape is missing"),
    (["prefill", "decode", *SHAPE], "decode"), (["prefill", "--suite", *SHAPE], "exclude each other"),
    (["prefill", "--shape", "1,2,2,16,16"], "6 or 7"),
    (["prefill", "--shape", "1,2,2,16,16,8,8,8"], "6 or 7"),
    (["prefill", "--shape", "1,2,2,16,16,x"], "6 or 7"),
    (["prefill", "--shape", "0,2,2,16,16,8"], "at least 1"),
    (["prefill", "--shape", "1,2,2,-16,16,8"], "at least 1"), (["prefill", "--shape", ""], "6 or 7"),
    (["prefill", "--shape", "1, 2,2,16,16,8"], "6 or 7"),
    (["prefill", "--shape", "1,2,2,16,99999999999999999999,8"], "6 or 7"),
    (["prefill", *SHAPE, "--shape", "1,2"], "6 or 7"),
    (["prefill", "--shape", "1,3,2,16,16,8"], "multiple"), (["prefill", "--shape", "1,2,2,16,16,577"], "576"),
    (["prefill", *SHAPE, "--dtype", "f64"], "f32, f16, bf16"),
    (["prefill", *SHAPE, "--dtype", "int8"], "f32, f16, bf16"),
    (["prefill", *SHAPE, "--kv-dtype", "int4"], "int8, fp8"),
    (["prefill", *SHAPE, "--kv-dtype", "f32"], "kv_dtype"),
    (["prefill", *SHAPE, "--window", "3"], "--window"), (["prefill", *SHAPE, "--page", "-1"], "--page"),
    (["prefill", *SHAPE, "--repeats", "0"], "--repeats"),
    (["prefill", *SHAPE, "--repeats", "1001"], "--repeats"),
    (["prefill", *SHAPE, "--layout", "sbhd"], "bshd, bhsd"),
    (["prefill", *SHAPE, "--kernel", "nonsense"], "unknown kernel"),
    (["prefill", *SHAPE, "--device", "tpu"], "unknown device"),
    (["prefill", *SHAPE, "--device", "ascend-sim:1"], "is emulated"),
    (["prefill", *SHAPE, "--threads", "-1"], "threads"),
])
def test_bench(fastattn, more, says):
    refused(fastattn("bench", *more), 2, "fastattn bench: ", says)


def test_bench_that_cannot_be_done(fastattn, tmp_path):
    refused(fastattn("bench", "prefill", *SHAPE, "--json", tmp_path / "none" / "x.json"), 1, "cannot write")
    refused(fastattn("bench", "decode", "--shape", "1,32,32,1,2000000000,512"), 1, "memory")
    refused(fastattn("bench", "decode", "--shape", "2000000000,2,2,1,2000000000,512"), 2, "smaller")
    refused(fastattn("bench", "prefill", "--shape", "1,2,2,64,64,8", "--kernel", "decode_c"), 1, "decode_c")
    out = tmp_path / "b.json"
    refused(fastattn("bench", "prefill", *SHAPE, "--kernel", "nonsense", "--json", out), 2, "nonsense")
    assert list(tmp_path.iterdir()) == []
