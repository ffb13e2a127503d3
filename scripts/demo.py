#!/usr/bin/env python3
"""make demo: a language model answers with standard attention and with FastAttention, then attention alone is timed.

Needs nothing but the built command; without the model or without oneDNN it says so and shows the rest."""
import json
import pathlib
import struct
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = ROOT / "build" / "bin" / "fastattn"
QUESTION = "Why is the sky blue? Answer in two sentences."
TOKENS = 64
LENGTHS = 1024, 2048, 4096, 8192
MEBI = 2 ** 20


def fastattn(*arguments):
    """The JSON of one subcommand; None, with the command's own line printed, when it fails."""
    result = subprocess.run([COMMAND, *map(str, arguments), "--json", "-"], stdin=subprocess.DEVNULL, text=True,
                            capture_output=True)
    if result.returncode:
        print(result.stderr.strip() or f"fastattn died with code {result.returncode}")
        return None
    return json.loads(result.stdout)


def has_baselines():
    info = fastattn("info")
    return info is not None and any(kernel["name"] == "standard" and kernel["device"] == "cpu" for kernel in info["kernels"])


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
    agree = judge(runs["standard"], runs["fast"])
    print(f"  With fast: {runs['fast']['prompt_tokens_per_s']:.1f} tokens/s of the prompt, "
          f"{runs['fast']['decode_tokens_per_s']:.1f} tokens/s of the answer.\n")
    return agree


def judge(standard, fast):
    """Same tokens: equal until the first step whose two likeliest logits are nearer than the logit tolerance."""
    pairs = list(zip(standard["tokens"], fast["tokens"]))
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if standard["tokens"] == fast["tokens"]:
        print(f"  The answers agree: the same {same} tokens.")
        return True
    gap, tolerance = standard["gaps"][same] if same < len(standard["gaps"]) else float("inf"), logit_tolerance(standard)
    if gap <= tolerance:
        print(f"  The answers agree: the same {same} tokens, then two tokens whose logits are {gap:.3g} apart, within the "
              f"tolerance of {tolerance:.3g}.")
        return True
    print(f"  The answers DIFFER after {same} tokens, where the two likeliest logits are {gap:.3g} apart, more than the "
          f"tolerance of {tolerance:.3g}.")
    return False


def logit_tolerance(row):
    """Of this model, from the golden logits: twice the largest error of plain same-precision attention."""
    with open(ROOT / "tests" / "llama" / "goldens" / "logits_smollm2.bin", "rb") as file:
        allowed = struct.unpack("<4f", file.read(24)[8:])
    return allowed[2 if row["dtype"] == "f32" else 0]


def cell(value, form, unit=""):
    return format(value, form) + unit if value is not None else "-"


def mebibytes(row, who):
    """What a run took beyond its tensors: the plan's workspace, or more where the process was seen to grow more."""
    planned, seen = row[who + "workspace_bytes"], row[who + "peak_bytes"]
    return None if planned is None else max(planned, seen or 0) / MEBI


def table():
    print("Attention alone: batch 1, 32 query heads, 8 KV heads, head size 128, bf16; every result checked first.")
    print("standard, eager: the two usual ways with the whole score matrix in memory (oneDNN), see docs/performance.md\n")
    print(f"{'tokens':>6} {'eager ms':>10} {'standard ms':>12} {'fast ms':>8} {'over eager':>11} {'over standard':>14}   "
          "memory, MiB: eager, standard, fast", flush=True)
    row = None
    for length in LENGTHS:
        rows = fastattn("bench", "prefill", "--shape", f"1,32,8,{length},{length},128", "--dtype", "bf16", "--repeats",
                        3 if length <= 4096 else 1)
        if rows is None:
            return False
        row = rows[0]
        print(f"{length:>6} {cell(row['eager_ms'], '.0f'):>10} {cell(row['standard_ms'], '.0f'):>12} {row['ms']:>8.1f} "
              f"{cell(row['speedup_eager'], '.1f', 'x'):>11} {cell(row['speedup'], '.1f', 'x'):>14}   "
              f"{cell(mebibytes(row, 'eager_'), '.0f'):>18} {cell(mebibytes(row, 'standard_'), '.0f'):>9} "
              f"{mebibytes(row, ''):>5.1f}", flush=True)
    print(f"\nMeasured with {row['kernel']}: {row['machine']}, {row['threads']} threads, commit {row['commit']}.\n"
          "Memory is what a run takes beyond q, k, v and o.")
    return True


def main():
    if not has_baselines():
        print("oneDNN was not found when this was built: standard attention and the model are left out.\n")
        return 0 if table() else 1
    good = answers()
    return 0 if table() and good else 1


if __name__ == "__main__":
    sys.exit(main())
