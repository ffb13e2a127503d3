#!/usr/bin/env python3
"""Builds every configuration with warnings as errors, runs its tests through ctest, adds up what they printed.

The last line is `N passed, N failed`; the exit code is 0 only when nothing failed. One unit of the sum is a cmocka
test, a pytest test, a case of `fastattn check`, or a build. A program that dies counts as at least one failure.
Usage: run_tests.py [--long] [CONFIGURATION ...]      (release asan tsan clang aarch64; all of them by default)
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Configuration -> (what it is for, programs it needs, tests that must be among those run)
CONFIGURATIONS = {
    "release": ("gcc, -O3", ["gcc"], {"check", "check_ascend", "mutate_order", "pytest"}),
    "asan": ("gcc, address and undefined-behaviour sanitizers", ["gcc"], {"check", "check_ascend", "pytest"}),
    "tsan": ("clang, thread sanitizer", ["clang-19"], {"check", "check_ascend"}),
    "clang": ("clang", ["clang-19"], {"check", "check_ascend"}),
    "aarch64": ("gcc for 64-bit Arm, under qemu", ["aarch64-linux-gnu-gcc", "qemu-aarch64-static"],
                {"check", "check_neon_bf16", "check_neon_fhm", "check_cortex_a72", "no_neon_bf16_on_cortex_a72",
                 "no_neon_fhm_on_cortex_a72", "pytest"}),
}
# Programs whose last line is `N passed, N failed`.
LAST_LINE = {"check", "check_ascend", "check_cortex_a72", "check_emulated_amx", "check_neon_bf16", "check_neon_fhm",
             "mutate_order"}
LONG_CASES = {"release": 20000, "asan": 2000, "tsan": 200, "clang": 20000, "aarch64": 2000}


def folder(preset):
    return ROOT / "build" if preset == "release" else ROOT / "build" / preset


def environment():
    env = dict(os.environ)
    # No detect_stack_use_after_return: gcc 12 then places 64-byte vectors on the stack without their alignment and
    # stores to them as if they had it (gcc bug 110027), which crashes about one run in two.
    env.setdefault("ASAN_OPTIONS", "strict_string_checks=1")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    env.setdefault("TSAN_OPTIONS", "ignore_noninstrumented_modules=1")
    if shutil.which("clang-19"):
        archer = subprocess.run(["clang-19", "-print-file-name=libarcher.so"], capture_output=True, text=True)
        env.setdefault("OMP_TOOL_LIBRARIES", archer.stdout.strip())
    model = subprocess.run([ROOT / "scripts" / "fetch_model.sh"], capture_output=True, text=True, env=env)
    if model.returncode == 0:
        env["FASTATTENTION_MODEL"] = model.stdout.strip()
    else:
        print(f"{model.stderr.strip()}\nThe tests that need the model are skipped.")
    return env


def missing(preset, env):
    """What stands in the way of this configuration here, in words; None when nothing does."""
    for program in CONFIGURATIONS[preset][1]:
        if not shutil.which(program):
            return f"{program} is not installed"
    if preset == "aarch64":
        libraries = subprocess.run([ROOT / "scripts" / "fetch_arm64.sh"], capture_output=True, text=True, env=env)
        if libraries.returncode:
            return (libraries.stderr.strip().splitlines() or ["scripts/fetch_arm64.sh failed"])[-1]
    return None


def last(pattern, text):
    """Sum of the groups' numbers over the last match, one number a group; None without a match."""
    found = None
    for found in re.finditer(pattern, text, re.MULTILINE):
        pass
    return [int(number) for number in found.groups()] if found else None


def counted(name, output):
    """(passed, failed, skipped) as the test program itself reports them; None when it reports nothing."""
    if name in LAST_LINE:
        both = last(r"^(\d+) passed, (\d+) failed$", output)
        return (*both, 0) if both else None
    if name == "pytest":
        summary = re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s", output, re.MULTILINE)
        if not summary:
            return None
        number = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) (\w+)", summary[-1])}
        return (number.get("passed", 0), number.get("failed", 0) + number.get("error", 0),
                number.get("skipped", 0))
    passed = sum(map(int, re.findall(r"^\[  PASSED  \] (\d+) test\(s\)", output, re.MULTILINE)))
    failed = sum(map(int, re.findall(r"^\[  FAILED  \] .*?(\d+) test\(s\)", output, re.MULTILINE)))
    skipped = sum(map(int, re.findall(r"^\[  SKIPPED \] .*?(\d+) test\(s\)", output, re.MULTILINE)))
    return (passed, failed, skipped) if passed + failed + skipped else None


def show(title, text, lines=60):
    print(f"---- {title}")
    print("\n".join(text.rstrip().splitlines()[-lines:]))
    print("----", flush=True)


def build(preset, long, env):
    """Whether the configuration builds without a warning."""
    configure = ["cmake", "--preset", preset, "--log-level=WARNING", "-DFA_WERROR=ON",
                 f"-DFA_CHECK_CASES={LONG_CASES[preset] if long else ''}"]
    for step in (configure, ["cmake", "--build", "--preset", preset]):
        result = subprocess.run(step, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode:
            show(f"{preset}: {' '.join(step)}", result.stdout)
            return False
    return True


def run_tests(preset, env):
    """(passed, failed, skipped, names of the ctest tests run)"""
    report = folder(preset) / "ctest.xml"
    report.unlink(missing_ok=True)
    size = str(1 << 24)
    subprocess.run(["ctest", "--test-dir", folder(preset), "--output-junit", report, "--quiet",
                    "--test-output-size-passed", size, "--test-output-size-failed", size],
                   cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not report.exists():
        print(f"{preset}: ctest left no report")
        return 0, 1, 0, set()
    total = [0, 0, 0]
    names = set()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name")
        names.add(name)
        output = case.findtext("system-out") or ""
        skip = case.find("skipped")
        if skip is not None and skip.get("message", "").startswith("SKIP_"):  # not: there is no such program
            print(f"{preset}: {name} {(output.strip().splitlines() or ['skipped'])[-1]}")
            total[2] += 1
            continue
        ok = case.get("status") == "run"
        says_nothing = (1, 0, 0) if ok and name not in LAST_LINE | {"pytest"} else (0, 1, 0)
        numbers = list(counted(name, output) or says_nothing)
        if not ok and numbers[1] == 0:
            numbers[1] = 1  # it reported success and then died, or never got to report
        if numbers[1]:
            show(f"{preset}: {name} failed", output)
        total = [a + b for a, b in zip(total, numbers)]
    return (*total, names)


def report_volta(preset):
    """What the Volta kernels take, of which no GPU here would tell: registers and spills by ptxas for the true sm_70, bank
    conflicts and shared memory's load by the layout proof. The tests among those just run hold them to their limits."""
    images = sorted([*(folder(preset) / "src" / "cuda").glob("*.fatbin"), *(folder(preset) / "llama").glob("*.fatbin")])
    counted_by_ptxas = [image for image in images if image.with_name(image.name + ".ptxas.txt").exists()]
    if not images:
        print(f"{preset}: no device code in this build (no nvcc): nothing to report for Volta")
        return
    if counted_by_ptxas:
        result = subprocess.run([ROOT / "scripts" / "report_sm70.sh", *counted_by_ptxas], capture_output=True, text=True)
        print(result.stdout + result.stderr, end="")
    else:
        print(f"{preset}: no ptxas for sm_70 when this was built (scripts/fetch_ptxas.sh): no registers to report")
    result = subprocess.run([folder(preset) / "tests" / "test_layout_sm70"], capture_output=True, text=True)
    print("\n".join(line for line in (result.stdout + result.stderr).splitlines() if line.startswith("  |")), flush=True)


def report_neon(preset):
    """How often each NEON kernel ran under emulation, which is all that is known of them here."""
    for case in ElementTree.parse(folder(preset) / "ctest.xml").getroot().iter("testcase"):
        for kernel, runs, refused, bad in re.findall(r"^  (\w*neon\w*) +(\d+) +(\d+) +(\d+)", case.findtext("system-out") or "",
                                                     re.MULTILINE):
            print(f"  {case.get('name')}: {kernel} {runs} runs, {bad} failed ({refused} problems not its own)", flush=True)


def run_mutants(env):
    """Errors planted in the kernels: (noticed by the checker, not noticed)."""
    result = subprocess.run([ROOT / "tests" / "mutation" / "run_mutants.sh"], cwd=ROOT, env=env, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    good, bad, _ = counted("check", result.stdout) or (0, 1, 0)
    if result.returncode or bad:
        show("mutants", result.stdout)
        bad = max(bad, 1)
    print(f"mutants: {good} noticed, {bad} not")
    return good, bad


def run_fuzzers(env):
    """Ten minutes for each reader of model files: (without a finding, with one)."""
    result = subprocess.run([ROOT / "scripts" / "fuzz.sh", "600"], cwd=ROOT, env=env, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(result.stdout, end="")
    good = sum(line.endswith("no finding") for line in result.stdout.splitlines())
    bad = sum("A FINDING" in line for line in result.stdout.splitlines())
    return good, max(bad, 1) if result.returncode else bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="many more cases: hours, not minutes")
    parser.add_argument("configuration", nargs="*", choices=[[], *CONFIGURATIONS], help="default: all")
    options = parser.parse_args()
    env = environment()
    if options.long:
        env["FA_TEST_LONG"] = "1"
    passed = failed = 0
    for preset in options.configuration or CONFIGURATIONS:
        what, _, required = CONFIGURATIONS[preset]
        obstacle = missing(preset, env)
        if obstacle:
            print(f"{preset} ({what}): not run, {obstacle}")
            continue
        begin = time.monotonic()
        if not build(preset, options.long, env):
            failed += 1
            print(f"{preset} ({what}): does not build")
            continue
        built = time.monotonic()
        good, bad, skipped, names = run_tests(preset, env)
        for name in sorted(required - names):
            print(f"{preset}: {name} was not run")
            bad += 1
        passed += good + 1
        failed += bad
        print(f"{preset} ({what}): built in {built - begin:.0f} s, {good} passed, {bad} failed, {skipped} skipped "
              f"in {time.monotonic() - built:.0f} s", flush=True)
        if preset == "release":
            report_volta(preset)
        elif preset == "aarch64":
            report_neon(preset)
    if options.long:
        good, bad = run_mutants(env)
        passed, failed = passed + good, failed + bad
        good, bad = run_fuzzers(env)
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
