"""Writes oracle_golden.h: tiny attention problems, each feature alone and then several together, with their results
in numpy float64. Independent of the C code: whole score matrices, numpy's own fp16, types from their definitions.

    python3 tests/ref/make_oracle_golden.py > tests/ref/oracle_golden.h
"""
import numpy as np

rng = np.random.default_rng(20240607)


def grid(*shape, scale=8, span=12):
    """Random multiples of 1/8: exact in every floating-point type of the library."""
    return rng.integers(-span, span + 1, size=shape).astype(np.float64) / scale


def bf16_bits(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    assert np.all(bits & 0xffff == 0), "not a bf16 number"
    return (bits >> 16).astype(np.uint16)


def fp8_value(code):
    sign = -1.0 if code & 0x80 else 1.0
    exponent, fraction = (code >> 3) & 15, code & 7
    if exponent == 0:
        return sign * fraction * 2.0 ** -9
    return sign * (1 + fraction / 8) * 2.0 ** (exponent - 7)


class Case:
    """Dense arrays [batch, seq, heads, dim] of real numbers, and the options of the problem."""

    def __init__(self, name, batch=1, hq=1, hkv=1, sq=3, skv=4, d=2, dv=None, dtype="f32", **options):
        self.name, self.batch, self.hq, self.hkv, self.sq, self.skv, self.d = name, batch, hq, hkv, sq, skv, d
        self.dv, self.dtype, self.options = dv or d, dtype, options
        self.q = grid(batch, sq, hq, d)
        self.k = grid(batch, skv, hkv, d)
        self.v = grid(batch, skv, hkv, self.dv)
        self.len_q = options.get("len_q", [sq] * batch)
        self.len_kv = options.get("len_kv", [skv] * batch)


def rotate(x, position, dim, interleaved, cos, sin):
    x = x.copy()
    half = dim // 2
    first = np.arange(half) * 2 if interleaved else np.arange(half)
    second = first + 1 if interleaved else first + half
    a, b = x[first].copy(), x[second].copy()
    x[first] = a * cos[position] - b * sin[position]
    x[second] = b * cos[position] + a * sin[position]
    return x


def attention(c):
    """o [batch, sq, hq, dv] and lse [batch, sq, hq]; NaN in rows beyond a sequence."""
    opt = c.options
    o = np.full((c.batch, c.sq, c.hq, c.dv), np.nan)
    lse = np.full((c.batch, c.sq, c.hq), np.nan)
    scale = opt.get("scale", 1 / np.sqrt(c.d))
    for b in range(c.batch):
        n, m = c.len_q[b], c.len_kv[b]
        i, j = np.arange(n)[:, None], np.arange(m)[None, :]
        place = i + m - n
        for h in range(c.hq):
            g = h // (c.hq // c.hkv)
            q, k, v = c.q[b, :n, h], c.k[b, :m, g], c.v[b, :m, g]
            if "rotary" in opt:
                r = opt["rotary"]
                q = np.stack([rotate(q[t], m - n + t, r["dim"], r["interleaved"], r["cos"], r["sin"])
                              for t in range(n)])
            s = scale * (q @ k.T)
            if opt.get("softcap", 0):
                s = opt["softcap"] * np.tanh(s / opt["softcap"])
            if "alibi" in opt:
                s = s - np.broadcast_to(opt["alibi"], (c.batch, c.hq))[b, h] * np.abs(place - j)
            if "bias" in opt:
                s = s + np.broadcast_to(opt["bias"], (c.batch, c.hq, c.sq, c.skv))[b, h, :n, :m]
            keep = np.ones((n, m), bool)
            if opt.get("causal"):
                keep &= j <= place
            left, right = opt.get("window", (-1, -1))
            if left >= 0:
                keep &= j >= place - left
            if right >= 0:
                keep &= j <= place + right
            if "mask" in opt:
                keep &= np.broadcast_to(opt["mask"], (c.batch, c.hq, c.sq, c.skv))[b, h, :n, :m] != 0
            sink = opt["sinks"][h] if "sinks" in opt else -np.inf
            for t in range(n):
                terms = np.where(keep[t], s[t], -np.inf)
                top = max(np.max(terms, initial=-np.inf), sink)
                if top == -np.inf:
                    o[b, t, h], lse[b, t, h] = 0, -np.inf
                    continue
                p = np.exp(terms - top)
                total = p.sum() + np.exp(sink - top)
                o[b, t, h], lse[b, t, h] = (p / total) @ v, top + np.log(total)
    return o, lse


# ------------------------------------------------------------------------------- writing C
def literal(x):
    if np.isnan(x):
        return "NAN"
    if np.isinf(x):
        return "-INFINITY" if x < 0 else "INFINITY"
    return float(x).hex()


def array(name, ctype, values):
    values = np.asarray(values).reshape(-1)
    suffix = "f" if ctype == "float" else ""
    if ctype in ("float", "double"):
        text = [literal(x) + (suffix if np.isfinite(x) else "") for x in values]
    else:
        text = [str(int(x)) for x in values]
    lines = [", ".join(text[n:n + 8]) for n in range(0, len(text), 8)]
    print(f"static {ctype} {name}[] = {{" + ",\n  ".join(lines) + "};")
    return name


def stored(name, x, dtype):
    x = np.asarray(x, np.float64)
    if dtype == "f32":
        return array(name, "float", x)
    if dtype == "f16":
        assert np.all(x.astype(np.float16) == x)
        return array(name, "uint16_t", x.astype(np.float16).view(np.uint16))
    return array(name, "uint16_t", bf16_bits(x))


DTYPES = {"f32": "FA_FLOAT32", "f16": "FA_FLOAT16", "bf16": "FA_BFLOAT16", "int8": "FA_INT8", "fp8": "FA_FP8_E4M3"}
entries = []


def emit(c):
    opt, id_ = c.options, c.name
    problem = dict(dtype=DTYPES[c.dtype], kv_dtype=DTYPES[opt.get("kv_dtype", c.dtype)], batch=c.batch, heads_q=c.hq,
                   heads_kv=c.hkv, max_seqlen_q=c.sq, max_seqlen_kv=c.skv, head_dim_qk=c.d, head_dim_v=c.dv,
                   window_left=opt.get("window", (-1, -1))[0], window_right=opt.get("window", (-1, -1))[1])
    args = {}
    new = opt.get("new", 0)
    if "kv_dtype" in opt:  # c.k and c.v become what the codes stand for
        for which in "kv":
            codes = rng.integers(-127, 128, getattr(c, which).shape)
            if opt["kv_dtype"] == "fp8":
                codes = rng.integers(0, 256, codes.shape)
                codes[(codes & 0x7f) == 0x7f] = 0x38
                value = np.vectorize(fp8_value)(codes)
            else:
                value = codes.astype(np.float64)
            scale = opt[which + "_scale"]
            setattr(c, which, value * np.broadcast_to(scale, value.shape[:3])[..., None])
            array(f"{id_}_{which}", "int8_t" if opt["kv_dtype"] == "int8" else "uint8_t", codes)
            array(f"{id_}_{which}_scale", "float", scale)
            st = [0 if n == 1 else int(np.prod(scale.shape[a + 1:])) for a, n in enumerate(scale.shape)]
            args[which + "_scale"] = f"{{{id_}_{which}_scale, {st[0]}, {st[1]}, {st[2]}}}"
    if "rotary" in opt:
        r = opt["rotary"]
        problem.update(rotary_dim=r["dim"], rotary_interleaved=int(r["interleaved"]), rotary_positions=len(r["cos"]))
        args["rotary_cos"] = array(f"{id_}_cos", "float", r["cos"])
        args["rotary_sin"] = array(f"{id_}_sin", "float", r["sin"])
    k_cache, v_cache = c.k.copy(), c.v.copy()
    if new:
        problem["seqlen_new"] = new
        k_new = np.zeros((c.batch, new, c.hkv, c.d))
        v_new = np.zeros((c.batch, new, c.hkv, c.dv))
        for b in range(c.batch):
            start = c.len_kv[b] - new
            k_new[b], v_new[b] = c.k[b, start:start + new], c.v[b, start:start + new]
            k_cache[b, start:], v_cache[b, start:] = np.nan, np.nan
            for t in range(start, start + new):
                for g in range(c.hkv):
                    if "rotary" in opt:
                        r = opt["rotary"]
                        c.k[b, t, g] = rotate(c.k[b, t, g], t, r["dim"], r["interleaved"], r["cos"], r["sin"])
            c.k[b, t + 1:], c.v[b, t + 1:] = np.nan, np.nan
        # The cache is fp32, and so are the rotated keys in it.
        c.k = c.k.astype(np.float32).astype(np.float64)
        for which, x, dim in (("k", k_new, c.d), ("v", v_new, c.dv)):
            stored(f"{id_}_{which}_new", x, c.dtype)
            args[which + "_new"] = f"{{{id_}_{which}_new, {new * c.hkv * dim}, {c.hkv * dim}, {dim}}}"

    o, lse = attention(c)
    layout = opt.get("layout", "bshd")

    def tensor(name, x, dtype, ragged=None):
        """Stores [b, s, h, d] as the case asks and returns its C tensor."""
        _, s, h, d = x.shape
        if ragged is not None:
            stored(f"{id_}_{name}", np.concatenate([x[b, :n] for b, n in enumerate(ragged)]), dtype)
            return f"{{{id_}_{name}, 0, {h * d}, {d}}}"
        if layout == "bhsd":
            stored(f"{id_}_{name}", x.transpose(0, 2, 1, 3), dtype)
            return f"{{{id_}_{name}, {s * h * d}, {d}, {s * d}}}"
        stored(f"{id_}_{name}", x, dtype)
        return f"{{{id_}_{name}, {s * h * d}, {h * d}, {d}}}"

    ragged_q, ragged_kv = opt.get("ragged_q"), opt.get("ragged_kv")
    args["q"] = tensor("q", c.q, c.dtype, c.len_q if ragged_q else None)
    if "page_size" in opt:
        size = opt["page_size"]
        slots = -(-c.skv // size)
        used = [-(-n // size) for n in c.len_kv]
        order = rng.permutation(sum(used) + 1)
        table = np.full((c.batch, slots), 2 ** 31 - 1)
        pages = {w: np.full((len(order), size) + getattr(c, w).shape[2:], np.nan) for w in "kv"}
        at = 0
        for b in range(c.batch):
            for n in range(used[b]):
                table[b, n] = order[at]
                at += 1
                for t in range(n * size, min((n + 1) * size, c.len_kv[b])):
                    for w, source in (("k", k_cache), ("v", v_cache)):
                        pages[w][table[b, n], t - n * size] = source[b, t]
        problem.update(page_size=size, num_pages=len(order))
        args["page_table"], args["page_table_stride"] = array(f"{id_}_pages", "int32_t", table), slots
        for w, dim in (("k", c.d), ("v", c.dv)):
            stored(f"{id_}_{w}", pages[w], c.dtype)
            args[w] = f"{{{id_}_{w}, {size * c.hkv * dim}, {c.hkv * dim}, {dim}}}"
    elif "kv_dtype" in opt:
        for w, dim in (("k", c.d), ("v", c.dv)):
            args[w] = f"{{{id_}_{w}, {c.skv * c.hkv * dim}, {c.hkv * dim}, {dim}}}"
    else:
        args["k"] = tensor("k", k_cache, c.dtype, c.len_kv if ragged_kv else None)
        args["v"] = tensor("v", v_cache, c.dtype, c.len_kv if ragged_kv else None)
    if ragged_q:
        problem.update(ragged_q=1, total_seqlen_q=sum(c.len_q))
        args["cu_seqlens_q"] = array(f"{id_}_cu_q", "int32_t", np.cumsum([0] + c.len_q))
    if ragged_kv:
        problem.update(ragged_kv=1, total_seqlen_kv=sum(c.len_kv))
        args["cu_seqlens_kv"] = array(f"{id_}_cu_kv", "int32_t", np.cumsum([0] + c.len_kv))
    elif "len_kv" in opt or new:
        problem["has_seqlens_kv"] = 1
        args["seqlens_kv"] = array(f"{id_}_seqlens", "int32_t", np.array(c.len_kv) - new)
    if "scale" in opt:
        problem["scale"] = literal(opt["scale"]) + "f"
    if "softcap" in opt:
        problem["softcap"] = literal(opt["softcap"]) + "f"
    if opt.get("causal"):
        problem["causal"] = 1
    if "alibi" in opt:
        problem["has_alibi"] = 1
        args["alibi_slopes"] = array(f"{id_}_slopes", "float", opt["alibi"])
        args["alibi_stride_batch"] = c.hq if np.asarray(opt["alibi"]).ndim == 2 else 0
    if "sinks" in opt:
        problem["has_sinks"] = 1
        args["sinks"] = array(f"{id_}_sinks", "float", opt["sinks"])
    for which in ("bias", "mask"):
        if which in opt:
            x = np.asarray(opt[which])
            problem["has_" + which] = 1
            if which == "bias":
                problem["bias_dtype"] = DTYPES[opt.get("bias_dtype", "f32")]
                stored(f"{id_}_bias", x, opt.get("bias_dtype", "f32"))
            else:
                array(f"{id_}_mask", "uint8_t", x)
            st = [0 if n == 1 else int(np.prod(x.shape[a + 1:])) for a, n in enumerate(x.shape)]
            args[which] = f"{{{id_}_{which}, {st[0]}, {st[2]}, {st[1]}}}"
    rows = np.concatenate([np.arange(c.sq)[:n] + b * c.sq for b, n in enumerate(c.len_q)]) if ragged_q else slice(None)
    array(f"{id_}_o", "double", o.reshape(c.batch * c.sq, -1)[rows])
    array(f"{id_}_lse", "double", lse.reshape(c.batch * c.sq, -1)[rows])
    print()
    entries.append((id_, problem, args))


positions = 12
angles = np.arange(positions)[:, None] * np.array([1.0, 0.25])[None, :]
cosine = np.cos(angles).astype(np.float32).astype(np.float64)
sine = np.sin(angles).astype(np.float32).astype(np.float64)

print("/* Written by make_oracle_golden.py; do not edit. */")
emit(Case("dense", batch=2, hq=2, hkv=2))
emit(Case("grouped", hq=4, hkv=2))
emit(Case("multi_query", hq=3, hkv=1, sq=2))
emit(Case("scale", hq=1, scale=0.75))
emit(Case("scale_negative", hq=1, scale=-0.5))
emit(Case("fp16", hq=2, hkv=1, dtype="f16"))
emit(Case("bf16", hq=2, hkv=1, dtype="bf16"))
emit(Case("heads_outside", batch=2, hq=3, hkv=3, layout="bhsd"))
emit(Case("causal_square", sq=4, skv=4, causal=True))
emit(Case("causal_more_keys", sq=2, skv=5, causal=True))
emit(Case("causal_more_queries", sq=5, skv=3, causal=True))
emit(Case("window_both", sq=5, skv=5, window=(1, 1)))
emit(Case("window_left", sq=4, skv=6, window=(2, -1)))
emit(Case("window_right", sq=4, skv=6, window=(-1, 0)))
emit(Case("window_causal", sq=6, skv=6, window=(2, 3), causal=True))
emit(Case("window_beside", sq=6, skv=3, window=(0, 0)))
emit(Case("alibi", hq=2, hkv=2, sq=3, skv=5, alibi=np.array([0.5, 0.125])))
emit(Case("alibi_batch", batch=2, hq=2, hkv=1, alibi=np.array([[0.5, 0.125], [1.0, -0.25]])))
emit(Case("softcap", softcap=0.75, scale=2.0))
emit(Case("sinks", hq=2, hkv=1, sinks=np.array([0.5, -2.0])))
emit(Case("sinks_empty_row", sq=4, skv=2, causal=True, sinks=np.array([1.25])))
emit(Case("bias", batch=2, hq=2, hkv=2, bias=grid(2, 2, 3, 4)))
emit(Case("bias_broadcast", batch=2, hq=2, hkv=2, bias=grid(1, 2, 1, 4), bias_dtype="f16"))
minus = grid(1, 1, 3, 4)
minus[0, 0, 1, 2] = minus[0, 0, 0, 0] = -np.inf
minus[0, 0, 2] = -np.inf
emit(Case("bias_minus_infinity", bias=minus))
emit(Case("bias_bf16", hq=2, hkv=1, bias=grid(1, 2, 3, 4), bias_dtype="bf16"))
mask = rng.integers(0, 2, (2, 2, 3, 4)) * 3
mask[0, 1, 2] = 0
emit(Case("mask", batch=2, hq=2, hkv=2, mask=mask))
emit(Case("mask_padding", batch=2, hq=2, hkv=2, mask=np.array([[[[1, 1, 0, 0]]], [[[0, 1, 1, 255]]]])))
emit(Case("ragged", batch=3, hq=2, hkv=1, sq=4, skv=5, len_q=[2, 0, 4], len_kv=[3, 2, 5], ragged_q=True,
          ragged_kv=True))
emit(Case("ragged_causal", batch=3, hq=1, sq=4, skv=5, len_q=[3, 1, 4], len_kv=[2, 0, 5], ragged_q=True,
          ragged_kv=True, causal=True))
emit(Case("ragged_queries_dense_keys", batch=2, hq=2, hkv=1, sq=3, skv=4, len_q=[1, 3], ragged_q=True, causal=True))
emit(Case("lengths", batch=3, hq=2, hkv=1, sq=2, skv=5, len_kv=[5, 0, 3], causal=True))
emit(Case("paged", batch=2, hq=2, hkv=1, sq=2, skv=7, len_kv=[7, 3], page_size=3))
emit(Case("wide_values", hq=2, hkv=1, d=2, dv=5))
emit(Case("narrow_values", hq=2, hkv=1, d=5, dv=1))
emit(Case("int8_tensor_scale", hq=2, hkv=2, dtype="bf16", kv_dtype="int8", k_scale=np.full((1, 1, 1), 2.0 ** -5),
          v_scale=np.full((1, 1, 1), 2.0 ** -4)))
emit(Case("int8_head_scale", batch=2, hq=4, hkv=2, kv_dtype="int8", k_scale=grid(1, 1, 2, span=3) / 8 + 1,
          v_scale=grid(1, 1, 2, span=3) / 8 + 1))
emit(Case("fp8_token_scale", batch=2, hq=2, hkv=2, dtype="f16", kv_dtype="fp8",
          k_scale=np.abs(grid(2, 4, 1)) / 64 + 0.001953125, v_scale=np.abs(grid(2, 4, 2)) / 64 + 0.001953125))
emit(Case("append", batch=2, hq=2, hkv=1, sq=2, skv=5, len_kv=[5, 3], new=2, causal=True))
emit(Case("append_rotary", batch=2, hq=2, hkv=2, sq=2, skv=6, d=4, len_kv=[6, 4], new=2, causal=True,
          rotary=dict(dim=4, interleaved=False, cos=cosine, sin=sine)))
emit(Case("append_rotary_interleaved", batch=1, hq=2, hkv=1, sq=3, skv=6, d=6, len_kv=[5], new=3,
          rotary=dict(dim=4, interleaved=True, cos=cosine, sin=sine)))
emit(Case("together", batch=2, hq=4, hkv=2, sq=3, skv=8, d=4, dv=3, len_q=[3, 2], len_kv=[8, 5], ragged_q=True,
          page_size=2, new=1, causal=True, window=(4, -1), softcap=1.5, alibi=np.array([0.5, 0.25, 0.125, 0.0625]),
          sinks=np.array([0.5, -1.0, 0.0, 2.0]), bias=grid(1, 4, 3, 8), mask=rng.integers(0, 4, (2, 1, 3, 8)),
          rotary=dict(dim=2, interleaved=False, cos=cosine[:, :1], sin=sine[:, :1])))

print("static golden goldens[] = {")
for id_, problem, args in entries:
    fields = ", ".join(f".{k} = {v}" for k, v in problem.items())
    pointers = ", ".join(f".{k} = {v}" for k, v in args.items())
    print(f'  {{"{id_}", {{.struct_size = sizeof(fa_attention_problem), {fields}}},\n   '
          f"{{.struct_size = sizeof(fa_attention_args), {pointers}}},\n   {id_}_o, {id_}_lse}},")
print("};")
