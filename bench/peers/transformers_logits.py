#!/usr/bin/env python3
"""Reference logits of a model by transformers, in the format of `fastattn perplexity --compare-logits` (cli/saved_logits.h).

    transformers_logits.py MODEL_FOLDER text.txt reference.logits [--ctx 1024] [--top 64] [--dtype float32] [--device cpu]
    fastattn perplexity -m MODEL_FOLDER -f text.txt --ctx 1024 --compare-logits reference.logits

Text and --ctx must be the same on both sides; each window begins with the begin-of-sequence token where the tokenizer puts
one there.
"""
import argparse
import os
import struct

import numpy as np


def windows(head, text, context):
    """Lists of at most `context` tokens, each `head` and the next of the text."""
    step = context - len(head)
    for at in range(0, len(text), step):
        window = head + text[at:at + step]
        if len(window) > 1:
            yield window


def write(path, all_windows, context, top, logits_of):
    """logits_of: tokens -> float32 [tokens, vocabulary]; the last row is not used. The file appears when it is whole."""
    all_windows = list(all_windows)
    predictions = sum(len(window) - 1 for window in all_windows)
    with open(path + ".new", "wb") as file:
        for n, window in enumerate(all_windows):
            logits = np.asarray(logits_of(window), np.float32)[:-1]
            if n == 0:
                top = min(top, logits.shape[1])
                file.write(b"FALOGITS" + struct.pack("<4IQ", 1, top, logits.shape[1], context, predictions))
            rows = np.empty(len(logits), [("token", "<i4"), ("logit", "<f4"), ("log_sum", "<f4"), ("ids", "<i4", (top,)),
                                          ("logits", "<f4", (top,))])
            largest = logits.max(1, keepdims=True).astype(np.float64)
            rows["token"] = window[1:]
            rows["logit"] = logits[np.arange(len(logits)), window[1:]]
            rows["log_sum"] = (largest + np.log(np.exp(logits - largest).sum(1, keepdims=True)))[:, 0]
            rows["ids"] = np.argsort(-logits, axis=1, kind="stable")[:, :top]
            rows["logits"] = np.take_along_axis(logits, rows["ids"].astype(np.int64), 1)
            file.write(rows.tobytes())
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "text", "output"):
        parser.add_argument(name)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=0, help="of the text; 0 is all")
    parser.add_argument("--top", type=int, default=64)
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.ctx < 2 or not 1 <= options.top <= 1024:
        parser.error("--ctx is 2 or more, --top 1 .. 1024")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, torch_dtype=getattr(torch, options.dtype)).to(options.device).eval()
    with open(options.text, encoding="utf-8", newline="") as file:
        text = tokenizer(file.read(), add_special_tokens=False).input_ids
    text = text[:options.max_tokens or None]
    head = [token for token in tokenizer("").input_ids[:1] if token == tokenizer.bos_token_id]

    @torch.no_grad()
    def logits_of(window):
        return model(torch.tensor([window], device=options.device)).logits[0].float().cpu().numpy()

    write(options.output, windows(head, text, options.ctx), options.ctx, options.top, logits_of)


if __name__ == "__main__":
    main()
