"""Installs to a fresh prefix and uses the library from there, as a stranger's program would."""
import os
import pathlib
import re
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def answer(version="0.1.0"):
    return f"{version} 1 3 5 7\n"


@pytest.fixture(scope="module")
def prefix(build, tmp_path_factory):
    """Installed in one place, then moved: nothing inside may remember where it was."""
    base = tmp_path_factory.mktemp("install")
    run("cmake", "--install", build, "--prefix", base / "first")
    return (base / "first").rename(base / "moved")


def pkg_config(prefix, *arguments):
    env = dict(os.environ, PKG_CONFIG_PATH=str(next(prefix.rglob("pkgconfig"))))
    return run("pkg-config", *arguments, "fastattention", env=env).split()


def library_folder(prefix):
    return next(prefix.rglob("libfastattention.so")).parent


def test_find_package(prefix, tmp_path):
    run("cmake", "-S", HERE, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    assert run(tmp_path / "consumer_c") == answer()
    assert run(tmp_path / "consumer_cpp") == answer()


def test_find_package_refuses_another_version(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES C)\n"
                                             "find_package(fastattention 9.0 REQUIRED)\n")
    result = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}"],
                            capture_output=True, text=True)
    assert result.returncode != 0 and "9.0" in result.stderr


@pytest.mark.parametrize("compiler, source", [("cc", "consumer.c"), ("c++", "consumer.cpp")])
def test_pkg_config(prefix, tmp_path, compiler, source):
    run(compiler, HERE / source, *pkg_config(prefix, "--cflags", "--libs"), "-o", tmp_path / "consumer")
    assert run(tmp_path / "consumer", env={"LD_LIBRARY_PATH": str(library_folder(prefix))}) == answer()


def test_pkg_config_version(prefix):
    assert pkg_config(prefix, "--modversion") == ["0.1.0"]


def test_installed_command_finds_its_library(prefix):
    assert "cpu" in run(prefix / "bin" / "fastattn", "info", env={"PATH": os.environ["PATH"]})


def test_only_fa_symbols_are_exported(prefix):
    symbols = run("nm", "-D", "--defined-only", library_folder(prefix) / "libfastattention.so").split("\n")
    names = {line.split()[-1].split("@")[0] for line in symbols if line}
    assert names and not {name for name in names if not name.startswith("fa_")}


def test_every_declared_function_is_exported(prefix, root):
    header = "".join(path.read_text() for path in (root / "include" / "fastattention").glob("*.h"))
    declared = set(re.findall(r"^FA_API [^;(]*?(fa_\w+)\(", header, re.MULTILINE))
    symbols = run("nm", "-D", "--defined-only", library_folder(prefix) / "libfastattention.so")
    exported = set(re.findall(r" T (fa_\w+)", symbols))
    assert len(declared) > 25
    assert declared == exported


def test_readme_example_in_c(prefix, root, tmp_path):
    """The C program in README.md is the one that people copy: it compiles without a warning and runs."""
    program = re.search(r"```c\n(.*?)```", (root / "README.md").read_text(), re.DOTALL).group(1)
    (tmp_path / "readme.c").write_text(program)
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", tmp_path / "readme.c",
        *pkg_config(prefix, "--cflags", "--libs"), "-lm", "-o", tmp_path / "readme")
    output = run(tmp_path / "readme", env={"LD_LIBRARY_PATH": str(library_folder(prefix))})
    assert output == "o[0] and o[1]: 1 0.5\n"
