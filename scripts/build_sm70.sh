#!/bin/sh
# build_sm70.sh OUTPUT.fatbin SOURCE.cu [nvcc's options, such as -I...]
# Device code for Volta with a toolkit that no longer knows it:
#   1. nvcc makes PTX for compute_75, the least it has; its target is rewritten to sm_70.
#   2. Feature check: the toolkit's ptxas assembles that PTX for sm_75 and rejects what .target sm_70 lacks.
#   3. ptxas 12.9 (scripts/fetch_ptxas.sh) assembles a true sm_70 cubin and counts registers, spills and shared memory.
#   4. Both go into one fatbin for cuModuleLoadData: the cubin for a V100, the PTX for any newer GPU, and cubins of the
#      same PTX by the toolkit's ptxas for those that FA_ALSO names.
# Without ptxas 12.9 the output holds the PTX alone, and a line on stderr says so; the driver then compiles it.
# Beside OUTPUT: OUTPUT.ptx, OUTPUT.cubin and OUTPUT.ptxas.txt (ptxas -v, read by scripts/report_sm70.sh; absent
# without a cubin).
#   NVCC           nvcc 13 (default nvcc); ptxas and fatbinary are taken from beside it
#   FA_ALSO        newer architectures to assemble the PTX for as well: "75 90" (default none)
#   FA_PTXAS_SM70  a ptxas that knows sm_70 ("none": PTX alone)
set -eu

fail() {
  echo "build_sm70: $*" >&2
  exit 1
}

[ $# -ge 2 ] || fail "usage: build_sm70.sh OUTPUT.fatbin SOURCE.cu [options of nvcc]"
output=$1 source=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
nvcc=$(command -v "${NVCC:-nvcc}") || fail "no nvcc; set NVCC or put CUDA 13's bin folder into PATH"
tools=$(dirname "$(readlink -f "$nvcc")")
ptx_version=8.3 # the least that knows all that nvcc 13 writes; loads under drivers from CUDA 12.3 on

work=$(mktemp -d "$output.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

"$nvcc" -ptx -arch=compute_75 -O3 -std=c++17 "$@" -o "$work/compute_75.ptx" "$source"
sed -e "s/^\.version .*/.version $ptx_version/" -e 's/^\.target .*/.target sm_70/' "$work/compute_75.ptx" >"$work/ptx"
[ "$(grep -c '^\.target sm_70$' "$work/ptx")" = 1 ] || fail "nvcc's PTX has no .target line of its own"

"$tools/ptxas" -arch=sm_75 -O0 -o /dev/null "$work/ptx" || fail "$source uses what sm_70 lacks (or PTX newer than $ptx_version)"

ptxas=${FA_PTXAS_SM70:-}
if [ -z "$ptxas" ]; then
  ptxas=$("$here/fetch_ptxas.sh") || ptxas=none
fi
rm -f "$output.cubin" "$output.ptxas.txt"
if [ "$ptxas" = none ]; then
  echo "build_sm70: no ptxas for sm_70: $output holds PTX alone, which the driver compiles when it is first used" >&2
  set -- "--image3=kind=ptx,sm=70,file=$work/ptx"
else
  "$ptxas" -arch=sm_70 -O3 -v -o "$work/cubin" "$work/ptx" >"$work/ptxas.txt" 2>&1 || {
    cat "$work/ptxas.txt" >&2
    fail "$ptxas refused $source"
  }
  set -- "--image3=kind=elf,sm=70,file=$work/cubin" "--image3=kind=ptx,sm=70,file=$work/ptx"
fi
for arch in ${FA_ALSO:-}; do
  [ "$arch" -gt 70 ] || continue # 70 is there; nothing runs below
  "$tools/ptxas" -arch="sm_$arch" -O3 -o "$work/cubin_$arch" "$work/ptx" || fail "the toolkit's ptxas refused $source for sm_$arch"
  set -- "$@" "--image3=kind=elf,sm=$arch,file=$work/cubin_$arch"
done
"$tools/fatbinary" --create="$work/fatbin" -64 "$@"

mv "$work/ptx" "$output.ptx"
if [ -e "$work/cubin" ]; then
  mv "$work/cubin" "$output.cubin"
  mv "$work/ptxas.txt" "$output.ptxas.txt"
fi
mv "$work/fatbin" "$output"
