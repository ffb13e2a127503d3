"""The performance model's programs: what gpu_model prints, and how count_sass.py answers what it cannot do."""
import os
import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def printed(build):
    program = build / "bin" / "gpu_model"
    if not program.exists():
        pytest.skip("this build has no gpu_model")
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("kernel, gpu", [("prefill_sm70", "V100"), ("prefill_sm75", "T4")])
def test_every_head_size_is_there_and_labelled(printed, kernel, gpu):
    line = rf"^{kernel} +{gpu} +(\d+) .*: (\d+)%; (\d+)% of (\d+), [\d.]+ TFLOP/s \(model\)$"
    rows = re.findall(line, printed, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [64, 96, 128, 192, 256]
    for _, bound, share, _ in rows:
        assert 0 < int(share) <= int(bound) <= 100
    assert printed.startswith("model: ")


def count_sass(root, *arguments, **environment):
    script = root / "bench" / "model" / "count_sass.py"
    return subprocess.run([sys.executable, script, "--compiler", "c", "--commit", "h",
                           *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment})


def test_counting_without_a_disassembler_says_so(root, tmp_path):
    done = count_sass(root, "--sm70", tmp_path / "none.cubin", PATH=str(tmp_path))
    assert done.returncode == 1 and "no cuobjdump in PATH" in done.stderr and done.stderr.count("\n") == 1


def test_counting_what_is_no_cubin_is_refused(root, tmp_path):
    for tool in ("cuobjdump", "nvdisasm"):
        (tmp_path / tool).write_text("#!/bin/sh\necho broken input >&2\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    done = count_sass(root, "--sm70", tmp_path / "bad.cubin", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1 and "bad.cubin: broken input" in done.stderr and done.stderr.count("\n") == 1
