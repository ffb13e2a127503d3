#!/bin/sh
# Does the checker notice? Plants the errors of mutants.txt, one at a time, in a copy of the tree, and runs the checker
# on each: one that passes all its cases has survived, and is a hole in the checker.
#
#   tests/mutation/run_mutants.sh [TEXT]     only mutants whose line contains TEXT
#   CASES=2000 JOBS=2                        cases each, compile jobs
#
# The closing line is "N passed, N failed": mutants killed, mutants alive (or no longer matching the source).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
cases=${CASES:-2000} jobs=${JOBS:-2} wanted=${1:-}

mkdir "$scratch/tree"
cp -R "$root/CMakeLists.txt" "$root/cmake" "$root/include" "$root/src" "$scratch/tree/"
build() {
  cmake --build "$scratch/build" -j "$jobs" --target fa_objects >"$scratch/log" 2>&1 &&
    ${CC:-cc} -std=c11 -I"$scratch/tree/include" -I"$scratch/tree/src" "$here/mutant_check.c" \
      $(find "$scratch/build/src" -name '*.o') -fopenmp -pthread -lm -o "$scratch/check" >>"$scratch/log" 2>&1
}
cmake -S "$scratch/tree" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DFA_WITH_ONEDNN=OFF \
  -DFA_WITH_CUDA=OFF -DFA_WITH_ASCEND=OFF -DFA_BUILD_COMMAND=OFF -DFA_BUILD_TESTS=OFF >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
build || { cat "$scratch/log"; exit 1; }
"$scratch/check" "" 1 100 >"$scratch/out" 2>&1 || { echo "the tree fails the checker without any mutant:"; cat "$scratch/out"; exit 1; }

passed=0 failed=0
say() { printf '%-9s %s: %s\n' "$1" "$2" "$3"; }
while IFS= read -r line; do
  case $line in '#'* | '') continue ;; *"$wanted"*) ;; *) continue ;; esac
  file=${line%% | *} rest=${line#* | }
  kernels=${rest%%| *} rest=${rest#*| }
  what=${rest##* | } expression=${rest% | *}
  kernels=$(printf '%s' "$kernels" | tr -d ' ')
  cp -p "$scratch/tree/$file" "$scratch/original"
  sed "$expression" "$scratch/original" >"$scratch/tree/$file"
  if cmp -s "$scratch/original" "$scratch/tree/$file"; then
    say "NO MATCH" "$file" "$what"
    failed=$((failed + 1))
  elif ! build; then
    say "NO BUILD" "$file" "$what"
    failed=$((failed + 1))
  else
    # Most die at once: the same cases, a few first. Any end but success is a death, a crash too.
    killed=
    for part in "1 $((cases < 100 ? cases : 100))" "101 $((cases > 100 ? cases - 100 : 1))"; do
      if ! "$scratch/check" "$kernels" $part >"$scratch/out" 2>&1; then
        killed=yes
        break
      fi
    done
    if [ "$killed" ]; then
      say killed "$file" "$what"
      passed=$((passed + 1))
    else
      say SURVIVED "$file" "$what"
      failed=$((failed + 1))
    fi
  fi
  cp "$scratch/original" "$scratch/tree/$file"
done <"$here/mutants.txt"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
