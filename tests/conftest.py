"""What every test in Python starts from; ctest sets the environment, the defaults serve a plain `pytest tests`."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("FA_BUILD_DIR", ROOT / "build"))
COMMAND = os.environ.get("FASTATTN", str(BUILD / "bin" / "fastattn"))


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def build():
    return BUILD


@pytest.fixture(scope="session")
def fastattn():
    """fastattn("run", "--q", path, ...) -> CompletedProcess with stdout and stderr as text."""

    def call(*arguments, timeout=300, **options):
        return subprocess.run([COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              encoding="utf-8", errors="replace", timeout=timeout, **options)

    return call


@pytest.fixture(scope="session")
def model():
    path = os.environ.get("FASTATTENTION_MODEL")
    if not path:
        pytest.skip("FASTATTENTION_MODEL is not set: scripts/fetch_model.sh could not bring the model")
    return pathlib.Path(path)
