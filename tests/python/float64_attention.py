"""Attention in numpy float64, written from the definition: the judge of the Python tests."""
import numpy


def attention(q, k, v, *, scale=None, causal=False, window=(-1, -1), softcap=0.0, alibi_slopes=None, sinks=None,
              bias=None, mask=None):
    """q [B,Sq,Hq,D], k [B,Skv,Hkv,D], v [B,Skv,Hkv,Dv] -> o [B,Sq,Hq,Dv], lse [B,Hq,Sq]."""
    q, k, v = (numpy.asarray(x).astype("float64") for x in (q, k, v))
    batch, rows, heads, dim = q.shape
    keys, group = k.shape[1], heads // k.shape[2]
    k, v = numpy.repeat(k, group, axis=2), numpy.repeat(v, group, axis=2)
    s = numpy.einsum("bihd,bjhd->bhij", q, k) * (dim ** -0.5 if scale is None else scale)
    if softcap:
        s = softcap * numpy.tanh(s / softcap)
    i, j = numpy.arange(rows)[:, None] + keys - rows, numpy.arange(keys)[None, :]
    if alibi_slopes is not None:
        slopes = numpy.broadcast_to(numpy.asarray(alibi_slopes, "float64"), (batch, heads))
        s = s - slopes[:, :, None, None] * abs(i - j)
    if bias is not None:
        s = s + numpy.asarray(bias).astype("float64")
    keep = numpy.ones((rows, keys), bool)
    if causal:
        keep &= j <= i
    if window[0] >= 0:
        keep &= j >= i - window[0]
    if window[1] >= 0:
        keep &= j <= i + window[1]
    keep = numpy.broadcast_to(keep if mask is None else keep & (numpy.asarray(mask) != 0), s.shape)
    s = numpy.where(keep, s, -numpy.inf)
    top = s.max(axis=3, initial=-numpy.inf)
    if sinks is not None:
        top = numpy.maximum(top, numpy.asarray(sinks, "float64")[None, :, None])
    safe = numpy.where(numpy.isfinite(top), top, 0.0)
    p = numpy.exp(s - safe[..., None])
    total = p.sum(axis=3)
    if sinks is not None:
        total = total + numpy.exp(numpy.asarray(sinks, "float64")[None, :, None] - safe)
    with numpy.errstate(divide="ignore"):
        lse = numpy.where(total > 0, safe + numpy.log(total), -numpy.inf)
    p = p / numpy.where(total > 0, total, 1.0)[..., None]
    return numpy.einsum("bhij,bjhd->bihd", p, v), lse
