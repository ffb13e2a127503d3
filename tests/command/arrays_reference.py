"""Attention as `fastattn run` documents it, in numpy float64, from the definition: one row of one head at a time."""
import numpy


def one_sequence(q, k, v, *, scale=None, causal=False, window=(-1, -1), softcap=0.0, slopes=None, bias=None, mask=None,
                 sinks=None):
    """q (s_q, h_q, d), k (s_kv, h_kv, d), v (s_kv, h_kv, d_v), slopes and sinks (h_q,), bias and mask
    (h_q, s_q, s_kv) -> o (s_q, h_q, d_v), lse (h_q, s_q)."""
    rows, heads, dim = q.shape
    keys, heads_kv, dim_v = v.shape
    o, lse = numpy.zeros((rows, heads, dim_v)), numpy.full((heads, rows), -numpy.inf)
    q, k, v = q.astype("f8"), k.astype("f8"), v.astype("f8")
    j = numpy.arange(keys)
    for h in range(heads):
        kv = h // (heads // heads_kv)
        for i in range(rows):
            s = (k[:, kv] @ q[i, h]) * (dim ** -0.5 if scale is None else scale)
            if softcap:
                s = softcap * numpy.tanh(s / softcap)
            diagonal = i + keys - rows
            if slopes is not None:
                s = s - float(slopes[h]) * abs(diagonal - j)
            if bias is not None:
                s = s + bias[h, i].astype("f8")
            kept = numpy.ones(keys, bool)
            if causal:
                kept &= j <= diagonal
            if window[0] >= 0:
                kept &= j >= diagonal - window[0]
            if window[1] >= 0:
                kept &= j <= diagonal + window[1]
            if mask is not None:
                kept &= mask[h, i] != 0
            logits = s[kept]
            if sinks is not None:
                logits = numpy.append(logits, float(sinks[h]))
            if logits.size == 0:
                continue
            top = logits.max()
            total = numpy.exp(logits - top).sum()
            lse[h, i] = top + numpy.log(total)
            o[i, h] = numpy.exp(s[kept] - lse[h, i]) @ v[kept, kv]
    return o, lse


def attention(q, k, v, *, layout="bshd", cu_q=None, cu_k=None, slopes=None, bias=None, mask=None, **rules):
    """The arrays as the command takes them; o in q's layout, lse (b, h_q, s_q) or (h_q, total)."""
    to_bshd = (lambda x: numpy.swapaxes(x, -3, -2)) if layout == "bhsd" else (lambda x: x)
    q, k, v = to_bshd(q), to_bshd(k), to_bshd(v)
    batch = len(cu_q) - 1 if cu_q is not None else q.shape[0]
    lengths = numpy.diff(cu_q) if cu_q is not None else [q.shape[1]] * batch
    keys = numpy.diff(cu_k) if cu_k is not None else [k.shape[1]] * batch
    full = (batch, q.shape[-2], max(lengths), max(keys))
    bias = None if bias is None else numpy.broadcast_to(bias, full)
    mask = None if mask is None else numpy.broadcast_to(mask, full)
    slopes = None if slopes is None else numpy.broadcast_to(slopes, full[:2])
    outputs, logs = [], []
    for b in range(batch):
        rows = q[cu_q[b]:cu_q[b + 1]] if cu_q is not None else q[b]
        key, value = (x[cu_k[b]:cu_k[b + 1]] if cu_k is not None else x[b] for x in (k, v))
        o, lse = one_sequence(rows, key, value, slopes=None if slopes is None else slopes[b],
                              bias=None if bias is None else bias[b, :, :lengths[b], :keys[b]],
                              mask=None if mask is None else mask[b, :, :lengths[b], :keys[b]], **rules)
        outputs.append(o)
        logs.append(lse)
    if cu_q is not None:
        return to_bshd(numpy.concatenate(outputs)), numpy.concatenate(logs, axis=1)
    return to_bshd(numpy.stack(outputs)), numpy.stack(logs)


def bf16(x):
    """Rounded to bfloat16 (nearest, ties to even), kept as float32."""
    bits = numpy.ascontiguousarray(x, "f4").view("u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("u4").view("f4")
