#!/usr/bin/env python3
"""ONNX Runtime's attention operators on the CPU; see peer_contract.py for the options.

Whichever is fastest of Attention (ai.onnx, opset 23), GroupQueryAttention (always causal; one query appends to a cache
that input and output share) and MultiHeadAttention, which for grouped heads gets K and V repeated beforehand."""
import peer_contract

OPSETS = [("", 23), ("com.microsoft", 1)]
REPEATED_BYTES = 1 << 30  # K and V repeated for MultiHeadAttention: not beyond this


def load(options):
    import numpy
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    onnxruntime.set_default_logger_severity(4)
    types = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16}

    def session(node, inputs, outputs, dtype):
        kinds = {numpy.dtype("int32"): TensorProto.INT32, numpy.dtype(peer_contract.DTYPES[dtype]): types[dtype]}
        values = [[helper.make_tensor_value_info(name, kinds[array.dtype], array.shape) for name, array in part.items()]
                  for part in (inputs, outputs)]
        model = helper.make_model(helper.make_graph([node], "attention", *values),
                                  opset_imports=[helper.make_opsetid(*each) for each in OPSETS])
        model.ir_version = min(model.ir_version, 11)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])

    def call(name, layout, node, inputs, outputs, dtype, to_bhsd):
        """outputs: name: an array of its shape, or the name of the input whose memory it shares."""
        arrays = {key: inputs[value] if isinstance(value, str) else value for key, value in outputs.items()}
        runner = session(node, inputs, arrays, dtype)
        held = {key: onnxruntime.OrtValue.ortvalue_from_numpy(array) for key, array in inputs.items()}
        binding = runner.io_binding()
        for key, value in held.items():
            binding.bind_ortvalue_input(key, value)
        for key, value in outputs.items():
            held[key] = held[value] if isinstance(value, str) else onnxruntime.OrtValue.ortvalue_from_numpy(value)
            binding.bind_ortvalue_output(key, held[key])
        return peer_contract.Call(name, layout, lambda: runner.run_with_iobinding(binding),
                                  lambda: to_bhsd(held["o"].numpy()))

    def calls(inputs, _):
        point = inputs.point
        if point.dtype not in types:
            raise peer_contract.Unsupported(f"{point.dtype} is no type of its CPU kernels; they have f32 and f16")
        batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = point.shape

        def rows(array):
            return numpy.ascontiguousarray(array.swapaxes(1, 2)).reshape(batch, array.shape[2], -1)

        def heads(o):
            return o.reshape(batch, seq_q, heads_q, dim_v).swapaxes(1, 2)

        def attention():
            node = helper.make_node("Attention", ["q", "k", "v"], ["o"], is_causal=int(point.causal))
            return call("Attention-23", "bhsd", node, {"q": inputs.q, "k": inputs.k, "v": inputs.v},
                        {"o": numpy.empty((batch, heads_q, seq_q, dim_v), inputs.q.dtype)}, point.dtype, lambda o: o)

        def grouped():
            fed = {"q": rows(inputs.q)}
            lengths = numpy.full(batch, seq_kv - 1, "int32"), numpy.array([seq_kv], "int32")
            outputs = {"o": numpy.empty((batch, seq_q, heads_q * dim_v), inputs.q.dtype)}
            if seq_q == 1:  # the newest key and value come beside the cache, which holds the others
                fed |= {"k": rows(inputs.k[:, :, -1:]), "v": rows(inputs.v[:, :, -1:]),
                        "past_key": inputs.k, "past_value": inputs.v}
                outputs |= {"present_key": "past_key", "present_value": "past_value"}
            else:
                fed |= {"k": rows(inputs.k), "v": rows(inputs.v)}
                outputs |= {"present_key": numpy.empty_like(inputs.k), "present_value": numpy.empty_like(inputs.v)}
            fed |= {"seqlens_k": lengths[0], "total_sequence_length": lengths[1]}
            past = ("past_key", "past_value") if seq_q == 1 else ("", "")
            node = helper.make_node("GroupQueryAttention", ["q", "k", "v", *past, "seqlens_k", "total_sequence_length"],
                                    list(outputs), domain="com.microsoft", num_heads=heads_q, kv_num_heads=heads_kv)
            return call("GroupQueryAttention", "bshd", node, fed, outputs, point.dtype, heads)

        def multi_head():
            fed = {"q": rows(inputs.q), **{name: rows(numpy.repeat(part, heads_q // heads_kv, axis=1))
                                           for name, part in (("k", inputs.k), ("v", inputs.v))}}
            node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft",
                                    num_heads=heads_q, unidirectional=int(point.causal))
            return call("MultiHeadAttention", "bshd", node, fed,
                        {"o": numpy.empty((batch, seq_q, heads_q * dim_v), inputs.q.dtype)}, point.dtype, heads)

        ways = [attention]
        if dim == dim_v and (seq_q == 1 or (point.causal and seq_q == seq_kv)):
            ways.append(grouped)
        if (inputs.k.nbytes + inputs.v.nbytes) * heads_q // heads_kv <= REPEATED_BYTES:
            ways.append(multi_head)
        why = []
        for way in ways:
            try:
                made = way()
                made.run()
            except Exception as failure:  # one operator less for this type or shape
                why.append(f"{way.__name__}: {str(failure).splitlines()[0][:120]}")
                continue
            yield made
            del made
        if len(why) == len(ways):
            raise peer_contract.Unsupported("; ".join(why))

    return f"ONNX Runtime {onnxruntime.__version__}", calls


peer_contract.main(load)
