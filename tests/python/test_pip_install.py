"""`pip install .` in a bare virtual environment of its own, from a copy of the tracked files as a sdist would hold."""
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    base = tmp_path_factory.mktemp("pip")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    source = base / "source"
    source.mkdir()
    packed = subprocess.run(["tar", "--null", "-T", "-", "-c"], cwd=root, input=files, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=source, input=packed, check=True)
    # scikit-build-core is in our own pinned environment; nothing is fetched. Device code takes minutes and is not looked at.
    result = subprocess.run([sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index",
                             "--quiet", "--config-settings=cmake.define.FA_CUDA_IMAGES=OFF",
                             "--target", base / "site", source], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return base / "site"


def in_it(installed, code):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FASTATT", "PYTHON"))}
    result = subprocess.run([sys.executable, "-c", code], env=dict(env, PYTHONPATH=str(installed)), cwd=installed.parent,
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_package_computes_with_its_own_library(installed):
    assert (installed / "fastattention" / "libfastattention.so").is_file()
    output = in_it(installed, "import numpy, fastattention as f; x = numpy.ones((1, 2, 1, 4), 'f4');"
                              "print(f.__file__, f.version(), f.flash_attn_func(x, x, x).sum())")
    assert output == f"{installed / 'fastattention' / '__init__.py'} 0.1.0 8.0"


def test_package_holds_no_command_and_no_header(installed, root):
    names = {path.name for path in (installed / "fastattention").iterdir()} - {"__pycache__"}
    modules = {path.name for path in (root / "python" / "fastattention").glob("*.py")}
    assert "_library.py" in modules and names == modules | {"libfastattention.so"}
    assert not (installed / "bin").exists() and not (installed / "include").exists()


def test_a_missing_library_is_one_line(installed):
    code = "import os; os.environ['FASTATTENTION_LIBRARY'] = '/nowhere/lib.so'\ntry: import fastattention\n" \
           "except ImportError as error: print(error)"
    output = in_it(installed, code)
    assert output.startswith("libfastattention.so is not at /nowhere/lib.so; build it") and "\n" not in output


def test_readme_example_in_python(installed, root):
    code = (root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert in_it(installed, code + "print(o.shape, o.dtype, lse.shape)") == "(1, 1000, 8, 64) float16 (1, 8, 1000)"
