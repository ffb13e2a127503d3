#!/usr/bin/env python3
"""make demo: a language model answers with standard attention and with FastAttention, then attention alone is timed.

Needs nothing but the built command; without the model or without oneDNN it says so and shows the rest."""
import json
import os
import pathlib
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = ROOT / "build" / "bin" / "fastattn"
QUESTION = "Why is the sky blue? Answer in two sentences."
TOKENS = 64
LENGTHS = 1024, 2048, 4096, 8192
FLOOR = 2 ** 20  # bytes in a MiB


def fastattn(*arguments):
    """The JSON of one subcommand; None, with the command's own line printed, when it fails."""
    result = subprocess.run([COMMAND, *map(str, arguments), "--json", "-"], stdin=subprocess.DEVNULL, text=True,
                            capture_output=True)
    if result.returncode:
        print(result.stderr.strip() or f"fastattn died with code {result.returncode}")
        return None
    return json.loads(result.stdout)


def has_baselines():
    result = subprocess.run([COMMAND, "info"], capture_output=True, text=True)
    return "standard" in result.stdout.split()


def answers():
    """Whether the two answers were shown and agree."""
    found = subprocess.run([ROOT / "scripts" / "fetch_model.sh"], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        print("No model, so the demo goes on with attention alone.\n")
        return True
    print(f"SmolLM2-135M-Instruct, greedy: {QUESTION}")
    runs = {}
    for attention in ("standard", "fast"):
        row = fastattn("generate", "-m", found.stdout.strip(), "-p", QUESTION, "-n", TOKENS, "--attention", attention)
        if row is None:
            return False
        runs[attention] = row
        print(textwrap.fill(row["text"].strip(), 100, initial_indent=f"  {attention + ':':10}", subsequent_indent=" " * 12))
    standard, fast = runs["standard"]["tokens"], runs["fast"]["tokens"]
    same = next((i for i, (a, b) in enumerate(zip(standard, fast)) if a != b), min(len(standard), len(fast)))
    if standard == fast:
        print(f"  The answers agree: the same {same} tokens.", end="")
    else:
        gap = runs["standard"]["gaps"][same] if same < len(runs["standard"]["gaps"]) else float("nan")
        print(f"  The first {same} tokens agree; at the next one the two likeliest tokens are only {gap:.3g} apart.", end="")
    print(f" Prompt {fast_rate(runs, 'prompt')}, then {fast_rate(runs, 'decode')} tokens/s (fast).\n")
    return True


def fast_rate(runs, what):
    return f"{runs['fast'][what + '_tokens_per_s']:.0f}"


def cell(value, form):
    return format(value, form) if value is not None else "-"


def mebibytes(row, who):
    """Measured growth of the process over a run where the system tells it, else the plan's workspace."""
    measured, planned = row.get(who + "peak_bytes"), row.get(who + "workspace_bytes")
    value = max(v for v in (measured, planned, 0) if v is not None) if planned is not None else None
    return None if value is None else value / FLOOR


def table():
    print("Attention alone: batch 1, 32 query heads, 8 KV heads, head size 128, bf16, every result checked first")
    print(f"{'tokens':>8} {'standard ms':>12} {'fast ms':>9} {'times faster':>13} {'standard MiB':>13} {'fast MiB':>9}"
          f" {'max error':>10}  kernel", flush=True)
    machine = None
    for length in LENGTHS:
        rows = fastattn("bench", "prefill", "--shape", f"1,32,8,{length},{length},128", "--dtype", "bf16",
                        "--repeats", 3 if length <= 4096 else 1)
        if rows is None:
            return False
        row = rows[0]
        machine = f"{row['machine']}, {row['threads']} threads, commit {row['commit']}"
        print(f"{length:>8} {cell(row['standard_ms'], '.1f'):>12} {row['ms']:>9.1f} {cell(row['speedup'], '.1f'):>13} "
              f"{cell(mebibytes(row, 'standard_'), '.0f'):>13} {mebibytes(row, ''):>9.1f} {row['max_err']:>10.1e}  "
              f"{row['kernel']}", flush=True)
    print(f"Measured: {machine}. MiB: memory beyond q, k, v and o.\nBoth on the same oneDNN-class hardware and type; "
          "`fastattn bench --help` has more.")
    return True


def main():
    if not has_baselines():
        print("oneDNN was not found when this was built: standard attention and the model are left out.\n")
        return 0 if table() else 1
    good = answers()
    return 0 if table() and good else 1


if __name__ == "__main__":
    sys.exit(main())
