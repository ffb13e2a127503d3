#!/usr/bin/env python3
"""llama.cpp's ggml_flash_attn_ext on the CPU; see peer_contract.py for the options.

--library names the folder with libggml.so, libggml-base.so and libggml-cpu.so, built for this CPU. As llama.cpp calls
it: q and o are fp32, K and V of the point's type with each head's rows together, a causal mask a tensor of fp16."""
import ctypes
import pathlib
from ctypes import c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p

import peer_contract

F32, F16, BF16 = 0, 1, 30  # ggml_type
TYPES = {"f32": F32, "f16": F16, "bf16": BF16}
CONTEXT_BYTES = 1 << 20  # of tensors' descriptions and the graph


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


FUNCTIONS = {
    "base": {
        "ggml_version": (c_char_p, []), "ggml_init": (c_void_p, [InitParams]), "ggml_free": (None, [c_void_p]),
        "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64, c_int64]),
        "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
        "ggml_new_graph": (c_void_p, [c_void_p]), "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
        "ggml_backend_alloc_ctx_tensors": (c_void_p, [c_void_p, c_void_p]),
        "ggml_backend_buffer_free": (None, [c_void_p]),
        "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
        "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
        "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p])},
    "cpu": {"ggml_backend_cpu_init": (c_void_p, []), "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int])}}


def bind(folder):
    functions = {}
    for part, names in FUNCTIONS.items():
        library = ctypes.CDLL(str(pathlib.Path(folder).resolve() / f"libggml-{part}.so"), ctypes.RTLD_GLOBAL)
        for name, (result, arguments) in names.items():
            function = functions[name.removeprefix("ggml_")] = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    return functions


class Graph:
    """One attention, allocated and filled."""

    def __init__(self, ggml, backend, inputs):
        import numpy

        self.ggml, self.backend = ggml, backend
        batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = inputs.point.shape
        self.o = numpy.empty((batch, seq_q, heads_q, dim_v), "float32")
        self.context = ggml["init"](InitParams(CONTEXT_BYTES, None, True))

        def tensor(kind, *shape):
            return ggml["new_tensor_4d"](self.context, kind, *shape)

        kind = TYPES[inputs.point.dtype]
        filled = [(tensor(F32, dim, seq_q, heads_q, batch), inputs.q.astype("float32")),
                  (tensor(kind, dim, seq_kv, heads_kv, batch), inputs.k),
                  (tensor(kind, dim_v, seq_kv, heads_kv, batch), inputs.v)]
        mask = None
        if inputs.point.causal:
            mask = tensor(F16, seq_kv, seq_q, 1, 1)
            filled.append((mask, numpy.triu(numpy.full((seq_q, seq_kv), -numpy.inf, "float16"), seq_kv - seq_q + 1)))
        self.result = ggml["flash_attn_ext"](self.context, *(each[0] for each in filled[:3]), mask, dim**-0.5, 0.0, 0.0)
        self.buffer = ggml["backend_alloc_ctx_tensors"](self.context, backend)
        for where, array in filled:
            ggml["backend_tensor_set"](where, array.ctypes.data, 0, array.nbytes)
        self.graph = ggml["new_graph"](self.context)
        ggml["build_forward_expand"](self.graph, self.result)

    def run(self):
        if self.ggml["backend_graph_compute"](self.backend, self.graph):
            raise peer_contract.Unsupported("ggml_backend_graph_compute failed")

    def output(self):
        self.ggml["backend_tensor_get"](self.result, self.o.ctypes.data, 0, self.o.nbytes)
        return self.o.swapaxes(1, 2)

    def __del__(self):
        self.ggml["backend_buffer_free"](self.buffer)
        self.ggml["free"](self.context)


def load(options):
    ggml = bind(options.library)
    backend = ggml["backend_cpu_init"]()
    ggml["backend_cpu_set_n_threads"](backend, options.threads)

    def calls(inputs, _):
        graph = Graph(ggml, backend, inputs)
        yield peer_contract.Call("flash_attn_ext", "bhsd", graph.run, graph.output)

    return f"ggml {ggml['version']().decode()}", calls


def add_options(parser):
    parser.add_argument("--library", required=True, help="the folder of libggml-cpu.so")


peer_contract.main(load, add_options)
