#!/usr/bin/env python3
"""Named sets of `fastattn sim` runs, kept as JSON: a file a set, rewritten after every run, so that what was run stays if it is
stopped. All times are of the emulated chip's clock (label "model").

    bench/sim_ascend.py calibration ablation --out docs/ascend
    bench/sim_ascend.py ablation --longest 4096 --command build/bin/fastattn

calibration   one head, head size 128, not causal, beside figures that others published
ablation      two-level, one-level, standard, eager; 1K to 32K, causal and not, with the clock's uncertain figures swept
sensitivity   the same at 4K with other rates of L2, the fitted figure that binds
masks         bytes of mask: the tiling-mask, eager's, all of it
layers        prefill of llama-7b's layers at 2048, 8192 and 16384 tokens
trace         what ran when: 128 queries on 16K keys, one group's steady state, cut from the simulator's trace"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HEADS = {1024: 8, 2048: 8, 4096: 8, 8192: 2, 16384: 1, 32768: 1}  # so that a run stays short; 64 row blocks at least
PUBLISHED = {"hand-written": {1024: 25.6, 4096: 96.6, 16384: 151.2}, "vendor": {1024: 9.2, 4096: 72.6, 16384: 122.9}}
FITTED = ["--level1", "128x256", "--preload", "4", "--splits", "1"]  # the published hand-written kernel's tiling
ASIDE = ["--level1", "128x1024", "--level2", "8x1024", "--preload", "2", "--splits", "1"]  # the vendor operator's
KEPT = ("tiling", "tiles", "shape", "causal", "dtype", "us", "tflops", "peak_percent", "use", "low", "high", "corners", "hazards",
        "parts", "hbm_bytes", "workspace_bytes", "mask_bytes", "full_mask_bytes", "checked", "chip", "label", "set", "commit",
        "arch", "seq", "prefill_ms", "layer_us", "attention_us", "products_us", "products_capped", "passes_us", "ratio",
        "attention_ratio", "cache", "believed", "launches", "gm_read_bytes", "gm_written_bytes")


def shortened(value):
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: shortened(inner) for name, inner in value.items()}
    return [shortened(inner) for inner in value] if isinstance(value, list) else value


def simulate(command, arguments, **added):
    """One row a tiling."""
    words = [command, "sim", *arguments, "--json", "-"]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"sim_ascend: '{' '.join(words)}' ended with {ran.returncode}")
    asked = "fastattn sim " + " ".join(arguments)
    return [{**added, "command": asked, **{name: row[name] for name in KEPT if name in row}} for row in json.loads(ran.stdout)]


def beside(row, published, key):
    return {**row, "published": published, "error_percent": 100 * ((row[key] / published) - 1)}


def calibration(command, options):
    for kernel, wish in (("hand-written", FITTED), ("vendor", ASIDE)):
        for length, published in PUBLISHED[kernel].items():
            for row in simulate(command, ["--shape", f"1,1,1,{length},{length},128", *wish], beside=kernel):
                yield beside(row, published, "tflops")
    for wish in (["--level1", "128x512", "--preload", "2"], ["--level1", "128x1024", "--preload", "2"]):
        for row in simulate(command, ["--shape", "1,1,1,128,8192,128", "--splits", "1", *wish], beside="one core"):
            yield beside(row, 68.8, "us")


def ablation(command, options):
    for length, heads in HEADS.items():
        if not options.shortest <= length <= options.longest:
            continue
        for causal in ([], ["--causal"]):
            shape = ["--shape", f"1,{heads},{heads},{length},{length},128", "--check", "2", *causal]
            for tiling in ("two-level", "one-level", "standard", "eager"):
                yield from simulate(command, [*shape, "--sweep", "--tiling", tiling])


def sensitivity(command, options):
    for rate in (2400, 3600, 4800):
        for causal in ([], ["--causal"]):
            yield from simulate(command, ["--shape", "1,8,8,4096,4096,128", "--check", "2", *causal, "--set", f"l2_rate={rate}", "--tiling",
                                          "two-level,one-level,standard,eager"])


def masks(command, options):
    for length in (1024, 2048, 4096):
        yield from simulate(command, ["--shape", f"1,1,1,{length},{length},128", "--causal", "--check", "2", "--tiling",
                                      "two-level,eager"])
    yield from simulate(command, ["--shape", "1,1,1,65536,65536,128", "--causal", "--check", "2"])


def layers(command, options):
    for length in (2048, 8192, 16384):
        yield from simulate(command, ["--arch", "llama-7b", "--seq", str(length)])


def trace(command, options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        (row,) = simulate(command, ["--shape", "1,1,1,128,16384,128", "--splits", "1", "--level1", "128x1024", "--level2", "8x1024",
                                  "--preload", "2", "--trace", path])
        with open(path) as file:
            events = json.load(file)["traceEvents"]
    row["command"] = row["command"].replace(path, "trace.json")
    begin, end = 0.48 * row["us"], 0.66 * row["us"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    cores = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    kept = [[cores[e["pid"]], names[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]] for e in events
            if e["ph"] == "X" and "AIV 1" not in cores[e["pid"]] and e["ts"] + e["dur"] >= begin and e["ts"] <= end]
    yield {**row, "begin_us": begin, "end_us": end, "events": kept}


SETS = {"calibration": calibration, "ablation": ablation, "sensitivity": sensitivity, "masks": masks, "layers": layers, "trace": trace}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--command", default="build/bin/fastattn")
    parser.add_argument("--out", default="docs/ascend")
    parser.add_argument("--longest", type=int, default=32768, help="ablation: no sequence beyond this")
    parser.add_argument("--shortest", type=int, default=1024, help="ablation: no sequence below this")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    for name in options.sets:
        rows = []
        for row in SETS[name](options.command, options):
            rows.append(shortened(row))
            with open(os.path.join(options.out, name + ".json"), "w") as file:
                file.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
            print(name, row.get("shape") or row.get("seq"), "causal" if row.get("causal") else "", row["tiling"],
                  f"{row.get('us') or row.get('layer_us'):.1f} us (model)", flush=True)


if __name__ == "__main__":
    main()
