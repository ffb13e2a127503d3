#!/usr/bin/env python3
"""Writes logits_smollm2.bin and logits_gemma3.bin: logits of real models by an independent implementation, in numpy, float64.

    pip install numpy==2.4.6 gguf==0.19.0
    make_logits_golden.py MODEL.gguf ...        of the architectures llama (SmolLM2-135M) and gemma3 (Gemma 3 270M)

Besides the exact pass, three same-precision passes set the tolerances of the test:
  bf16  weights, what enters a product, queries, keys, values, probabilities and attention output rounded to bf16
        (to nearest even), sums exact: the rounding an honest bf16 runner cannot avoid
  fp32  the whole pass in numpy's float32
  bf16 with 8 bits: in the rows that are compared, what enters a product is further rounded to 8 bits in blocks as the
        format of its weights has it (ggml's Q8_0, Q8_1, Q8_K), and weights are the file's, unrounded: what a runner does
        that multiplies quantised weights as they are, token by token. Other rows are a prompt's, without the 8 bits.
An implementation of that precision may be off by twice the error of its pass (its own rounding falls differently),
plus a floor of 1e-4 for the fp32 sums all leave out: by twice the largest error in any logit, and by twice the root of
the mean square in all of them together.

The file, little-endian: "FALG", u32 prompts, f32 largest error allowed and f32 root mean square allowed for bf16, the
same for fp32 and for bf16 with 8 bits, u32 sampled ids, i32 each; then a prompt: u32 tokens, i32 each, u32
spans, each u32 first position, u32 positions; a position of those: i32 x 8 best ids, f32 x 8 their logits, f32 each sampled
id's logit.
"""
import pathlib
import struct
import sys

import numpy as np
from gguf import GGUFReader, GGMLQuantizationType as Type, dequantize

HERE = pathlib.Path(__file__).resolve().parent
TOP, SAMPLED = 8, 48

# "<|im_start|>system ... <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
SMOLLM2 = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1,
           4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
GEMMA3 = "<bos><start_of_turn>user\nWhat is the capital of France?<end_of_turn>\n<start_of_turn>model\n"
# Long enough for the window of 512: positions without it, where it begins to move, and behind.
LONG, SPANS = 648, [(0, 12), (506, 12), (636, 12)]
OF_256 = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)
OF_OFFSET = (Type.Q4_1, Type.Q5_1)


def round_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + (0x7fff + ((bits >> 16) & 1))) & np.uint32(0xffff0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


class Weight:
    """Float32 values of a matrix, and of formats with offsets those, which multiply sums of blocks."""

    def __init__(self, tensor):
        self.type = tensor.tensor_type
        self.values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if self.type in OF_OFFSET:
            blocks = tensor.data.reshape(self.values.shape[0], -1, 20 if self.type == Type.Q4_1 else 24)
            self.offsets = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0]

    def times_8_bits(self, x, dtype):
        """x W^T, x rounded to 8 bits as this format's partner has it; x's own rounding is done."""
        size = 256 if self.type in OF_256 else 32
        blocks = x.astype(np.float64).reshape(len(x), -1, size)
        if self.type in OF_256:  # the largest becomes -127, the step is a float
            largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
            step = np.where(largest == 0, 1, -largest / 127)
            kept = step.astype(np.float32).astype(np.float64)
        else:  # the step is kept in fp16, numbers are rounded by the exact one
            largest = np.abs(blocks).max(-1, keepdims=True)
            step = np.where(largest == 0, 1, largest / 127)
            kept = step.astype(np.float16).astype(np.float64)
        numbers = np.minimum(np.rint(blocks / step), 127)
        values = (numbers * kept).reshape(x.shape)
        y = values.astype(dtype) @ self.values.astype(dtype).T
        if self.type in OF_OFFSET:  # what multiplies the offset is a sum rounded to fp16 by itself
            sums = (numbers * step).sum(-1)
            y = y + ((sums.astype(np.float16).astype(np.float64) - (numbers * kept).sum(-1)) @ self.offsets.astype(np.float64).T)
        return y.astype(dtype)


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        name = reader.fields["general.architecture"].contents()
        value = lambda key: reader.fields[f"{name}.{key}"].contents()
        self.gemma = {"gemma3": True, "llama": False}[name]
        self.layers, self.heads, self.kv = value("block_count"), value("attention.head_count"), value("attention.head_count_kv")
        self.base, self.epsilon = float(value("rope.freq_base")), float(value("attention.layer_norm_rms_epsilon"))
        self.window = value("attention.sliding_window") if self.gemma else None
        self.weights = {t.name: Weight(t) if len(t.shape) == 2 else np.array(t.data) for t in reader.tensors}
        self.vocabulary = reader.fields["tokenizer.ggml.tokens"].contents()

    def tokens(self, text):
        """By longest match: which tokens a text becomes does not matter to logits, only that it stays a text."""
        ids = {piece: i for i, piece in reversed(list(enumerate(self.vocabulary)))}
        text, out = text.replace(" ", "\u2581"), []
        while text:
            length = next(n for n in range(min(len(text), 32), 0, -1) if text[:n] in ids)
            out.append(ids[text[:length]])
            text = text[length:]
        return out


class Pass:
    """One precision: "exact", "bf16", "fp32"; eight_bits: of the rows whose logits are wanted."""

    def __init__(self, model, kind, eight_bits=False):
        self.m, self.bf16, self.eight_bits = model, kind == "bf16", eight_bits
        self.float = np.float32 if kind == "fp32" else np.float64

    def rounded(self, x):
        return round_bf16(x) if self.bf16 else x

    def product(self, x, name, wanted):
        weight = self.m.weights[name + ".weight"]
        if not self.eight_bits:
            wanted = np.zeros(len(x), bool)
        y = np.empty((len(x), len(weight.values)), self.float)
        if not wanted.all():
            values = round_bf16(weight.values) if self.bf16 else weight.values.astype(self.float)
            y[~wanted] = x[~wanted] @ values.T
        if wanted.any():
            y[wanted] = weight.times_8_bits(x[wanted], self.float)
        return y

    def norm(self, x, name):
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.float(self.m.epsilon))
        return x * scale * self.m.weights[name + ".weight"].astype(self.float)

    def rotate(self, x, base):
        count, _, dim = x.shape
        angle = np.arange(count)[:, None] * base ** (-np.arange(0, dim, 2) / dim)[None, :]
        cos, sin = np.cos(angle)[:, None, :].astype(self.float), np.sin(angle)[:, None, :].astype(self.float)
        # Llama's weights are reordered for pairs in GGUF, Gemma's are not: there a pair is an element of each half.
        first, second = ((slice(dim // 2), slice(dim // 2, dim)) if self.m.gemma else (slice(0, dim, 2), slice(1, dim, 2)))
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return self.rounded(out)

    def attention(self, x, layer, wanted):
        m, block, count = self.m, f"blk.{layer}.", len(x)
        is_local = m.gemma and (layer + 1) % 6 != 0
        h = self.rounded(self.norm(x, block + "attn_norm"))
        q, k, v = (self.product(h, f"{block}attn_{part}", wanted).reshape(count, heads, -1)
                   for part, heads in (("q", m.heads), ("k", m.kv), ("v", m.kv)))
        if m.gemma:
            q, k = self.norm(q, block + "attn_q_norm"), self.norm(k, block + "attn_k_norm")
        base = 1e4 if is_local else m.base
        q, k, v = self.rotate(q, base), self.rotate(k, base), self.rounded(v)
        distance = np.arange(count)[:, None] - np.arange(count)[None, :]
        seen = (distance >= 0) & (distance < m.window) if is_local else distance >= 0
        out = np.empty_like(q)
        for head in range(m.heads):
            of = head // (m.heads // m.kv)
            s = np.where(seen, q[:, head] @ k[:, of].T / self.float(np.sqrt(q.shape[-1])), -np.inf)
            p = np.exp(s - s.max(-1, keepdims=True))
            out[:, head] = self.rounded(self.rounded(p) @ v[:, of] / p.sum(-1, keepdims=True))
        o = self.product(out.reshape(count, -1), block + "attn_output", wanted)
        return self.norm(o, block + "post_attention_norm") if m.gemma else o

    def feed_forward(self, x, layer, wanted):
        block = f"blk.{layer}."
        h = self.rounded(self.norm(x, block + "ffn_norm"))
        gate, up = self.product(h, block + "ffn_gate", wanted), self.product(h, block + "ffn_up", wanted)
        if self.m.gemma:
            gate = gate / 2 * (1 + np.tanh(self.float(np.sqrt(2 / np.pi)) * (gate + self.float(0.044715) * gate ** 3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        y = self.product(self.rounded(gate * up), block + "ffn_down", wanted)
        return self.norm(y, block + "post_ffw_norm") if self.m.gemma else y

    def logits(self, tokens, spans):
        """[positions of the spans, vocabulary]"""
        x = self.m.weights["token_embd.weight"].values[tokens].astype(self.float)
        if self.m.gemma:
            x = x * self.float(np.sqrt(x.shape[1]))
        wanted = np.zeros(len(tokens), bool)
        for first, count in spans:
            wanted[first:first + count] = True
        for layer in range(self.m.layers):
            x = x + self.attention(x, layer, wanted)
            x = x + self.feed_forward(x, layer, wanted)
        return self.product(self.rounded(self.norm(x[wanted], "output_norm")), "token_embd", np.ones(wanted.sum(), bool))


def write(path):
    model = Model(path)
    rng = np.random.default_rng(7)
    count = len(model.vocabulary)
    if model.gemma:
        licence = model.tokens("<bos>" + (HERE.parents[2] / "LICENSE").read_text())
        prompts = [model.tokens(GEMMA3), licence[:LONG]]
    else:
        prompts = [SMOLLM2, [504], rng.integers(17, count, 60).tolist()]
    spans = [[(0, len(p))] if len(p) < LONG else SPANS for p in prompts]
    expected = [Pass(model, "exact").logits(p, s) for p, s in zip(prompts, spans)]
    tolerances = []
    for kind, eight_bits in (("bf16", False), ("fp32", False), ("bf16", True)):
        same = Pass(model, kind, eight_bits)
        errors = np.concatenate([(same.logits(p, s) - e).ravel() for p, s, e in zip(prompts, spans, expected)])
        tolerances += [2 * np.abs(errors).max() + 1e-4, 2 * np.sqrt((errors.astype(np.float64) ** 2).mean()) + 1e-4]
        print(kind, "with 8 bits" if eight_bits else "", "allowed: largest error, root mean square", tolerances[-2:], flush=True)
    sampled = np.sort(rng.choice(count, SAMPLED, replace=False)).astype("<i4")
    data = b"FALG" + struct.pack("<I6fI", len(prompts), *tolerances, SAMPLED) + sampled.tobytes()
    for tokens, positions, logits in zip(prompts, spans, expected):
        data += struct.pack(f"<I{len(tokens)}i", len(tokens), *tokens)
        data += struct.pack(f"<I{2 * len(positions)}I", len(positions), *(n for span in positions for n in span))
        for row in logits:
            best = np.argsort(-row, kind="stable")[:TOP]
            data += best.astype("<i4").tobytes() + row[best].astype("<f4").tobytes() + row[sampled].astype("<f4").tobytes()
    name = "logits_gemma3.bin" if model.gemma else "logits_smollm2.bin"
    (HERE / name).write_bytes(data)
    print(name, len(data), "bytes; logits", min(e.min() for e in expected), "..", max(e.max() for e in expected),
          "best after each prompt:", [model.vocabulary[e[-1].argmax()] for e in expected])


for argument in sys.argv[1:]:
    write(argument)
