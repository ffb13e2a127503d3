#!/usr/bin/env python3
"""Writes spm_tiny.gguf and tokenizer_spm.bin: what Google's sentencepiece makes of texts.

    pip install sentencepiece==0.2.3 protobuf gguf==0.19.0
    make_spm_golden.py GEMMA.gguf

spm_tiny.gguf is a vocabulary as Llama 2's is (a space before any text, byte fallback), trained here on texts of this tree.
The other vocabulary is that of Gemma 3 270M, whose GGUF file is not kept here (scripts/fetch_model.sh gemma3): the oracle's
model is built again from the pieces, scores and types in it.

The texts are those of tokenizer_smollm.bin that hold no U+2581 (sentencepiece takes it for a space, readers of GGUF files do
not), and then EXTRA, which the file holds itself.

The file: "FASP", u32 extra texts: each u32 bytes, the text; u32 texts; then for each text, first the other file's in order and
then the extra ones: for spm_tiny and for Gemma: u32 tokens, u32 hash (FNV-1a, 32 bits, over the ids as u32). A text that is
left out has 0xffffffff tokens. Everything little-endian.
"""
import io
import pathlib
import struct
import sys

import sentencepiece
from gguf import GGUFReader, GGUFWriter
from sentencepiece import sentencepiece_model_pb2 as protocol

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
EXTRA = ["\n" * n for n in (1, 2, 3, 30, 31, 32, 33, 70)] + [" " * n for n in (1, 2, 3, 4, 31, 32, 33, 63, 200)] + [
    "\t" * n for n in (1, 2, 5, 31, 40)] + [
    "<table><tr><td>1</td></tr></table>", "<h1>Title</h1>\n\n<ul>\n  <li>a</li>\n</ul>", "</s><s>", "<s >", "<", "<t", "<ta",
    "[multimodal]", "[multimodal", "a [multimodal] b", "<0x41>", "<0x0A> is a byte", "\ufffd", "a\ufffd\ufffdb",
    "  two  spaces   between    words ", " leading", "trailing ", "\n\n \n  \n", "a\n\tb\n\t\tc", "x = [\n    1,\n    2,\n]\n",
    "supercalifragilisticexpialidocious" * 40, "x" * 5000, "日本語のテキスト" * 50, "ﷺ" * 20, "👩‍👩‍👧‍👦🏳️‍🌈" * 9, "\u0000\u0001\u0002", "\U0010fffd",
    "Donaudampfschifffahrtsgesellschaftskapitän", "ไม่มีช่องว่างระหว่างคำ", "مرحبا بالعالم", "नमस्ते दुनिया", "Привет, мир!", "ⵜⵉⴼⵉⵏⴰⵖ", "ᚠᚢᚦᚨᚱᚲ", "𓀀𓁐",
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; i++) {\n\t\ta[i] += b[i];\n}\n", "1234567890 3.14159 1e-5",
]


def smollm_texts():
    data = (HERE / "tokenizer_smollm.bin").read_bytes()
    count, at, out = struct.unpack_from("<I", data, 4)[0], 8, []
    for _ in range(count):
        length = struct.unpack_from("<H", data, at)[0]
        out.append(data[at + 2:at + 2 + length].decode("utf-8"))
        at += 2 + length
        at += 2 + 2 * struct.unpack_from("<H", data, at)[0] + 12
    return out


def train_tiny():
    texts = [t.replace("\0", "") for t in smollm_texts()]
    lines = [line for t in texts for line in t.splitlines() if 0 < len(line) < 1000]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=1600, byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        split_digits=True, allow_whitespace_only_pieces=True, max_sentence_length=9999, minloglevel=2, num_threads=1)
    proto = protocol.ModelProto.FromString(model.getvalue())
    writer = GGUFWriter(HERE / "spm_tiny.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.piece.encode() for p in proto.pieces])
    writer.add_token_scores([p.score for p in proto.pieces])
    writer.add_token_types([p.type for p in proto.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def gemma(path):
    reader = GGUFReader(path)
    tokens, scores, types = (reader.fields["tokenizer.ggml." + n].contents() for n in ("tokens", "scores", "token_type"))
    proto = protocol.ModelProto()
    proto.trainer_spec.model_type = protocol.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.unk_id = 3
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    for i, (piece, score, kind) in enumerate(zip(tokens, scores, types)):
        kind = protocol.ModelProto.SentencePiece.UNKNOWN if i == 3 else kind
        proto.pieces.add(piece=piece.replace(" ", "\u2581") if kind == 4 else piece, score=score, type=kind)
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def summary(ids):
    value = 0x811c9dc5
    for byte in struct.pack(f"<{len(ids)}I", *ids):
        value = (value ^ byte) * 0x01000193 & 0xffffffff
    return struct.pack("<2I", len(ids), value)


def main():
    models = [train_tiny(), gemma(sys.argv[1])]
    texts = smollm_texts() + EXTRA
    out = [b"FASP", struct.pack("<I", len(EXTRA))]
    for text in EXTRA:
        out.append(struct.pack("<I", len(text.encode())) + text.encode())
    out.append(struct.pack("<I", len(texts)))
    left_out = total = 0
    for text in texts:
        for model in models:
            if "\u2581" in text:
                left_out += 1
                out.append(struct.pack("<2I", 0xffffffff, 0))
            else:
                ids = model.encode(text)
                total += len(ids)
                out.append(summary(ids))
    (HERE / "tokenizer_spm.bin").write_bytes(b"".join(out))
    print(len(texts), "texts,", left_out, "left out,", total, "tokens,", sum(map(len, out)), "bytes;",
          (HERE / "spm_tiny.gguf").stat().st_size, "bytes of spm_tiny.gguf")


main()
