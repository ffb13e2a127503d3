"""Torch tensors on an NVIDIA GPU: dense attention on torch's current stream, memory from torch's allocator (so that a run
can be captured in a CUDA graph, and a workspace is reused in stream order)."""
import ctypes
import sys

from . import _library
from ._library import ArgumentError, Arguments, Problem, Tensor, UnsupportedError

CUDA = 2  # DLPack's device type


def is_cuda(array):
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == CUDA


def _torch(array):
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        raise ArgumentError(f"q is a {type(array).__name__} on a GPU; on GPUs torch tensors are taken: convert it with "
                            "torch.from_dlpack")
    return torch


def _tensor(array, bhsd):
    batch, seq, head, dim = array.stride()
    if bhsd:
        seq, head = head, seq
    return Tensor(array.data_ptr(), batch, seq, head)


def _check_others(torch, alibi_slopes, sinks, out):
    for name, array in (("alibi_slopes", alibi_slopes), ("sinks", sinks), ("out", out)):
        if array is not None and not isinstance(array, torch.Tensor):
            raise ArgumentError(f"{name} is a {type(array).__name__}; q is a torch tensor on a GPU, so it must be a torch "
                                "tensor too")


def _check_gradients(torch, **arrays):
    for name, array in arrays.items():
        if array is not None and array.requires_grad and torch.is_grad_enabled():
            raise UnsupportedError(f"{name} requires a gradient; inference only: use torch.no_grad() or detach")


def attention(plan_of, q, k, v, *, scale=None, causal=False, window=(-1, -1), softcap=0.0, alibi_slopes=None, sinks=None,
              kv_splits=0, layout="bshd", out=None, return_lse=False, kernel=None):
    """plan_of(device, problem, kernel) -> Plan. The meaning of the rest is that of fastattention.attention, which has
    checked scale, window, layout and kernel."""
    torch = _torch(q)
    types = {torch.float32: _library.FLOAT32, torch.float16: _library.FLOAT16, torch.bfloat16: _library.BFLOAT16}
    bhsd = layout == "bhsd"
    for name, array in (("q", q), ("k", k), ("v", v)):
        if not isinstance(array, torch.Tensor) or array.device != q.device:
            raise ArgumentError(f"{name} is not a torch tensor on {q.device}, where q is; move it there")
        if array.dtype != q.dtype or array.dtype not in types or array.dim() != 4:
            raise ArgumentError(f"{name} is of type {array.dtype} with {array.dim()} dimensions; q, k and v must be of one "
                                "type (float32, float16, bfloat16) with 4")
    _check_others(torch, alibi_slopes, sinks, out)
    _check_gradients(torch, q=q, k=k, v=v, alibi_slopes=alibi_slopes, sinks=sinks, out=out)
    q, k, v = (array if array.stride(-1) == 1 or array.shape[-1] <= 1 else array.contiguous() for array in (q, k, v))
    batch, rows, heads, dim = q.transpose(1, 2).shape if bhsd else q.shape
    batch_k, keys, heads_kv, dim_k = k.transpose(1, 2).shape if bhsd else k.shape
    shape_v = (v.transpose(1, 2) if bhsd else v).shape
    if (batch_k, dim_k) != (batch, dim) or tuple(shape_v[:3]) != (batch, keys, heads_kv):
        raise ArgumentError(f"q, k and v have the shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; they must "
                            "agree in batch, k and v in all but the head size, and k's head size must be q's")
    shape = (batch, heads, rows, shape_v[3]) if bhsd else (batch, rows, heads, shape_v[3])
    if out is None:
        out = torch.empty(shape, dtype=q.dtype, device=q.device)
    elif tuple(out.shape) != shape or out.dtype != q.dtype or out.device != q.device or out.stride(-1) != 1:
        raise ArgumentError(f"out has the shape {tuple(out.shape)} and type {out.dtype}; it must be {shape}, {q.dtype}, on "
                            f"{q.device}, with an innermost stride of 1")
    problem = Problem(struct_size=ctypes.sizeof(Problem), dtype=types[q.dtype], kv_dtype=types[q.dtype], batch=batch,
                      heads_q=heads, heads_kv=heads_kv, max_seqlen_q=rows, max_seqlen_kv=keys, head_dim_qk=dim,
                      head_dim_v=shape_v[3], scale=0.0 if scale is None else scale, softcap=softcap,
                      window_left=window[0], window_right=window[1], causal=bool(causal), has_lse=bool(return_lse),
                      has_alibi=alibi_slopes is not None, has_sinks=sinks is not None, kv_splits=kv_splits)
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments), q=_tensor(q, bhsd), k=_tensor(k, bhsd),
                          v=_tensor(v, bhsd), o=_tensor(out, bhsd))
    if alibi_slopes is not None:
        alibi_slopes = alibi_slopes.to(device=q.device, dtype=torch.float32).contiguous()
        if tuple(alibi_slopes.shape) not in ((heads,), (batch, heads)):
            raise ArgumentError(f"alibi_slopes has the shape {tuple(alibi_slopes.shape)}; it must be ({heads},) or "
                                f"({batch}, {heads})")
        arguments.alibi_slopes = alibi_slopes.data_ptr()
        arguments.alibi_stride_batch = heads if alibi_slopes.dim() == 2 else 0
    if sinks is not None:
        sinks = sinks.to(device=q.device, dtype=torch.float32).contiguous()
        if tuple(sinks.shape) != (heads,):
            raise ArgumentError(f"sinks has the shape {tuple(sinks.shape)}; it must be ({heads},)")
        arguments.sinks = sinks.data_ptr()
    lse = None
    if return_lse:
        lse = torch.empty((batch, heads, rows), dtype=torch.float32, device=q.device)
        arguments.lse, arguments.lse_stride_batch, arguments.lse_stride_head = lse.data_ptr(), heads * rows, rows
    plan = plan_of(f"cuda:{q.device.index}", problem, kernel)
    workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=q.device)
    plan.run(arguments, workspace.data_ptr(), torch.cuda.current_stream(q.device).cuda_stream)
    return (out, lse) if return_lse else out
