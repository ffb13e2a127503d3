#!/usr/bin/env python3
"""Prompt and generation speed of `fastattn generate` beside llama.cpp's, on the same file, prompt and threads.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36   # built for this CPU
    pip install xllamacpp==2026.10.11549        # or a wheel, where there is no compiler: built for AVX2 only
    llama_cpp_speed.py MODEL.gguf build/bin/fastattn [--threads 2] [--words 400] [--generate 64] [--repeats 3] [--json f]

Runs alternate; of each the fastest counts, because whatever else the machine does only ever adds time. Both compute with
the file's quantised weights as they are where the runner was built with ggml; the runner unpacks them for prompts.
llama-cpp-python is taken if it is there, with batches of 512 (its default, and faster than one of the whole prompt). What
the build says of itself is printed and belongs to every ratio. A prompt of 2048 tokens: --words 1900.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import tempfile


def ours(options, prompt, attention):
    with tempfile.TemporaryDirectory() as folder:
        text, rows = os.path.join(folder, "prompt"), os.path.join(folder, "rows")
        with open(text, "w") as file:
            file.write(prompt)
        subprocess.run([options.fastattn, "generate", "-m", options.model, "--prompt-file", text, "--raw", "-n",
                        str(options.generate), "--threads", str(options.threads), "--attention", attention, "--json", rows],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(rows) as file:
            row = json.load(file)
    return {"prompt_tokens": row["prompt_tokens"], "prompt": row["prompt_tokens_per_s"],
            "generate": row["decode_tokens_per_s"], "commit": row["commit"], "machine": row["machine"]}


class NativeLlamaCpp:
    """llama-cpp-python, times from llama.cpp's own counters."""

    def __init__(self, options):
        import llama_cpp
        self.library = llama_cpp
        self.llama = llama_cpp.Llama(options.model, n_ctx=4096, n_batch=2048, n_ubatch=512, n_threads=options.threads,
                                     n_threads_batch=options.threads, verbose=False)
        self.system = f"llama-cpp-python {llama_cpp.__version__}: {llama_cpp.llama_print_system_info().decode()}"
        self.run(options, "warming up")

    def run(self, options, prompt):
        context, tokens = self.llama.ctx, self.llama.tokenize(prompt.encode())
        self.llama.set_cache(None)
        self.llama.reset()  # generate keeps what it has of the last call's prompt, even with reset=True
        self.library.llama_perf_context_reset(context)
        made = 0
        for _ in self.llama.generate(list(tokens), temp=0.0, reset=True):
            made += 1
            if made == options.generate:
                break
        times = self.library.llama_perf_context(context)
        assert abs(times.n_p_eval - len(tokens)) <= 1, f"{times.n_p_eval} of {len(tokens)} prompt tokens were evaluated"
        return {"prompt_tokens": times.n_p_eval, "prompt": 1e3 * times.n_p_eval / times.t_p_eval_ms,
                "generate": 1e3 * times.n_eval / times.t_eval_ms}


class LlamaCpp:
    """xllamacpp."""

    def __init__(self, options):
        import xllamacpp
        params = xllamacpp.CommonParams()
        params.model.path = options.model
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 4096, 2048, 512, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
        params.warmup = True
        self.server = xllamacpp.Server(params)
        self.system = xllamacpp.get_system_info()

    def run(self, options, prompt):
        answer = self.server.handle_completions({"prompt": prompt, "n_predict": options.generate, "max_tokens": options.generate,
                                                 "temperature": 0, "ignore_eos": True, "cache_prompt": False})
        timings = answer["timings"]
        return {"prompt_tokens": timings["prompt_n"], "prompt": timings["prompt_per_second"],
                "generate": timings["predicted_per_second"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("fastattn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--words", type=int, default=400)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    prompt = " ".join(["the quick brown fox jumps over the lazy dog and runs into the wood,"] * (options.words // 14))
    native = importlib.util.find_spec("llama_cpp") is not None
    peer, best = (NativeLlamaCpp if native else LlamaCpp)(options), {}
    print("llama.cpp:", peer.system)
    for _ in range(options.repeats):
        for name, run in (("llama.cpp", lambda: peer.run(options, prompt)), ("fast", lambda: ours(options, prompt, "fast")),
                          ("standard", lambda: ours(options, prompt, "standard"))):
            row = run()
            for key in ("prompt", "generate"):
                row[key] = max(row[key], best.get(name, row)[key])
            best[name] = row
    rows = []
    for name, row in best.items():
        row.update(runner=name, peer=peer.system, threads=options.threads, prompt_ratio=row["prompt"] / best["llama.cpp"]["prompt"],
                   generate_ratio=row["generate"] / best["llama.cpp"]["generate"])
        rows.append(row)
        print(f"{name:10} prompt of {row['prompt_tokens']:5} tokens: {row['prompt']:8.1f} tokens/s ({row['prompt_ratio']:.2f} of "
              f"llama.cpp), generation {row['generate']:7.1f} tokens/s ({row['generate_ratio']:.2f})")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


main()
