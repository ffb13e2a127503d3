#!/usr/bin/env python3
"""Writes tokenizer_smollm.bin: texts, and the tokens Hugging Face's `tokenizers` makes of them.

    apt-get download jargon-text iso-codes unicode-data   # and dpkg -x each of them into DIR
    pip install tokenizers==0.23.3 gguf==0.19.0
    make_tokenizer_golden.py MODEL.gguf DIR

The tokenizer is built from the vocabulary and merges inside the GGUF, with the pre-tokenizer that SmolLM2's own
tokenizer.json has (single digits, then GPT-2's byte level). Besides, each text is cut by the expressions of Llama 3
and Qwen 2, and a hash of the lengths of the pieces is kept.

Where the texts come from (the package in brackets):
  prose and program names   the Jargon File 4.4.7, public domain [jargon-text]
  names of the world's countries and languages in some 150 languages, many scripts: iso-codes, LGPL-2.1-or-later
  emoji sequences           Unicode emoji-test.txt, Unicode licence [unicode-data]
  program text              this repository, Apache-2.0
  numbers, white space, control characters, damaged and random text: made here, from a fixed seed

A record: u16 bytes of text, the text, u16 tokens, u16 each; u32 x 3 hashes of pieces (gpt-2, llama-bpe, qwen2).
The file: "FATK", u32 records, records. Everything little-endian.
"""
import gettext
import gzip
import pathlib
import random
import re
import struct
import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 300_000  # bytes of text


def build(reader):
    def field(name):
        return reader.fields["tokenizer.ggml." + name].contents()

    tokens, types = field("tokens"), field("token_type")
    merges = [tuple(m.split(" ")) for m in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    return tokenizer


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLITTERS = [pre_tokenizers.Split(Regex(p), "isolated") for p in
             (GPT2, LLAMA3 % r"\p{N}{1,3}", LLAMA3 % r"\p{N}")]


def pieces_hash(splitter, text):
    """FNV-1a, 32 bits, over the byte length of each piece as u32."""
    value = 0x811c9dc5
    for _, (begin, end) in splitter.pre_tokenize_str(text):
        for byte in struct.pack("<I", len(text[begin:end].encode())):
            value = (value ^ byte) * 0x01000193 & 0xffffffff
    return value


def jargon(packages):
    text = gzip.open(packages / "usr/share/doc/jargon-text/jargon.txt.gz").read().decode("utf-8", "replace")
    text = text[text.index("  Oh, ") if "  Oh, " in text else len(text) // 3:]
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if 120 < len(p) < 700]
    return [p if i % 4 == 0 else " ".join(p.split()) for i, p in enumerate(paragraphs[200:3000:9])]


def languages(packages):
    names = ["Germany", "Japan", "Côte d'Ivoire", "United States", "Egypt", "India", "Saint Helena, Ascension and Tristan da Cunha",
             "Korea, Republic of", "Russian Federation", "Greece", "Kingdom of Saudi Arabia", "Åland Islands"]
    out = []
    for locale in sorted((packages / "usr/share/locale").iterdir()):
        catalogue = locale / "LC_MESSAGES/iso_3166-1.mo"
        if not catalogue.exists():
            continue
        said = gettext.GNUTranslations(catalogue.open("rb"))
        found = [said.gettext(n) for n in names if said.gettext(n) != n]
        if len(found) < 4:
            continue
        out.append(", ".join(found))
        out.append("\t".join(reversed(found)) + "\r\n")
        out += found[::3]
    return out


def emoji(packages):
    text = (packages / "usr/share/unicode/emoji/emoji-test.txt").read_text()
    found = re.findall(r"^([0-9A-F ]+?)\s*; .*?# \S+ E\S+ (.*)$", text, re.M)
    return ["".join(chr(int(c, 16)) for c in codes.split()) + (" " + name if i % 3 == 0 else "")
            for i, (codes, name) in enumerate(found[::9])]


def program_text():
    root = HERE.parent.parent.parent
    out = []
    for name in ("include/fastattention/fastattention.h", "src/kernels.def", "CMakeLists.txt", "tests/conftest.py"):
        lines = (root / name).read_text().splitlines()
        out += ["\n".join(lines[i:i + 3]) for i in range(0, len(lines), 9)]
    return out


def made(rng):
    spaces = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u2009", "\u3000", "\u200b", "\u180e", "\u0085", "\u2028",
              "\u1680", "\u202f", "\u205f", "\ufeff", "\v", "\f", "\x1c", "\x1f", "\x00", "\x7f"]
    words = ["I'm", "we'll", "they've", "it's", "IT'S", "don't", "D'oh", "'tis", "'S", "'\u017f", "rock'n'roll", "x'",
             "naïve", "straße", "Ⅷ", "½", "①", "٣٤٥", "१२३", "๑๒๓", "e\u0301", "ﬁ", "ǆ", "İ", "ı", "Ω", "\u212a", "K"]
    out = ["", " ", "\n", "a", "\u0000", "\ufffd", "<|im_start|>", "<|im_end|>user", "a<|endoftext|><|endoftext|>b",
           "<|im_start|>system\nYou are<|im_end|>\n", "<|im_start", "im_start|>", "<|im_start|><|im_start |>",
           "a" * 3000, " " * 2000, "ab" * 1500, "1" * 500, "\n" * 700 + "x", "é" * 800, "漢" * 600, "ha" * 7 + "!" * 40, "\U0010ffff",
           "\ud7ff\ue000\uffff", "zwj \u200d\u200c join", "a\u0300\u0301\u0302\u0303b", "-" * 300, "=" * 81, "#" * 7]
    for _ in range(300):  # numbers
        out.append(rng.choice(["%d", "-%d", "$%d.99", "%d,000", "0x%x", "%e", "%d%%", "v%d.0-rc1", "(%d)", "%d-11-22T13:14"])
                   % rng.choice([rng.randrange(10), rng.randrange(10 ** 6), rng.randrange(10 ** 15)]))
    for _ in range(300):  # odd white space between words
        out.append("".join(rng.choice(words) + "".join(rng.choices(spaces, k=rng.randrange(4)))
                           for _ in range(rng.randrange(1, 9))))
    for _ in range(250):  # any characters of some plane, mixed
        planes = rng.choice([(0x20, 0x7f), (0x80, 0x250), (0x370, 0x600), (0x600, 0x780), (0x900, 0xe80), (0x1000, 0x1100),
                             (0x2000, 0x2c00), (0x3040, 0x3200), (0x4e00, 0x9f00), (0xac00, 0xd7a4), (0x1d400, 0x1d7ff),
                             (0x1f300, 0x1f700), (0x0, 0x20)])
        out.append("".join(chr(rng.randrange(*planes)) if rng.random() < 0.8 else rng.choice(" .,'1")
                           for _ in range(rng.randrange(1, 25))))
    return out


def main():
    reader, packages = GGUFReader(sys.argv[1]), pathlib.Path(sys.argv[2])
    tokenizer = build(reader)
    texts = made(random.Random(20)) + program_text() + emoji(packages) + languages(packages) + jargon(packages)
    records, total = [], 0
    for text in texts:
        raw = text.encode("utf-8")
        if len(raw) > 60000 or total + len(raw) > LIMIT:
            continue
        total += len(raw)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        hashes = [pieces_hash(s, text) for s in SPLITTERS]
        records.append(struct.pack("<H", len(raw)) + raw + struct.pack(f"<H{len(ids)}H", len(ids), *ids)
                       + struct.pack("<3I", *hashes))
    data = b"FATK" + struct.pack("<I", len(records)) + b"".join(records)
    (HERE / "tokenizer_smollm.bin").write_bytes(data)
    print(len(records), "records,", total, "bytes of text,", len(data), "bytes written")


main()
