"""attention() with the whole vocabulary of the library, and flash_attn_func with flash_attn's signature."""
import collections
import ctypes
import operator
import threading

import numpy

from . import _cuda, _library
from ._arrays import Result, view_of
from ._library import ArgumentError, Arguments, Problem, Tensor, UnsupportedError

COMPUTED = {"float32": _library.FLOAT32, "float16": _library.FLOAT16, "bfloat16": _library.BFLOAT16}
CACHED = dict(COMPUTED, int8=_library.INT8, float8_e4m3fn=_library.FP8_E4M3)

_PLANS_KEPT = 128
_WORKSPACE_KEPT = 256 << 20  # a larger one (the baselines' scores) is given back after its call

_lock = threading.Lock()
_contexts = {}
_plans = collections.OrderedDict()
_thread = threading.local()


def _plan(device, threads, problem, kernel):
    problem.kernel = None
    key = (device, threads, kernel, bytes(problem))
    with _lock:
        if key in _plans:
            _plans.move_to_end(key)
            return _plans[key]
        context = _contexts.get((device, threads))
        if context is None:
            context = _contexts[device, threads] = _library.Context(device, threads)
    problem.kernel = None if kernel is None else kernel.encode()
    plan = _library.Plan(context, problem)
    with _lock:
        plan = _plans.setdefault(key, plan)
        while len(_plans) > _PLANS_KEPT:
            _plans.popitem(last=False)
    return plan


def _workspace(size):
    """(buffer, its first address divisible by 64); the thread's own, kept between calls."""
    buffer = getattr(_thread, "workspace", None)
    if buffer is None or buffer.size < size + 64:
        try:
            buffer = numpy.empty(size + 64, numpy.uint8)
        except MemoryError:
            raise _library.OutOfMemoryError(f"this plan needs a workspace of {size} bytes, which is not there; a "
                                            "smaller problem or another kernel needs less") from None
        _thread.workspace = buffer if size <= _WORKSPACE_KEPT else None
    return buffer, (buffer.ctypes.data + 63) & ~63


def _input(array, name, rank, dtypes):
    """A View of the wanted rank and one of the dtypes whose innermost stride is 1 (copied if it is not)."""
    view = view_of(array, name)
    if view.dtype not in dtypes:
        raise ArgumentError(f"{name} is of type {view.dtype}; it must be {' or '.join(dtypes)}")
    if len(view.shape) != rank:
        raise ArgumentError(f"{name} has {len(view.shape)} dimensions {view.shape}; it must have {rank}")
    return view if view.last_is_contiguous else view.contiguous()


def _expect(name, view, shape):
    if view.shape != tuple(shape):
        raise ArgumentError(f"{name} has the shape {view.shape}; with the other arguments it must be {tuple(shape)}")


def _sequences(view, bhsd):
    """(Tensor, batch, seq, heads, dim) of [B,S,H,D] or [B,H,S,D]; ragged [total,H,D] has batch None."""
    if len(view.shape) == 3:
        return (Tensor(view.address, 0, view.strides[0], view.strides[1]), None, *view.shape)
    b, s, h, d = (0, 2, 1, 3) if bhsd else (0, 1, 2, 3)
    shape, strides = view.shape, view.strides
    return Tensor(view.address, strides[b], strides[s], strides[h]), shape[b], shape[s], shape[h], shape[d]


def _vector(array, name, dtype, shape):
    """A packed array of a small parameter; copied where its type or layout differs."""
    if hasattr(array, "__dlpack__") and not isinstance(array, numpy.ndarray):
        view = view_of(array, name)
        array = view.array()
        if view.dtype == "bfloat16":
            array = (array.astype("u4") << 16).view("f4")
    array = numpy.asarray(array)
    if array.dtype.kind not in ("iu" if dtype == "int32" else "iuf"):
        raise ArgumentError(f"{name} is of type {array.dtype}; it must be {dtype}")
    if array.size and dtype == "int32" and (array.min() < -2**31 or array.max() >= 2**31):
        raise ArgumentError(f"{name} holds values beyond 32 bits")
    array = numpy.ascontiguousarray(array, dtype)
    if shape is not None and array.shape != tuple(shape):
        raise ArgumentError(f"{name} has the shape {array.shape}; it must be {tuple(shape)}")
    return array


def _broadcast(array, name, dtypes, shape):
    """bias or mask as (View, Tensor): missing or size-1 dimensions before the keys become strides of 0."""
    view = view_of(array, name)
    if view.dtype not in dtypes:
        raise ArgumentError(f"{name} is of type {view.dtype}; it must be {' or '.join(dtypes)}")
    missing = 4 - len(view.shape)
    fits = missing >= 0 and all(n in (1, full) for n, full in zip(view.shape, shape[missing:]))
    if not fits or not view.shape or view.shape[-1] != shape[-1]:
        raise ArgumentError(f"{name} has the shape {view.shape}; it must broadcast to {tuple(shape)} (batch, query heads, "
                            "queries, keys), its last dimension being all keys")
    if not view.last_is_contiguous:
        view = view.contiguous()
    strides = [0] * missing + [0 if n == 1 else stride for n, stride in zip(view.shape, view.strides)]
    return view, Tensor(view.address, strides[0], strides[2], strides[1])


def _scales(array, name, shape, written):
    """Scales of a quantised cache, broadcast to (batch or page, seq or slot, head). Appending stores the scales of
    single tokens, so then they must be the caller's own memory."""
    if hasattr(array, "__dlpack__"):
        view = view_of(array, name)
        if written and (view.dtype != "float32" or not view.writable or view.copied):
            raise ArgumentError(f"{name} is of type {view.dtype}; appending stores scales in it, so it must be float32, "
                                "aligned and writable")
        array = view.array() if view.dtype == "float32" else _vector(array, name, "float32", None)
    else:
        view, array = None, numpy.asarray(array, "float32")
        if written and array.ndim:
            raise ArgumentError(f"{name} is made from a sequence; appending stores scales in it, so it must be an array of "
                                "float32")
    try:
        wide = numpy.broadcast_to(array, shape)
    except ValueError:
        raise ArgumentError(f"{name} has the shape {array.shape}; it must broadcast to {shape}") from None
    return (view, array), Tensor(wide.ctypes.data, *(stride // 4 for stride in wide.strides))


def attention(q, k, v, *, layout="bshd", scale=None, causal=False, window=(-1, -1), softcap=0.0, alibi_slopes=None,
              sinks=None, bias=None, mask=None, cu_seqlens_q=None, cu_seqlens_kv=None, max_seqlen_q=None,
              max_seqlen_kv=None, seqlens_kv=None, page_table=None, k_new=None, v_new=None, rotary_cos=None,
              rotary_sin=None, rotary_interleaved=False, k_scale=None, v_scale=None, kv_splits=0, return_lse=False,
              out=None, kernel=None, device="cpu", threads=0):
    """softmax(rules(scale * q k^T)) v, exactly; returns o, or (o, lse) with return_lse.

    q is [B,Sq,Hq,D], k [B,Skv,Hkv,D], v [B,Skv,Hkv,Dv] (layout "bhsd": heads before sequence), of float32, float16
    or bfloat16, with any strides. o is [B,Sq,Hq,Dv], lse [B,Hq,Sq] float32, natural logarithm.

      scale          1/sqrt(D) unless given             causal       bottom-right aligned
      window         (left, right) keys, -1 unlimited   softcap      c*tanh(s/c), 0 is off
      alibi_slopes   [Hq] or [B,Hq]                     sinks        [Hq] logits joining the denominator
      bias, mask     broadcastable to [B,Hq,Sq,Skv]; a mask (bool or uint8) keeps where it is not 0
      cu_seqlens_q, cu_seqlens_kv  [B+1]: ragged; q and o (k and v) are [total,H,D], lse is [Hq,total]
      max_seqlen_q, max_seqlen_kv  the longest sequences (found from the lengths unless given)
      seqlens_kv     [B]: lengths within k and v        page_table   [B,pages]: k and v are [pages,slots,Hkv,D]
      k_new, v_new   [B,Snew,Hkv,D]: appended to k and v (in place) behind seqlens_kv before attention
      rotary_cos, rotary_sin  [positions,rotary/2]: rotates q and k_new
      k_scale, v_scale        of int8 or float8_e4m3fn k and v, broadcastable to [B,Skv,Hkv] (or [pages,slots,Hkv])
      kernel         a kernel's name, a family ("c", "avx2", "avx512", "amx") or "standard", "eager"
      threads        0 is one a core
    Torch tensors on an NVIDIA GPU are computed there, on torch's current stream; device and threads are not looked at
    then. Dense q, k and v alone: bias, mask, ragged, paged, appended, rotated and quantised ones are refused, as is what
    requires a gradient.
    Raises FastAttentionError's kinds, with one line saying what was given and what is allowed."""
    if layout not in ("bshd", "bhsd"):
        raise ArgumentError(f'layout is {layout!r}; it must be "bshd" or "bhsd"')
    if kernel is not None and not isinstance(kernel, str):
        raise ArgumentError(f"kernel is {kernel!r}; it must be a name")
    try:
        left, right = map(operator.index, window)
    except (TypeError, ValueError):
        raise ArgumentError(f"window is {window!r}; it must be two whole numbers (left, right), -1 for unlimited") from None
    if scale is not None and scale == 0:
        raise ArgumentError("scale is 0; leave it out for 1/sqrt(head size), or give another value")
    if _cuda.is_cuda(q):
        given = {"bias": bias, "mask": mask, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_kv": cu_seqlens_kv,
                 "max_seqlen_q": max_seqlen_q, "max_seqlen_kv": max_seqlen_kv, "seqlens_kv": seqlens_kv,
                 "page_table": page_table, "k_new": k_new, "v_new": v_new, "rotary_cos": rotary_cos,
                 "rotary_sin": rotary_sin, "rotary_interleaved": rotary_interleaved or None, "k_scale": k_scale,
                 "v_scale": v_scale}
        for name, value in given.items():
            if value is not None:
                raise UnsupportedError(f"{name} is given with tensors on a GPU; this package's GPU part takes dense q, k "
                                       "and v so far: call the C library")
        return _cuda.attention(lambda place, problem, name: _plan(place, 0, problem, name), q, k, v, scale=scale,
                               causal=causal, window=(left, right), softcap=softcap, alibi_slopes=alibi_slopes,
                               sinks=sinks, kv_splits=kv_splits, layout=layout, out=out, return_lse=return_lse,
                               kernel=kernel)
    ragged_q, ragged_kv, paged = cu_seqlens_q is not None, cu_seqlens_kv is not None, page_table is not None
    bhsd = layout == "bhsd"

    q_view = _input(q, "q", 3 if ragged_q else 4, COMPUTED)
    kv_types = CACHED if k_scale is not None or v_scale is not None else COMPUTED
    k_view = _input(k, "k", 3 if ragged_kv else 4, kv_types)
    v_view = _input(v, "v", 3 if ragged_kv else 4, kv_types)
    if k_view.dtype != v_view.dtype or (k_view.dtype in COMPUTED and k_view.dtype != q_view.dtype):
        raise ArgumentError(f"q, k and v are of types {q_view.dtype}, {k_view.dtype} and {v_view.dtype}; they must be of "
                            "one type (k and v may be int8 or float8_e4m3fn, with scales)")
    q_tensor, batch, rows_q, heads_q, dim = _sequences(q_view, bhsd)
    k_tensor, batch_k, rows_kv, heads_kv, dim_k = _sequences(k_view, bhsd and not paged)
    v_tensor, batch_v, rows_v, heads_v, dim_v = _sequences(v_view, bhsd and not paged)
    if (batch_k, rows_kv, heads_kv, dim_k) != (batch_v, rows_v, heads_v, dim):
        raise ArgumentError(f"k has the shape {k_view.shape} and v {v_view.shape}, q {q_view.shape}; k and v must agree in "
                            "all but the head size, and k's head size must be q's")

    alive = [q_view, k_view, v_view]  # memory the run reads, until it is over
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments), q=q_tensor, k=k_tensor, v=v_tensor)
    problem = Problem(struct_size=ctypes.sizeof(Problem), dtype=COMPUTED[q_view.dtype], kv_dtype=CACHED[k_view.dtype],
                      heads_q=heads_q, heads_kv=heads_kv, head_dim_qk=dim, head_dim_v=dim_v,
                      scale=0.0 if scale is None else scale, softcap=softcap, window_left=left,
                      window_right=right, causal=bool(causal), has_lse=bool(return_lse), kv_splits=kv_splits)

    def pass_vector(field, array, name, dtype, shape=None):
        packed = _vector(array, name, dtype, shape)
        alive.append(packed)
        setattr(arguments, field, packed.ctypes.data)
        return packed

    if ragged_q:
        ends = pass_vector("cu_seqlens_q", cu_seqlens_q, "cu_seqlens_q", "int32")
        if ends.ndim != 1 or len(ends) < 2:
            raise ArgumentError(f"cu_seqlens_q has the shape {ends.shape}; it must be [batch + 1]")
        batch, problem.ragged_q, problem.total_seqlen_q = len(ends) - 1, 1, rows_q
        problem.max_seqlen_q = max(0, int(numpy.diff(ends.astype("int64")).max())) if max_seqlen_q is None else max_seqlen_q
    else:
        problem.max_seqlen_q = rows_q
    if ragged_kv:
        ends = pass_vector("cu_seqlens_kv", cu_seqlens_kv, "cu_seqlens_kv", "int32")
        if ends.ndim != 1 or len(ends) < 2:
            raise ArgumentError(f"cu_seqlens_kv has the shape {ends.shape}; it must be [batch + 1]")
        batch_k, problem.ragged_kv, problem.total_seqlen_kv = len(ends) - 1, 1, rows_kv
        problem.max_seqlen_kv = max(0, int(numpy.diff(ends.astype("int64")).max())) if max_seqlen_kv is None \
            else max_seqlen_kv
    elif paged:
        table = pass_vector("page_table", page_table, "page_table", "int32")
        if table.ndim != 2:
            raise ArgumentError(f"page_table has the shape {table.shape}; it must be [batch, pages]")
        problem.num_pages, problem.page_size, batch_k = batch_k, rows_kv, table.shape[0]
        if rows_kv < 1:
            raise ArgumentError(f"k has the shape {k_view.shape}; a page must have at least one slot")
        arguments.page_table_stride = table.shape[1]
        room = table.shape[1] * rows_kv
        problem.max_seqlen_kv = room if max_seqlen_kv is None else max_seqlen_kv
        if problem.max_seqlen_kv > room:
            raise ArgumentError(f"max_seqlen_kv is {max_seqlen_kv}; page_table {table.shape} with pages of {rows_kv} slots "
                                f"has room for {room}")
    else:
        problem.max_seqlen_kv = rows_kv
    if batch != batch_k:
        raise ArgumentError(f"q holds {batch} sequences and k {batch_k}; they must hold the same number")
    problem.batch = batch

    if seqlens_kv is not None:
        pass_vector("seqlens_kv", seqlens_kv, "seqlens_kv", "int32", (batch,))
        problem.has_seqlens_kv = 1
    if alibi_slopes is not None:
        slopes = pass_vector("alibi_slopes", alibi_slopes, "alibi_slopes", "float32")
        if slopes.shape not in ((heads_q,), (batch, heads_q)):
            raise ArgumentError(f"alibi_slopes has the shape {slopes.shape}; it must be ({heads_q},) or {(batch, heads_q)}")
        problem.has_alibi, arguments.alibi_stride_batch = 1, heads_q if slopes.ndim == 2 else 0
    if sinks is not None:
        pass_vector("sinks", sinks, "sinks", "float32", (heads_q,))
        problem.has_sinks = 1
    scores = (batch, heads_q, problem.max_seqlen_q, problem.max_seqlen_kv)
    if bias is not None:
        view, arguments.bias = _broadcast(bias, "bias", COMPUTED, scores)
        alive.append(view)
        problem.has_bias, problem.bias_dtype = 1, COMPUTED[view.dtype]
    if mask is not None:
        view, arguments.mask = _broadcast(mask, "mask", ("bool", "uint8"), scores)
        alive.append(view)
        problem.has_mask = 1
    _append(problem, arguments, alive, pass_vector, (k_view, v_view), k_new, v_new, bhsd, rotary_cos, rotary_sin,
            rotary_interleaved)
    for name, array in (("k_scale", k_scale), ("v_scale", v_scale)):
        if k_view.dtype in COMPUTED:
            if array is not None:
                raise ArgumentError(f"{name} is given but k and v are {k_view.dtype}; scales belong to int8 or float8_e4m3fn")
        else:
            if array is None:
                raise ArgumentError(f"k and v are {k_view.dtype} but {name} is missing")
            kept, tensor = _scales(array, name, (k_view.shape[0], rows_kv, heads_kv) if not ragged_kv
                                   else (1, rows_kv, heads_kv), k_new is not None)
            alive.append(kept)
            setattr(arguments, name, tensor)

    shape = (rows_q, heads_q, dim_v) if ragged_q else (batch, heads_q, rows_q, dim_v) if bhsd \
        else (batch, rows_q, heads_q, dim_v)
    result = None if out is not None else Result(q, q_view.dtype, shape)
    out_view = result.view if result else view_of(out, "out")
    _expect("out", out_view, shape)
    if out_view.dtype != q_view.dtype or not out_view.last_is_contiguous or not out_view.writable or \
            out_view.copied:
        raise ArgumentError(f"out is of type {out_view.dtype} with strides {out_view.strides} (in elements); it must be "
                            f"writable, of q's type {q_view.dtype}, with an innermost stride of 1")
    arguments.o = _sequences(out_view, bhsd)[0]
    lse = None
    if return_lse:
        lse = Result(q, "float32", (heads_q, rows_q) if ragged_q else (batch, heads_q, rows_q))
        arguments.lse = lse.view.address
        arguments.lse_stride_batch, arguments.lse_stride_head = heads_q * rows_q, rows_q

    plan = _plan(device, threads, problem, kernel)
    buffer, workspace = _workspace(plan.workspace_bytes)
    plan.run(arguments, workspace)
    del buffer, alive
    o = out if out is not None else result.give()
    return (o, lse.give()) if return_lse else o


def _append(problem, arguments, alive, pass_vector, caches, k_new, v_new, bhsd, rotary_cos, rotary_sin,
            interleaved):
    """k_new, v_new and the rotary tables; the caches themselves are written, so they must not be copies."""
    if (k_new is None) != (v_new is None):
        raise ArgumentError("k_new and v_new are given together or not at all")
    if k_new is not None:
        dtypes = [name for name, value in COMPUTED.items() if value == problem.dtype]
        for name, new, dim in (("k_new", k_new, problem.head_dim_qk), ("v_new", v_new, problem.head_dim_v)):
            view = _input(new, name, 4, dtypes)
            tensor, *sizes = _sequences(view, bhsd)
            if sizes != [problem.batch, sizes[1], problem.heads_kv, dim] or problem.seqlen_new not in (0, sizes[1]):
                raise ArgumentError(f"{name} has the shape {view.shape}; it must hold {problem.batch} sequences of "
                                    f"{problem.heads_kv} heads of size {dim}, as many tokens in k_new as in v_new")
            problem.seqlen_new = sizes[1]
            setattr(arguments, name, tensor)
            alive.append(view)
        for name, view in zip("kv", caches):
            if not view.writable or view.copied:
                raise ArgumentError(f"{name} is appended to in place; it must be writable, with an innermost stride of 1")
    if (rotary_cos is None) != (rotary_sin is None):
        raise ArgumentError("rotary_cos and rotary_sin are given together or not at all")
    if rotary_cos is not None:
        table = pass_vector("rotary_cos", rotary_cos, "rotary_cos", "float32")
        if table.ndim != 2:
            raise ArgumentError(f"rotary_cos has the shape {table.shape}; it must be [positions, rotary dimensions / 2]")
        pass_vector("rotary_sin", rotary_sin, "rotary_sin", "float32", table.shape)
        problem.rotary_positions, problem.rotary_dim = table.shape[0], 2 * table.shape[1]
        problem.rotary_interleaved = bool(interleaved)


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn's function of that name: q [B,Sq,Hq,D], k and v [B,Skv,Hkv,D], out [B,Sq,Hq,D].

    With return_attn_probs: (out, softmax_lse [B,Hq,Sq], None), where a row without a key has the lse +inf, as there.
    Always deterministic. Dropout is for training and not done."""
    if dropout_p != 0.0:
        raise UnsupportedError(f"dropout_p is {dropout_p}; this library does inference only: it must be 0.0")
    result = attention(q, k, v, scale=softmax_scale, causal=causal, window=window_size, softcap=softcap,
                       alibi_slopes=alibi_slopes, return_lse=return_attn_probs)
    if not return_attn_probs:
        return result
    out, lse = result
    if _cuda.is_cuda(lse):
        return out, lse.masked_fill(lse == -numpy.inf, numpy.inf), None
    values = view_of(lse, "lse").array()
    values[values == -numpy.inf] = numpy.inf
    return out, lse, None
