#!/usr/bin/env bash
# Fuzzes what reads model files, each target for SECONDS (60) on one core, under the address and undefined-behaviour
# sanitizers; starts from tests/fuzz/corpus. Inputs that break something are left in build/fuzz/findings, new ones that reach
# further in build/fuzz/found/<target>. Ends with a line a target; fails if there is a finding.
#   scripts/fuzz.sh [SECONDS [TARGET ...]]        targets: gguf safetensors tokenizer_json config_json
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
build=build/fuzz

fail() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

[[ $seconds =~ ^[0-9]+$ ]] || fail "'$seconds' is not a number of seconds"
command -v clang-19 >/dev/null || fail "no clang-19; scripts/install_deps.sh test brings it"
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    [ -d "tests/fuzz/corpus/${name#fuzz_}" ] && targets+=("${name#fuzz_}")
  done
fi
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang-19 -DFA_FUZZ=ON \
  -DFA_SANITIZE=address,undefined -DFA_WITH_CUDA=OFF -DFA_WITH_ASCEND=OFF >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --target "${targets[@]/#/fuzz_}" >"$build.log" 2>&1 || { tail -n 30 "$build.log" >&2; exit 1; }

bad=0
mkdir -p "$build/findings"
for target in "${targets[@]}"; do
  found=$build/found/$target
  mkdir -p "$found"
  log=$build/$target.log
  status=0
  options=()
  [ ! -e "tests/fuzz/corpus/$target.dict" ] || options+=("-dict=tests/fuzz/corpus/$target.dict")
  "$build/tests/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 "${options[@]}" \
    -artifact_prefix="$build/findings/$target-" "$found" "tests/fuzz/corpus/$target" >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  reached=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
  echo "$target: ${runs:-0} executions, ${reached:-no coverage}, $([ $status -eq 0 ] && echo no finding || echo "A FINDING: see $log")"
  [ $status -eq 0 ] || bad=1
done
exit $bad
