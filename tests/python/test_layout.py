"""The structures in ctypes are those of the header, field by field, as the C compiler lays them out."""
import ctypes
import re
import subprocess

import pytest

from fastattention import _library

STRUCTURES = {"fa_tensor": _library.Tensor, "fa_allocator": _library.Allocator, "fa_context_options": _library.ContextOptions,
              "fa_attention_problem": _library.Problem, "fa_attention_args": _library.Arguments,
              "fa_kernel_info": _library.KernelInfo}


@pytest.fixture(scope="module")
def compiled(root, tmp_path_factory):
    lines = []
    for name, structure in STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));' for field, *_ in structure._fields_]
    folder = tmp_path_factory.mktemp("layout")
    (folder / "layout.c").write_text('#include "fastattention/fastattention.h"\n#include <stdio.h>\nint main(void) {'
                                     + "\n".join(lines) + "return 0; }\n")
    subprocess.run(["cc", f"-I{root}/include", folder / "layout.c", "-o", folder / "layout"], check=True)
    output = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in (line.split() for line in output.splitlines())}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(compiled, root, name):
    structure = STRUCTURES[name]
    assert ctypes.sizeof(structure) == compiled[name]
    for field, *_ in structure._fields_:
        assert getattr(structure, field).offset == compiled[f"{name}.{field}"], field
    header = (root / "include" / "fastattention" / "fastattention.h").read_text()
    body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", header, re.DOTALL).group(1)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    declared = re.findall(r"(\w+)\)?(?:\([^)]*\))?;", body)
    assert declared == [field for field, *_ in structure._fields_]


def test_status_values(root):
    header = (root / "include" / "fastattention" / "fastattention.h").read_text()
    for name, code in re.findall(r"FA_ERROR_(\w+) = (\d+)", header):
        if name != "COMM":
            assert int(code) // 100 in _library.EXCEPTION
    for name in ("FLOAT32", "FLOAT16", "BFLOAT16", "INT8", "FP8_E4M3"):
        assert re.search(rf"FA_{name} = {getattr(_library, name)}\b", header)
