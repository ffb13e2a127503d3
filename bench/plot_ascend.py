#!/usr/bin/env python3
"""Plots what sim_ascend.py kept: ratios over two-level tiling, a group's cores at work, the model beside published figures.

    bench/plot_ascend.py docs/ascend docs          # writes ascend_ratios.png, ascend_timeline.png, ascend_published.png"""
import argparse
import os

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from table_ascend import ratios_of, rows_of  # noqa: E402

ROWS = [("AIC", "MTE2"), ("AIC", "MTE1"), ("AIC", "M"), ("AIC", "FIX"), ("AIV 0", "MTE2"), ("AIV 0", "V"), ("AIV 0", "MTE3")]
DOES = {"MTE2": "loads", "MTE1": "L1 to L0", "M": "multiplies", "FIX": "L0C to GM", "V": "computes", "MTE3": "stores"}


def ratios(rows, folder):
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, causal in zip(axes, (False, True)):
        here = {(row["tiling"], row["shape"][3]): row for row in rows if row["causal"] == causal}
        for n, tiling in enumerate(("one-level", "standard", "eager")):
            lengths = sorted(s for t, s in here if t == tiling and ("two-level", s) in here)
            if not lengths:
                continue
            pairs = [(here[tiling, s], here["two-level", s]) for s in lengths]
            low = [min(ratios_of(other, two)) for other, two in pairs]
            high = [max(ratios_of(other, two)) for other, two in pairs]
            axis.plot(lengths, [other["us"] / two["us"] for other, two in pairs], marker="o", markersize=4, label=tiling, color=f"C{n}")
            axis.fill_between(lengths, low, high, color=f"C{n}", alpha=0.25)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.axhline(10.7, color="black", linewidth=0.8, linestyle=":", label="10.7x: the paper's, over its standard attention")
        axis.set(title="causal" if causal else "not causal", xlabel="tokens", xscale="log", yscale="log")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda length, _: f"{length / 1024:g}K")
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("time over two-level's")
    axes[0].legend(loc="upper left", fontsize=8)
    figure.suptitle("910B2, head size 128, fp16, model; bands: the clock's uncertain figures at both ends")
    figure.savefig(os.path.join(folder, "ascend_ratios.png"), dpi=110)


def timeline(row, folder):
    figure, axis = pyplot.subplots(figsize=(11, 3.4), layout="constrained")
    names = sorted({name for _, _, name, _, _ in row["events"]})
    colours = {name: pyplot.get_cmap("tab20")(n % 20) for n, name in enumerate(names)}
    shown = set()
    for at, (core, queue) in enumerate(ROWS):
        for name in names:
            bars = [(ts, dur) for c, q, n, ts, dur in row["events"] if f"group 0 {core} " in c and q == queue and n == name]
            if bars:
                axis.broken_barh(bars, (at - 0.4, 0.8), color=colours[name], label=None if name in shown else name, linewidth=0)
                shown.add(name)
    axis.set(xlim=(row["begin_us"], row["end_us"]), xlabel="us (model)", yticks=range(len(ROWS)),
             yticklabels=[f"{core} {queue}: {DOES[queue]}" for core, queue in ROWS])
    axis.invert_yaxis()
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    keys = row["tiles"]["level1"][1]
    axis.set_title(f"One group in its steady state: 128 x {keys} tiles, pieces of {row['tiles']['level2'][0]} x {keys}, "
                   f"preload {row['tiles']['preload']} (910B2, model)", fontsize=10)
    figure.savefig(os.path.join(folder, "ascend_timeline.png"), dpi=110)


def published(rows, folder):
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for kernel, colour, told in (("hand-written", "C0", "hand-written kernel, 128 x 256, preload 4"),
                                 ("vendor", "C1", "vendor operator, 128 x 1024, preload 2 (kept aside)")):
        here = sorted((row["shape"][3], row["tflops"], row["published"]) for row in rows if row["beside"] == kernel)
        if not here:
            continue
        lengths, model, known = zip(*here)
        axis.plot(lengths, known, "o--", color=colour, label=told + ": published, others' measurement")
        axis.plot(lengths, model, "s-", color=colour, label="the same tiles: model")
    axis.set(xlabel="tokens", ylabel="TFLOP/s", ylim=(0, None))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda length, _: f"{length / 1024:g}K")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="lower right")
    axis.set_title("910B2, one head, head size 128, not causal", fontsize=10)
    figure.savefig(os.path.join(folder, "ascend_published.png"), dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("folder")
    options = parser.parse_args()
    for name, draw in (("calibration", published), ("ablation", ratios)):
        rows = rows_of(options.results, name)
        if rows:
            draw(rows, options.folder)
    for row in rows_of(options.results, "trace"):
        timeline(row, options.folder)


if __name__ == "__main__":
    main()
