"""The house rules that a compiler does not see: who includes whom, unique names, licence, no forbidden flags."""
import collections
import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Room of the including file -> rooms whose headers it may include, besides its own.
MAY_INCLUDE = {
    "include": set(),
    "src/core": {"include"},
    "src/ref": {"include"},
    "src/kv": {"include", "src/core"},
    "src/cpu": {"include", "src/core"},
    "src/cuda": {"include", "src/core"},
    "src/ascend": {"include", "src/core", "sim"},
    "src/check": {"include", "src/core", "src/ref", "src/kv", "src/cpu", "src/cuda", "src/ascend", "src"},
    "src": {"include", "src/core", "src/ref", "src/kv", "src/cpu", "src/cuda", "src/ascend", "src/check"},
    "sim": set(),
    "llama": {"include"},
    "bench/model": {"include"},
    "python": {"include"},
    "cli": {"include", "src/check", "llama", "bench/model", "sim"},
}
# What others may include of sim: the emulator's interface, and the header by which Ascend C becomes C++.
SIM_PUBLIC = {"sim/davinci/davinci.h", "sim/davinci/kernel_operator.h"}
# What the command may see of a backend: the emulated chip behind a context, and its matmul.
CHIP_VIEW = {"src/ascend/host/sim_backend.h", "src/ascend/host/sim_matmul.h"}
# What the runner's operators on GPUs may see of src: the openers of run-time libraries, of which there is one each, and the
# shape of a table of images.
OPENERS = {"src/cuda/cuda_driver.h", "src/cuda/cublaslt_library.h", "src/cuda/cuda_images.h"}
# The kernel table is declared by core and defined by backends.c; the commit's header is written by the build.
SHARED = {"kernels.def", "fa_commit.h"}


def tracked(*patterns):
    names = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [pathlib.PurePosixPath(name) for name in names.stdout.splitlines() if (ROOT / name).exists()]


def room(path):
    parts = path.parts
    if parts[0] == "src":
        return "/".join(parts[:2]) if len(parts) > 2 else "src"
    return "bench/model" if parts[:2] == ("bench", "model") else parts[0]


def included(path, name):
    """Where an #include "name" of `path` leads, as a path in the tree; None for a header of the system's."""
    for base in (path.parent, pathlib.PurePosixPath("src"), pathlib.PurePosixPath("include"),
                 pathlib.PurePosixPath("llama"), pathlib.PurePosixPath("sim"), pathlib.PurePosixPath("sim/davinci"),
                 pathlib.PurePosixPath(".")):
        if (ROOT / base / name).exists():
            return pathlib.PurePosixPath(base / name)
    return None


def includes(path):
    """(name, where it leads) of every #include "name"."""
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', (ROOT / path).read_text(), re.MULTILINE):
        yield name, included(path, name)


def test_who_may_include_whom():
    wrong = []
    for path in tracked("*.c", "*.h", "*.cpp", "*.cu", "*.cuh", "*.def"):
        if path.parts[0] == "tests":
            continue
        for name, target in includes(path):
            if name in SHARED or target is None or room(target) == room(path):
                continue
            if room(path) == "cli" and str(target) in CHIP_VIEW:
                continue
            if path.parts[:2] == ("llama", "cuda") and str(target) in OPENERS:
                continue
            if room(target) not in MAY_INCLUDE[room(path)]:
                wrong.append(f"{path} ({room(path)}) includes {target} ({room(target)})")
            elif room(target) == "sim" and str(target) not in SIM_PUBLIC:
                wrong.append(f"{path} includes {target}, which is sim's own")
    assert not wrong, "\n".join(wrong)


def test_backends_include_no_other_backend():
    backends = {room(path) for path in tracked("src/*.c")
                if re.search(r"^const fa_backend fa_\w+_backend\b", (ROOT / path).read_text(), re.MULTILINE)}
    assert {"src/cpu", "src/cuda", "src/ascend"} <= backends
    wrong = [f"{path} includes {target}" for path in tracked("src/*.c", "src/*.h", "src/*.cpp", "src/*.cu", "src/*.cuh")
             for _, target in includes(path)
             if room(path) in backends and target is not None and room(target) in backends - {room(path)}]
    assert not wrong, "\n".join(wrong)


def test_source_file_names_are_unique():
    places = collections.defaultdict(list)
    for path in tracked("*.c", "*.h", "*.cpp", "*.cu", "*.cuh"):
        places[path.name].append(str(path))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_room_for_leftovers():
    names = [str(p) for p in tracked() if re.search(r"(^|/)(utils?|misc|common|old|helpers?)(/|\.[ch]$)", str(p))]
    assert not names


def test_no_fast_math():
    files = tracked("*.txt", "*.cmake", "*.c", "*.h", "*.cpp", "*.cu", "*.cuh", "*.json", "Makefile", "*.toml", "*.sh")
    flags = re.compile("-" + "ffast-math|-" + "-?use_fast_math|-" + "Ofast|-" + "funsafe-math")
    assert not [str(p) for p in files if flags.search((ROOT / p).read_text())]


def test_licence_is_the_full_apache_text():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("compiler, standard", [("gcc", "c11"), ("g++", "c++11"), ("g++", "c++17")])
def test_public_header_compiles_alone(compiler, standard, tmp_path):
    language = "c++" if standard.startswith("c++") else "c"
    source = tmp_path / ("alone.cpp" if language == "c++" else "alone.c")
    source.write_text('#include "fastattention/fastattention.h"\n'
                      "int main(void) { fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;\n"
                      "  fa_attention_args a = FA_ATTENTION_ARGS_INIT; fa_plan_info i = FA_PLAN_INFO_INIT;\n"
                      "  fa_context_options o = FA_CONTEXT_OPTIONS_INIT; fa_kernel_info k = FA_KERNEL_INFO_INIT;\n"
                      "  fa_device_info d = FA_DEVICE_INFO_INIT;\n"
                      "  return p.struct_size && a.struct_size && i.struct_size && o.struct_size && k.struct_size\n"
                      "    && d.struct_size && p.window_left == -1 && p.window_right == -1 ? 0 : 1; }\n")
    program = tmp_path / "alone"
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    if language == "c++":
        warnings.append("-Wno-missing-field-initializers")  # {sizeof(T)} zeroes the rest, as documented
    subprocess.run([compiler, f"-std={standard}", *warnings, f"-I{ROOT}/include", source, "-o", program], check=True)
    subprocess.run([program], check=True)


# A column is for one kernel, or for those that differ in their type only.
COLUMNS = ("prefill_c", "prefill_avx2", "prefill_avx512 prefill_avx512_bf16", "prefill_bf16_amx prefill_terms_amx",
           "prefill_split_amx", "prefill_neon",
           "prefill_neon_bf16 prefill_neon_fhm", "decode_any", "prefill_sm80", "prefill_sm75", "prefill_sm70", "prefill_any",
           "flash_ascend")
X86 = set(" ".join(COLUMNS[1:5]).split())
ARM64 = {"prefill_neon", "prefill_neon_bf16", "prefill_neon_fhm"}


def test_readme_feature_table_is_that_of_the_kernel_table(fastattn):
    kernels = {k["name"]: k for k in json.loads(fastattn("info", "--json", "-").stdout)["kernels"]}
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| [^|]*\(`([^`|]+)`\) \|(.*)\|$", text, re.MULTILINE)
    table = {name: dict(zip(COLUMNS, (cell.strip() for cell in cells.split("|")), strict=True)) for name, cells in rows}
    sizes = re.search(r"^\| largest head size \|(.*)\|$", text, re.MULTILINE).group(1)
    sizes = dict(zip(COLUMNS, map(int, sizes.split("|")), strict=True))
    # A build has the kernels of one processor's family, and without nvcc none for GPUs.
    here = [(column, name) for column in COLUMNS for name in column.split() if name in kernels]
    assert "prefill_c" in kernels and (X86 <= set(kernels) or ARM64 <= set(kernels))
    prefill = {n for n, k in kernels.items() if k["operation"] == "prefill" and k["device"] == "cpu" and not k["baseline"]}
    assert prefill == {name for _, name in here if name in prefill}
    assert set(table) == {feature for _, name in here for feature in kernels[name]["features"]}
    for column, name in here:
        for feature, marks in table.items():
            assert marks[column] == ("x" if feature in kernels[name]["features"] else "."), (name, feature)
        assert sizes[column] == kernels[name]["max_head_dim"], name


def test_links_in_the_documents_lead_somewhere():
    broken = []
    for path in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / path).read_text()):
            if not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken
