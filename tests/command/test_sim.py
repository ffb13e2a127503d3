"""fastattn sim: the Ascend kernels on the emulated chip, and wrong use of it. Times are never compared with fixed numbers."""
import json

import pytest

SMALL = ["--shape", "1,2,1,96,160,64"]
TILINGS = ["two-level", "one-level", "standard", "eager"]
FIELDS = {"tiling", "kernel", "tiles", "shape", "causal", "window", "dtype", "cycles", "us", "flops", "tflops", "peak_tflops",
          "peak_percent", "believed", "cache", "use", "hazards", "low", "high", "corners", "launches", "parts", "instructions",
          "gm_read_bytes", "gm_written_bytes", "hbm_bytes", "workspace_bytes", "mask_bytes", "full_mask_bytes", "checked", "chip",
          "label", "set", "commit"}


@pytest.fixture(scope="module", autouse=True)
def has_sim(fastattn):
    if "not in this build" in fastattn("sim", "--parameters").stderr:
        pytest.skip("built without Ascend")


def rows_of(fastattn, *arguments):
    done = fastattn("sim", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done, code, *says):
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("fastattn sim: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    for words in says:
        assert words in done.stderr, done.stderr


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("more", [[], ["--causal"], ["--window", "20,3"]])
def test_every_tiling_is_right_and_timed(fastattn, dtype, more):
    rows = rows_of(fastattn, "--tiling", ",".join(TILINGS), *SMALL, "--dtype", dtype, *more)
    assert [row["tiling"] for row in rows] == TILINGS
    for row in rows:
        assert set(row) == FIELDS
        assert row["hazards"] == 0 and row["label"] == "model" and row["chip"] == "910b2" and row["believed"] is True
        assert row["shape"] == [1, 2, 1, 96, 160, 64, 64] and row["dtype"] == dtype and row["causal"] == ("--causal" in more)
        assert row["us"] > 0 and row["cycles"] == pytest.approx(row["us"] * 1800)
        assert row["tflops"] == pytest.approx(row["flops"] / row["us"] * 1e-6)
        assert row["peak_percent"] == pytest.approx(100 * row["tflops"] / 353.8944)
        assert row["checked"]["computed"] == "all" and row["checked"]["rows"] == 24 and row["checked"]["rows_computed"] == 192
        assert 0 < row["checked"]["max_err"] < 0.05
        assert set(row["use"]["aic"]) == {"M", "MTE1", "MTE2", "FIX"} and set(row["use"]["aiv"]) == {"V", "MTE2", "MTE3"}
        assert all(0 <= share <= 1 for core in row["use"].values() for share in core.values())
        assert row["launches"] == sum(part["launches"] for part in row["parts"])
        assert row["us"] == pytest.approx(sum(part["us"] for part in row["parts"]))
        assert row["full_mask_bytes"] == 96 * 160 * 2
        assert row["low"] is None and row["high"] is None and row["corners"] == [] and row["set"] == {}
    two_level, one_level, standard, eager = rows
    assert two_level["launches"] == one_level["launches"] == 1 < standard["launches"] < eager["launches"]
    assert one_level["tiles"]["level1"] == [96, 128]
    pairs = {"--causal": sum(min(160, i + 65) for i in range(96)),
             "--window": sum(min(160, i + 68) - max(0, i + 44) for i in range(96))}.get(more[0] if more else "", 96 * 160)
    assert two_level["flops"] == 2 * pairs * 128 * 2
    masked = bool(more)
    assert two_level["mask_bytes"] == one_level["mask_bytes"] == (4 << 20 if masked else 0)
    assert standard["mask_bytes"] == 0 and eager["mask_bytes"] == (96 * 160 * 2 if masked else 0)


def test_default_is_two_level_and_another_run_says_the_same(fastattn):
    first, again = rows_of(fastattn, *SMALL), rows_of(fastattn, *SMALL)
    assert first == again and [row["tiling"] for row in first] == ["two-level"]


def test_table_for_people(fastattn):
    done = fastattn("sim", "--tiling", "two-level,standard", *SMALL, "--causal")
    assert done.returncode == 0 and done.stderr == ""
    assert "model" in done.stdout and "hazards" in done.stdout and "agree with the oracle" in done.stdout
    assert "standard / two-level: " in done.stdout and "measured" not in done.stdout


def test_help(fastattn):
    text = fastattn("sim", "--help").stdout
    assert "Usage: fastattn sim " in text and "No NPU" in text and "fastattn sim --arch" in text
    assert max(map(len, text.splitlines())) <= 110
    assert "\n  sim  " in fastattn("--help").stdout


def test_tiles(fastattn):
    shape = ["--shape", "1,1,1,256,1024,128"]
    row, = rows_of(fastattn, *shape, "--level1", "64x512", "--preload", "3", "--level2", "16x512")
    assert row["tiles"] == {"level1": [64, 512], "level2": [16, 512], "preload": 3, "kv_splits": row["tiles"]["kv_splits"]}
    other, = rows_of(fastattn, *shape, "--level1", "128x128", "--preload", "1")
    assert other["tiles"]["level1"] == [128, 128] and other["us"] != row["us"]


@pytest.mark.parametrize("chip, groups, clock", [("910b1", 24, 1.85), ("910b2", 24, 1.8), ("910b3", 20, 1.8), ("910b4", 20, 1.5)])
def test_chips(fastattn, chip, groups, clock):
    row, = rows_of(fastattn, *SMALL, "--chip", chip)
    assert row["chip"] == chip and row["peak_tflops"] == pytest.approx(groups * clock * 8.192)


def test_sweep(fastattn):
    row, = rows_of(fastattn, *SMALL, "--sweep")
    assert len(row["corners"]) == 4
    assert {c["cross_flag_cost"] for c in row["corners"]} == {100, 1000}
    assert {(c["gm_ub_latency"], c["gm_ub_rate"]) for c in row["corners"]} == {(151, 49), (197, 123)}
    assert row["low"]["us"] >= row["us"] >= row["high"]["us"] and row["low"]["us"] > row["high"]["us"]
    assert row["low"]["us"] == max([row["us"]] + [c["us"] for c in row["corners"]])
    assert row["low"]["tflops"] <= row["tflops"] <= row["high"]["tflops"]


def test_set(fastattn):
    plain, = rows_of(fastattn, *SMALL)
    slow, = rows_of(fastattn, *SMALL, "--set", "cross_flag_cost=20000", "--set", "launch_us=0")
    assert slow["set"] == {"cross_flag_cost": 20000, "launch_us": 0}
    assert slow["us"] > plain["us"] and slow["checked"]["max_err"] == plain["checked"]["max_err"]


def test_large_problem_is_timed_after_a_part_or_a_smaller_one_was_compared(fastattn):
    part, = rows_of(fastattn, "--shape", "1,8,2,2048,2048,128", "--check", "5")
    assert part["checked"]["computed"] == "first group" and part["checked"]["rows"] == 5
    assert 0 < part["checked"]["rows_computed"] < 8 * 2048
    smaller, = rows_of(fastattn, "--tiling", "standard", "--shape", "1,16,2,2048,2048,128", "--causal")
    assert smaller["checked"]["computed"] == "smaller" and smaller["checked"]["shape"] != smaller["shape"]


def test_trace_appears_whole(fastattn, tmp_path):
    path = tmp_path / "trace.json"
    assert fastattn("sim", *SMALL, "--trace", path).returncode == 0
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    assert any("(model)" in event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "process_name")
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]


def test_parameters(fastattn):
    rows = rows_of(fastattn, "--parameters")
    table = {row["name"]: row for row in rows}
    assert table["groups"]["values"] == {"910b1": 24, "910b2": 24, "910b3": 20, "910b4": 20}
    assert all(row["unit"] and row["source"] and row["confidence"] in ("documented", "published", "fitted", "guess") for row in rows)
    text = fastattn("sim", "--parameters").stdout
    assert all(name in text for name in table)


def test_layers(fastattn):
    rows = rows_of(fastattn, "--arch", "qwen2.5-7b", "--seq", "128")
    assert [row["tiling"] for row in rows] == ["two-level", "standard", "eager"]
    for row in rows:
        assert row["arch"] == "qwen2.5-7b" and row["layers"] == 28 and row["label"] == "model"
        assert row["layer_us"] == pytest.approx(row["attention_us"] + row["products_us"] + row["passes_us"])
        assert row["prefill_ms"] == pytest.approx(28 * row["layer_us"] * 1e-3)
        assert row["ratio"] == pytest.approx(row["layer_us"] / rows[0]["layer_us"])
        assert row["checked"]["rows"] > 0


@pytest.mark.parametrize("more, says", [
    ([], "--shape is missing"), ([*SMALL, "--tiling", "three-level"], "two-level, one-level, standard, eager"),
    ([*SMALL, "--tiling", ""], "unknown tiling ''"), ([*SMALL, "--tiling", "two-level,"], "unknown tiling ''"),
    ([*SMALL, "--tiling", "eager,eager"], "twice"), ([*SMALL, "--chip", "910a"], "910b1, 910b2, 910b3, 910b4"),
    ([*SMALL, "--chip", ""], "unknown chip"), ([*SMALL, "--dtype", "f32"], "f16, bf16"), ([*SMALL, "--dtype", "int8"], "f16, bf16"),
    (["--shape", "1,2,1,96,160"], "6 or 7"), (["--shape", "0,2,1,96,160,64"], "at least 1"), (["--shape", "x"], "6 or 7"),
    (["--shape", "1,3,2,96,160,64"], "multiple"), ([*SMALL, "--window", "3"], "--window"),
    ([*SMALL, "--level1", "128"], "ROWSxKEYS"), ([*SMALL, "--level1", "128x"], "ROWSxKEYS"), ([*SMALL, "--level1", "0x128"], "ROWSxKEYS"),
    ([*SMALL, "--level1", "128x1024x2"], "ROWSxKEYS"), ([*SMALL, "--level1", "-16x128"], "ROWSxKEYS"),
    ([*SMALL, "--level1", "100x128"], "multiple of 16"), ([*SMALL, "--level1", "128x2048"], "up to 1024"),
    ([*SMALL, "--level2", "7x128"], "multiple of 8"), ([*SMALL, "--level1", "128x256", "--level2", "8x128"], "must be 256"),
    ([*SMALL, "--level1", "128x1024", "--level2", "64x1024"], "UB"), ([*SMALL, "--preload", "99"], "1 to 8"),
    ([*SMALL, "--preload", "-1"], "1 to 8"), ([*SMALL, "--tiling", "standard", "--level1", "128x256"], "two-level"),
    ([*SMALL, "--set", "gm_ub_rate"], "PARAMETER=VALUE"), ([*SMALL, "--set", "gm_up_rate=1"], "did you mean gm_ub_rate?"),
    ([*SMALL, "--set", "nonsense=1"], "--parameters"), ([*SMALL, "--set", "gm_ub_rate=x"], "number"),
    ([*SMALL, "--set", "gm_ub_rate=-1"], "at least 0"), ([*SMALL, "--set", "gm_ub_rate=0"], "more"),
    ([*SMALL, "--set", "groups=1"], "groups"), ([*SMALL, "--set", "gm_ub_rate=nan"], "number"), ([*SMALL, "--check", "-1"], "--check"),
    ([*SMALL, "--arch", "llama-7b"], "exclude each other"), (["--arch", "llama-7b"], "--seq"), (["--arch", "llama-7b", "--seq", "-4"], "--seq"),
    (["--arch", "gpt-5", "--seq", "8"], "llama-7b"), (["--arch", "llama-7b", "--seq", "8", "--sweep"], "--shape"),
    ([*SMALL, "--seq", "8"], "--arch"), ([*SMALL, "--tilings", "eager"], "did you mean --tiling?"), ([*SMALL, "stray"], "stray"),
    ([*SMALL, "--set"], "needs a value"),
])
def test_wrong_use(fastattn, more, says):
    done = fastattn("sim", *more)
    refused(done, 2, says)
    assert done.stdout == ""


def test_what_cannot_be_done(fastattn, tmp_path):
    refused(fastattn("sim", *SMALL, "--json", tmp_path / "none" / "x.json"), 1, "cannot write")
    refused(fastattn("sim", *SMALL, "--trace", tmp_path / "none" / "x.json"), 1, "cannot write")
    refused(fastattn("sim", "--shape", "1,2,2,16,16,300"), 1, "ends at 256")
    out = tmp_path / "x.json"
    refused(fastattn("sim", *SMALL, "--level1", "100x128", "--json", out, "--trace", tmp_path / "t.json"), 2, "multiple of 16")
    assert list(tmp_path.iterdir()) == []
