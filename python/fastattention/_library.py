"""The C API in ctypes: structures field by field as in fastattention.h, and a status turned into an exception.

The library is the file beside this module in an installed package, FASTATTENTION_LIBRARY where that is set, and
build/lib of the checkout otherwise."""
import ctypes
import os
import pathlib
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p

FLOAT32, FLOAT16, BFLOAT16, INT8, FP8_E4M3 = range(5)


class FastAttentionError(RuntimeError):
    """The library's own line: what was given, what is allowed, what to do."""


class ArgumentError(FastAttentionError, ValueError):
    """A value no device could accept: shape, stride, type, index, name."""


class UnsupportedError(FastAttentionError, NotImplementedError):
    """A valid problem that this device, or the kernel asked for, does not do."""


class WorkspaceError(FastAttentionError):
    """Workspace missing, too small or misaligned."""


class OutOfMemoryError(FastAttentionError, MemoryError):
    """An allocation failed."""


class DeviceError(FastAttentionError):
    """The device or its runtime failed, or is not there."""


EXCEPTION = {1: ArgumentError, 2: UnsupportedError, 3: WorkspaceError, 4: OutOfMemoryError, 5: DeviceError}


class Tensor(Structure):
    _fields_ = [("data", c_void_p), ("stride_batch", c_int64), ("stride_seq", c_int64), ("stride_head", c_int64)]


class Allocator(Structure):
    _fields_ = [("allocate", c_void_p), ("release", c_void_p), ("user", c_void_p)]


class ContextOptions(Structure):
    _fields_ = [("struct_size", c_size_t), ("device", c_char_p), ("threads", c_int32), ("reserved0", c_int32),
                ("allocator", Allocator)]


class Problem(Structure):
    _fields_ = [("struct_size", c_size_t), ("dtype", c_int32), ("kv_dtype", c_int32)]
    _fields_ += [(name, c_int64) for name in ("batch", "heads_q", "heads_kv", "max_seqlen_q", "max_seqlen_kv",
                                              "head_dim_qk", "head_dim_v")]
    _fields_ += [("scale", c_float), ("softcap", c_float), ("window_left", c_int64), ("window_right", c_int64)]
    _fields_ += [(name, c_int32) for name in ("causal", "has_alibi", "has_sinks", "has_mask", "has_bias",
                                              "bias_dtype", "has_lse", "ragged_q", "ragged_kv", "has_seqlens_kv")]
    _fields_ += [(name, c_int64) for name in ("total_seqlen_q", "total_seqlen_kv", "page_size", "num_pages",
                                              "seqlen_new", "rotary_dim", "rotary_positions")]
    _fields_ += [("rotary_interleaved", c_int32), ("kv_splits", c_int32), ("kernel", c_char_p)]


class Arguments(Structure):
    _fields_ = [("struct_size", c_size_t), ("q", Tensor), ("k", Tensor), ("v", Tensor), ("o", Tensor),
                ("lse", c_void_p), ("lse_stride_batch", c_int64), ("lse_stride_head", c_int64),
                ("alibi_slopes", c_void_p), ("alibi_stride_batch", c_int64), ("sinks", c_void_p),
                ("bias", Tensor), ("mask", Tensor), ("cu_seqlens_q", c_void_p), ("cu_seqlens_kv", c_void_p),
                ("seqlens_kv", c_void_p), ("page_table", c_void_p), ("page_table_stride", c_int64),
                ("k_new", Tensor), ("v_new", Tensor), ("rotary_cos", c_void_p), ("rotary_sin", c_void_p),
                ("k_scale", Tensor), ("v_scale", Tensor)]


class KernelInfo(Structure):
    _fields_ = [("struct_size", c_size_t), ("name", c_char_p), ("device", c_char_p), ("arch", c_char_p),
                ("operation", c_char_p), ("dtypes", c_uint32), ("features", c_uint32), ("max_head_dim", c_int64),
                ("available", c_int32), ("is_baseline", c_int32)]


def _load():
    here = pathlib.Path(__file__).resolve().parent
    named = os.environ.get("FASTATTENTION_LIBRARY")
    places = [pathlib.Path(named)] if named else [here / "libfastattention.so",
                                                  here.parent.parent / "build" / "lib" / "libfastattention.so"]
    for place in places:
        if place.exists():
            return ctypes.CDLL(str(place))
    raise ImportError(f"libfastattention.so is not at {' or '.join(map(str, places))}; build it (make), install the "
                      "package (pip install .) or set FASTATTENTION_LIBRARY to the file")


_lib = _load()
for _name, _result, _arguments in (
        ("fa_last_error", c_char_p, []),
        ("fa_version", c_char_p, []),
        ("fa_context_create", c_int32, [POINTER(ContextOptions), POINTER(c_void_p)]),
        ("fa_context_destroy", None, [c_void_p]),
        ("fa_plan_create", c_int32, [c_void_p, POINTER(Problem), POINTER(c_void_p)]),
        ("fa_plan_destroy", None, [c_void_p]),
        ("fa_plan_workspace_bytes", c_size_t, [c_void_p]),
        ("fa_attention_run", c_int32, [c_void_p, POINTER(Arguments), c_void_p, c_size_t, c_void_p]),
        ("fa_kernel_count", c_int32, []),
        ("fa_kernel_describe", c_int32, [c_int32, POINTER(KernelInfo)])):
    getattr(_lib, _name).restype = _result
    getattr(_lib, _name).argtypes = _arguments


def check(status):
    if status:
        raise EXCEPTION.get(status // 100, FastAttentionError)(_lib.fa_last_error().decode(errors="replace"))


def version():
    """Version of the C library, as "0.1.0"."""
    return _lib.fa_version().decode()


def kernels(device="cpu"):
    """Names of the kernels that a device of this machine can run ("cpu", "cuda"), fastest first, baselines last; none
    where the device is not there."""
    info = KernelInfo(struct_size=ctypes.sizeof(KernelInfo))
    names = []
    for index in range(_lib.fa_kernel_count()):
        check(_lib.fa_kernel_describe(index, byref(info)))
        if info.available and info.device.decode() == device.split(":")[0]:
            names.append((info.is_baseline, info.name.decode()))
    return [name for _, name in sorted(names, key=lambda pair: pair[0])]


class Context:
    def __init__(self, device, threads):
        self.handle = c_void_p()
        options = ContextOptions(struct_size=ctypes.sizeof(ContextOptions), device=device.encode(), threads=threads)
        check(_lib.fa_context_create(byref(options), byref(self.handle)))

    def __del__(self, destroy=_lib.fa_context_destroy, is_finalizing=sys.is_finalizing):
        if self.handle and not is_finalizing():  # else kernels would be unloaded before the CUDA graphs that hold them
            destroy(self.handle)


class Plan:
    """Keeps its context alive; freed when the last run in flight and the cache have let go of it."""

    def __init__(self, context, problem):
        self.context = context
        self.handle = c_void_p()
        check(_lib.fa_plan_create(context.handle, byref(problem), byref(self.handle)))
        self.workspace_bytes = _lib.fa_plan_workspace_bytes(self.handle)

    def run(self, arguments, workspace, stream=None):
        check(_lib.fa_attention_run(self.handle, byref(arguments), workspace, self.workspace_bytes, stream))

    def __del__(self, destroy=_lib.fa_plan_destroy, is_finalizing=sys.is_finalizing):
        if self.handle and not is_finalizing():
            destroy(self.handle)
