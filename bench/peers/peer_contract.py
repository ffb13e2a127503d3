"""What every peer of run_peers.py does alike: read a point, pin itself, make the inputs, check and time the calls.

A peer is a script with one function, calls(inputs, options), which yields a Call for each way its library has to compute
the point; the fastest of those that are right counts, so that every library stands at its best setting. Alone:

    python bench/peers/PEER.py --shape 1,32,8,512,512,128 --dtype bf16 --causal --threads 2

prints one row of JSON. With --serve it answers points from standard input, a line each, until that ends. Inputs come
in B,H,S,D and a library gets them in the layout it likes best, converted beforehand; "layout" in the row says which.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time
from typing import Callable, NamedTuple

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# Largest error of a right answer, of the largest value of the reference in the rows compared.
TOLERANCE = {"f32": 1e-3, "f16": 0.02, "bf16": 0.05}
SAMPLE_MS = 2.0  # shorter calls are timed several in a row
LONG_MS = 500.0  # longer ones are warm after one call, which touches their memory for the first time
KEPT_BYTES = 64 << 20  # inputs up to this are kept for the next round of the same point


class Unsupported(Exception):
    """This library does not do this point; the message says why."""


class Call(NamedTuple):
    name: str
    layout: str  # of q, k and v in memory
    run: Callable[[], object]
    output: Callable[[], object]  # the last run's o as numpy, [batch, heads_q, seq_q, dim_v]


class Point(NamedTuple):
    shape: tuple  # batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v
    dtype: str
    causal: bool

    @property
    def op(self):
        return "decode" if self.shape[3] <= 16 < self.shape[4] else "prefill"

    @property
    def operations(self):
        batch, heads, _, seq_q, seq_kv, dim, dim_v = self.shape
        pairs = seq_q * seq_kv
        if self.causal:
            pairs = sum(min(max(i + seq_kv - seq_q + 1, 0), seq_kv) for i in range(seq_q))
        return 2.0 * batch * heads * pairs * (dim + dim_v)

    def fields(self):
        return {"op": self.op, "shape": list(self.shape), "causal": self.causal, "dtype": self.dtype}


class Inputs(NamedTuple):
    point: Point
    q: object  # numpy, B,H,S,D, of the point's type (bf16 by ml_dtypes)
    k: object
    v: object


def parse_shape(text):
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (6, 7) or min(numbers) < 1 or numbers[1] % numbers[2]:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no shape; give B,HQ,HKV,SQ,SKV,D[,DV], all at least 1, HQ a multiple of HKV")
    return tuple(numbers if len(numbers) == 7 else numbers + numbers[-1:])


def machine():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return os.uname().machine


def make_inputs(point):
    """Normal random numbers. A block of 4M is laid out again and again, an odd number, so that no two heads are alike."""
    import numpy

    if point.dtype == "bf16":
        from ml_dtypes import bfloat16 as dtype
    else:
        dtype = DTYPES[point.dtype]
    batch, heads_q, heads_kv, seq_q, seq_kv, dim, dim_v = point.shape
    block = numpy.random.default_rng(1).standard_normal((1 << 22) + 1, numpy.float32).astype(dtype)

    def tensor(skip, *shape):
        return numpy.resize(numpy.roll(block, skip), shape)

    return Inputs(point, tensor(1000003, batch, heads_q, seq_q, dim), tensor(2000003, batch, heads_kv, seq_kv, dim),
                  tensor(3000017, batch, heads_kv, seq_kv, dim_v))


def errors(inputs, o):
    """(largest difference from attention in float64, largest value of that) over a few rows of a few heads."""
    import numpy

    batch, heads_q, heads_kv, seq_q, seq_kv, dim, _ = inputs.point.shape
    worst = largest = 0.0
    for b, h in {(0, 0), (batch // 2, heads_q // 2), (batch - 1, heads_q - 1)}:
        k, v = (part[b, h * heads_kv // heads_q].astype("float64") for part in (inputs.k, inputs.v))
        for i in {0, seq_q // 3, seq_q - 1}:
            keys = min(max(i + seq_kv - seq_q + 1, 0), seq_kv) if inputs.point.causal else seq_kv
            scores = k[:keys] @ inputs.q[b, h, i].astype("float64") / math.sqrt(dim)
            weights = numpy.exp(scores - scores.max())
            row = weights @ v[:keys] / weights.sum()
            difference = numpy.abs(o[b, h, i].astype("float64") - row).max()
            worst = max(worst, float(difference) if math.isfinite(difference) else math.inf)
            largest = max(largest, float(numpy.abs(row).max()))
    return worst, largest


def sample_ms(run, in_a_row=1):
    begin = time.perf_counter()
    for _ in range(in_a_row):
        run()
    return (time.perf_counter() - begin) * 1e3 / in_a_row


def warm_ms(run):
    """About the time of a call, of the second one if it is short."""
    first = sample_ms(run)
    return first if first > LONG_MS else sample_ms(run)


def in_a_row(ms):
    return 1 + int(SAMPLE_MS / max(ms, 1e-3))


class Server:
    """Answers points, and keeps the last one, so that a second round of it does not pay for preparation again."""

    def __init__(self, library, calls, options):
        self.library, self.calls, self.options = library, calls, options
        self.kept, self.known = None, {}  # (point, call); {point: (name of the fastest right call, its error)}

    def prepare(self, point):
        """(the fastest call that is right, its error, about its time); checked and chosen once."""
        if self.kept and self.kept[0] == point:
            return self.kept[1], self.known[point][1], warm_ms(self.kept[1].run)
        self.kept = None
        inputs, best, wrong = make_inputs(point), None, []
        for call in self.calls(inputs, self.options):
            if point in self.known and call.name != self.known[point][0]:
                continue
            ms = warm_ms(call.run)
            if point not in self.known:
                error, largest = errors(inputs, call.output())
                if not error <= TOLERANCE[point.dtype] * largest:
                    wrong.append(f"{call.name}: wrong by {error:.3g} where values reach {largest:.3g}")
                    continue
                if ms < LONG_MS:
                    ms = min(ms, sample_ms(call.run, in_a_row(ms)))
            else:
                error = self.known[point][1]
            if best is None or ms < best[2]:
                best = call, error, ms
            del call
        if best is None:
            raise Unsupported("; ".join(wrong) or "no way of this library takes this point")
        self.known[point] = best[0].name, best[1]
        if sum(part.nbytes for part in inputs[1:]) <= KEPT_BYTES:
            self.kept = point, best[0]
        return best

    def row(self, point):
        fields = point.fields() | {"library": self.library, "threads": self.options.threads, "machine": machine()}
        try:
            call, error, about = self.prepare(point)
            times, until = [], time.perf_counter() + self.options.seconds - about / 1e3
            while not times or (len(times) < self.options.repeats and time.perf_counter() < until):
                times.append(sample_ms(call.run, in_a_row(about)))
        except Unsupported as reason:
            return fields | {"error": str(reason)}
        except Exception as failure:  # a library may raise anything for a shape it does not like; the next point goes on
            return fields | {"error": f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0][:200]}"}
        ms = statistics.median(times)
        return fields | {"kernel": f"{self.library} {call.name}", "layout": call.layout, "ms": ms, "ms_min": min(times),
                         "samples": len(times), "tflops": point.operations / ms / 1e9, "max_err": error}


def pin(parser, options):
    """Affinity and OpenMP's variables, before any library that reads them is loaded."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = options.cores or allowed[:options.threads]
    if options.threads < 1 or len(cores) < options.threads or not set(cores) <= set(allowed):
        parser.error(f"--threads {options.threads} on the cores {cores}: this process may use {allowed}")
    os.sched_setaffinity(0, cores[:options.threads])
    os.environ.update(OMP_NUM_THREADS=str(options.threads), OMP_PROC_BIND="true", OMP_DYNAMIC="false")


def core_list(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of cores; give numbers with commas, as 2,4") from None


def main(load, add_options=None):
    """load(options) -> (the library's name and version, calls), after pinning."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", type=parse_shape, default=parse_shape("1,32,8,4096,4096,128"),
                        metavar="B,HQ,HKV,SQ,SKV,D[,DV]")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--causal", action="store_true", help="bottom-right aligned")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cores", type=core_list, help="as 2,4 (default: the first --threads)")
    parser.add_argument("--repeats", type=int, default=5, help="samples at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="no further sample after so long")
    parser.add_argument("--serve", action="store_true", help="points from standard input, rows to standard output")
    if add_options:
        add_options(parser)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    pin(parser, options)
    rows = os.fdopen(os.dup(1), "w")  # libraries print to standard output as they please
    os.dup2(2, 1)
    try:
        server = Server(*load(options), options)
    except (ImportError, OSError) as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: its library is not here ({error})")
    if not options.serve:
        print(json.dumps(server.row(Point(options.shape, options.dtype, options.causal))), file=rows, flush=True)
        return
    print(json.dumps({"library": server.library}), file=rows, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        row = server.row(Point(tuple(asked["shape"]), asked["dtype"], asked["causal"]))
        print(json.dumps(row), file=rows, flush=True)
