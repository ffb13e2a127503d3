#!/usr/bin/env python3
"""oneDNN's own attention on the CPU, by its graph API; see peer_contract.py for the options.

--library names libdnnl.so.3. The graph is MatMul, Multiply, Add of a causal mask, SoftMax, MatMul, as oneDNN documents
it, and has to become one partition. Whichever is fastest of: heads of a group as a fifth dimension or, without a mask,
as queries of one head; scores between the operations in fp32 or in the point's type."""
import ctypes
import os
import pathlib
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint8, c_void_p

import peer_contract

CPU, STRIDED, VARIABLE, FUSE = 1, 2, 0, 1
TYPES = {"f16": 1, "bf16": 2, "f32": 3}
ADD, MATMUL, MULTIPLY, SOFTMAX = 2, 39, 46, 64  # dnnl_graph_op_kind_t
AXIS, TRANSPOSE_B = 0x30, 0x66  # dnnl_graph_op_attr_t
Dims = c_int64 * 12


class LogicalTensor(ctypes.Structure):
    _fields_ = [("id", c_size_t), ("ndims", c_int), ("dims", Dims), ("data_type", c_int), ("property", c_int),
                ("layout_type", c_int), ("strides", Dims)]


class Version(ctypes.Structure):
    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", c_char_p), ("cpu_runtime", c_uint),
                ("gpu_runtime", c_uint)]


RUNTIMES = {1: "sequential", 2: "OpenMP", 4: "TBB", 512: "SYCL"}


class Graph:
    """A graph being built; every call's status is checked."""

    def __init__(self, library):
        self.library, self.made, self.ids = library, 0, 0
        self.handle = c_void_p()
        self.do("graph_graph_create", byref(self.handle), CPU)

    def do(self, name, *arguments):
        status = getattr(self.library, "dnnl_" + name)(*arguments)
        if status:
            raise peer_contract.Unsupported(f"dnnl_{name} answers {status}")

    def tensor(self, dtype, *shape):
        tensor = LogicalTensor()
        self.ids += 1
        self.do("graph_logical_tensor_init_with_dims", byref(tensor), c_size_t(self.ids), TYPES[dtype], len(shape),
                Dims(*shape), STRIDED, VARIABLE)
        return tensor

    def add(self, kind, inputs, output, axis=None, transpose_b=False):
        op = c_void_p()
        self.made += 1
        self.do("graph_op_create", byref(op), c_size_t(self.made), kind, f"op{self.made}".encode())
        if axis is not None:
            self.do("graph_op_set_attr_s64", op, AXIS, byref(c_int64(axis)), c_size_t(1))
        if transpose_b:
            self.do("graph_op_set_attr_bool", op, TRANSPOSE_B, byref(c_uint8(1)), c_size_t(1))
        for tensor in inputs:
            self.do("graph_op_add_input", op, byref(tensor))
        self.do("graph_op_add_output", op, byref(output))
        self.do("graph_add_op", self.handle, op)
        self.do("graph_op_destroy", op)
        return output

    def partition(self):
        count, partition = c_size_t(), c_void_p()
        self.do("graph_graph_finalize", self.handle)
        self.do("graph_graph_filter", self.handle, FUSE)
        self.do("graph_graph_get_partition_num", self.handle, byref(count))
        if count.value != 1:
            raise peer_contract.Unsupported(f"the graph falls into {count.value} partitions")
        self.do("graph_graph_get_partitions", self.handle, c_size_t(1), byref(partition))
        return partition


class Attention:
    def __init__(self, library, engine, stream, arrays, dtype, between):
        """arrays: q, k, v and perhaps a mask, with the same number of dimensions."""
        import numpy

        self.graph, self.stream, self.compiled = Graph(library), stream, c_void_p()
        self.inputs = self.outputs = ()
        graph, (q, k, v, *mask) = self.graph, arrays
        scores = q.shape[:-1] + k.shape[-2:-1]
        scale = numpy.full((1,), q.shape[-1] ** -0.5, q.dtype if between == dtype else "float32")
        q_t, k_t, v_t = (graph.tensor(dtype, *array.shape) for array in (q, k, v))
        scale_t = graph.tensor(between, 1)
        mask_t = [graph.tensor(between, *array.shape) for array in mask]
        self.o = numpy.zeros(q.shape[:-1] + v.shape[-1:], q.dtype)
        o_t = graph.tensor(dtype, *self.o.shape)
        now = graph.add(MATMUL, (q_t, k_t), graph.tensor(between, *scores), transpose_b=True)
        now = graph.add(MULTIPLY, (now, scale_t), graph.tensor(between, *scores))
        for each in mask_t:
            now = graph.add(ADD, (now, each), graph.tensor(between, *scores))
        now = graph.add(SOFTMAX, (now,), graph.tensor(dtype, *scores), axis=-1)
        graph.add(MATMUL, (now, v_t), o_t)
        by_id = {tensor.id: (tensor, array) for tensor, array in zip((q_t, k_t, v_t, scale_t, *mask_t),
                                                                      (q, k, v, scale, *mask), strict=True)}
        partition, count = graph.partition(), c_size_t()
        graph.do("graph_partition_get_input_ports_num", partition, byref(count))
        ports = (LogicalTensor * count.value)()
        graph.do("graph_partition_get_input_ports", partition, count, ports)
        fed = [by_id[port.id] for port in ports]
        pointers = (POINTER(LogicalTensor) * len(fed))(*(ctypes.pointer(tensor) for tensor, _ in fed))
        graph.do("graph_compiled_partition_create", byref(self.compiled), partition)
        graph.do("graph_partition_compile", partition, self.compiled, c_size_t(len(fed)), pointers, c_size_t(1),
                 (POINTER(LogicalTensor) * 1)(ctypes.pointer(o_t)), engine)
        self.held = fed  # the memory that the tensors below point to
        self.inputs = (c_void_p * len(fed))(*(self.memory(tensor, array, engine) for tensor, array in fed))
        self.outputs = (c_void_p * 1)(self.memory(o_t, self.o, engine))

    def memory(self, tensor, array, engine):
        handle = c_void_p()
        self.graph.do("graph_tensor_create", byref(handle), byref(tensor), engine, c_void_p(array.ctypes.data))
        return handle.value

    def run(self):
        self.graph.do("graph_compiled_partition_execute", self.compiled, self.stream, c_size_t(len(self.inputs)),
                      self.inputs, c_size_t(1), self.outputs)
        self.graph.do("stream_wait", self.stream)

    def __del__(self):
        library = self.graph.library
        for tensor in (*self.inputs, *self.outputs):
            library.dnnl_graph_tensor_destroy(c_void_p(tensor))
        if self.compiled:
            library.dnnl_graph_compiled_partition_destroy(self.compiled)
        library.dnnl_graph_graph_destroy(self.graph.handle)


def load(options):
    import numpy

    path = pathlib.Path(options.library).resolve()
    opencl = path.parent / "libintelocl.so"  # by which the SYCL build finds the CPU
    if opencl.exists():
        os.environ.setdefault("OCL_ICD_FILENAMES", str(opencl))
    library = ctypes.CDLL(str(path))
    library.dnnl_version.restype = POINTER(Version)
    version = library.dnnl_version().contents
    engine, stream = c_void_p(), c_void_p()
    if library.dnnl_engine_create(byref(engine), CPU, c_size_t(0)) or \
            library.dnnl_stream_create(byref(stream), engine, c_uint(1)):
        raise OSError(f"{path.name} makes no CPU engine")

    def calls(inputs, _):
        point, dtype = inputs.point, inputs.point.dtype
        batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = point.shape
        group, mask = heads_q // heads_kv, ()
        if point.causal:
            mask = (numpy.triu(numpy.full((seq_q, seq_kv), -numpy.inf, "float32"), seq_kv - seq_q + 1),)
        shapes = {}
        if group == 1 or not mask:
            shapes["" if group == 1 else ", group as queries"] = [inputs.q.reshape(batch, heads_kv, group * seq_q, dim),
                                                                  inputs.k, inputs.v]
        if group > 1:
            shapes[", 5 dimensions"] = [inputs.q.reshape(batch, heads_kv, group, seq_q, dim), inputs.k[:, :, None],
                                        inputs.v[:, :, None]]
        refused = []
        for name, arrays in shapes.items():
            for between in dict.fromkeys(("f32", dtype)):
                masks = [each.astype(inputs.q.dtype if between == dtype else "float32").reshape(
                    (1,) * (arrays[0].ndim - 2) + each.shape) for each in mask]
                try:
                    attention = Attention(library, engine, stream, [*arrays, *masks], dtype, between)
                    attention.run()
                except peer_contract.Unsupported as reason:
                    refused.append(f"{between}{name}: {reason}")
                    continue
                yield peer_contract.Call(f"graph SDPA, scores {between}{name}", "bhsd", attention.run,
                                         lambda o=attention.o: o.reshape(batch, heads_q, seq_q, dim_v))
                del attention
        if len(refused) == len(shapes) * len({"f32", dtype}):
            raise peer_contract.Unsupported("; ".join(refused))

    return (f"oneDNN {version.major}.{version.minor}.{version.patch} "
            f"({RUNTIMES.get(version.cpu_runtime, version.cpu_runtime)})"), calls


def add_options(parser):
    parser.add_argument("--library", required=True, help="libdnnl.so.3")


peer_contract.main(load, add_options)
