"""fastattn report: one whole file or none, every number labelled; bad input answered in one line."""
import os
import re

import pytest


@pytest.fixture(scope="module")
def report(fastattn, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.md"
    done = fastattn("report", "--quick", "--cases", "2", "--out", path)
    return done, path


def test_writes_the_file_and_nothing_beside_it(report):
    done, path = report
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"{path} is written; open an issue and attach it.\n"
    assert os.listdir(path.parent) == [path.name]


def test_describes_checks_and_times(report):
    text = report[1].read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert headings[0].startswith("FastAttention on ")
    assert headings[1:] == ["Kernels", "Checks (measured)", "Times (measured), beside the model", "Where to send this"]
    assert re.search(r"^- FastAttention \d+\.\d+\.\d+, commit \S+$", text, re.MULTILINE)
    assert re.search(r"^- Device: cpu, ", text, re.MULTILINE)
    assert re.search(r"^\| prefill_c \| c \| prefill \| .* \| yes \|$", text, re.MULTILINE)
    assert re.search(r"^\d+ passed, 0 failed$", text, re.MULTILINE)
    assert "open an issue" in text.lower() and "attach this file" in text


def test_every_number_of_the_times_is_labelled(report):
    rows = "| problem", "| prefill ", "| decode "
    lines = [line for line in report[1].read_text().splitlines() if line.startswith(rows)]
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert all("(measured)" in c or "(model)" in c for c in columns[3:-1]) and columns[-1] == "measured / model"
    assert len(lines) == 1 + 2 * 2 + 1
    for line in lines[1:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == len(columns)
        assert float(cells[3]) > 0 and re.fullmatch(r"[\d.e+-]+ (TFLOP/s|GB/s)", cells[4])
        assert cells[-2:] == ["-", "-"]  # no model of a CPU


def test_standard_output(fastattn):
    done = fastattn("report", "--quick", "--cases", "1", "--kernel", "decode_c", "--out", "-")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("# FastAttention on ") and done.stdout.endswith("Thank you.\n")
    assert re.search(r"^\| prefill .* not timed: .*decode_c", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("more, code, says", [
    (["--device", "tpu"], 2, "unknown device 'tpu'"), (["--cases", "0"], 2, "--cases is 0"),
    (["--cases", "x"], 2, "--cases"), (["--threads", "-2"], 2, "threads"),
    (["--kernel", "nope"], 2, "unknown kernel 'nope'"), (["stray"], 2, "'stray'"),
    (["--out", "/none/r.md"], 1, "cannot write /none/r.md"),
    (["--out", "."], 1, "cannot write ."), (["--device", "cuda:99"], 1, "device 'cuda:99' is not there"),
])
def test_bad_use_leaves_nothing(fastattn, tmp_path, more, code, says):
    done = fastattn("report", "--quick", *more, cwd=tmp_path)
    if "cuda" in str(more) and "unknown device" in done.stderr:
        pytest.skip("built without the backend for NVIDIA GPUs")
    assert done.returncode == code and done.stdout == "" and says in done.stderr, (done.stdout, done.stderr)
    assert done.stderr.startswith("fastattn report: ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_an_old_report_stays_when_a_new_one_cannot_be_made(fastattn, tmp_path):
    path = tmp_path / "r.md"
    path.write_text("old")
    assert fastattn("report", "--device", "tpu", "--out", path).returncode == 2
    assert path.read_text() == "old"


def test_an_emulated_device_has_no_times(fastattn, tmp_path):
    path = tmp_path / "report.md"
    done = fastattn("report", "--device", "ascend-sim", "--cases", "1", "--out", path)
    if "not in this build" in done.stderr:
        pytest.skip("built without Ascend")
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    assert "## Times\n\nNone: the device is emulated." in text and "(measured) |" not in text
