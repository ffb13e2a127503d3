#!/usr/bin/env python3
"""Prints what sim_ascend.py and tune_ascend.py kept, as the tables of docs/ascend.md.

    bench/table_ascend.py docs/ascend"""
import json
import os
import sys


def rows_of(folder, name):
    path = os.path.join(folder, name + ".json")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return json.load(file)


def table(title, head, rows):
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def tiles_of(row):
    tiles = row["tiles"]
    preload = f" +{tiles['preload']}" if tiles["preload"] else ""
    return "x".join(map(str, tiles["level1"])) + ", " + "x".join(map(str, tiles["level2"])) + preload


def ratios_of(other, two):
    """The ratio, then that of each corner of the sweep: it is one chip that both run on."""
    return [a["us"] / b["us"] for a, b in zip([other, *other["corners"]], [two, *two["corners"]])]


def ratio(other, two):
    every = ratios_of(other, two)
    return f"{every[0]:.2f}x" + (f" ({min(every):.2f} to {max(every):.2f})" if len(every) > 1 else "")


def ablation(rows):
    for causal in (False, True):
        here = {(row["tiling"], row["shape"][3]): row for row in rows if row["causal"] == causal}
        lines = []
        for length in sorted(s for t, s in here if t == "two-level"):
            two = here["two-level", length]
            others = [here.get((name, length)) for name in ("one-level", "standard", "eager")]
            lines.append([f"{length // 1024}K", str(two["shape"][1]), tiles_of(two), f"{two['us']:.0f} us, {two['tflops']:.0f} TFLOP/s",
                          *[f"{o['us']:.0f} us, {ratio(o, two)}" if o else "not run" for o in others]])
        table("causal" if causal else "not causal", ["S", "heads", "tiles", "two-level", "one-level", "standard", "eager"], lines)


def main():
    folder = sys.argv[1]
    table("calibration", ["beside", "shape", "tiles", "published", "model", "error"],
          [[r["beside"], f"{r['shape'][3]} x {r['shape'][4]}", tiles_of(r),
            f"{r['published']} {'us' if r['beside'] == 'one core' else 'TFLOP/s'}",
            f"{r['us']:.1f} us" if r["beside"] == "one core" else f"{r['tflops']:.1f} TFLOP/s", f"{r['error_percent']:+.1f} %"]
           for r in rows_of(folder, "calibration")])
    ablation(rows_of(folder, "ablation"))
    here = {(row["set"]["l2_rate"], row["causal"], row["tiling"]): row for row in rows_of(folder, "sensitivity")}
    table("sensitivity", ["l2_rate", "", "two-level", "one-level", "standard", "eager"],
          [[f"{rate:g}", "causal" if causal else "not causal", f"{two['us']:.0f} us, {two['tflops']:.0f} TFLOP/s",
            *[f"{here[rate, causal, other]['us'] / two['us']:.2f}x" for other in ("one-level", "standard", "eager")]]
           for (rate, causal, tiling), two in here.items() if tiling == "two-level"])
    table("masks", ["S", "tiling", "mask, MiB", "full mask in fp16, MiB"],
          [[str(r["shape"][3]), r["tiling"], f"{r['mask_bytes'] / 2**20:g}", f"{r['full_mask_bytes'] / 2**20:g}"]
           for r in rows_of(folder, "masks")])
    table("layers", ["tokens", "attention", "prefill ms", "attention us", "products us", "passes us", "prefill ratio", "attention ratio"],
          [[str(r["seq"]), r["tiling"], f"{r['prefill_ms']:.1f}", f"{r['attention_us']:.0f}", f"{r['products_us']:.0f}",
            f"{r['passes_us']:.0f}", f"{r['ratio']:.2f}x", f"{r['attention_ratio']:.2f}x"] for r in rows_of(folder, "layers")])
    lines = []
    for r in rows_of(folder, "tiles"):
        us = {tuple(t): u for *t, u in r["tried"]}
        beside = [us.get(t) for t in ((1024, 2, 8), (512, 2, None), (256, 4, None))]
        lines.append([str(r["head_dim"]), r["kind"], f"{r['rows']}x{r['best'][0]} +{r['best'][1]}", str(r["best"][2] or "rule's"), f"{r['us']:.1f}",
                      *[f"{100 * (b / r['us'] - 1):+.1f} %" if b else "does not fit" for b in beside]])
    table("tiles", ["D", "kind", "best", "level-two rows", "us", "1024 wide +2, 8 rows", "512 +2", "256 +4"], lines)


if __name__ == "__main__":
    main()
