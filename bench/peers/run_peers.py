#!/usr/bin/env python3
"""Attention of this library beside that of other CPU libraries: same shapes, types, cores and checks, one at a time.

    make bench-peers                                        # everything: packages, full grid, table and plot
    bench/peers/run_peers.py --quick --threads 2 --cores 0,1 --json rows.json --table table.md --plot ratios.png
    bench/peers/run_peers.py pack DIR --cpu sapphirerapids  # one file for a machine without a network

Peers: PyTorch (flash), ONNX Runtime, ggml (llama.cpp), oneDNN's graph SDPA (GNU OpenMP and SYCL builds), and this
library's baselines, standard and eager. Each is a process of its own on the same pinned cores, stopped while another
is asked. They take turns, round by round, at every point; the median over the rounds counts, and of a library the
fastest of its ways that is right. Ratios compare one type with the same type: a peer without the type has no row."""
import argparse
import datetime
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import peer_grid
import peer_packages
import peer_table
from peer_contract import core_list, machine
from peer_packages import HERE, ROOT, Failure
from peer_worker import Dead, Worker

BUILD = ROOT / "build"
PEERS = ("standard", "eager", "PyTorch", "ONNX Runtime", "ggml", "oneDNN", "oneDNN SYCL")
LIBRARY = BUILD / "lib" / "libfastattention.so"
POINT_SECONDS = 300  # a peer that needs longer for a point is ended
FAR_MS, FAR = 1000.0, 4.0  # a call beyond that time and so many times ours is asked for once


def name_list(text):
    chosen = [name.strip() for name in text.split(",")]
    unknown = [name for name in chosen if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no peer; give some of: {', '.join(PEERS)}")
    return chosen


def at_least_one(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of at least 1")
    return int(text)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the grid")
    parser.add_argument("--only", type=name_list, default=list(PEERS), metavar="PEER,...", help=", ".join(PEERS))
    parser.add_argument("--points", default="", metavar="TEXT",
                        help="only points whose name holds it, as 'decode' or ',128 bf16 causal'")
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cores", type=core_list, help="as 2,4 (default: the first --threads)")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--repeats", type=at_least_one, default=5, help="samples a round, at most")
    parser.add_argument("--seconds", type=float, default=1.0, help="no further sample in a round after so long")
    parser.add_argument("--minutes", type=float, default=None, help="begin no further point after so long")
    parser.add_argument("--json", type=pathlib.Path, help="all rows; written after every point")
    parser.add_argument("--table", type=pathlib.Path, help="the table as Markdown (printed in any case)")
    parser.add_argument("--plot", type=pathlib.Path, help="the ratios as PNG; needs matplotlib")
    parser.add_argument("--least", action="store_const", const="ms_min", default="ms", dest="field",
                        help="table and plot of the least times instead of the medians, for a machine with other work")
    parser.add_argument("--no-install", action="store_true", help="use what is there: --python and build/peers")
    parser.add_argument("--python", default=None, help="with --no-install: the interpreter of PyTorch and ONNX Runtime")
    parser.add_argument("--packages", type=pathlib.Path, default=BUILD / "peers", help="where packages are kept")
    options = parser.parse_args(arguments)
    if options.python and not options.no_install:
        parser.error("--python goes with --no-install; without that every peer gets an environment of its own")
    cores = options.cores or sorted(os.sched_getaffinity(0))[:options.threads]
    if len(cores) < options.threads or not set(cores) <= os.sched_getaffinity(0):
        parser.error(f"--threads {options.threads} on the cores {cores}: this process may use "
                     f"{sorted(os.sched_getaffinity(0))}")
    options.cores = cores[:options.threads]
    options.grid = [point for point in peer_grid.GRIDS["quick" if options.quick else "full"]()
                    if options.points in point_name(point)]
    if not options.grid:
        parser.error(f"--points '{options.points}' leaves no point; names are like '{point_name(peer_grid.full()[0])}'")
    return options


def point_name(point):
    return f"{point.op} {peer_table.shape_name(point.shape)} {point.dtype}{' causal' if point.causal else ''}"


def workers(options):
    """The process of every peer asked for, not yet started, and {peer: why not} of those whose package is not there."""
    folder, missing, made = options.packages, {}, []
    folder.mkdir(parents=True, exist_ok=True)

    def python(name):
        if options.no_install:
            own = folder / name / "bin" / "python"
            return own if own.exists() and not options.python else options.python or sys.executable
        return peer_packages.venv(folder, name)

    def add(peer, interpreter, script, *arguments, **environment):
        made.append(Worker(peer, [interpreter, HERE / script, "--serve", "--threads", options.threads, "--cores",
                                  ",".join(map(str, options.cores)), "--repeats", options.repeats, "--seconds",
                                  options.seconds, *arguments], environment))

    if not LIBRARY.exists() and "FASTATTENTION_LIBRARY" not in os.environ:
        raise Failure(f"{LIBRARY} is not there; build it first: make")
    base = python("base")
    for layout in ("bhsd", "bshd"):
        add(peer_table.OURS, base, "fastattention_run.py", "--layout", layout)
    for peer in options.only:
        try:
            if peer in peer_table.BASELINES:
                add(peer, base, "fastattention_run.py", "--kernel", peer)
            elif peer == "PyTorch":
                add(peer, python("pytorch"), "pytorch_sdpa.py")
            elif peer == "ONNX Runtime":
                add(peer, python("onnxruntime"), "onnxruntime_attention.py")
            elif peer == "ggml":
                there = sorted(folder.glob("ggml-*/libggml-cpu.so"))
                if options.no_install and not there:
                    raise Failure(f"no {folder}/ggml-*/libggml-cpu.so")
                add(peer, base, "ggml_flash_attn.py", "--library", there[0].parent if options.no_install else
                    peer_packages.ggml(folder, "native", base.parent))
            elif peer == "oneDNN":
                library = folder / "onednn" / "libdnnl.so.3" if options.no_install else peer_packages.onednn(folder)
                if not library.exists():
                    raise Failure(f"no {library}")
                add(peer, base, "onednn_graph_sdpa.py", "--library", library)
            elif peer == "oneDNN SYCL":
                place = folder / "onednn_sycl" if options.no_install else python("onednn_sycl").parent.parent
                if not (place / "lib" / "libdnnl.so.3").exists():
                    raise Failure(f"no {place}/lib/libdnnl.so.3")
                add(peer, place / "bin" / "python", "onednn_graph_sdpa.py", "--library", place / "lib" / "libdnnl.so.3",
                    LD_LIBRARY_PATH=str(place / "lib"))
        except Failure as reason:
            missing[peer] = str(reason)
    return made, missing


def ask(worker, point):
    try:
        return worker.ask(point, POINT_SECONDS)
    except Dead as reason:
        return point.fields() | {"error": str(reason)}


def measure(options, made):
    """Rows of all points: in every round, each process is asked once, and another one begins. A peer that is far behind
    is not asked again: its ratio needs no more digits."""
    until = time.monotonic() + 60 * options.minutes if options.minutes else None
    for number, point in enumerate(options.grid):
        if until and time.monotonic() > until:
            print(f"run_peers: {options.minutes:g} minutes are over; {len(options.grid) - number} of {len(options.grid)} "
                  "points are left out", file=sys.stderr)
            return
        rounds = {worker: [] for worker in made}
        for turn in range(options.rounds):
            ours = min((row["ms"] for worker in made if worker.peer == peer_table.OURS for row in rounds[worker]
                        if "ms" in row), default=None)
            shift = (number + turn) % len(made)
            for worker in made[shift:] + made[:shift]:
                before = rounds[worker][-1] if rounds[worker] else {"ms": 0}
                if "ms" in before and not (ours and before["ms"] > max(FAR_MS, FAR * ours)):
                    rounds[worker].append(ask(worker, point))
        rows = [{"peer": worker.peer, "library": worker.library, **peer_table.combine(rounds[worker])} for worker in made]
        print(f"{number + 1}/{len(options.grid)} {point_name(point)}: " + ", ".join(
            f"{row['peer']} {peer_table.three_digits(row[options.field])}" for row in rows if "ms" in row),
            file=sys.stderr, flush=True)
        yield rows


def commit():
    if (ROOT / "commit").exists():  # of a packed copy
        return (ROOT / "commit").read_text().strip()
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def compare(options):
    made, missing = workers(options)
    result = {"machine": machine(), "commit": commit(), "command": shlex.join(sys.argv), "threads": options.threads,
              "cores": options.cores, "rounds": options.rounds, "repeats": options.repeats, "missing": missing,
              "begun": datetime.datetime.now().isoformat(timespec="seconds"), "rows": []}
    try:
        for worker in list(made):
            try:
                worker.start()
            except Dead as reason:
                if worker.peer == peer_table.OURS:
                    raise Failure(f"ours does not start: {reason}") from None
                missing[worker.peer] = str(reason)
                made.remove(worker)
        for peer, reason in missing.items():
            print(f"run_peers: without {peer}: {reason}", file=sys.stderr)
        for rows in measure(options, made):
            result["rows"] += rows
            if options.json:
                write(options.json, json.dumps(result, indent=1))
    finally:
        for worker in made:
            worker.end()
    table = peer_table.markdown(result["rows"], options.field)
    print(table)
    if options.table:
        write(options.table, table + "\n")
    if options.plot:
        plotted = options.json or options.plot.with_suffix(".json")
        write(plotted, json.dumps(result, indent=1))
        base = options.packages / "base" / "bin" / "python"
        peer_packages.run(options.python or (base if base.exists() else sys.executable), HERE / "plot_peers.py", plotted,
                          options.plot, *(["--least"] if options.field == "ms_min" else []))


def pack(arguments):
    """One archive with everything but Python and its packages."""
    parser = argparse.ArgumentParser(prog="run_peers.py pack", description=pack.__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--cpu", choices=peer_packages.GGML_CPUS, default="native", help="that ggml is built for")
    parser.add_argument("--packages", type=pathlib.Path, default=BUILD / "peers")
    options = parser.parse_args(arguments)
    if not LIBRARY.exists():
        raise Failure(f"{LIBRARY} is not there; build it first: make")
    options.packages.mkdir(parents=True, exist_ok=True)
    base = peer_packages.venv(options.packages, "base")
    ggml = peer_packages.ggml(options.packages, options.cpu, base.parent)
    carried = [(peer_packages.onednn(options.packages), "build/peers/onednn/libdnnl.so.3")]
    carried += [(path, f"build/peers/{ggml.name}/{path.name}") for path in ggml.iterdir()]
    carried += [(path, f"build/lib/{path.name}") for path in LIBRARY.parent.iterdir() if ".so" in path.name]
    carried += [(path, str(path.relative_to(ROOT))) for folder in (HERE, ROOT / "python" / "fastattention")
                for path in folder.rglob("*") if path.suffix in (".py", ".txt")]
    options.folder.mkdir(parents=True, exist_ok=True)
    archive, stamp = options.folder / "peers.tar.xz", options.folder / "commit"
    stamp.write_text(commit() + "\n")
    with tarfile.open(archive, "w:xz", preset=2) as tar:
        for path, name in [*carried, (stamp, "commit")]:
            tar.add(path, f"peers/{name}")
    stamp.unlink()
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB. On the other machine, whose python3 has numpy, ml_dtypes "
          f"and whichever of torch, onnxruntime with onnx, matplotlib:\n  tar xf {archive.name} && python3 "
          "peers/bench/peers/run_peers.py --no-install --python $(command -v python3) --threads 2 --quick --rounds 2 "
          "--seconds 0.3 --minutes 7 --json rows.json")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if sys.argv[1:2] == ["pack"]:
            pack(sys.argv[2:])
        else:
            compare(parse(sys.argv[1:]))
    except (Failure, OSError) as reason:
        sys.exit(f"run_peers: {reason}")
    except KeyboardInterrupt:
        sys.exit("run_peers: interrupted")


if __name__ == "__main__":
    main()
