#!/usr/bin/env bash
# make test-gpu: every kernel for NVIDIA GPUs, forced by name, against double precision on this machine's GPU; a smaller
# set under compute-sanitizer; the model runner's operators, batches and real models; and the Python package on CUDA tensors
# where torch is installed. The last line is `N passed, N failed`.
#   CASES      cases a kernel (default 5000)
#   SANITIZED  cases under each of memcheck and racecheck (default 40; 0: none)
#   FASTATTN   the command (default build/bin/fastattn); the model runner's tests lie beside it, in ../tests
#   PYTHON     a Python with torch and pytest (default python3)
set -uo pipefail
cd "$(dirname "$0")/.."
fastattn=${FASTATTN:-build/bin/fastattn}
cases=${CASES:-5000} sanitized=${SANITIZED:-40} python=${PYTHON:-python3}
passed=0 failed=0

add() { # a log whose last line is `N passed, N failed`, and an exit code
  local line
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1)
  if [ -z "$line" ]; then
    failed=$((failed + 1))
    return
  fi
  set -- $line "$2"
  passed=$((passed + $1)) failed=$((failed + $3))
  if [ "$5" != 0 ] && [ "$3" = 0 ]; then failed=$((failed + 1)); fi
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$fastattn" check --device cuda -k device --cases 1 >"$log" 2>&1 || { tail -n 1 "$log" >&2; exit 1; }
kernels=$("$fastattn" info --json - | "$python" -c 'import json, sys
for kernel in json.load(sys.stdin)["kernels"]:
    if kernel["device"] == "cuda" and kernel["available"]: print(kernel["name"])' 2>/dev/null) || kernels=
if [ -z "$kernels" ]; then
  echo "test_gpu: fastattn info names no CUDA kernel that this machine can run, or $python could not read it" >&2
  exit 1
fi

for kernel in merge device allocation $kernels; do
  option=--kernel
  case $kernel in merge | device | allocation) option=-k ;; esac
  "$fastattn" check --device cuda $option "$kernel" --cases "$cases" --seed 1 >"$log" 2>&1
  code=$?
  add "$log" "$code"
  echo "check $kernel: $(tail -n 1 "$log")"
  if [ "$code" != 0 ]; then head -n 40 "$log"; fi
done

# From capability 9.0 on the blocks that share a sequence join as a cluster; a build or driver without them would still be right.
joined=$("$fastattn" info --device cuda --json - | "$python" -c 'import json, sys
info = json.load(sys.stdin)
isa = next(int(d["isa"][3:]) for d in info["devices"] if d["name"].startswith("cuda"))
shared = [c for c in info["choices"] if c.get("kernel") == "decode_any" and c["dtype"] != "f32" and c["kv_splits"] > 1]
if isa >= 90: print(any("cluster" in c["reason"] for c in shared))') || joined=False
case $joined in
  True) passed=$((passed + 1)); echo "decode: parts are joined by clusters" ;;
  False) failed=$((failed + 1)); echo "decode: parts are not joined by clusters, or info --json could not be read" ;;
esac

if [ "$sanitized" = 0 ]; then
  echo "compute-sanitizer: not run, SANITIZED is 0"
elif ! command -v compute-sanitizer >/dev/null; then
  echo "compute-sanitizer: not run, it is not in PATH"
else
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$fastattn" check --device cuda --cases "$sanitized" --seed 2 \
      -k '*_*' >"$log" 2>&1
    code=$?
    add "$log" "$code"
    echo "compute-sanitizer $tool: $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 1)"
    if [ "$code" != 0 ]; then grep -v '^  ' "$log" | head -n 40; fi
  done
fi

# The model runner: its operators against plain loops, then the tests that the CPU passes too. Real models are skipped where
# scripts/fetch_model.sh has not brought them.
for test in operators_cuda sample_cuda steps_cuda batches logits_goldens kernel_agreement; do
  program=$(dirname "$fastattn")/../tests/test_$test
  if [ ! -x "$program" ]; then
    echo "test_$test: not run, it is not built (cmake needs cmocka)"
    continue
  fi
  FASTATTENTION_TEST_DEVICE=cuda "$program" >"$log" 2>&1
  code=$?
  count=$(grep -cE '^\[       OK \]' "$log")
  passed=$((passed + count))
  echo "test_$test: $count passed, $(grep -cE '^\[  SKIPPED \] test' "$log") skipped, exit $code"
  if [ "$code" != 0 ]; then
    failed=$((failed + 1))
    head -n 60 "$log"
  fi
done

lacks=$("$python" -c 'import importlib.util
missing = [name for name in ("torch", "pytest") if not importlib.util.find_spec(name)]
if not missing:
    import torch
print(f"no {missing[0]}" if missing else "" if torch.cuda.is_available() else "torch without CUDA")' 2>/dev/null) ||
  lacks="no torch that can be imported"
if [ -n "$lacks" ]; then
  echo "Python package on CUDA tensors: not run, $python has $lacks"
else
  library=$(realpath "$(dirname "$fastattn")/../lib/libfastattention.so")
  export FASTATTENTION_LIBRARY=${FASTATTENTION_LIBRARY:-$library}
  PYTHONPATH=python "$python" -m pytest -q -p no:cacheprovider tests/python/test_cuda_tensors.py >"$log" 2>&1
  code=$?
  line=$(tail -n 1 "$log")
  case $line in *skipped*) ;; *) line="$line, 0 skipped" ;; esac
  echo "pytest: $line"
  passed=$((passed + $(grep -oE '[0-9]+ passed' "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 0)))
  if [ "$code" != 0 ]; then
    failed=$((failed + $(grep -oE '[0-9]+ failed' "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 1)))
    head -n 60 "$log"
  fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
