#!/usr/bin/env python3
"""Plots what run_peers.py measured: every peer's time over ours, point by point.

    bench/peers/plot_peers.py rows.json ratios.png [--least]"""
import argparse
import json

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

import peer_table  # noqa: E402

TYPES = ("bf16", "f16", "f32")
MARKERS = {"standard": ("s", "tab:gray"), "eager": ("x", "tab:gray"), "PyTorch": ("o", "tab:red"),
           "ONNX Runtime": ("D", "tab:blue"), "ggml": ("^", "tab:green"), "oneDNN": ("v", "tab:purple"),
           "oneDNN SYCL": ("P", "tab:orange")}


def label(shape, causal):
    batch, heads, heads_kv, seq_q, seq_kv, dim, _ = shape
    length = f"{seq_kv / 1024:g}K" if seq_kv >= 1024 else str(seq_kv)
    parts = [length, *([f"B{batch}"] if batch > 1 else []), *([f"D{dim}"] if dim != 128 else []),
             *(["MHA"] if heads == heads_kv else []), *(["causal"] if causal else [])]
    return " ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json")
    parser.add_argument("png")
    parser.add_argument("--least", action="store_const", const="ms_min", default="ms", dest="field")
    options = parser.parse_args()
    compared = peer_table.points(peer_table.read(options.json), options.field)
    with open(options.json, encoding="utf-8") as file:
        result = json.load(file)
    panels = [(dtype, op) for dtype in TYPES for op in ("prefill", "decode")]
    counts = [sum(point["key"][0] == op for point in compared if point["key"][2] == dtype) for dtype, op in panels]
    widths = [max(counts[column::2] + [1]) + 2 for column in (0, 1)]
    figure, axes = pyplot.subplots(3, 2, figsize=(min(24, max(13, 4 + 0.3 * sum(widths))), 13), layout="constrained",
                                   squeeze=False, width_ratios=widths, sharey=True)
    for (dtype, op), axis in zip(panels, axes.flat, strict=True):
        here = [point for point in compared if point["key"][0] == op and point["key"][2] == dtype]
        for peer, (marker, color) in MARKERS.items():
            places = [(x, point["ratios"][peer]) for x, point in enumerate(here) if peer in point["ratios"]]
            if places:
                axis.scatter(*zip(*places), marker=marker, color=color, s=28, label=peer, zorder=3)
        best = [(x, point["ratio"]) for x, point in enumerate(here) if point["ratio"]]
        if best:
            axis.plot(*zip(*best), color="black", linewidth=1, drawstyle="steps-mid", label="over the best peer")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.axhline(1.2, color="black", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(here)), [label(point["key"][1], point["key"][3]) for point in here], rotation=90,
                        fontsize=8)
        axis.set(yscale="log", title=f"{op}, {dtype}", xlim=(-1, max(len(here), 1)))
        axis.set_yticks((0.5, 1, 2, 5, 10, 20, 50), ("0.5", "1", "2", "5", "10", "20", "50"))
        axis.yaxis.set_minor_formatter("")
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("time of the peer over ours")
    handles = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.suptitle("Attention beside other CPU libraries: time of the peer over ours, above 1 ours is faster, dotted: 1.2. "
                    "32 query heads, 8 KV heads, D = 128 unless it says other\n"
                    f"{result['machine']}, {result['threads']} threads, commit {result['commit']}, measured, "
                    f"{'least' if options.field == 'ms_min' else 'median'} of {result['rounds']} rounds", fontsize=10)
    figure.savefig(options.png, dpi=80)


if __name__ == "__main__":
    main()
