#!/usr/bin/env python3
"""Plots what `fastattn bench-model --json` measured: tokens a second by prompt length, and below it how many times faster fast
attention makes the model than the unfused ones. A column for each model, operation and batch size.

    bench/plot_model.py rows.json ... model.png"""
import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

FIRST = ("fast", "standard", "eager")


def name_of(row):
    name = pathlib.PurePath(row["model"]).name
    return f"{name}, {row['layers']} layers" if "layers" in row else name


def draw(axis, points, name, **style):
    if points:
        axis.plot(*zip(*sorted(points)), marker="o", markersize=4, label=name, **style)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="+")
    parser.add_argument("png")
    options = parser.parse_args()
    rows = []
    for path in options.json:
        with open(path) as file:
            rows += [row for row in json.load(file) if "ms" in row]  # others say why they did not run
    if not rows:
        sys.exit(f"plot_model: {', '.join(options.json)}: no row that ran; run `fastattn bench-model --json` first")
    panels = list(dict.fromkeys((name_of(row), row["op"], row["batch"]) for row in rows))
    found = {row["attention"] for row in rows}
    names = [name for name in FIRST if name in found] + sorted(found - set(FIRST))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    figure, axes = pyplot.subplots(2, len(panels), figsize=(3.6 * len(panels) + 1, 7), squeeze=False, layout="constrained",
                                   sharex="col")
    for (model, op, batch), (rates, ratios) in zip(panels, axes.T):
        here = [row for row in rows if (name_of(row), row["op"], row["batch"]) == (model, op, batch)]
        for name in names:
            mine = [row for row in here if row["attention"] == name]
            draw(rates, [(row["prompt"], row["tokens_per_s"]) for row in mine], name, color=colours[name],
                 linewidth=2.5 if name == "fast" else 1.2)
            if name != "fast":
                draw(ratios, [(row["prompt"], row["fast_speedup"]) for row in mine if "fast_speedup" in row], f"over {name}",
                     color=colours[name])
        ratios.axhline(1, color="grey", linewidth=0.8)
        rates.set(title=f"{model}\n{op}, batch {batch}", yscale="log")
        ratios.set(xlabel="tokens of the prompt", yscale="log")
        ratios.set_xscale("log", base=2)
        ratios.xaxis.set_major_formatter(lambda length, _: f"{length / 1024:g}K" if length >= 1024 else f"{length:g}")
        for axis in (rates, ratios):
            for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
                formatter("{x:g}")
            axis.tick_params(axis="y", which="minor", labelsize=7)
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("tokens a second")
    axes[1, 0].set_ylabel("speed-up by fast, times")
    for label, line in zip(("outside right upper", "outside right lower"), axes):
        handles = {name: handle for axis in line for handle, name in zip(*axis.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc=label, fontsize=8)
    machines = sorted({f"{row.get('machine', row['device'])}, {row['dtype']}" for row in rows})
    figure.suptitle(f"{'; '.join(machines)}, measured", fontsize=10)
    figure.savefig(options.png, dpi=110)


if __name__ == "__main__":
    main()
