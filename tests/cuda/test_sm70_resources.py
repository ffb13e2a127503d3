"""What the Volta kernels of this build take of a V100, by ptxas: no spills where it matters, at most 96 KB of shared memory.
Needs device code in the build and, when that was made, ptxas 12.9 (scripts/fetch_ptxas.sh); no GPU."""
import re
import subprocess

import pytest

SHARED_LIMIT = 96 * 1024  # a block's, on sm_70
MUST_NOT_SPILL = "prefill_sm70_d64", "prefill_sm70_d128"
# Of the model runner, which a build may lack.
RUNNERS = "embed_rows_f16", "norm_f16", "norm_add_f16", "gate_f16", "place_heads_f16", "place_rows_f16", "sample_rows"


@pytest.fixture(scope="module")
def reported(root, build):
    """(report_sm70.sh's result, {kernel: its numbers})"""
    images = sorted([*(build / "src" / "cuda").glob("*.fatbin"), *(build / "llama").glob("*.fatbin")])
    if not images:
        pytest.skip("this build has no device code for Volta")
    images = [image for image in images if image.with_name(image.name + ".ptxas.txt").exists()]
    if not images:
        pytest.skip("no ptxas for sm_70 was there when this was built: PTX alone")
    result = subprocess.run([root / "scripts" / "report_sm70.sh", *images], capture_output=True, text=True)
    rows = [line.split() for line in result.stdout.splitlines()]
    columns = "registers", "stack", "stores", "loads", "shared"
    return result, {name: dict(zip(columns, map(int, numbers))) for name, *numbers in rows[1:]}


@pytest.fixture(scope="module")
def launched(root, tmp_path_factory):
    """{head size: shared memory in bytes that a launch of prefill_sm70 adds}"""
    folder = tmp_path_factory.mktemp("layout")
    source, program = folder / "sizes.c", folder / "sizes"
    source.write_text('#include <stdio.h>\n#include "cuda/sm70/layout_sm70.h"\n'
                      '#define SAY(D) printf("%d %d\\n", D, FA_SM70_SHARED_BYTES(D))\n'
                      "int main(void) { SAY(64); SAY(96); SAY(128); SAY(192); SAY(256); return 0; }\n")
    subprocess.run(["cc", "-std=c11", f"-I{root}/src", f"-I{root}/include", source, "-o", program], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(tuple(map(int, line.split())) for line in lines)


def test_nothing_spills_where_it_matters(reported):
    result, kernels = reported
    assert set(MUST_NOT_SPILL) <= set(kernels)
    assert set(RUNNERS) <= set(kernels) or not set(RUNNERS) & set(kernels)
    for name in (*MUST_NOT_SPILL, *(name for name in RUNNERS if name in kernels)):
        assert (kernels[name]["stack"], kernels[name]["stores"], kernels[name]["loads"]) == (0, 0, 0), result.stdout
    assert result.returncode == 0, result.stderr


def test_shared_memory_fits(reported, launched):
    result, kernels = reported
    for name, numbers in kernels.items():
        size = re.fullmatch(r"prefill_sm70_d(\d+)(_general)?", name)
        bytes_needed = numbers["shared"] + (launched[int(size.group(1))] if size else 0)
        assert bytes_needed <= SHARED_LIMIT, f"{name} needs {bytes_needed} bytes\n{result.stdout}"
