"""Wrong use of tune, and broken tuning files: one line, and nothing left behind."""
import os

import pytest

SHAPE = ["--shape", "1,2,2,1,200,32", "--dtype", "f32", "--threads", "1"]


@pytest.mark.parametrize("more, code, says", [
    (["--shape", "1,2"], 2, "6 or 7"), (["--shape", "1,2,2,0,16,8"], 2, "at least 1"), (["--shape", ""], 2, "6 or 7"),
    (["--shape", "1,3,2,16,16,8"], 2, "multiple"), (["--shape", "1,2,2,16,16,577"], 2, "576"),
    (["--quick", "--full"], 2, "exclude each other"), (["--quick", *SHAPE], 2, "exclude each other"),
    (["--causal"], 2, "--causal goes with --shape"), (["stray"], 2, "'stray'"), (["--threads", "-1"], 2, "threads"),
    (["--dtype", "f64"], 2, "some of f32, f16, bf16"), (["--dtype", "int8"], 2, "some of f32, f16, bf16"),
    (["--dtype", ""], 2, "some of f32, f16, bf16"), (["--dtype", "f32,"], 2, "some of f32, f16, bf16"),
    (["--dtype", "f32,f32"], 2, "some of f32, f16, bf16"), (["--dtype", "f32,f16,bf16,f32"], 2, "some of"),
    (["--dtype", "f32" * 500], 2, "some of f32, f16, bf16"),
    (["--device", "tpu"], 2, "tpu"), (["--device", "cuda"], 2, "only plans for the CPU"),
    (["--kernel", "nope"], 2, "unknown kernel 'nope'"), ([*SHAPE, "--out", "-", "--json", "-"], 2, "both standard output"),
    ([*SHAPE, "--out", "/none/t"], 1, "cannot write /none/t"), ([*SHAPE, "--out", "."], 1, "cannot write ."),
    ([*SHAPE, "--json", "/none/t"], 1, "cannot write /none/t"),
    (["--shape", "1,32,32,1,2000000000,512", "--dtype", "f32"], 1, "memory"),
])
def test_wrong_use(fastattn, tmp_path, more, code, says):
    done = fastattn("tune", *more, cwd=tmp_path)
    assert done.returncode == code and says in done.stderr, (done.stdout, done.stderr)
    assert done.stderr.startswith("fastattn tune: ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text, says", [
    ("", "begins 'fastattention tuning 2'"), ("hello\n", "'hello' stands where a tuning file begins"),
    ("fastattention tuning 2", "ends inside a line"), ("fastattention tuning 2\n", "'version' is expected"),
    ("fastattention tuning 1\nversion 0.1.0\n", "'fastattention tuning 1' stands where"),
    ("fastattention tuning 3\nversion 9\n", "'fastattention tuning 3' stands where"),
    ("fastattention tuning 2\nversion 0.1.0\ndevice cpu\nprocessor x\nisa c\ncaches 0 0 0\nnonsense\n", "line 7: 'nonsense'"),
    ("\x00" * 100 + "\n", "control character"), ("x" * 5000 + "\n", "longer than 500"), ("#\n" * 600000, "larger than 1 MiB"),
], ids=lambda value: value[:20].encode("unicode_escape").decode())
@pytest.mark.parametrize("command", [["info"], ["bench", "decode", "--shape", "1,1,1,1,8,8"], ["check", "--cases", "1"]])
def test_a_broken_file_in_the_environment(fastattn, tmp_path, text, says, command):
    path = tmp_path / "t"
    path.write_text(text)
    done = fastattn(*command, env=dict(os.environ, FASTATTENTION_TUNING=str(path)))
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == "" and str(path)[-60:] in done.stderr


def test_a_file_that_is_not_there(fastattn, tmp_path):
    for path in (tmp_path / "none", tmp_path, "/dev/zero"):
        done = fastattn("info", env=dict(os.environ, FASTATTENTION_TUNING=str(path)))
        assert done.returncode == 2 and "cannot be read" in done.stderr and done.stderr.count("\n") == 1


def test_tune_mends_a_broken_file(fastattn, tmp_path):
    path = tmp_path / "t"
    path.write_text("broken\n")
    env = dict(os.environ, FASTATTENTION_TUNING=str(path))
    assert fastattn("tune", *SHAPE, "--out", path, env=env).returncode == 0
    assert fastattn("info", env=env).returncode == 0
