#!/usr/bin/env python3
"""Writes dequantize.bin: random blocks of each tensor type, and the floats the gguf package makes of them.

    pip install numpy==2.4.6 gguf==0.19.0
    make_dequantize_golden.py

A type: u32 number, u32 bytes, u32 floats, the bytes, the floats. Everything little-endian.
"""
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type, dequantize, quants

BLOCKS = 6
# Where f16 scales stand.
SCALES = {Type.Q8_0: (0,), Type.Q4_0: (0,), Type.Q4_1: (0, 2), Type.Q5_0: (0,), Type.Q5_1: (0, 2), Type.Q2_K: (80, 82),
          Type.Q3_K: (108,), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,), Type.IQ4_NL: (0,)}


def main():
    rng = np.random.default_rng(3)
    data = b""
    for kind in (Type.F32, Type.F16, Type.BF16, *SCALES):
        elements, size = quants.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (BLOCKS if elements > 1 else 64, size), dtype=np.uint8)
        for at in SCALES.get(kind, ()):
            scales = np.array([1.0, -0.37, 6e-8, 2e-5, 65504.0, 0.0], np.float16)  # subnormals and the largest too
            blocks[:, at:at + 2] = np.roll(scales, at // 2 % 2).view(np.uint8).reshape(-1, 2)
        if elements == 1:
            values = rng.standard_normal(64).astype(np.float32) * 10.0 ** rng.integers(-6, 4, 64)
            if kind == Type.F32:
                blocks = values.astype("<f4").view(np.uint8).reshape(-1, 4)
            elif kind == Type.F16:
                blocks = values.astype("<f2").view(np.uint8).reshape(-1, 2)
            else:
                blocks = (values.astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8).reshape(-1, 2)
        floats = dequantize(blocks.view({Type.F32: "<f4", Type.F16: "<f2"}.get(kind, np.uint8)), kind).astype("<f4")
        raw = blocks.tobytes()
        data += struct.pack("<III", int(kind), len(raw), floats.size) + raw + floats.tobytes()
    path = pathlib.Path(__file__).resolve().parent / "dequantize.bin"
    path.write_bytes(data)
    print(len(data), "bytes")


main()
