#!/bin/sh
# report_sm70.sh OUTPUT.fatbin...   (what scripts/build_sm70.sh made)
# Prints what ptxas 12.9 says of each kernel for the true sm_70 target: registers a thread, stack and spills in bytes,
# static shared memory in bytes (dynamic shared memory is the launch's: FA_SM70_SHARED_BYTES of layout_sm70.h).
# Fails when a kernel named in FA_NO_SPILLS (default: prefill_sm70_d64 prefill_sm70_d128) spills or uses a stack.
set -eu

[ $# -ge 1 ] || { echo "report_sm70: usage: report_sm70.sh OUTPUT.fatbin..." >&2; exit 2; }
for output in "$@"; do
  [ -e "$output.ptxas.txt" ] || { echo "report_sm70: $output has no sm_70 cubin (PTX alone): nothing to report" >&2; exit 3; }
done
for output in "$@"; do cat "$output.ptxas.txt"; done | awk -v strict=" ${FA_NO_SPILLS-prefill_sm70_d64 prefill_sm70_d128} " '
  BEGIN { printf "%-32s %9s %6s %12s %12s %7s\n", "kernel (sm_70)", "registers", "stack", "spill stores", "spill loads", "shared" }
  /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2] }
  /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
  /Used [0-9]+ registers/ {
    registers = $0; sub(/.*Used /, "", registers); sub(/ .*/, "", registers)
    shared = 0
    if (match($0, /[0-9]+ bytes smem/)) { shared = substr($0, RSTART, RLENGTH); sub(/ .*/, "", shared) }
    printf "%-32s %9d %6d %12d %12d %7d\n", name, registers, stack, stores, loads, shared
    if (index(strict, " " name " ") && (stack || stores || loads)) { bad = bad " " name }
  }
  END { if (bad) { print "report_sm70: must not spill:" bad > "/dev/stderr"; exit 1 } }'
