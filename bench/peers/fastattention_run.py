#!/usr/bin/env python3
"""This library, or its baselines with --kernel standard|eager, through the C ABI: planned once, then run.

FASTATTENTION_LIBRARY names libfastattention.so (default build/lib/). See peer_contract.py for the other options."""
import ctypes
import os
import pathlib
import sys

import peer_contract


def load(options):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
    import numpy
    # A packed library finds its oneDNN beside it, not where it was built.
    named = os.environ.get("FASTATTENTION_LIBRARY")
    folder = pathlib.Path(named).parent if named else pathlib.Path(__file__).resolve().parents[2] / "build/lib"
    for neighbour in folder.glob("libdnnl.so.*"):
        ctypes.CDLL(neighbour, mode=ctypes.RTLD_GLOBAL)
    from fastattention import _library, version

    types = {"f32": _library.FLOAT32, "f16": _library.FLOAT16, "bf16": _library.BFLOAT16}
    context = _library.Context("cpu", options.threads)

    def calls(inputs, _):
        batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = inputs.point.shape
        dtype = types[inputs.point.dtype]
        problem = _library.Problem(struct_size=ctypes.sizeof(_library.Problem), dtype=dtype, kv_dtype=dtype, batch=batch,
                                   heads_q=heads_q, heads_kv=heads_kv, max_seqlen_q=seq_q, max_seqlen_kv=seq_kv,
                                   head_dim_qk=dim, head_dim_v=dim_v, window_left=-1, window_right=-1,
                                   causal=inputs.point.causal, kernel=options.kernel.encode() if options.kernel else None)
        try:
            plan = _library.Plan(context, problem)
        except _library.UnsupportedError as error:
            raise peer_contract.Unsupported(str(error)) from None
        bhsd = options.layout == "bhsd"
        tensors = [part if bhsd else numpy.ascontiguousarray(part.swapaxes(1, 2)) for part in inputs[1:]]
        tensors.append(numpy.empty_like(tensors[0], shape=tensors[0].shape[:3] + (dim_v,)))
        arguments = _library.Arguments(struct_size=ctypes.sizeof(_library.Arguments))
        for field, array in zip("qkvo", tensors, strict=True):
            outer, first, second = (stride // array.itemsize for stride in array.strides[:3])
            head, row = (first, second) if bhsd else (second, first)
            setattr(arguments, field, _library.Tensor(array.ctypes.data, outer, row, head))
        room = numpy.empty(plan.workspace_bytes + 64, numpy.uint8)
        workspace = (room.ctypes.data + 63) & ~63
        name = options.kernel or "fast"
        yield peer_contract.Call(name, options.layout, lambda: (room, tensors, plan.run(arguments, workspace)),
                                 lambda: tensors[3] if bhsd else tensors[3].swapaxes(1, 2))

    return f"FastAttention {version()}", calls


def add_options(parser):
    parser.add_argument("--kernel", help="by name or family, standard or eager (default: the library's choice)")
    parser.add_argument("--layout", choices=("bhsd", "bshd"), default="bhsd")


peer_contract.main(load, add_options)
