#!/usr/bin/env python3
"""Writes json_*/tokenizer.json, small tokenizers of the kinds models have, and tokenizer_json.bin: what Hugging Face's
`tokenizers`, which trained them, makes of texts.

    pip install tokenizers==0.23.3
    make_tokenizer_json_golden.py

The texts are those of tokenizer_smollm.bin, and then EXTRA, which the file holds itself.

The file: "FATJ", u32 extra texts: each u32 bytes, the text; u32 texts; then for each tokenizer, in the order of NAMES, for
each text, first the other file's in order and then the extra ones: u32 hash (FNV-1a, 32 bits, over the ids as u32; control
tokens by name, nothing added); and then the tokens of the first extra text with what the tokenizer puts before and behind
it: u32 tokens, u32 each. Everything little-endian.
"""
import json
import pathlib
import shutil
import struct

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
EXTRA = [
    "<s>Hello</s> world<|begin|>!", "<s>", "</s>", " <s> ", "a<s> b</s>", "<|begin|><|begin|>x", "x <|end|>  y", "x <|end|>\n\n y", "<think>\nhm\n</think>\n\nyes",
    "<pad>", "a <pad> b", "a\u00a0<pad>\u3000b", "  <pad>  <pad>  ", "<|tool|> x", "x<|tool|>", "<unk>a<unk>", "\n\n\n", "\n\n", " " * 2, " " * 5, "▁", "▁▁ ▁", "a▁b", "▁<s>▁",
    "e\u0301 \u0041\u030a \u1100\u1161\u11a8 \ufb01 \u212b \u0344 \u2126", "\u0958\u09dc", "q\u0307\u0323", "\u1e9b\u0323", "\uac00\u11a8" * 9, "a\u0315\u0300\u05ae\u0300b" * 3,
    "  two  spaces   between ", "x" * 3000, "ab " * 900, "日本語のテキスト" * 40, "🏳️‍🌈" * 30, "\u0000", "<0x41>", "<0x0A>", "I'M HERE'LL 'S 's", "a'\u017f", "12345678901234567", "\r\n\r\n x",
    "def f(x):\n\treturn x ** 2  # square\n",
]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
NAMES = ["json_gpt2", "json_smollm", "json_llama3", "json_qwen2", "json_splits", "json_removed", "json_llama2", "json_mistral", "json_metaspace",
         "json_gemma", "json_unknown"]
SPECIAL = ["<s>", "</s>", "<|begin|>", "<|end|>"]


def smollm_texts():
    data = (HERE / "tokenizer_smollm.bin").read_bytes()
    count, at, out = struct.unpack_from("<I", data, 4)[0], 8, []
    for _ in range(count):
        length = struct.unpack_from("<H", data, at)[0]
        out.append(data[at + 2:at + 2 + length].decode("utf-8"))
        at += 2 + length
        at += 2 + 2 * struct.unpack_from("<H", data, at)[0] + 12
    return out


TEXTS = smollm_texts()


def train(tokenizer, byte_level, size):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789.,▁\n")
    fallback = [] if byte_level else ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(
        [t for t in TEXTS if len(t) < 900 and t.isascii()],
        trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=fallback, initial_alphabet=alphabet,
                            limit_alphabet=len(alphabet)))
    # Byte tokens are part of the model, not matched in text.
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(document))


def finish(tokenizer, name, bos=None, eos=None, pair=None):
    if bos or eos:
        parts = ([bos] if bos else []) + ["$A"] + ([eos] if eos else [])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), pair=pair, special_tokens=[(t, tokenizer.token_to_id(t)) for t in (bos, eos) if t])
    return tokenizer


def byte_level(pre, normalizer=None, ignore_merges=False, added=(), size=420):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = train(tokenizer, True, size)
    tokenizer.model.ignore_merges = ignore_merges
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens(list(added))
    return tokenizer


def characters(normalizer=None, pre=None, added=(), size=430, byte_fallback=True, normalized_special=False, **options):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    # Trained on words; then as it is to be.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("▁[^▁]*|[^▁]+"), "isolated")])
    if not normalizer:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer = train(tokenizer, False, size)
    document = json.loads(tokenizer.to_str())
    document["normalizer"] = document["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(document))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=normalized_special) for t in ["<unk>"] + SPECIAL])
    tokenizer.add_tokens(list(added))
    return tokenizer


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def built():
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    replace = normalizers.Replace(" ", "▁")
    llama2 = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    tool = AddedToken("<|tool|>", special=False, normalized=True)
    think = [AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")]
    pads = [AddedToken("<pad>", special=False, normalized=False, lstrip=True, rstrip=True)]
    return [
        finish(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), "json_gpt2"),
        finish(byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False)]), added=[tool]), "json_smollm"),
        finish(byte_level(pre_tokenizers.Sequence([split(LLAMA3), plain]), ignore_merges=True), "json_llama3", bos="<|begin|>"),
        finish(byte_level(pre_tokenizers.Sequence([split(QWEN2), plain]), normalizers.NFC(), added=think), "json_qwen2"),
        finish(byte_level(pre_tokenizers.Sequence([
            split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"),
            split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
            plain]), added=pads), "json_splits", bos="<s>", eos="</s>"),
        finish(byte_level(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "removed", invert=True), pre_tokenizers.Digits(False), plain])),
               "json_removed"),
        finish(characters(llama2, normalized_special=True), "json_llama2", bos="<s>"),
        finish(characters(None, pre_tokenizers.Metaspace("▁", "first", split=False), added=[tool]), "json_mistral", bos="<s>"),
        finish(characters(None, pre_tokenizers.Metaspace("▁", "always", split=True)), "json_metaspace", eos="</s>"),
        finish(characters(replace, pre_tokenizers.Split(" ", "merged_with_previous"),
                          added=[AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "[multimodal]")] + pads + [tool]),
               "json_gemma", bos="<s>"),
        finish(characters(replace, byte_fallback=False), "json_unknown"),
    ]


def ids_hash(ids):
    value = 0x811c9dc5
    for byte in struct.pack(f"<{len(ids)}I", *ids):
        value = (value ^ byte) * 0x01000193 & 0xffffffff
    return value


def main():
    texts = TEXTS + EXTRA
    out = [b"FATJ", struct.pack("<I", len(EXTRA))]
    for text in EXTRA:
        out.append(struct.pack("<I", len(text.encode())) + text.encode())
    out.append(struct.pack("<I", len(texts)))
    for name, tokenizer in zip(NAMES, built(), strict=True):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False,
                                                          separators=(",", ":")) + "\n")
        total = 0
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            total += len(ids)
            out.append(struct.pack("<I", ids_hash(ids)))
        ids = tokenizer.encode(EXTRA[0]).ids
        out.append(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
        print(name, tokenizer.get_vocab_size(), "tokens,", total, "made of the texts,",
              (folder / "tokenizer.json").stat().st_size, "bytes; an end is written by hand")
    (HERE / "tokenizer_json.bin").write_bytes(b"".join(out))
    print(sum(map(len, out)), "bytes of goldens")


main()
