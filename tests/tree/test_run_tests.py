"""The sum behind `N passed, N failed`: nothing that failed or died may be counted as passed."""
import importlib.util
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SPEC = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts" / "run_tests.py")
run_tests = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_tests)

CMOCKA_GOOD = "[==========] Running 2 test(s).\n[       OK ] a\n[       OK ] b\n[==========] 2 test(s) run.\n[  PASSED  ] 2 test(s).\n"
CMOCKA_BAD = ("[==========] Running 3 test(s).\n[  FAILED  ] b\n[==========] group: 3 test(s) run.\n[  PASSED  ] 2 test(s).\n"
              "[  FAILED  ] group: 1 test(s), listed below:\n[  FAILED  ] b\n\n 1 FAILED TEST(S)\n")


@pytest.mark.parametrize("name, output, expected", [
    ("test_plan", CMOCKA_GOOD, (2, 0, 0)),
    ("test_plan", CMOCKA_GOOD + CMOCKA_BAD, (4, 1, 0)),
    ("test_plan", "[==========] Running 3 test(s).\n[ RUN      ] a\n", None),
    ("check", "seed 1\n1966 passed, 0 failed\n", (1966, 0, 0)),
    ("check", "1 passed, 0 failed of a part\n10 passed, 2 failed\n", (10, 2, 0)),
    ("check", "seed 1\n", None),
    ("check_cortex_a72", "seed 1\n10 passed, 0 failed\n", (10, 0, 0)),
    ("check_neon_bf16", "seed 1\n", None),
    ("pytest", "....\n177 passed, 1 skipped in 4.81s\n", (177, 0, 1)),
    ("pytest", "F\n1 failed, 274 passed, 1 skipped, 11 warnings in 108.53s (0:01:48)\n", (274, 1, 1)),
    ("pytest", "2 failed, 3 errors in 0.50s\n", (0, 5, 0)),
    ("pytest", "1 error in 0.12s\n", (0, 1, 0)),
    ("pytest", "Fatal Python error: Segmentation fault\n", None),
])
def test_counted(name, output, expected):
    assert run_tests.counted(name, output) == expected


def report(tmp_path, monkeypatch, *cases):
    xml = "".join(f'<testcase name="{name}" status="{status}">{"".join(more)}<system-out>{output}</system-out></testcase>'
                  for name, status, output, *more in cases)

    def ctest(command, **_):
        pathlib.Path(command[command.index("--output-junit") + 1]).write_text(f"<testsuite>{xml}</testsuite>")

    monkeypatch.setattr(run_tests, "folder", lambda preset: tmp_path)
    monkeypatch.setattr(run_tests.subprocess, "run", ctest)
    return run_tests.run_tests("release", {})


def test_success_then_death_is_a_failure(tmp_path, monkeypatch):
    passed, failed, _, names = report(tmp_path, monkeypatch, ("test_a", "fail", CMOCKA_GOOD), ("test_b", "run", CMOCKA_GOOD))
    assert (passed, failed, names) == (4, 1, {"test_a", "test_b"})


def test_death_before_any_report_is_a_failure(tmp_path, monkeypatch):
    assert report(tmp_path, monkeypatch, ("check", "fail", "seed 1"))[:3] == (0, 1, 0)


def test_a_program_without_a_report_that_succeeds_counts_once(tmp_path, monkeypatch):
    assert report(tmp_path, monkeypatch, ("test_c", "run", ""))[:3] == (1, 0, 0)


@pytest.mark.parametrize("message, expected", [("SKIP_RETURN_CODE=77", (0, 0, 1)), ("Unable to find executable", (0, 1, 0))])
@pytest.mark.parametrize("name", ["check_emulated_amx", "test_tile_kernels_emulated"])
def test_only_a_skip_is_skipped(tmp_path, monkeypatch, name, message, expected):
    case = (name, "notrun", "skipped: no AVX512-BF16\n", f'<skipped message="{message}"/>')
    assert report(tmp_path, monkeypatch, case)[:3] == expected


@pytest.mark.parametrize("name", ["check", "check_ascend", "mutate_order", "pytest"])
def test_check_and_pytest_owe_a_report(tmp_path, monkeypatch, name):
    assert report(tmp_path, monkeypatch, (name, "run", ""))[:3] == (0, 1, 0)


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(run_tests.shutil, "which", lambda program: None if program.startswith("qemu") else program)
    assert run_tests.missing("aarch64", {}) == "qemu-aarch64-static is not installed"
    assert run_tests.missing("release", {}) is None


def test_libraries_for_arm_that_cannot_be_brought_are_said(monkeypatch, tmp_path):
    monkeypatch.setattr(run_tests.shutil, "which", lambda program: program)
    (tmp_path / "arm64").mkdir()
    obstacle = run_tests.missing("aarch64", {"FA_ARM64_PACKAGES": str(tmp_path / "arm64"), "PATH": os.environ["PATH"]})
    assert obstacle.startswith("fetch_arm64: ") and "'complete'" in obstacle


def test_no_report_of_ctest_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tests, "folder", lambda preset: tmp_path)
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *_, **__: None)
    assert run_tests.run_tests("release", {})[:3] == (0, 1, 0)
