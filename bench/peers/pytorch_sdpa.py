#!/usr/bin/env python3
"""Times PyTorch's attention on the CPU on the shapes `fastattn bench prefill` takes, for a ratio on one machine.

A row of JSON a backend: flash (the fused kernel), math (unfused, as torch.matmul + softmax + matmul inside
scaled_dot_product_attention) and eager (the same written out in Python, with a mask tensor).

    python3 -m venv torch-venv && torch-venv/bin/pip install torch numpy
    torch-venv/bin/python bench/peers/pytorch_sdpa.py --shape 1,32,8,4096,4096,128 --dtype bf16 --threads 2
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def parse_shape(text):
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (6, 7) or min(numbers) < 1 or numbers[1] % numbers[2]:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no shape; give B,HQ,HKV,SQ,SKV,D[,DV], all at least 1, HQ a multiple of HKV")
    return numbers if len(numbers) == 7 else numbers + numbers[-1:]


def machine():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def bottom_right(torch, seq_q, seq_kv, dtype):
    """Additive mask: query i keeps keys up to i + seq_kv - seq_q. PyTorch's own is_causal is top-left aligned."""
    keeps = torch.ones(seq_q, seq_kv, dtype=torch.bool).tril(seq_kv - seq_q)
    return torch.zeros(seq_q, seq_kv, dtype=dtype).masked_fill_(~keeps, -math.inf)


def eager(torch, q, k, v, mask):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.matmul(q, k.transpose(2, 3)) * (1.0 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype), v)


def contenders(torch, q, k, v, causal):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    sdpa = torch.nn.functional.scaled_dot_product_attention
    mask = bottom_right(torch, q.shape[2], k.shape[2], q.dtype) if causal else None
    square = causal and q.shape[2] == k.shape[2]

    def by(backend):
        with sdpa_kernel(backend):
            return sdpa(q, k, v, attn_mask=None if square else mask, is_causal=square, enable_gqa=True)

    return {"flash": lambda: by(SDPBackend.FLASH_ATTENTION), "math": lambda: by(SDPBackend.MATH),
            "eager": lambda: eager(torch, q, k, v, mask)}


def milliseconds(run, repeats):
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", type=parse_shape, default=parse_shape("1,32,8,4096,4096,128"),
                        metavar="B,HQ,HKV,SQ,SKV,D[,DV]")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--causal", action="store_true", help="bottom-right aligned")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backend", choices=("flash", "math", "eager"), action="append", help="default: all three")
    options = parser.parse_args()
    if options.threads < 1 or options.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")

    cores = sorted(os.sched_getaffinity(0))[:options.threads]
    if len(cores) < options.threads:
        parser.error(f"--threads {options.threads}, but this process may use {len(cores)} cores")
    os.sched_setaffinity(0, cores)
    os.environ.update(OMP_NUM_THREADS=str(options.threads), OMP_PROC_BIND="true")
    try:
        import torch
    except ImportError as error:
        sys.exit(f"PyTorch is not here ({error}); install it in a virtual environment: pip install torch numpy")
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)

    batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = options.shape
    dtype = getattr(torch, DTYPES[options.dtype])
    q = torch.randn(batch, heads_q, seq_q, dim).to(dtype)
    k = torch.randn(batch, heads_kv, seq_kv, dim).to(dtype)
    v = torch.randn(batch, heads_kv, seq_kv, dim_v).to(dtype)
    pairs = seq_q * seq_kv
    if options.causal:
        pairs = sum(min(max(i + seq_kv - seq_q + 1, 0), seq_kv) for i in range(seq_q))
    operations = 2.0 * batch * heads_q * pairs * (dim + dim_v)

    with torch.inference_mode():
        for name, run in contenders(torch, q, k, v, options.causal).items():
            if options.backend and name not in options.backend:
                continue
            try:
                times = milliseconds(run, options.repeats)
            except RuntimeError as error:
                print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            print(json.dumps({
                "op": "prefill", "shape": options.shape, "causal": options.causal, "dtype": options.dtype,
                "device": "cpu", "kernel": f"torch {torch.__version__} {name}", "ms": statistics.median(times),
                "ms_min": min(times), "tflops": operations / statistics.median(times) / 1e9,
                "threads": options.threads, "machine": machine()}), flush=True)


if __name__ == "__main__":
    main()
