"""The kernels are real Ascend C: what CANN's compiler would refuse, or a core would, is refused here too.

Address spaces are enforced by clang: __gm__ is a qualifier there, so that a plain pointer to GM does not compile. Event ids below
6, cross-core ids up to 10 are enforced where they are computed, on the emulator (dv_launch.is_strict, always set by ascend-sim)."""
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "src" / "ascend" / "kernel"
SOURCES = sorted(KERNELS.glob("*.cpp"))
FILES = sorted(KERNELS.iterdir())
CLANG = shutil.which("clang++-19") or shutil.which("clang++")
ENFORCED = ["-fsyntax-only", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra", "-Werror", "-Wvla", "-Wno-unknown-attributes",
            "-D__gm__=__attribute__((address_space(1)))", f"-I{ROOT}/sim/davinci", f"-I{ROOT}/src"]


def subset():
    lines = (pathlib.Path(__file__).parent / "ascendc_subset.txt").read_text().splitlines()
    return {name for line in lines if not line.startswith("#") for name in line.split(":")[1].split()}


def code_of(path):
    """Without comments, strings and preprocessor lines."""
    text = re.sub(r"//.*", "", path.read_text())
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r"^\s*#.*$", "", re.sub(r'"[^"\n]*"', '""', text), flags=re.M)


def own_names():
    """What the project itself defines: in the kernels, and in the structs that host and kernel share."""
    text = "\n".join(code_of(f) for f in FILES + sorted(KERNELS.parent.glob("*.h")))
    names = set(re.findall(r"\b(?:struct|class|enum|typename|class\s+|using)\s+([A-Z]\w*)", text))
    names |= set(re.findall(r"\b__aicore__\s+inline\s+[\w:<>*& ]+?\b([A-Z]\w*)\s*\(", text))
    return names | set(re.findall(r"\b(FA_ASCEND_\w+)\s*=", text))                       # enumerators


def run_clang(source, *extra):
    return subprocess.run([CLANG, *ENFORCED, *extra, source], capture_output=True, text=True)


@pytest.mark.skipif(CLANG is None, reason="no clang")
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_address_spaces(source):
    result = run_clang(source)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(CLANG is None, reason="no clang")
def test_address_spaces_are_enforced(tmp_path):
    """The lint can fail: a plain pointer to GM."""
    source = tmp_path / "wrong.cpp"
    source.write_text('#include "kernel_operator.h"\nuint8_t first(GM_ADDR a) { const uint8_t *p = (const uint8_t *)0; p = a; return *p; }\n')
    result = run_clang(source)
    assert result.returncode != 0 and "address space" in result.stderr


def unknown_names(code):
    allowed = subset() | own_names()
    used = set(re.findall(r"(?<![\w.])([A-Z][A-Za-z0-9]*_?[A-Za-z0-9_]*)\b", code))
    used = {name for name in used if len(name) > 1 or name not in "TUSD"}  # template parameters
    return sorted(name for name in used - allowed if not re.fullmatch(r"[A-Z]", name))


def test_foreign_names_are_found():
    """The lint can fail: a name of a condition, of a call, of a type."""
    assert unknown_names("if (ForbiddenApi(x) > 0) { Other<float> y; Third(y); }") == ["ForbiddenApi", "Other", "Third"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_only_names_of_the_subset(path):
    unknown = unknown_names(code_of(path))
    assert not unknown, f"{path.name} uses {unknown}: not of the subset (ascendc_subset.txt), not the project's own"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_nothing_a_core_has_not(path):
    code, text = code_of(path), path.read_text()
    for word in ("new", "delete", "malloc", "free", "std", "virtual", "throw", "try", "static_cast<void", "goto", "printf", "thread_local",
                 "dynamic_cast", "typeid", "double"):
        assert not re.search(rf"\b{re.escape(word)}\b", code), f"{path.name}: {word}"
    conditions = [line for line in re.findall(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b.*$", text, flags=re.M)]
    guards = [line for line in conditions if re.fullmatch(r"\s*#ifndef FA_ASCEND_\w+_H", line)]
    assert conditions == guards and len(guards) == (path.suffix == ".h"), f"{path.name}: only an include guard may be conditional"
    for include in re.findall(r'^\s*#include\s+(\S+)', text, flags=re.M):
        own = KERNELS / include.strip('"')
        assert include in ('"kernel_operator.h"', "<stdint.h>") or own.exists() or include.startswith('"ascend/'), include


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_entries(source):
    text = code_of(source)
    entries = re.findall(r'extern\s+""\s+__global__\s+__aicore__\s+void\s+(\w+)\(([^)]*)\)', text)
    assert entries, f"{source.name} has no kernel entry"
    for name, parameters in entries:
        assert name.startswith("fa_"), name
        names = [p.split()[-1] for p in parameters.split(",")]
        assert all(p.split()[0] == "GM_ADDR" for p in parameters.split(",")), f"{name}: parameters are GM_ADDR"
        assert names[-1] == "tiling", f"{name}: the last parameter is the tiling struct"
        body = text[text.index(name):]
        assert "KERNEL_TASK_TYPE_DEFAULT" in body[:body.index("}")], f"{name}: says its task type first"
