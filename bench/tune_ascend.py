#!/usr/bin/env python3
"""Searches tiles of two-level attention on the emulated chip and writes the rows of src/ascend/host/tile_table.h.

    bench/tune_ascend.py --json docs/ascend/tiles.json --table src/ascend/host/tile_table.h
    bench/tune_ascend.py --read docs/ascend/tiles.json --table src/ascend/host/tile_table.h  # only what is not there yet

For each head size and kind of problem: level-one keys at preload 2, then preload at the best two widths, then level-two rows at the
best pair of those; what the command refuses does not fit. Times are of the clock (label "model"), and each run's result is
compared with the oracle before its time counts. Kinds:

shortest       24 heads x 128 x 512: one block of rows a group of cores
short          24 heads x 256 x 1024: two blocks of rows a group
medium         24 heads x 256 x 2048
short causal   6 heads x 1024 x 1024
causal         6 heads x 2048 x 2048: short items, each with a diagonal
long           16384 keys a group. A long stream is steady, all groups do the same: two of the 24 run, with 2/24 of L2 and HBM
decode         4 x 32/8 heads x 1 x 4096, in parts by the rule

A problem takes the row of the kind that has about as many keys a group: its `stream`."""
import argparse
import concurrent.futures
import json
import subprocess
import sys

HEAD_SIZES = (64, 128, 192, 256)
KEYS = (128, 256, 384, 512, 768, 1024)
PRELOADS = (2, 1, 3, 4)
ROWS = (8, 16, 32, 64)
ANY = 0
# Kind: shape but head size and options; up to which stream it stands for; causal: 0, 1 or both
KINDS = {"shortest": (["1,24,24,128,512"], 800, (0, 1)), "short": (["1,24,24,256,1024"], 3000, (0,)),
         "short causal": (["1,6,6,1024,1024", "--causal"], 2400, (1,)), "medium": (["1,24,24,256,2048"], 8000, (0,)),
         "causal": (["1,6,6,2048,2048", "--causal"], 8000, (1,)),
         "long": (["1,2,2,128,16384", "--set", "l2_rate=300", "--set", "hbm_rate=74"], ANY, (0, 1)),
         "decode": (["4,32,8,1,4096"], ANY, (0, 1))}
BLOCK = {"decode": 16}  # rows of a level-one tile, else 128
USUAL = ((1024, 2, 8), (512, 2, None), (256, 4, None))
GAIN = 1.015  # what it takes to prefer another level-two height than the rule's, or rings in GM that fill more of L2 than this:
RING_BYTES = 72 << 20  # of 24 groups

HEADER = """/* Tiles that auto-tuning found best: the first row that covers a problem counts. A 0 in the last column leaves it to the rule in
 * tiling_choice.c. Rows come from runs of the emulated chip (docs/ascend.md, model), by
 * bench/tune_ascend.py --json docs/ascend/tiles.json --table src/ascend/host/tile_table.h */
#ifndef FA_ASCEND_TILE_TABLE_H
#define FA_ASCEND_TILE_TABLE_H

#include <stdint.h>

typedef struct fa_ascend_tile_row {
  int32_t rows;     /* of a level-one tile, at most */
  int32_t head_dim; /* at most: the larger of K's and V's */
  int64_t stream;   /* keys that a group of cores passes, at most; 0: any */
  int32_t causal;   /* 0 or 1, as the problem */
  int32_t level1_keys, preload, level2_rows;
} fa_ascend_tile_row;

static const fa_ascend_tile_row fa_ascend_tile_rows[] = {
"""


class Search:
    def __init__(self, command, dim, kind):
        shape = KINDS[kind][0]
        self.arguments = [command, "sim", "--shape", f"{shape[0]},{dim}", *shape[1:], *([] if kind == "decode" else ["--splits", "1"]),
                          "--check", "1", "--json", "-"]
        self.block = BLOCK.get(kind, 128)
        self.found = {}  # (keys, preload, rows or None for the rule's) -> us, None where it does not fit

    def time(self, keys, preload, rows=None):
        tiles = keys, preload, rows
        if tiles not in self.found:
            words = self.arguments + ["--level1", f"{self.block}x{keys}", "--preload", str(preload)]
            ran = subprocess.run(words + (["--level2", f"{rows}x{keys}"] if rows else []), capture_output=True, text=True)
            if ran.returncode and "do not fit" not in ran.stderr:
                sys.exit(f"tune_ascend: '{' '.join(words)}': {ran.stderr}")
            self.found[tiles] = None
            if not ran.returncode:
                (row,) = json.loads(ran.stdout)
                self.found[tiles], self.commit = row["us"], row["commit"]
        return self.found[tiles]

    def best(self, count):
        fitting = sorted((us, tiles[:2]) for tiles, us in self.found.items() if us and tiles[2] is None)
        return [tiles for _, tiles in fitting][:count]

    def run(self):
        for keys in KEYS:
            self.time(keys, 2)
        for keys, _ in self.best(2):
            for preload in PRELOADS:
                self.time(keys, preload)
        for keys, preload in self.best(1):
            for rows in ROWS:
                if rows * keys * 4 <= 64 * 1024 and rows <= self.block // 2:
                    self.time(keys, preload, rows)
        for usual in USUAL:
            self.time(*usual)


def ring_bytes(dim, rows, keys, preload):
    return 24 * (preload + 1) * rows * (keys * 6 + dim * 4)


def chosen(found, dim, rows):
    fitting = {tiles: us for tiles, us in found.items() if us}
    least = min(fitting.values())
    near = [tiles for tiles, us in fitting.items() if us <= GAIN * least]
    best = min(near, key=lambda t: (t[2] is not None, max(ring_bytes(dim, rows, *t[:2]), RING_BYTES), fitting[t]))
    return fitting[best], best


def table(rows):
    lines = []
    for row in sorted(rows, key=lambda r: (r["rows"], r["head_dim"], KINDS[r["kind"]][1] or float("inf"))):
        keys, preload, height = row["best"]
        _, stream, causals = KINDS[row["kind"]]
        for causal in causals:
            lines.append(f"    {{{row['rows']}, {row['head_dim']}, {stream}, {causal}, {keys}, {preload}, {height or 0}}},")
    return HEADER + "\n".join(lines) + "\n    {0, 0, 0, 0, 0, 0, 0}, /* the end */\n};\n\n#endif\n"


def report(row):
    us = {tuple(t): u for *t, u in row["tried"]}
    best = row["us"]
    told = [f"{t[0]}+{t[1]} {100 * (us[t] / best - 1):+.1f} %" if us.get(t) else f"{t[0]}+{t[1]} does not fit" for t in USUAL]
    print(f"D {row['head_dim']:3} {row['kind']:12} best {row['rows']} x {row['best'][0]} preload {row['best'][1]} rows {row['best'][2] or 'by rule'}, "
          f"{best:.1f} us (model); " + ", ".join(told), flush=True)


def keep(path, rows):
    if path:
        with open(path, "w") as file:
            file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default="build/bin/fastattn")
    parser.add_argument("--json", help="where to keep what was tried")
    parser.add_argument("--read", help="take what an earlier search kept, and search what it has not")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--table", help="the header to write")
    options = parser.parse_args()
    rows = []
    if options.read:
        with open(options.read) as file:
            rows = json.load(file)
        for row in rows:
            row["us"], row["best"] = chosen({tuple(tiles): us for *tiles, us in row["tried"]}, row["head_dim"], row["rows"])
            report(row)
    kept = {(row["head_dim"], row["kind"]) for row in rows}
    searches = [(d, k) for k in KINDS for d in HEAD_SIZES if (d, k) not in kept]

    def search(of):
        dim, kind = of
        found = Search(options.command, dim, kind)
        found.run()
        us, best = chosen(found.found, dim, found.block)
        return {"head_dim": dim, "kind": kind, "rows": found.block, "best": best, "us": us, "label": "model",
                "command": "fastattn " + " ".join(found.arguments[1:]) + " --level1 ROWSxKEYS --preload N [--level2 ROWSxKEYS]",
                "commit": found.commit, "tried": [[*tiles, u] for tiles, u in found.found.items()]}

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(search, searches):
            rows.append(row)
            report(row)
            keep(options.json, rows)
    keep(options.json, rows)
    if options.table:
        with open(options.table, "w") as file:
            file.write(table(rows))


if __name__ == "__main__":
    main()
