#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention on the CPU; see peer_contract.py for the options.

--backend flash (the default) is its fused kernel, math the unfused one and eager the same written out in Python, with a
mask tensor. With one query the heads of a group may also go in as queries of one head, which flash likes better."""
import math

import peer_contract


def bottom_right(torch, seq_q, seq_kv, dtype):
    """Additive mask: query i keeps keys up to i + seq_kv - seq_q. PyTorch's own is_causal is top-left aligned."""
    keeps = torch.ones(seq_q, seq_kv, dtype=torch.bool).tril(seq_kv - seq_q)
    return torch.zeros(seq_q, seq_kv, dtype=dtype).masked_fill_(~keeps, -math.inf)


def eager(torch, q, k, v, mask):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.matmul(q, k.transpose(2, 3)) * (1.0 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype), v)


def load(options):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(options.threads)
    torch.inference_mode().__enter__()
    backend = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH, "eager": None}[options.backend]
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def calls(inputs, _):
        dtype = getattr(torch, peer_contract.DTYPES[inputs.point.dtype])
        q, k, v = (torch.from_numpy(part.view("uint16") if part.itemsize == 2 else part).view(dtype)
                   for part in inputs[1:])
        batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = inputs.point.shape
        square = inputs.point.causal and seq_q == seq_kv
        mask = bottom_right(torch, seq_q, seq_kv, dtype) if inputs.point.causal and not (square and backend) else None
        last = []

        def call(name, run, shape):
            def keep():
                last[:] = [run()]

            def by_backend():
                with sdpa_kernel(backend):
                    keep()

            return peer_contract.Call(name, "bhsd", by_backend if backend else keep,
                                      lambda: last[0].reshape(shape).float().numpy())

        shape = (batch, heads_q, seq_q, dim_v)
        if backend is None:
            yield call("eager", lambda: eager(torch, q, k, v, mask), shape)
            return
        yield call(options.backend, lambda: sdpa(q, k, v, attn_mask=mask, is_causal=square,
                                                 enable_gqa=heads_q != heads_kv), shape)
        if not inputs.point.causal and heads_q != heads_kv:
            folded = q.reshape(batch, heads_kv, heads_q // heads_kv * seq_q, dim)
            yield call(options.backend + ", group as queries", lambda: sdpa(folded, k, v), shape)

    return f"PyTorch {torch.__version__.split('+')[0]}", calls


def add_options(parser):
    parser.add_argument("--backend", choices=("flash", "math", "eager"), default="flash")


peer_contract.main(load, add_options)
