"""Help a newcomer can use, versions, and what programs read: JSON with the contract's keys."""
import json
import re

import pytest

SUBCOMMANDS = ["info", "run", "check", "bench", "tune", "report", "generate", "perplexity"]


def test_help_lists_every_subcommand(fastattn):
    for flag in ("--help", "-h", "help"):
        done = fastattn(flag)
        assert done.returncode == 0 and done.stderr == ""
        for name in SUBCOMMANDS:
            assert re.search(rf"^  {name} +\w", done.stdout, re.MULTILINE), name


def test_version(fastattn):
    done = fastattn("--version")
    assert done.returncode == 0 and re.fullmatch(r"fastattn \d+\.\d+\.\d+ \(commit [^ ]+\)\n", done.stdout)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_subcommand(fastattn, subcommand, flag):
    done = fastattn(subcommand, flag)
    if "not in this build" in done.stderr:
        pytest.skip("built without the model runner")
    assert done.returncode == 0 and done.stderr == ""
    text = done.stdout
    description, usage, options, example = re.fullmatch(
        r"(.+?)\n\nUsage: (.+?)\n\nOptions:\n(.+?)\n\nExample:\n(.+)\n", text, re.DOTALL).groups()
    assert len(description.split()) >= 20
    assert usage.startswith(f"fastattn {subcommand} ")
    assert f"fastattn {subcommand}" in example
    assert "--device" in options and "--threads" in options and "(default" in options
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_offers_what_the_build_has(fastattn, subcommand):
    kernels = json.loads(fastattn("info", "--json", "-").stdout)["kernels"]
    done = fastattn(subcommand, "--help")
    if "not in this build" in done.stderr:
        pytest.skip("built without the model runner")
    text = " ".join(done.stdout.split())
    devices = re.search(r"where to run: (.*?); cuda:N is GPU N, counted from 0 \(default cpu\)", text).group(1).split(", ")
    assert devices[0] == "cpu" and len(devices) == len(set(devices))
    assert set(devices) == {"cpu"} | {kernel["device"] for kernel in kernels}
    families = re.search(r"or a family: (.*?) \(default: the fastest that fits\)", text).group(1).split(", ")
    assert families == list(dict.fromkeys(kernel["arch"] for kernel in kernels))
    for device in devices:
        assert "unknown device" not in fastattn("info", "--device", device).stderr


def test_help_wins_over_other_options(fastattn):
    done = fastattn("run", "--causal", "--help")
    assert done.returncode == 0 and done.stdout.count("Usage:") == 1


# ------------------------------------------------------------------------------------------------- info

def test_info_text(fastattn):
    done = fastattn("info")
    assert done.returncode == 0 and done.stderr == ""
    for words in ("Devices", "Kernels", "Features", "causal", "prefill_c", "workspace", "splits"):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize("where", [["--json"], ["--json", "-"], ["--json=-"]])
def test_info_json(fastattn, where):
    done = fastattn("info", *where)
    assert done.returncode == 0 and done.stderr == ""
    info = json.loads(done.stdout)
    assert set(info) == {"version", "commit", "devices", "missing", "kernels", "tuning", "choices"}
    assert info["devices"][0]["name"] == "cpu" and info["devices"][0]["units"] >= 1
    names = {k["name"] for k in info["kernels"]}
    assert len({(k["device"], k["name"]) for k in info["kernels"]}) == len(info["kernels"])
    assert {"prefill_c", "decode_c"} <= names
    features = set().union(*(k["features"] for k in info["kernels"]))
    for kernel in info["kernels"]:
        assert kernel["operation"] in ("prefill", "decode", "any")
        assert set(kernel["dtypes"]) <= {"f32", "f16", "bf16"} and kernel["dtypes"]
        if kernel["arch"] == "c":
            assert set(kernel["features"]) == features, "plain C covers the whole vocabulary"
    for choice in info["choices"]:
        assert choice["kernel"] in names and choice["reason"]
        assert choice["level1_rows"] >= choice["level2_rows"] > 0 and choice["kv_splits"] >= 1
        assert choice["workspace_bytes"] >= 0


def test_info_says_once_why_a_device_is_missing(fastattn):
    info, lines = json.loads(fastattn("info", "--json", "-").stdout), fastattn("info").stdout.splitlines()
    there = {device["name"].split(":")[0] for device in info["devices"]}
    missing = {device["name"]: device["reason"] for device in info["missing"]}
    assert set(missing) == {kernel["device"] for kernel in info["kernels"]} - there
    for name, reason in missing.items():
        assert reason and name not in reason.split("'") and reason in fastattn("info", "--device", name).stderr
        assert lines.count(f"  {name:8} not there: {reason}") == 1
    assert sum("not there" in line for line in lines) == len(missing)


def test_info_names_units_and_caches_as_they_are(fastattn):
    device = json.loads(fastattn("info", "--json", "-").stdout)["devices"][0]
    line = fastattn("info").stdout.splitlines()[4]
    assert line.startswith(f"           {device['units']} cores, ") and " of memory" in line
    assert re.findall(r"L(\d) ", line) == [str(n) for n in (1, 2, 3) if device[f"cache_l{n}_bytes"]]
    assert not re.search(r"\b0 B", line)


def test_info_json_to_a_file_keeps_the_text(fastattn, tmp_path):
    path = tmp_path / "info.json"
    done = fastattn("info", "--json", path)
    assert done.returncode == 0 and "Devices" in done.stdout
    assert json.loads(path.read_text())["version"]


def test_info_of_a_family(fastattn):
    choices = json.loads(fastattn("info", "--kernel", "c", "--json", "-").stdout)["choices"]
    assert all(choice["kernel"] is None or choice["kernel"].endswith("_c") for choice in choices)
    assert any(choice["kernel"] == "prefill_c" for choice in choices)


# ------------------------------------------------------------------------------------------------ check

def test_check_prints_seed_and_closing_line(fastattn):
    done = fastattn("check", "--cases", "6", "--seed", "3", "-k", "*_c")
    assert done.returncode == 0 and done.stderr == ""
    assert "seed 3" in done.stdout and re.fullmatch(r"\d+ passed, 0 failed", done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------ bench

CONTRACT = ["op", "shape", "causal", "dtype", "device", "kernel", "ms", "ms_min", "tflops", "gbps", "roof", "roof_percent",
            "standard_ms", "eager_ms", "speedup", "speedup_eager", "max_err", "threads", "machine", "commit"]
TIMED = ["ms", "ms_min", "tflops", "gbps", "roof", "roof_percent"]


def rows_of(fastattn, *arguments):
    done = fastattn("bench", *arguments, "--json", "-", "--repeats", "2")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = json.loads(done.stdout)
    for row in rows:
        assert set(CONTRACT) <= set(row)
        assert all(row[key] > 0 for key in TIMED)
        assert row["ms_min"] <= row["ms"] and row["max_err"] >= 0
        for baseline, ratio in (("standard", "speedup"), ("eager", "speedup_eager")):
            assert (row[f"{baseline}_ms"] is None) == (row[ratio] is None)
            if row[ratio] is not None:
                assert row[ratio] == pytest.approx(row[f"{baseline}_ms"] / row["ms"])
    return rows


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("operation, queries", [("prefill", 70), ("decode", 1)])
def test_bench_rows(fastattn, operation, queries, dtype):
    row, = rows_of(fastattn, operation, "--shape", f"1,4,2,{queries},130,64", "--dtype", dtype, "--causal",
                   "--threads", "1")
    assert row["op"] == operation and row["shape"] == [1, 4, 2, queries, 130, 64, 64]
    assert row["causal"] is True and row["dtype"] == dtype and row["threads"] == 1 and row["device"] == "cpu"
    assert row["roof_unit"] == ("TFLOP/s" if operation == "prefill" else "GB/s")
    reached = row["tflops"] if operation == "prefill" else row["gbps"]
    assert row["roof_percent"] == pytest.approx(100 * reached / row["roof"])
    if operation == "decode":
        assert "read of the same bytes" in row["roof_name"]
    elif dtype == "f32":  # terms of bf16 on AMX are held against it as well
        assert row["roof_name"].endswith("fp32 FMA") or row["kernel"] == "prefill_c"
    elif dtype == "f16" and row["kernel"].endswith("_amx"):
        assert row["roof_name"].startswith("a third of AMX bf16")


def test_bench_counts_kept_scores_and_bytes(fastattn):
    full, causal, window = (rows_of(fastattn, "prefill", "--shape", "2,4,2,64,64,32,16", "--dtype", "f32", *more)[0]
                            for more in ([], ["--causal"], ["--window", "3,0"]))
    operations = [row["tflops"] * row["ms"] * 1e9 for row in (full, causal, window)]
    pairs = [64 * 64, 64 * 65 // 2, 64 * 4 - 6]
    assert operations == pytest.approx([2 * 8 * (32 + 16) * p for p in pairs])
    kv, rows = 2 * 2 * 64 * (32 + 16) * 4, 2 * 4 * 64 * (32 + 16) * 4
    assert full["gbps"] * full["ms"] * 1e6 == pytest.approx(kv + rows)


def test_bench_takes_several_shapes(fastattn):
    rows = rows_of(fastattn, "decode", "--shape", "1,4,2,1,50,32", "--shape", "3,4,4,2,60,40,24")
    assert [row["shape"] for row in rows] == [[1, 4, 2, 1, 50, 32, 32], [3, 4, 4, 2, 60, 40, 24]]


@pytest.mark.parametrize("more", [["--page", "16"], ["--page", "7", "--layout", "bhsd"], ["--layout", "bhsd"],
                                  ["--kv-dtype", "int8"], ["--kv-dtype", "fp8", "--page", "16"],
                                  ["--window", "20,0"]])
def test_bench_of_features(fastattn, more):
    row, = rows_of(fastattn, "decode", "--shape", "2,4,2,1,100,64", *more)
    assert row["kernel"]


def test_bench_of_a_family(fastattn):
    row, = rows_of(fastattn, "prefill", "--shape", "1,2,2,40,40,32", "--kernel", "c")
    assert row["kernel"] == "prefill_c"


def test_bench_text(fastattn, tmp_path):
    done = fastattn("bench", "prefill", "--shape", "1,2,2,40,40,32", "--repeats", "1", "--json", tmp_path / "b.json")
    assert done.returncode == 0 and done.stderr == ""
    head, row, roof = done.stdout.splitlines()[:3]
    assert "TFLOP/s" in head and "standard" in head and "eager" in head and row.startswith("1,2,2,40,40,32 ")
    written, = json.loads((tmp_path / "b.json").read_text())
    assert written["op"] == "prefill" and roof.startswith(f"  - roof: {written['roof_name']} (100 % is ")


def test_bench_text_names_a_roof_once(fastattn):
    done = fastattn("bench", "prefill", *["--shape", "1,2,2,40,40,32"] * 3, "--repeats", "1")
    assert done.stdout.count("  - roof: ") == 1
