#!/usr/bin/env python3
"""Writes the valid files the fuzzers start from, into corpus/*/seed_*: small ones that reach every part of the readers.

    make_seeds.py        # nothing but Python is needed; the files it writes are kept in the tree
"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
GOLDENS = HERE.parent / "llama" / "goldens"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, given):
    if kind == STRING:
        return string(given)
    if kind == ARRAY:
        inner, items = given
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, i) for i in items)
    return struct.pack("<" + FORMATS[kind], given)


def gguf(pairs, tensors):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, kind, given in pairs:
        out += string(key) + struct.pack("<I", kind) + value(kind, given)
    data = b""
    for name, sizes, kind, raw in tensors:
        out += string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    return out + bytes(-len(out) % 32) + data


def alphabet():
    """GPT-2's character for each byte."""
    itself = [b for b in range(256) if 0x21 <= b <= 0x7e or 0xa1 <= b <= 0xac or b >= 0xae]
    rest = iter(range(0x100, 0x200))
    return [chr(b) if b in itself else chr(next(rest)) for b in range(256)]


def model(arch, **more):
    settings = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32,
                "attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16}
    settings.update(more)
    return ([("general.architecture", STRING, arch), ("general.alignment", U32, 32)]
            + [(f"{arch}.{k}", U32, v) for k, v in settings.items()]
            + [(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5), (f"{arch}.rope.freq_base", F32, 10000.0)])


def bpe(pre, template):
    names = alphabet() + ["he", "ll", "hell", "<|im_start|>", "<|im_end|>", "<|user|>"]
    return [("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, pre),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, names)),
            ("tokenizer.ggml.token_type", ARRAY, (I32, [1] * 259 + [3, 3, 4])),
            ("tokenizer.ggml.merges", ARRAY, (STRING, ["h e", "l l", "he ll"])),
            ("tokenizer.ggml.bos_token_id", U32, 259), ("tokenizer.ggml.eos_token_id", U32, 260),
            ("tokenizer.ggml.add_bos_token", BOOL, 1), ("tokenizer.chat_template", STRING, template)]


def spm(prefix, template):
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + [
        "\u2581", "H", "e", "l", "o", "ll", "ell", "\u2581H", "lo", "\n\n", "<start_of_turn>", "<end_of_turn>"]
    types = [2, 3, 3] + [6] * 256 + [1] * 9 + [4, 3, 3]
    return [("tokenizer.ggml.model", STRING, "llama"), ("tokenizer.ggml.tokens", ARRAY, (STRING, names)),
            ("tokenizer.ggml.scores", ARRAY, (F32, [-float(i % 50) for i in range(len(names))])),
            ("tokenizer.ggml.token_type", ARRAY, (I32, types)), ("tokenizer.ggml.bos_token_id", U32, 1),
            ("tokenizer.ggml.eos_token_id", U32, 2), ("tokenizer.ggml.unknown_token_id", U32, 0),
            ("tokenizer.ggml.add_space_prefix", BOOL, prefix), ("tokenizer.chat_template", STRING, template)]


def ggufs():
    tensors = [("token_embd.weight", (32, 4), 8, bytes(34 * 4)), ("output_norm.weight", (32,), 0, bytes(128)),
               ("blk.0.attn_q.weight", (32, 32), 2, bytes(18 * 32)), ("rope_freqs.weight", (8,), 0, struct.pack("<8f", *[1.0] * 8))]
    every = [("a.%d" % kind, kind, 1 if kind != F64 else 0.5) for kind in FORMATS] + [
        ("a.nested", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["x", ""])]))]
    chatml = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}"
    return {
        "llama": gguf(model("llama") + bpe("smollm", chatml), tensors),
        "llama3": gguf(model("llama") + bpe("llama-bpe", "<|start_header_id|><|eot_id|>"), tensors[:1]),
        "qwen3": gguf(model("qwen3", **{"attention.key_length": 16}) + bpe("qwen2", chatml), tensors[:2]),
        "gemma3": gguf(model("gemma3", **{"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 8})
                       + spm(0, "<start_of_turn>"), tensors),
        "llama2": gguf(model("llama") + spm(1, "[INST] <<SYS>>"), []),
        "types": gguf(every, tensors),
    }


def safetensors(header, data):
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensor_files():
    return {
        "three": safetensors({"__metadata__": {"format": "pt"}, "model.embed_tokens.weight": entry("BF16", [3, 4], 0, 24),
                              "model.norm.weight": entry("F32", [2], 24, 32), "b": entry("F16", [1, 1, 2, 2], 32, 40)}, bytes(40)),
        "other_types": safetensors({"q": entry("F8_E4M3", [2, 2], 0, 4), "i": entry("I64", [], 4, 12), "e": entry("U8", [0], 12, 12)},
                                   bytes(12)),
        "empty": safetensors({}, b""),
    }


def small_json(document, tokens):
    """The first `tokens` of a trained tokenizer, with the merges that only need those."""
    vocabulary = {t: i for t, i in document["model"]["vocab"].items() if i < tokens}
    document["model"]["vocab"] = vocabulary
    document["model"]["merges"] = [m for m in document["model"]["merges"] if {m[0], m[1], m[0] + m[1]} <= set(vocabulary)]
    for token in document["added_tokens"]:
        token["id"] = vocabulary.get(token["content"], token["id"])
    return document


def tokenizers():
    out = {}
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True,
                "chat_template": "{{ bos_token }}[INST] {{ content }} [/INST]"}
    generation = {"eos_token_id": [2, 7]}
    for folder in sorted(GOLDENS.glob("json_*")):
        document = json.loads((folder / "tokenizer.json").read_text())
        size = len(document["model"]["vocab"])
        # Few of them: a fuzzer does better with small inputs, and byte tokens are all alike.
        document = small_json(document, 24 if "ByteLevel" in json.dumps(document) else min(size, 320))
        if "<0x10>" in document["model"]["vocab"]:
            kept = [t for t in document["model"]["vocab"] if not t.startswith("<0x") or t.startswith("<0x0")][:40]
            document["model"]["vocab"] = {t: i for i, t in enumerate(kept)}
            document = small_json(document, 40)
        free = len(document["model"]["vocab"])
        for token in document["added_tokens"]:
            if token["content"] not in document["model"]["vocab"]:
                token["id"], free = free, free + 1
        parts = [json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()]
        if folder.name in ("json_llama2", "json_llama3"):
            parts += [json.dumps(settings).encode(), json.dumps(generation).encode(), b"x <s>y </s> caf\xc3\xa9\xff 123"]
        out[folder.name.removeprefix("json_")] = b"\0".join(parts)
    return out


def chats():
    """Tokenizers with the marks of each chat family."""
    marks = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
             "[INST]", "[/INST]", "<s>", "</s>"]
    templates = {
        "chatml": "'<|im_start|>system\\nBe good.<|im_end|>' </think>",
        "llama31": "<|start_header_id|> <|eot_id|> Cutting Knowledge Date: December 2023",
        "gemma": "<start_of_turn>", "gemma2": "<start_of_turn> System role not supported",
        "llama2": "[INST] <<SYS>>",
        "mistral": "\" [INST] \" system_message loop.last and system_message [/INST] \" \" + message[ eos_token + ' '",
    }
    vocabulary = {t: i for i, t in enumerate(["a", "b", "\u2581", "\u0120", "ab"] + marks)}
    document = {"added_tokens": [{"id": vocabulary[m], "content": m, "special": True} for m in marks],
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
                "model": {"type": "BPE", "unk_token": "a", "vocab": vocabulary, "merges": [["a", "b"]]}}
    return {name: json.dumps(document).encode() + b"\0" + json.dumps(
        {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}).encode() for name, template in templates.items()}


def configs():
    plain = {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 300, "max_position_embeddings": 512,
             "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}
    files = {
        "llama": {"model_type": "llama", "tie_word_embeddings": True, "eos_token_id": [1, 2], **plain},
        "llama31": {"model_type": "llama", "rope_scaling": llama3, **plain},
        "linear": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}, "attention_bias": True, **plain},
        "mistral": {"model_type": "mistral", "sliding_window": 128, "head_dim": 16, **plain},
        "qwen2": {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 128, **plain},
        "qwen3": {"model_type": "qwen3", "head_dim": 32, "partial_rotary_factor": 0.5, **plain},
        "gemma3": {"model_type": "gemma3_text", **plain, "hidden_act": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16, "sliding_window": 32,
                   "rope_local_base_freq": 10000.0, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
        "gemma3_parameters": {"model_type": "gemma3_text", **plain, "hidden_act": None, "sliding_window": 32, "sliding_window_pattern": 2,
                              "rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                                                  "sliding_attention": {"rope_theta": 1e4}}},
    }
    return {name: json.dumps(file).encode() for name, file in files.items()}


def main():
    for folder, files in (("gguf", ggufs()), ("safetensors", safetensor_files()), ("tokenizer_json", tokenizers()),
                          ("config_json", configs()), ("tokenizer_json", {"chat_" + n: d for n, d in chats().items()})):
        for name, data in files.items():
            path = HERE / "corpus" / folder / f"seed_{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(path.relative_to(HERE), len(data), "bytes")


main()
