#!/usr/bin/env python3
"""Ratios and the Markdown table of what run_peers.py measured.

    bench/peers/peer_table.py rows.json [--below 1.2] [--least]

Medians over rounds of medians of samples; --least takes the least sample of all instead, for a machine that others use
too, because whatever else it does only ever adds time."""
import argparse
import json
import math
import statistics
import sys

OURS = "ours"
BASELINES = ("standard", "eager")


def combine(rounds):
    """One row of the rows of several rounds: the median of their medians, the least of their least."""
    right = [row for row in rounds if "ms" in row]
    if not right:
        return rounds[-1]
    row = dict(right[-1])
    row["ms"] = statistics.median(each["ms"] for each in right)
    row["ms_min"] = min(each["ms_min"] for each in right)
    row["max_err"] = max(each["max_err"] for each in right)
    row["tflops"] = right[0]["tflops"] * right[0]["ms"] / row["ms"]
    row["rounds"] = len(right)
    row["spread"] = max(each["ms"] for each in right) / min(each["ms"] for each in right)
    return row


def key(row):
    return row["op"], tuple(row["shape"]), row["dtype"], row["causal"]


def points(rows, field="ms"):
    """For every point that ours ran: its key, our ms, {peer: how many times as long it takes as ours does in its layout},
    the best peer and the ratio to that (None without any). field: ms, the median, or ms_min, the least."""
    table = {}
    for row in rows:
        table.setdefault(key(row), []).append(row)
    result = []
    for where, here in table.items():
        ours = {row["layout"]: row[field] for row in here if row["peer"] == OURS and "ms" in row}
        if not ours:
            continue
        first = ours.get("bhsd", next(iter(ours.values())))
        ratios = {row["peer"]: row[field] / ours.get(row["layout"], first)
                  for row in here if row["peer"] != OURS and "ms" in row}
        best = min(ratios, key=ratios.get) if ratios else None
        result.append({"key": where, "ms": first, "ratios": ratios, "best": best, "ratio": ratios.get(best)})
    return result


def shape_name(shape):
    return ",".join(map(str, shape[:6] if shape[5] == shape[6] else shape))


def summary(compared):
    ratios = [point["ratio"] for point in compared if point["ratio"] is not None]
    if not ratios:
        return "No point has both ours and a peer."
    worst = min((point for point in compared if point["ratio"] is not None), key=lambda point: point["ratio"])
    op, shape, dtype, causal = worst["key"]
    return (f"{len(ratios)} points: median over the best peer {statistics.median(ratios):.2f}x, worst "
            f"{worst['ratio']:.2f}x ({op} {shape_name(shape)} {dtype}{' causal' if causal else ''}, {worst['best']}); "
            f"{sum(ratio < 1 for ratio in ratios)} below 1, {sum(ratio < 1.2 for ratio in ratios)} below 1.2.")


def markdown(rows, field="ms"):
    """The table: ours in ms, then every peer's time over ours, above 1 where ours is faster."""
    compared = points(rows, field)
    peers = list(dict.fromkeys(row["peer"] for row in rows if row["peer"] != OURS and "ms" in row))
    heads = ["B,HQ,HKV,SQ,SKV,D", "type", "ours, ms", *peers, "best peer", "over it"]
    lines = [f"| {' | '.join(heads)} |",
             "|---" * (5 + len(peers)) + "|"]
    for point in compared:
        _, shape, dtype, causal = point["key"]
        cells = [f"{point['ratios'][peer]:.2f}" if peer in point["ratios"] else "" for peer in peers]
        ratio = "" if point["ratio"] is None else f"{point['ratio']:.2f}"
        if ratio and point["ratio"] < 1.2:
            ratio = f"**{ratio}**"
        lines.append(f"| {shape_name(shape)}{' causal' if causal else ''} | {dtype} | {three_digits(point['ms'])} | "
                     + "".join(f"{cell} | " for cell in cells) + f"{point['best'] or ''} | {ratio} |")
    return "\n".join([*lines, "", summary(compared)])


def three_digits(value):
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def read(path):
    """The rows of a file of run_peers.py; exits with a line where it is none."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["rows"]
        for row in rows:
            if not ("peer" in row and "layout" in row or "error" in row):
                raise ValueError("a row has neither a peer nor an error")
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is no result of run_peers.py ({error})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json")
    parser.add_argument("--below", type=float, metavar="X",
                        help="instead, the points where ours is less than X times as fast as the best peer")
    parser.add_argument("--least", action="store_const", const="ms_min", default="ms", dest="field")
    options = parser.parse_args()
    rows = read(options.json)
    if options.below is None:
        print(markdown(rows, options.field))
        return
    for point in sorted(points(rows, options.field), key=lambda point: point["ratio"] or math.inf):
        if point["ratio"] is not None and point["ratio"] < options.below:
            op, shape, dtype, causal = point["key"]
            print(f"{point['ratio']:.2f}  {op} {shape_name(shape)} {dtype}{' causal' if causal else ''}: {point['best']}")


if __name__ == "__main__":
    main()
