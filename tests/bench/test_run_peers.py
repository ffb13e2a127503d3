"""The peer benchmark without its peers: the table's arithmetic, what counts as a right answer, and the error lines."""
import json
import math
import os
import subprocess
import sys

import numpy
import peer_contract
import peer_grid
import peer_table
import pytest
from peer_contract import Call, Inputs, Point
from peer_worker import Dead, Worker

SHAPE = [1, 32, 8, 128, 128, 128, 128]


def row(peer, ms, layout="bhsd", **changes):
    return {"peer": peer, "op": "prefill", "shape": SHAPE, "dtype": "bf16", "causal": False, "layout": layout, "ms": ms,
            "ms_min": ms / 2, "max_err": 0.0, "tflops": 1 / ms} | changes


def run_peers(root, *arguments, **changes):
    return subprocess.run([sys.executable, root / "bench" / "peers" / "run_peers.py", *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, env=os.environ | changes)


def test_rounds_are_combined_by_their_median():
    rounds = [row("ours", ms, max_err=ms / 100) for ms in (4.0, 2.0, 9.0)]
    combined = peer_table.combine(rounds)
    assert (combined["ms"], combined["ms_min"], combined["max_err"], combined["rounds"]) == (4.0, 1.0, 0.09, 3)
    assert combined["spread"] == 4.5 and combined["tflops"] == pytest.approx(0.25)
    assert peer_table.combine([row("ggml", 1.0), {"error": "died"}])["rounds"] == 1
    assert peer_table.combine([{"error": "no f16"}]) == {"error": "no f16"}


def test_a_ratio_is_over_ours_in_the_layout_of_the_peer():
    (point,) = peer_table.points([row("ours", 2.0), row("ours", 4.0, "bshd"), row("PyTorch", 3.0),
                                  row("ONNX Runtime", 5.0, "bshd"),
                                  {"peer": "ggml", "op": "prefill", "shape": SHAPE, "dtype": "bf16", "causal": False,
                                   "error": "no bf16"}])
    assert point["ratios"] == {"PyTorch": 1.5, "ONNX Runtime": 1.25}
    assert (point["best"], point["ratio"], point["ms"]) == ("ONNX Runtime", 1.25, 2.0)


def test_types_and_causal_points_are_never_compared_with_each_other():
    rows = [row("ours", 2.0), row("PyTorch", 1.0, dtype="f32"), row("ggml", 1.0, causal=True)]
    (point,) = peer_table.points(rows)
    assert point["ratios"] == {} and point["best"] is None and point["ratio"] is None
    assert peer_table.summary([point]) == "No point has both ours and a peer."


def test_table_shows_where_ours_loses():
    rows = [row("ours", 2.0), row("ggml", 5.0), row("oneDNN", 1.0), row("ours", 10.0, causal=True),
            row("ggml", 30.0, causal=True)]
    lines = peer_table.markdown(rows).splitlines()
    assert lines[2] == "| 1,32,8,128,128,128 | bf16 | 2.00 | 2.50 | 0.50 | oneDNN | **0.50** |"
    assert lines[3] == "| 1,32,8,128,128,128 causal | bf16 | 10.0 | 3.00 |  | ggml | 3.00 |"
    assert lines[-1] == ("2 points: median over the best peer 1.75x, worst 0.50x (prefill 1,32,8,128,128,128 bf16, "
                         "oneDNN); 1 below 1, 1 below 1.2.")
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "| 1.00 | 2.50 |" in peer_table.markdown(rows, "ms_min").splitlines()[2]


def test_every_point_is_there_once_and_quick_is_a_part_of_full():
    full, quick = peer_grid.full(), peer_grid.quick()
    assert len(set(full)) == len(full) and len(set(quick)) == len(quick) and set(quick) < set(full)
    assert {point.op for point in quick} == {"prefill", "decode"}


def test_operations_of_a_causal_point_are_those_it_needs():
    assert Point((1, 1, 1, 3, 3, 1, 1), "f32", True).operations == 2 * 6 * 2
    assert Point((1, 1, 1, 2, 3, 1, 1), "f32", True).operations == 2 * 5 * 2  # bottom-right: 2 keys and 3
    assert Point((2, 4, 2, 2, 3, 8, 4), "f32", False).operations == 2 * 2 * 4 * 6 * 12


def attention(inputs, last_key):
    """In float64; last_key(i) is the last key that query i sees."""
    group = inputs.q.shape[1] // inputs.k.shape[1]
    k, v = (numpy.repeat(part.astype("float64"), group, axis=1) for part in (inputs.k, inputs.v))
    scores = inputs.q.astype("float64") @ k.swapaxes(2, 3) / math.sqrt(inputs.q.shape[-1])
    if inputs.point.causal:
        seen = numpy.array([[j <= last_key(i) for j in range(k.shape[2])] for i in range(scores.shape[2])])
        scores = numpy.where(seen, scores, -numpy.inf)
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    return weights @ v / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_right_answer_passes_and_a_wrong_one_does_not(dtype, causal):
    inputs = peer_contract.make_inputs(Point((2, 4, 2, 5, 9, 16, 8), dtype, causal))
    assert not numpy.array_equal(inputs.k[0, 0], inputs.k[0, 1])
    right = attention(inputs, lambda i: i + 4)
    error, largest = peer_contract.errors(inputs, right)
    assert error <= 1e-12 < largest
    wrong = [right[::-1], right[:, ::-1], right * numpy.nan]
    if causal:
        wrong.append(attention(inputs, lambda i: i))  # top-left
    for o in wrong:
        error, largest = peer_contract.errors(inputs, o)
        assert not error <= peer_contract.TOLERANCE[dtype] * largest


def test_the_fastest_right_way_of_a_library_counts():
    def calls(inputs, _):
        right = attention(inputs, None)
        yield Call("wrong", "bhsd", lambda: None, lambda: right * 2)
        yield Call("slow", "bhsd", lambda: sum(range(2000000)), lambda: right)
        yield Call("fast", "bhsd", lambda: None, lambda: right)

    options = type("Options", (), {"threads": 1, "seconds": 1.0, "repeats": 2})
    point = Point((1, 2, 1, 3, 4, 8, 8), "f32", False)
    assert peer_contract.Server("lib 1", calls, options).row(point)["kernel"] == "lib 1 fast"
    only_wrong = peer_contract.Server("lib 1", lambda *_: list(calls(*_))[:1], options).row(point)
    assert "ms" not in only_wrong and only_wrong["error"].startswith("wrong: wrong by ")


SERVER = """
import sys, json, time
print(json.dumps({"library": "fake 1"}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["causal"]: sys.exit("fake: no causal here")
    if asked["dtype"] == "f16": time.sleep(60)
    print(json.dumps({"ms": 1.0}), flush=True)
"""


def test_a_peer_that_dies_or_hangs_says_so_and_goes_on():
    worker = Worker("fake", [sys.executable, "-c", SERVER], {})
    worker.start()
    assert worker.library == "fake 1"
    with pytest.raises(Dead, match="^fake: no causal here$"):
        worker.ask(Point(tuple(SHAPE), "f32", True), 60)
    with pytest.raises(Dead, match="^no answer after 1 s$"):
        worker.ask(Point(tuple(SHAPE), "f16", False), 1)
    assert worker.ask(Point(tuple(SHAPE), "f32", False), 60) == {"ms": 1.0}
    worker.end()
    with pytest.raises(Dead, match="No such file"):
        Worker("none", ["/nonexistent/python"], {}).start()


@pytest.mark.parametrize("arguments, says", [
    (["--only", "cuDNN"], "'cuDNN' is no peer; give some of: standard, eager, PyTorch, ONNX Runtime, ggml, oneDNN"),
    (["--threads", "0"], "'0' is no number of at least 1"),
    (["--threads", "1", "--cores", "99999"], "--threads 1 on the cores [99999]: this process may use ["),
    (["--cores", "one"], "'one' is no list of cores; give numbers with commas, as 2,4"),
    (["--points", "decode 7"], "--points 'decode 7' leaves no point; names are like 'prefill 1,32,8,128,128,128 bf16'"),
    (["--python", "python3"], "--python goes with --no-install"),
    (["--rounds", "none"], "'none' is no number of at least 1")])
def test_bad_options_get_a_line(root, arguments, says):
    done = run_peers(root, *arguments)
    assert done.returncode == 2 and done.stdout == "" and says in done.stderr.splitlines()[-1]


def test_a_file_that_is_no_result_gets_a_line(root, tmp_path):
    for text in ("", "[]", "{}", '{"rows": [{}]}', '{"rows": [{"peer": "ours"}]}'):
        (tmp_path / "rows.json").write_text(text)
        done = subprocess.run([sys.executable, root / "bench" / "peers" / "peer_table.py", tmp_path / "rows.json"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "is no result of run_peers.py" in done.stderr


def test_what_is_not_installed_is_named_and_left_out(root, tmp_path):
    done = run_peers(root, "--no-install", "--python", sys.executable, "--packages", tmp_path, "--only",
                     "standard,ggml,oneDNN", "--points", "decode 1,32,8,1,512,128 f32", "--threads", 1, "--rounds", 1,
                     "--repeats", 1, "--json", tmp_path / "rows.json", "--table", tmp_path / "table.md")
    assert done.returncode == 0, done.stderr
    assert f"run_peers: without ggml: no {tmp_path}/ggml-*/libggml-cpu.so" in done.stderr
    result = json.loads((tmp_path / "rows.json").read_text())
    assert [each["peer"] for each in result["rows"]] == ["ours", "ours", "standard"]
    assert all(each["threads"] == 1 and each["ms"] > 0 and each["max_err"] < 1e-5 for each in result["rows"])
    assert set(result["missing"]) == {"ggml", "oneDNN"} and result["rounds"] == 1
    assert (tmp_path / "table.md").read_text() == done.stdout
    assert "| 1,32,8,1,512,128 | f32 |" in done.stdout


def test_without_the_library_it_says_what_to_build(root, tmp_path):
    done = run_peers(root, "--no-install", "--packages", tmp_path, FASTATTENTION_LIBRARY=str(tmp_path / "none.so"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("run_peers: ours does not start: ") and "none.so" in done.stderr
