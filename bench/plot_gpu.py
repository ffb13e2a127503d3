#!/usr/bin/env python3
"""Plots what bench_gpu.py measured: TFLOP/s of prefill by sequence length, and below it how many times faster ours is than
unfused attention (our `standard` and `eager` on cuBLAS, PyTorch's math path).

    bench/plot_gpu.py rows.json prefill.png"""
import argparse
import json
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

FUSED = ("ours", "prefill_sm75", "flash", "cudnn", "efficient")
UNFUSED = ("standard", "eager", "math")


def draw(axis, rows, name, value, **style):
    points = sorted((row["shape"][3], value(row)) for row in rows if name + "_ms" in row and "ours_ms" in row)
    if points:
        axis.plot(*zip(*points), marker="o", markersize=4, label=name, **style)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json")
    parser.add_argument("png")
    options = parser.parse_args()
    with open(options.json) as file:
        rows = [row for row in json.load(file) if row["op"] == "prefill" and row["dtype"] == "float16"]
    panels = sorted({(row["shape"][-1], row["causal"]) for row in rows})
    if not panels:
        sys.exit(f"plot_gpu: {options.json} holds no prefill rows in float16; run bench_gpu.py prefill first")
    figure, axes = pyplot.subplots(2, len(panels), figsize=(3.6 * len(panels), 7), squeeze=False, layout="constrained",
                                   sharex=True)
    for (dim, causal), (rates, ratios) in zip(panels, axes.T):
        here = [row for row in rows if (row["shape"][-1], row["causal"]) == (dim, causal)]
        for name in FUSED + UNFUSED:
            draw(rates, here, name, lambda row: row["flop"] / row[name + "_ms"] / 1e9, linewidth=2.5 if name == "ours" else 1.2)
        for name in UNFUSED:
            draw(ratios, here, name, lambda row: row[name + "_ms"] / row["ours_ms"])
        rates.set(title=f"head size {dim}{', causal' if causal else ''}", ylim=(0, None))
        ratios.set(xlabel="tokens a sequence", yscale="log")
        ratios.set_xscale("log", base=2)
        ratios.xaxis.set_major_formatter(lambda length, _: f"{length / 1024:g}K")
        for formatter in (ratios.yaxis.set_major_formatter, ratios.yaxis.set_minor_formatter):
            formatter("{x:g}")
        for axis in (rates, ratios):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("TFLOP/s")
    axes[1, 0].set_ylabel("ours over unfused, times")
    for label, axis in zip(("outside right upper", "outside right lower"), axes[:, 0]):
        figure.legend(*axis.get_legend_handles_labels(), loc=label, fontsize=8)
    devices = sorted({row["device"] for row in rows})
    figure.suptitle(f"Prefill, fp16, 16K tokens a batch, hidden size 2048; {', '.join(devices)}, measured")
    figure.savefig(options.png, dpi=110)


if __name__ == "__main__":
    main()
