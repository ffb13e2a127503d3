#!/usr/bin/env python3
"""Our kernels on an NVIDIA GPU beside PyTorch's backends, in one process, on the same tensors.

    make bench-gpu                     # both grids; JSON, table and plot in build/bench-gpu/
    bench/bench_gpu.py prefill --dims 128 --lengths 4096 --json rows.json; bench/plot_gpu.py rows.json prefill.png

Prefill: 16K tokens a batch, hidden size 2048 (heads = 2048 / head size), head sizes 64, 128, 256, causal and not, 512 to
16K tokens a sequence. Decode: one query, 32 query heads on 8 KV heads, head size 128, going through caches of 256 MB
in turn, beyond L2. Of every result the first and the last head are compared with fp32 attention before it is timed. Times are
medians over replays of a CUDA graph, so no time of the host is in them; ratios are of one run. Decode calls stand behind one
another in it, and from compute capability 9.0 on ours overlap: each begins while the one before ends. Behind kernels that do
not let the next begin that saves less (docs/performance.md has both)."""
import argparse
import json
import os
import statistics
import subprocess
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import fastattention

FLUSH_BYTES = 256 << 20  # of keys and values that a decode row goes through, beyond any cache
PEERS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
         "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}


def median_ms(calls, budget_ms):
    """Median time of one of `calls`, which do the same on different tensors (so that a cache holds none of them). They run
    one behind another in a CUDA graph, so that no time of the host is in it."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    begin.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    repeats = max(5, min(50, int(budget_ms / max(begin.elapsed_time(end), 1e-3))))
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for first, last in pairs:
        first.record()
        graph.replay()
        last.record()
    torch.cuda.synchronize()
    return statistics.median(first.elapsed_time(last) for first, last in pairs) / len(calls)


def peer(name, causal):
    def bind(q, k, v):
        def call():
            with sdpa_kernel(PEERS[name]):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal,
                                                                        enable_gqa=q.shape[1] != k.shape[1])
        return call
    return bind


def ours(kernel, causal):
    def bind(q, k, v):
        out = torch.empty_like(q)
        return lambda: fastattention.attention(q, k, v, causal=causal, layout="bhsd", kernel=kernel, out=out)
    return bind


# Largest difference from exact attention on normal random input: a rounding of o, of size 4 at most, and of the weights.
TOLERANCE = {torch.float16: 4 * 2.0**-11 + 2.0**-10, torch.bfloat16: 4 * 2.0**-8 + 2.0**-7, torch.float32: 1e-3}


def measure(row, calls, tensors, reference, budget_ms):
    """Times of all calls into row; what fails or differs says so instead. Each call is name: (q, k, v) -> function."""
    for name, make in calls.items():
        try:
            bound = [make(*each) for each in tensors]
            error = (picked(bound[0]()) - reference).abs().max().item()
            if not error <= TOLERANCE[tensors[0][0].dtype]:
                row[name + "_error"] = f"differs from the reference by {error:.3g}"
                continue
            row[name + "_ms"] = median_ms(bound, budget_ms)
        except Exception as failure:  # a peer that does not do this, or no memory for it
            row[name + "_error"] = str(failure).splitlines()[0][:120]
            torch.cuda.empty_cache()
    return row


def picked(o):
    """The heads that are compared: the first and the last."""
    return torch.stack([o[0, 0], o[-1, -1]]).float()


def exact(q, k, v, causal):
    """Those heads, in fp32."""
    heads = []
    for b, h, kv in ((0, 0, 0), (-1, -1, -1)):
        scores = q[b, h].float() @ k[b, kv].float().T * q.shape[-1] ** -0.5
        if causal:
            scores.masked_fill_(torch.ones_like(scores, dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2]), -torch.inf)
        heads.append(torch.softmax(scores, -1) @ v[b, kv].float())
    return torch.stack(heads)


def prefill_rows(options):
    for dtype in options.dtypes:
        for dim in options.dims:
            for causal in (False, True):
                for length in options.lengths:
                    batch, heads = max(1, options.tokens // length), 2048 // dim
                    q, k, v = (torch.randn(batch, heads, length, dim, device="cuda", dtype=getattr(torch, dtype))
                               for _ in range(3))
                    reference = exact(q, k, v, causal)
                    calls = {name: ours(kernel, causal) for name, kernel in options.kernels.items()
                             if dtype == "float16" or name != "prefill_sm75"}
                    calls.update({name: peer(name, causal) for name in options.peers})
                    row = {"op": "prefill", "shape": [batch, heads, heads, length, length, dim], "causal": causal,
                           "dtype": dtype, "flop": 4.0 * batch * heads * length * length * dim * (0.5 if causal else 1)}
                    yield measure(row, calls, [(q, k, v)], reference, options.budget)


def decode_rows(options):
    for batch, keys in options.caches:
        cache_bytes = 4 * batch * 8 * keys * 128
        tensors = [(torch.randn(batch, 32, 1, 128, device="cuda", dtype=torch.float16),
                    *(torch.randn(batch, 8, keys, 128, device="cuda", dtype=torch.float16) for _ in range(2)))
                   for _ in range(max(1, min(128, FLUSH_BYTES // cache_bytes)))]
        reference = exact(*tensors[0], False)
        calls = {"ours": ours(None, False), **{name: peer(name, False) for name in ("flash", "cudnn")}}
        row = {"op": "decode", "shape": [batch, 32, 8, 1, keys, 128], "causal": False, "dtype": "float16",
               "bytes": float(cache_bytes)}
        yield measure(row, calls, tensors, reference, options.budget)


def read_gbps():
    data = torch.empty(1 << 30, device="cuda", dtype=torch.float32).uniform_()
    return 4.0 * data.numel() / median_ms([lambda: torch.sum(data)], 200) / 1e6


def show(row):
    shape = ",".join(map(str, row["shape"])) + (" causal" if row["causal"] else "")
    rate = ("flop", 1e9, "TFLOP/s") if "flop" in row else ("bytes", 1e6, "GB/s")
    parts = [f"{name[:-3]} {row[rate[0]] / row[name] / rate[1]:.0f}" for name in row if name.endswith("_ms")]
    wrong = [f"{name[:-6]}: {row[name]}" for name in row if name.endswith("_error")]
    print(f"{row['op']} {shape} {row['dtype']} {rate[2]}: " + ", ".join(parts + wrong), flush=True)


def commit():
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=os.path.dirname(os.path.abspath(__file__)),
                            capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "prefill", "decode"), default="all")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=16384, help="tokens a batch")
    parser.add_argument("--kernels", nargs="*", default=["prefill_sm75", "standard", "eager"],
                        help="kernels of ours besides the chosen one")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--budget", type=float, default=60.0, help="milliseconds a measurement may take")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    options.kernels = {"ours": None, **{name: name for name in options.kernels}}
    options.caches = [(1, 512), (1, 1024), (1, 4096), (8, 512), (8, 2048), (8, 4096), (64, 512), (64, 1024), (64, 4096),
                      (1, 32768), (1, 131072), (1, 262144), (16, 32768)]
    torch.manual_seed(0)
    device = torch.cuda.get_device_properties(0)
    bandwidth, made = read_gbps(), commit()
    print(f"{device.name}, torch {torch.__version__}, fastattention {fastattention.__version__}; a sum over 4 GiB reads "
          f"{bandwidth:.0f} GB/s")
    rows = []
    for kind, make in (("prefill", prefill_rows), ("decode", decode_rows)):
        for row in make(options) if options.what in ("all", kind) else ():
            row.update(device=device.name, read_gbps=bandwidth, commit=made, label="measured")
            rows.append(row)
            show(row)
    if options.json:
        with open(options.json + ".part", "w") as file:
            json.dump(rows, file, indent=1)
        os.replace(options.json + ".part", options.json)


if __name__ == "__main__":
    sys.exit(main())
