"""Bad input to `fastattn generate` and `fastattn perplexity`: one line on standard error, the right exit code, nothing
written."""
import struct

import pytest

needs_a_model = pytest.mark.usefixtures("model")


@pytest.fixture
def refused(fastattn, tmp_path):
    def call(code, command, *arguments, says):
        row = tmp_path / "row.json"
        done = fastattn(command, *arguments, "--json", row)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert done.stderr.startswith(f"fastattn {command}: ") and done.stderr.count("\n") == 1
        assert says in done.stderr
        assert done.stdout == "" and not row.exists() and not list(tmp_path.glob("row.json*"))

    return call


@pytest.fixture
def any_file(tmp_path):
    path = tmp_path / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    return path


@pytest.mark.parametrize("arguments, says", [
    ((), "-m is missing"),
    (("-m", "x"), "-p is missing"),
    (("-m", "x", "-p", "a", "--stop", ""), "--stop is empty"),
    (("-m", "x", "-p", "a", "--chunk", "-1"), "--chunk -1"),
    (("-m", "x", "-p", "a", "--dtype", "int8"), "allowed: f32, f16, bf16"),
    (("-m", "x", "-p", "a", "-n", "0"), "-n is 0"),
    (("-m", "x", "-p", "a", "-n", "-5"), "-n is -5"),
    (("-m", "x", "-p", "a", "-n", "many"), "many"),
    (("-m", "x", "-p", "a", "--attention", "slow"), "allowed: fast, standard, eager"),
    (("-m", "x", "-p", "a", "--attention", "fast", "--kernel", "c"), "both given"),
    (("-m", "x", "-p", "a", "--temp", "-1"), "temperature is -1"),
    (("-m", "x", "-p", "a", "--temp", "nan"), "temperature is nan"),
    (("-m", "x", "-p", "a", "--top-p", "0"), "top-p is 0"),
    (("-m", "x", "-p", "a", "--top-p", "1.01"), "top-p is 1.01"),
    (("-m", "x", "-p", "a", "--top-k", "-1"), "top-k is -1"),
    (("-m", "x", "-p", "a", "--seed", "-1"), "--seed is '-1'"),
    (("-m", "x", "-p", "a", "--seed", "1x"), "--seed is '1x'"),
    (("-m", "x", "-p", "a", "--chat", "--raw"), "choose one"),
    (("-m", "x", "-p", "a", "--raw", "--system", "s"), "--system"),
    (("-m", "x", "-p", "a", "--min-p", "2"), "min-p is 2"),
    (("-m", "x", "-p", "a", "--repeat-penalty", "0"), "repetition penalty is 0"),
    (("-m", "x", "-p", "a", "--device", "ascend-sim"), "models run on cpu"),
    (("-m", "x", "-p", "a", "--threads", "-1"), "-1"),
])
def test_generate_usage(refused, arguments, says):
    refused(2, "generate", *arguments, says=says)


@pytest.mark.parametrize("arguments, says", [
    ((), "--arch is missing"),
    (("--arch", "llama-7b", "-m", "x"), "both given"),
    (("--arch", "llama-8b"), "no architecture is called 'llama-8b'; known are llama-7b"),
    (("--arch", "llama-7b", "--layers", "33"), "llama-7b has 32"),
    (("-m", "x", "--layers", "1"), "--layers is for --arch"),
    (("--arch", "llama-7b", "--op", "train"), "allowed: prefill, decode, mixed"),
    (("--arch", "llama-7b", "--op", ","), "names nothing"),
    (("--arch", "llama-7b", "--batch", "0"), "--batch is '0'"),
    (("--arch", "llama-7b", "--prompt", "1,,2"), "--prompt is '1,,2'"),
    (("--arch", "llama-7b", "--attention", "fast,slow"), "slow"),
    (("--arch", "llama-7b", "--gen", "0"), "--gen 0"),
    (("--arch", "llama-7b", "--dtype", "int8"), "allowed: f32, f16, bf16"),
])
def test_bench_model_usage(refused, arguments, says):
    refused(2, "bench-model", *arguments, says=says)


@pytest.mark.parametrize("arguments, says", [
    ((), "-m is missing"),
    (("-m", "x"), "-f is missing"),
    (("-m", "x", "-f", "y", "--ctx", "1"), "--ctx is 1"),
    (("-m", "x", "-f", "y", "--max-tokens", "-1"), "--max-tokens is -1"),
    (("-m", "x", "-f", "y", "--attention", ""), "allowed: fast, standard, eager"),
    (("-m", "x", "-f", "y", "--top", "0"), "--top is 0"),
    (("-m", "x", "-f", "y", "--top", "1025"), "1 .. 1024"),
    (("-m", "x", "-f", "y", "--save-logits", "-"), "--save-logits is -"),
])
def test_perplexity_usage(refused, arguments, says):
    refused(2, "perplexity", *arguments, says=says)


def test_files_that_are_not_there(refused, any_file, tmp_path):
    refused(1, "generate", "-m", tmp_path / "none.gguf", "-p", "a", says="No such file")
    refused(1, "generate", "-m", tmp_path, "-p", "a", says="config.json")
    refused(1, "perplexity", "-m", any_file, "-f", tmp_path / "none.txt", says="No such file")


def test_saved_logits_that_are_none(refused, any_file, tmp_path):
    how = ("perplexity", "-m", any_file, "-f", any_file)
    refused(1, *how, "--compare-logits", tmp_path / "none", says="No such file")
    refused(1, *how, "--compare-logits", any_file, says="holds no saved logits")
    refused(1, *how, "--compare-logits", "/dev/zero", says="holds no saved logits")
    refused(1, *how, "--compare-logits", tmp_path, says="Is a directory")
    refused(1, *how, "--save-logits", "/nonexistent/x", says="/nonexistent/x")
    refused(1, *how, "--save-logits", tmp_path / "kept", says="general.architecture")
    assert not list(tmp_path.glob("kept*"))


def test_files_that_are_not_models(refused, any_file, tmp_path):
    refused(1, "generate", "-m", any_file, "-p", "a", says="'general.architecture' is missing")
    text = tmp_path / "text.gguf"
    text.write_text("not a model\n" * 100)
    refused(1, "generate", "-m", text, "-p", "a", says='does not begin with "GGUF"')
    empty = tmp_path / "empty.gguf"
    empty.touch()
    refused(1, "generate", "-m", empty, "-p", "a", says="is empty")


def test_an_unwritable_output(fastattn, any_file):
    done = fastattn("generate", "-m", any_file, "-p", "a", "--json", "/nonexistent/row.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "/nonexistent/row.json" in done.stderr


@needs_a_model
def test_truncated_model(refused, model, tmp_path):
    short = tmp_path / "short.gguf"
    with open(model, "rb") as file:
        head = file.read(4 << 20)
    for size in (100, 30_000, 1_500_000, len(head)):
        short.write_bytes(head[:size])
        refused(1, "generate", "-m", short, "-p", "a", says="truncated")


@needs_a_model
def test_prompts_that_do_not_fit(refused, model, tmp_path):
    refused(2, "generate", "-m", model, "-p", "a", "-n", "9000", says="the model's context")
    refused(2, "generate", "-m", model, "-p", "", "--raw", says="the prompt is empty")
    refused(2, "perplexity", "-m", model, "-f", "/dev/null", "--ctx", "9000", says="at most 8192")
    refused(1, "perplexity", "-m", model, "-f", "/dev/null", says="at least 2 are needed")


def test_unknown_kernel(refused):
    refused(2, "generate", "-m", "x", "-p", "a", "--kernel", "prefill_bf17", says="unknown kernel 'prefill_bf17'")
    refused(2, "perplexity", "-m", "x", "-f", "y", "--kernel", "", says="unknown kernel ''")


@needs_a_model
def test_weights_that_are_not_finite(refused, model, tmp_path):
    """The last tensor of the file is output_norm, 576 floats."""
    data = bytearray(model.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data)
    refused(1, "generate", "-m", broken, "-p", "a", "--temp", "1", says="logits are not finite")


def test_json_before_a_short_option(fastattn):
    done = fastattn("generate", "--json", "-m", "x")
    assert done.returncode == 2 and "-p is missing" in done.stderr
