#!/usr/bin/env python3
"""Writes logits_smollm2.bin: logits of the real model by an independent implementation, in numpy, float64.

    pip install numpy==2.4.6 gguf==0.19.0
    make_logits_golden.py MODEL.gguf

Besides the exact pass, three same-precision passes set the tolerance of the test:
  bf16  weights, what enters a product, queries, keys, values, probabilities and attention output rounded to bf16
        (to nearest even), sums exact: the rounding an honest bf16 runner cannot avoid
  fp32  the whole pass in numpy's float32
  int8  as bf16, but with the weights as they are, and what enters a product rounded further, to 8 bits in blocks of 32
        with a step of the largest / 127 kept in fp16: products on quantised weights of a few rows on a CPU
An implementation of that precision may be off by twice the error of its pass (its own rounding falls differently),
plus a floor of 1e-4 for the fp32 sums both leave out: by twice the largest error in any logit, and by twice the root of
the mean square in all of them together.

The file, little-endian: "FALG", u32 prompts, f32 largest error allowed and f32 root mean square allowed for bf16, the
same for fp32 and for int8, u32 sampled ids, i32 each; then a prompt: u32 tokens, i32 each; a position: i32 x 8 best ids, f32 x 8 their logits, f32 each sampled id's logit.
"""
import pathlib
import struct
import sys

import numpy as np
from gguf import GGUFReader, dequantize

HERE = pathlib.Path(__file__).resolve().parent
TOP, SAMPLED = 8, 48

PROMPTS = [
    # "<|im_start|>system ... <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1,
     4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198],
    [504], None]


def round_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + (0x7fff + ((bits >> 16) & 1))) & np.uint32(0xffff0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def round_int8(x):
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    kept = step.astype(np.float16).astype(np.float64)
    return (np.round(blocks / np.where(step == 0, 1, step)) * kept).reshape(x.shape)


class Llama:
    def __init__(self, path, kind):
        self.kind = kind
        self.float = np.float32 if kind == "fp32" else np.float64
        reader = GGUFReader(path)
        value = lambda name: reader.fields["llama." + name].contents()
        self.layers, self.heads, self.kv = value("block_count"), value("attention.head_count"), value("attention.head_count_kv")
        self.base, self.epsilon = float(value("rope.freq_base")), float(value("attention.layer_norm_rms_epsilon"))
        self.weights = {}
        for tensor in reader.tensors:
            data = dequantize(tensor.data, tensor.tensor_type)
            norm = data.ndim == 1
            if kind == "bf16" and not norm and tensor.name != "token_embd.weight":
                data = round_bf16(data)
            self.weights[tensor.name] = np.asarray(data, self.float)
        embedding = self.weights["token_embd.weight"]
        self.output = np.asarray(round_bf16(embedding), self.float) if kind == "bf16" else embedding

    def rounded(self, x):
        return round_bf16(x) if self.kind in ("bf16", "int8") else x

    def product(self, x, weight):
        return (round_int8(x) if self.kind == "int8" else x) @ weight.T

    def norm(self, x, name):
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.float(self.epsilon))
        return self.rounded(x * scale * self.weights[name + ".weight"])

    def rotate(self, x):
        count, _, dim = x.shape
        angle = np.arange(count)[:, None] * self.base ** (-np.arange(0, dim, 2) / dim)[None, :]
        cos, sin = np.cos(angle)[:, None, :].astype(self.float), np.sin(angle)[:, None, :].astype(self.float)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return self.rounded(out)

    def logits(self, tokens):
        count = len(tokens)
        x = self.weights["token_embd.weight"][tokens].astype(self.float)
        for layer in range(self.layers):
            w = lambda name: self.weights[f"blk.{layer}.{name}.weight"]
            h = self.norm(x, f"blk.{layer}.attn_norm")
            q = self.rotate(self.product(h, w("attn_q")).reshape(count, self.heads, -1))
            k = self.rotate(self.product(h, w("attn_k")).reshape(count, self.kv, -1))
            v = self.rounded(self.product(h, w("attn_v")).reshape(count, self.kv, -1))
            group, dim = self.heads // self.kv, q.shape[-1]
            out = np.empty_like(q)
            for head in range(self.heads):
                s = q[:, head] @ k[:, head // group].T / self.float(np.sqrt(dim))
                s = np.where(np.tril(np.ones((count, count), bool)), s, -np.inf)
                p = np.exp(s - s.max(-1, keepdims=True))
                out[:, head] = self.rounded(self.rounded(p) @ v[:, head // group] / p.sum(-1, keepdims=True))
            x = x + self.product(out.reshape(count, -1), w("attn_output"))
            h = self.norm(x, f"blk.{layer}.ffn_norm")
            gate, up = self.product(h, w("ffn_gate")), self.product(h, w("ffn_up"))
            x = x + self.product(self.rounded(gate / (1 + np.exp(-gate)) * up), w("ffn_down"))
        return self.product(self.norm(x, "output_norm"), self.output)


def main():
    exact = Llama(sys.argv[1], "exact")
    rng = np.random.default_rng(7)
    vocabulary = exact.output.shape[0]
    prompts = [p if p else rng.integers(17, vocabulary, 60).tolist() for p in PROMPTS]
    expected = [exact.logits(p) for p in prompts]
    tolerances = []
    for kind in ("bf16", "fp32", "int8"):
        same = Llama(sys.argv[1], kind)
        errors = np.concatenate([(same.logits(p) - e).ravel() for p, e in zip(prompts, expected)])
        tolerances += [2 * np.abs(errors).max() + 1e-4, 2 * np.sqrt((errors ** 2).mean()) + 1e-4]
        print(kind, "allowed: largest error, root mean square", tolerances[-2:])
    sampled = np.sort(rng.choice(vocabulary, SAMPLED, replace=False)).astype("<i4")
    data = b"FALG" + struct.pack("<I6fI", len(prompts), *tolerances, SAMPLED) + sampled.tobytes()
    for tokens, logits in zip(prompts, expected):
        data += struct.pack(f"<I{len(tokens)}i", len(tokens), *tokens)
        for row in logits:
            best = np.argsort(-row, kind="stable")[:TOP]
            data += best.astype("<i4").tobytes() + row[best].astype("<f4").tobytes() + row[sampled].astype("<f4").tobytes()
    (HERE / "logits_smollm2.bin").write_bytes(data)
    print(len(data), "bytes; logits", min(e.min() for e in expected), "..", max(e.max() for e in expected))


main()
