#!/usr/bin/env python3
"""A Llama-2-7B-shaped model with random fp16 weights: `fastattn bench-model` beside transformers on the same GPU, one run.

    transformers_llama.py build/bin/fastattn [--layers 32] [--points 1x1024,...] [--decode 1x2048,...] [--json f]

Prefill: logits of the last token, KV cache kept, median of --repeats after one warm-up on both sides. Decode: median step
behind a prompt, cache growing. transformers runs with sdpa (PyTorch chooses its flash or cuDNN kernel) and with eager;
its peak memory is torch.cuda.max_memory_allocated, ours what bench-model accounts for (weights, cache, activations,
workspace). Weights are random in both: speed does not depend on them. A point that runs out of memory says so.
"""
import argparse
import gc
import json
import os
import statistics
import subprocess
import tempfile
import time


def points(text):
    return [tuple(int(n) for n in point.split("x")) for point in text.split(",")] if text else []


def ours(options, prefill, decode):
    """{(op, batch, tokens, attention): row} of bench-model, a call for each batch size."""
    rows = {}
    for operation, grid in (("prefill", prefill), ("decode", decode)):
        for batch in sorted({batch for batch, _ in grid}):
            lengths = ",".join(str(tokens) for b, tokens in grid if b == batch)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "rows.json")
                command = [options.fastattn, "bench-model", "--arch", "llama-7b", "--device", "cuda", "--dtype", "f16", "--op",
                           operation, "--layers", str(options.layers), "--batch", str(batch), "--prompt", lengths, "--gen",
                           str(options.generate), "--attention", options.attention, "--chunk", str(options.chunk), "--repeats",
                           str(options.repeats), "--json", path]
                subprocess.run(command, check=True)
                with open(path) as file:
                    for row in json.load(file):
                        rows[operation, row["batch"], row["prompt"], row["attention"]] = row
    return rows


class Transformers:
    def __init__(self, options):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        import transformers
        self.torch, self.options = torch, options
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        torch.set_default_dtype(torch.float16)
        torch.set_default_device("cuda")
        self.config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=options.layers,
                                  num_attention_heads=32, num_key_value_heads=32, vocab_size=32000, max_position_embeddings=65536)
        self.model_class = LlamaForCausalLM

    def seconds(self, call):
        self.torch.cuda.synchronize()
        begin = time.perf_counter()
        result = call()
        self.torch.cuda.synchronize()
        return time.perf_counter() - begin, result

    def point(self, model, operation, batch, tokens):
        torch = self.torch
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        prompt = torch.randint(0, 32000, (batch, tokens))
        prefill = lambda: model(prompt, use_cache=True, logits_to_keep=1)
        if operation == "prefill":
            self.seconds(prefill)
            times = [self.seconds(prefill)[0] for _ in range(self.options.repeats)]
        else:
            cache, times = prefill().past_key_values, []
            for _ in range(self.options.generate):
                token = torch.randint(0, 32000, (batch, 1))
                seconds, out = self.seconds(lambda: model(token, past_key_values=cache, use_cache=True))
                cache = out.past_key_values
                times.append(seconds)
            times = times[3:] or times
        milliseconds = 1e3 * statistics.median(times)
        return {"op": operation, "batch": batch, "prompt": tokens, "ms": milliseconds,
                "tokens_per_s": 1e3 * batch * (tokens if operation == "prefill" else 1) / milliseconds,
                "peak_gb": torch.cuda.max_memory_allocated() / 1e9}

    def rows(self, attention, prefill, decode):
        torch = self.torch
        self.config._attn_implementation = attention
        found = {}
        with torch.no_grad():
            model = self.model_class(self.config).eval()
            for operation, grid in (("prefill", prefill), ("decode", decode)):
                for batch, tokens in grid:
                    try:
                        found[operation, batch, tokens] = self.point(model, operation, batch, tokens)
                    except torch.OutOfMemoryError:
                        found[operation, batch, tokens] = {"op": operation, "batch": batch, "prompt": tokens, "error": "out of memory"}
                    gc.collect()
        del model
        gc.collect()
        torch.cuda.empty_cache()
        return found


def total(row):
    return sum(row["memory"].values()) / 1e9 if "memory" in row else float("nan")


def show(row, key="tokens_per_s"):
    return f"{row[key]:.0f}" if row and key in row else (row or {}).get("error", "-")[:13]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fastattn")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--points", default="1x1024,1x2048,1x4096,1x8192,1x16384,8x1024,8x2048")
    parser.add_argument("--decode", default="1x2048,8x2048,32x2048")
    parser.add_argument("--generate", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--attention", default="fast,standard,eager", help="of ours")
    parser.add_argument("--peers", default="sdpa,eager", help="attentions of transformers")
    parser.add_argument("--json")
    options = parser.parse_args()
    prefill, decode = points(options.points), points(options.decode)
    mine = ours(options, prefill, decode)
    library = Transformers(options)
    peers = {name: library.rows(name, prefill, decode) for name in options.peers.split(",") if name}
    print(f"Llama-2-7B shape, {options.layers} layers, fp16; {library.version}; {library.torch.cuda.get_device_name(0)}")
    print("| op | batch x tokens | " + " | ".join(f"ours, {a}" for a in options.attention.split(",")) + " | " +
          " | ".join(f"transformers, {p}" for p in peers) + " | fast over sdpa | GB: ours | GB: sdpa |")
    print("|---" * (5 + len(options.attention.split(",")) + len(peers)) + "|")
    out = []
    for operation, grid in (("prefill", prefill), ("decode", decode)):
        for batch, tokens in grid:
            row = [mine.get((operation, batch, tokens, a)) for a in options.attention.split(",")]
            peer = {name: rows.get((operation, batch, tokens)) for name, rows in peers.items()}
            sdpa, fast = peer.get("sdpa") or {}, mine.get((operation, batch, tokens, "fast")) or {}
            ratio = f"{sdpa['ms'] / fast['ms']:.2f}x" if "ms" in sdpa and "ms" in fast else "-"
            print(f"| {operation} | {batch} x {tokens} | " + " | ".join(show(r) for r in row) + " | " +
                  " | ".join(show(r) for r in peer.values()) +
                  f" | {ratio} | {total(fast):.1f} | {sdpa.get('peak_gb', float('nan')):.1f} |")
            out += [dict(r, library="fastattention") for r in row if r]
            out += [dict(r, library=library.version, attention=name) for name, r in peer.items() if r]
    if options.json:
        with open(options.json + ".new", "w") as file:
            json.dump(out, file, indent=1)
        os.replace(options.json + ".new", options.json)


if __name__ == "__main__":
    main()
