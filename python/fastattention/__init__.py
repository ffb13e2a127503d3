"""Exact attention, fast, on CPUs and NVIDIA GPUs (NPUs planned): a thin layer over the C library.

    from fastattention import attention, flash_attn_func

Arrays may be numpy's or anything with __dlpack__ on the CPU (PyTorch, JAX, ...); results come back as the kind of
array that q was. Every call is thread-safe and lets other Python threads run while it computes.
"""
from ._attention import attention, flash_attn_func
from ._library import (ArgumentError, DeviceError, FastAttentionError, OutOfMemoryError, UnsupportedError,
                       WorkspaceError, kernels, version)

__version__ = "0.1.0"
__all__ = ["ArgumentError", "DeviceError", "FastAttentionError", "OutOfMemoryError", "UnsupportedError",
           "WorkspaceError", "attention", "flash_attn_func", "kernels", "version"]
