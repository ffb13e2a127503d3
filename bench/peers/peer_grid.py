"""The points of the peer benchmark."""
from peer_contract import Point

HEADS, KV_HEADS, DIM = 32, 8, 128
ALL_TYPES = ("bf16", "f16", "f32")


def prefill(length, dtype, causal, batch=1, kv_heads=KV_HEADS, dim=DIM):
    return Point((batch, HEADS, kv_heads, length, length, dim, dim), dtype, causal)


def decode(length, dtype, batch=1):
    return Point((batch, HEADS, KV_HEADS, 1, length, DIM, DIM), dtype, False)


def full():
    points = []
    for dtype in ALL_TYPES:
        for causal in (False, True):
            points += [prefill(length, dtype, causal) for length in (128, 256, 512, 1024, 2048, 4096)]
            points += [prefill(length, dtype, causal, batch=batch) for batch in (8, 32) for length in (128, 256, 512)]
            points += [prefill(4096, dtype, causal, dim=64), prefill(4096, dtype, causal, dim=256),
                       prefill(4096, dtype, causal, kv_heads=HEADS)]
        points += [decode(length, dtype, batch) for batch in (1, 8, 32) for length in (512, 1024, 2048, 4096)]
        points += [decode(length, dtype) for length in (16384, 65536)]
    return points


def quick():
    """A third of it, in minutes: every kind of point in bf16, the corners in the other types."""
    points = []
    for causal in (False, True):
        points += [prefill(length, "bf16", causal) for length in (128, 512, 1024, 4096)]
    points += [prefill(128, "bf16", True, batch=32), prefill(512, "bf16", True, batch=8),
               prefill(4096, "bf16", False, dim=64), prefill(4096, "bf16", False, dim=256),
               prefill(4096, "bf16", True, kv_heads=HEADS)]
    points += [decode(length, "bf16", batch) for batch in (1, 8, 32) for length in (512, 1024, 2048, 4096)]
    points += [decode(65536, "bf16")]
    for dtype in ("f16", "f32"):
        points += [prefill(128, dtype, True), prefill(512, dtype, False), prefill(2048, dtype, True),
                   prefill(4096, dtype, False), decode(512, dtype), decode(4096, dtype), decode(1024, dtype, 8),
                   decode(4096, dtype, 32)]
    return points


GRIDS = {"full": full, "quick": quick}
