#!/usr/bin/env python3
"""Counts what the main loops of the prefill kernels ask of each unit, from their SASS, for the model of gpu_model.c.

  count_sass.py --compiler TEXT --commit HASH [--sm70 CUBIN] [--sm75 CUBIN] [--xformers CUBIN] > kernel_counts.def

Needs cuobjdump and nvdisasm of a toolkit that knows the cubin's architecture in PATH: CUDA 13 no longer knows sm_70,
those of 12.x do. Of each kernel it finds the loop over key tiles, takes the path of a tile that every row keeps whole,
repeats the inner loops, checks the number of tensor instructions against the tile plan, and counts a warp's
instructions. `scheduled` is how long the warps of a sub-core take for a step when each issues in order, waiting as the
stall counts and scoreboards in its instructions say, with the latencies below; it is a model, too.
"""
import argparse
import collections
import re
import shutil
import subprocess
import sys

SUB_CORES = 4
# Cycles that a unit of a sub-core is taken by one instruction; sources in docs/gpu_model.md.
TAKES = {"tensor": 2, "fma": 2, "alu": 2, "half": 2, "xu": 8, "branch": 2}
# Bytes that shared memory moves a clock, for the whole multiprocessor.
SHARED_BYTES = {"V100": 128, "T4": 64}
# Cycles until a result that a scoreboard guards is there.
LATENCY = {"lds": 26, "ldg": 211, "shfl": 24, "xu": 20, "sts": 8, "barrier": 20}

FMA = {"FFMA", "FMUL", "FADD", "IMAD", "FSWZADD"}
HALF = {"HADD2", "HMUL2", "HFMA2", "HSET2", "HSETP2"}
XU = {"MUFU", "F2F", "F2I", "I2F", "FRND", "POPC", "FLO", "BREV", "S2R"}
BRANCH = {"BRA", "BSSY", "BSYNC", "BREAK", "WARPSYNC", "BMOV", "CALL", "YIELD", "NOP", "BAR", "DEPBAR", "EXIT", "RET"}

Instruction = collections.namedtuple("Instruction", "address text name stall write read wait")
# steps: passes of an inner loop that has all tensor instructions of the path (1: there is no such loop; 0: they are in
# several, which `trips` tells apart). With sm_75 this leaves restarts out, which have more, and of the paths with as many,
# inside, first tile and edge, the first is the shortest.
# hot: weight of loads of 16 bytes and of stores when the path is chosen (0: they carry no sign of the usual path).
Plan = collections.namedtuple(
    "Plan", "gpu name function head_dim rows keys warps blocks mma_macs mma_takes trips steps hot")


def plans():
    for d in (64, 96, 128, 192, 256):
        parts = 2 if d > 128 else 1
        groups, pieces = d // parts // 32, 2 // parts
        trips = [4, groups // pieces] * pieces if d != 64 else []
        if d == 96:  # three groups in two pieces: one, then two
            trips = [4, 4, 2]
        yield "sm70", Plan("V100", "prefill_sm70", f"prefill_sm70_d{d}", d, 256 // parts, 64 // parts, 8, 1, 256, 2,
                           trips, 0, 1)
    # As prefill_shapes.h has them, those that a T4 (64 KB of shared memory a multiprocessor) runs long sequences with.
    shapes = ((64, 2, 4, 32, 32, 2), (96, 1, 4, 32, 32, 2), (128, 2, 8, 32, 16, 1), (192, 1, 8, 32, 32, 1),
              (256, 1, 8, 16, 16, 1))
    for d, row_tiles, warps, keys, step, blocks in shapes:
        steps = keys // step  # one is no loop
        yield "sm75", Plan("T4", "prefill_sm75", f"fa_prefill_sm75_f16_{d}_{d}_{row_tiles}x{warps}x{keys}", d,
                           16 * row_tiles * warps, keys, warps, blocks, 1024, 8, [steps] if steps > 1 else [], steps, 1)
    for d, name, rows, keys in ((64, "xf_64x64_rf", 64, 64), (128, "xf_32x128_rf", 32, 128)):
        yield "xformers", Plan("V100", "xformers", name, d, rows, keys, 4, 3, 256, 2, [d // 32, keys // 32], 0, 0)


def disassemble(cubin):
    """{function: [Instruction]}"""
    for tool in ("cuobjdump", "nvdisasm"):
        if not shutil.which(tool):
            sys.exit(f"count_sass: no {tool} in PATH (CUDA 12.x has one that knows sm_70)")
    done = subprocess.run(["cuobjdump", "-sass", cubin], capture_output=True, text=True)
    if done.returncode or "Function" not in done.stdout:
        sys.exit(f"count_sass: {cubin}: {(done.stderr or 'nothing to disassemble').strip().splitlines()[0]}")
    functions, pending = {}, None
    for line in done.stdout.splitlines():
        if found := re.match(r"\s+Function : (\S+)", line):
            code = functions[found.group(1)] = []
        elif found := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\*", line):
            pending = int(found.group(1), 16), found.group(2)
        elif pending and (found := re.match(r"\s+/\* 0x([0-9a-f]{16}) \*/", line)):
            bits = int(found.group(1), 16) >> 41  # of the upper half: stall, yield, two scoreboards, the waits
            name = re.sub(r"^@!?U?P\w+\s+", "", pending[1]).split()[0]
            code.append(Instruction(*pending, name, max(bits & 15, 1), bits >> 5 & 7, bits >> 8 & 7, bits >> 11 & 63))
            pending = None
    return functions


def unit(name):
    base = name.split(".")[0]
    if base in ("HMMA",):
        return "tensor"
    if base in ("LDS", "LDSM"):
        return "lds"
    if base in ("STS",):
        return "sts"
    if base in ("SHFL",):
        return "shfl"
    if base in ("LDG", "LD", "STG", "ST", "LDL", "STL", "RED", "ATOM"):
        return "ldg"
    if base in FMA:
        return "fma"
    if base in HALF:
        return "half"
    if base in XU:
        return "xu"
    return "branch" if base in BRANCH else "alu"


def words(name):
    """Cycles of the 128 bytes a clock: a register of a warp each."""
    if name.startswith("LDSM"):
        return 4 if ".x4" in name or ".4" in name else 2 if ".x2" in name or ".2" in name else 1
    return 4 if ".128" in name else 2 if ".64" in name else 1


def target(instruction):
    found = re.findall(r"0x([0-9a-f]+)", instruction.text)
    return int(found[-1], 16) if found else None


def main_loop(code):
    """Indices of the first and last instruction of the loop with the most tensor instructions: the shortest such."""
    at = {i.address: n for n, i in enumerate(code)}
    loops = []
    for n, i in enumerate(code):
        if i.name.startswith("BRA") and target(i) in at and at[target(i)] <= n:
            first = at[target(i)]
            mma = sum(x.name.startswith("HMMA") for x in code[first:n + 1])
            loops.append((mma, first - n, first, n))
    return max(loops)[2:]


def path(code, first, last, hot, expected):
    """The likeliest way through the loop: the expected tensor instructions (None: the most), the loads of whole rows,
    then the fewest instructions."""
    at = {i.address: n for n, i in enumerate(code)}
    best = {last: {0: (0, None)}}  # instruction -> {tensor instructions from there on: (score, next)}
    for n in range(last - 1, first - 1, -1):
        i = code[n]
        kind = i.name.split(".")[0]
        predicated = i.text.startswith("@") or ".DIV" in i.name
        ways = [n + 1]
        if kind == "BRA":
            to = at.get(target(i), -1)
            if n < to <= last:
                ways = [to, n + 1] if predicated else [to]
            elif not first <= to <= n and not predicated:  # an inner loop's end is passed when its trips are done
                ways = []
        elif kind in ("EXIT", "RET", "BRX", "JMP") and not predicated:
            ways = []
        score = -1
        if kind == "CALL":
            score = -1000
        elif hot and kind == "LDG":
            score = 300 if ".128" in i.name else -100
        elif hot and kind == "STS":
            score = 100
        here = {}
        for way in ways:
            for mma, (rest, _) in best.get(way, {}).items():
                mma += kind == "HMMA"
                if mma not in here or rest + score > here[mma][0]:
                    here[mma] = rest + score, way
        best[n] = here
    mma, walk, n = expected if expected in best[first] else max(best[first]), [], first
    while n is not None:
        walk.append(n)
        step = best[n][mma][1]
        mma -= code[n].name.startswith("HMMA")
        n = step
    return walk


def unroll(code, walk, first, last, trips):
    at = {i.address: n for n, i in enumerate(code)}
    trips, out = list(trips), []
    for n in walk:
        out.append(n)
        i = code[n]
        if i.name.startswith("BRA") and n != last and first <= at.get(target(i), -1) <= n and at[target(i)] in out:
            begin = len(out) - 1 - out[::-1].index(at[target(i)])
            count = trips.pop(0) if trips else 1
            out += out[begin:] * (count - 1)
    return [code[n] for n in out], trips


def schedule(trace, plan):
    """Cycles a step of the warps of one sub-core; the mean over how far apart they start, for warps can fall into step
    with each other and stay there."""
    offsets = 3, 211, 487, 1013, 2029
    return sum(schedule_from(trace, plan, offset) for offset in offsets) / len(offsets)


def schedule_from(trace, plan, offset):
    """With its warps started `offset` cycles apart. A sub-core's share of the pipe that four have in common (shared
    memory, shuffles) is a quarter of it."""
    count = plan.warps * plan.blocks // SUB_CORES
    together = count // plan.blocks  # warps of a block here: they meet at its barriers
    rounds, units = 5, [(unit(i.name), words(i.name), i.name.startswith("BAR")) for i in trace]
    ready, position, ends = [offset * w for w in range(count)], [0] * count, [[] for _ in range(count)]
    boards = [[0] * 8 for _ in range(count)]  # 6 scoreboards; 7: none
    free, issue, waiting = collections.Counter(), 0, collections.defaultdict(list)
    total, last = rounds * len(trace), 0
    while any(p < total for p in position):
        best = None
        for w in range(count):
            if position[w] >= total or ready[w] is None:
                continue
            i, (u, _, _) = trace[position[w] % len(trace)], units[position[w] % len(trace)]
            waits = [boards[w][b] for b in range(6) if i.wait >> b & 1]
            when = max(ready[w], issue, free[u] if u in TAKES else 0, *waits)
            if best is None or (when, w != last, position[w]) < best[0]:
                best = (when, w != last, position[w]), w
        (when, _, _), w = best
        i, (u, size, is_barrier) = trace[position[w] % len(trace)], units[position[w] % len(trace)]
        issue, last = when + 1, w
        done = read = when + LATENCY.get(u, 4)
        if u in TAKES:
            free[u] = when + (plan.mma_takes if u == "tensor" else TAKES[u])
        elif u != "ldg":
            takes = SUB_CORES * (2 if u == "shfl" else size * 128 // SHARED_BYTES[plan.gpu])
            free["pipe"] = max(free["pipe"], when) + takes
            done, read = free["pipe"] + LATENCY[u], free["pipe"]
        boards[w][i.write] = done
        boards[w][i.read] = read
        ready[w] = when + i.stall
        position[w] += 1
        if is_barrier:
            block = w // together
            waiting[block].append(w)
            if len(waiting[block]) == together:
                for other in waiting.pop(block):
                    ready[other] = when + LATENCY["barrier"]
            else:
                ready[w] = None
        if position[w] % len(trace) == 0:
            ends[w].append(when)
    return (max(e[-1] for e in ends) - max(e[0] for e in ends)) / (rounds - 1)


def row(plan, functions):
    names = [name for name in functions if re.fullmatch(plan.function, name)]
    if not names:
        sys.exit(f"count_sass: no function {plan.function}")
    code = functions[names[0]]
    first, last = main_loop(code)
    tile = 2 * plan.rows * plan.keys * plan.head_dim // plan.warps // plan.mma_macs
    expected = tile // plan.steps if plan.steps else None if plan.trips else tile
    walk = path(code, first, last, plan.hot, expected)
    trace, left = unroll(code, walk, first, last, plan.trips)
    count = collections.Counter(unit(i.name) for i in trace)
    cycles = collections.Counter()
    for i in trace:
        cycles[unit(i.name)] += words(i.name)
    if left or count["tensor"] != tile:
        sys.exit(f"count_sass: {names[0]}: the path has {count['tensor']} tensor instructions, a tile {tile} "
                 f"({len(left)} trip counts unused): the loop's shape has changed, mend plans()")
    numbers = (plan.head_dim, plan.rows, plan.keys, plan.warps, plan.blocks, count["tensor"] * plan.mma_takes,
               count["fma"], count["alu"], count["half"], count["xu"], cycles["lds"], cycles["sts"], count["shfl"],
               count["ldg"], len(trace), round(schedule(trace, plan)))
    return f"GPU_KERNEL({plan.name}, {plan.gpu}, {', '.join(map(str, numbers))})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--commit", required=True)
    for name in ("sm70", "sm75", "xformers"):
        parser.add_argument("--" + name, metavar="CUBIN")
    given = parser.parse_args()
    functions, rows = {}, []
    for source, plan in plans():
        if cubin := getattr(given, source):
            if cubin not in functions:
                functions[cubin] = disassemble(cubin)
            rows.append(row(plan, functions[cubin]))
    print("/* Written by bench/model/count_sass.py: what a warp asks of each unit for one step of the main loop.\n"
          f" * Source: commit {given.commit}.\n * Compiler: {given.compiler}.\n"
          " *\n * GPU_KERNEL(kernel, gpu, head size, rows a block, keys a step, warps a block, blocks an SM, tensor\n"
          " *   cycles, FMA, integer and logic, half, MUFU and conversion: instructions; LDS, STS: registers moved;\n"
          " *   SHFL, global memory, all: instructions; scheduled: cycles a step of a sub-core's warps) */")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
