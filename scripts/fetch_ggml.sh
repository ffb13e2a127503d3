#!/bin/sh
# Brings ggml's dot products of quantised rows (libggml_dots.a, for several x86 instruction sets) into a cache outside the
# build tree and prints that directory, which cmake/FindGGML.cmake searches by itself. Does nothing when it is already
# there; takes a minute otherwise, most of it the download.
#
# Why ggml: it multiplies every block type of a GGUF file, from the file's bytes as they are, with the arithmetic of the
# runner it comes from. Why so little of it: rows are shared among our own threads, so dot products and the rounding of
# the other operand are all that is wanted; they are plain C files without state. Why llama-cpp-python's source package:
# a published archive with a hash that holds ggml whole, and the release this project compares itself with.
#   FA_GGML_CACHE   the directory (default ${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/ggml-0.3.36)
#   PYTHON          a Python with pip (default the checkout's .venv/bin/python where it is there, else python3)
#   CC              a C compiler (default cc)
set -eu

version=0.3.36 # llama-cpp-python's
cache=${FA_GGML_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/ggml-$version}
venv_python=$(dirname "$0")/../.venv/bin/python
[ -x "$venv_python" ] || venv_python=python3
python=${PYTHON:-$venv_python}
cc=${CC:-cc}

fail() {
  echo "fetch_ggml: $*" >&2
  exit 1
}

if [ -e "$cache/lib/libggml_dots.a" ]; then
  echo "$cache"
  exit 0
fi
[ "$(uname -m)" = x86_64 ] || fail "built for x86-64 only; elsewhere weights are unpacked to 16 or 32 bits"
for tool in "$cc" ar ld nm objcopy strip tar; do
  command -v "$tool" >/dev/null || fail "'$tool' is missing; on Debian: apt-get install build-essential"
done
"$python" -m pip --version >/dev/null 2>&1 || fail "'$python' has no pip; install python3-pip or set PYTHON to a Python that has it"

mkdir -p "$(dirname "$cache")" || fail "cannot create $(dirname "$cache"); set FA_GGML_CACHE to a writable directory"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# pip asks a source package's build backend for its name and version before it hands the package over.
cat >"$work/backend.txt" <<END
scikit-build-core==1.1.2 --hash=sha256:7f4f959a467692db50bdd1ea7ce1507f2c7972e6023b753ee302d169bc4cec85
packaging==26.3 --hash=sha256:d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c
pathspec==1.1.1 --hash=sha256:a00ce642f577bf7f473932318056212bc4f8bfdf53128c78bbd5af0b9b20b189
typing-extensions==4.16.0 --hash=sha256:481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8
exceptiongroup==1.3.1 --hash=sha256:a7a39a3bd276781e98394987d3a5701d0c4edffb633bb7a5144577f82c773598
END
echo "llama-cpp-python==$version --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e" >"$work/source.txt"
pip() { "$python" -m pip "$@" --quiet --disable-pip-version-check --retries 1 --no-deps --require-hashes </dev/null >&2; }
{ pip install --only-binary=:all: --target "$work/backend" --requirement "$work/backend.txt" &&
  PYTHONPATH="$work/backend" pip download --no-binary=:all: --no-build-isolation --dest "$work" --requirement "$work/source.txt"; } ||
  fail "no package registry reachable (or a hash differs): wanted the source package of llama-cpp-python $version"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --strip-components=3 --wildcards '*/vendor/llama.cpp/LICENSE' \
  '*/vendor/llama.cpp/ggml/include/*.h' '*/vendor/llama.cpp/ggml/src/*.h' '*/vendor/llama.cpp/ggml/src/ggml-quants.c' \
  '*/vendor/llama.cpp/ggml/src/ggml-cpu/quants.c' '*/vendor/llama.cpp/ggml/src/ggml-cpu/arch/x86/quants.c'

dots="q4_0_q8_0 q4_1_q8_1 q5_0_q8_0 q5_1_q8_1 q8_0_q8_0 iq4_nl_q8_0 q2_K_q8_K q3_K_q8_K q4_K_q8_K q5_K_q8_K q6_K_q8_K"
rows="q4_0 q4_1 q5_0 q5_1 q8_0 q8_1 q2_K q3_K q4_K q5_K q6_K q8_K"
mkdir -p "$work/tree/lib"
# An object an instruction set, of these functions and what they call, named ggml_<isa>_... and nothing else visible. The
# macro replaces a table of 65536 halves by the instruction that converts one.
build() {
  isa=$1
  shift
  roots= names=
  for name in $dots; do
    roots="$roots -u ggml_vec_dot_$name"
    names="$names ggml_${isa}_vec_dot_$name"
    echo "ggml_vec_dot_$name ggml_${isa}_vec_dot_$name"
  done >"$work/names"
  for name in $rows; do
    roots="$roots -u quantize_row_$name"
    names="$names ggml_${isa}_quantize_row_$name"
    echo "quantize_row_$name ggml_${isa}_quantize_row_$name"
  done >>"$work/names"
  echo "$names" | tr ' ' '\n' >"$work/kept"
  for file in ggml-quants.c ggml-cpu/quants.c ggml-cpu/arch/x86/quants.c; do
    "$cc" -std=c11 -D_GNU_SOURCE -DNDEBUG "-DGGML_CPU_FP16_TO_FP32(x)=_cvtsh_ss(x)" -O3 -fPIC -fvisibility=hidden -w \
      -ffunction-sections -fdata-sections -fno-math-errno "$@" -I"$work/ggml/include" -I"$work/ggml/src" -I"$work/ggml/src/ggml-cpu" \
      -c "$work/ggml/src/$file" -o "$work/$(echo "$file" | tr / _).o"
  done
  ld -r --gc-sections $roots "$work"/*.c.o -o "$work/linked.o"
  strip --strip-unneeded "$work/linked.o"
  objcopy --redefine-syms="$work/names" "$work/linked.o"
  objcopy --keep-global-symbols="$work/kept" "$work/linked.o" "$work/tree/lib/ggml_$isa.o"
  strange=$(nm --undefined-only "$work/tree/lib/ggml_$isa.o" | grep -v -E ' U (_GLOBAL_OFFSET_TABLE_|sqrtf|memcpy|memset)$' || true)
  [ -z "$strange" ] || fail "ggml's dot products need more than they should:" $strange
}
build avx2 -march=x86-64-v3
build avx_vnni -march=x86-64-v3 -mavxvnni
build avx512_vnni -march=x86-64-v4 -mavx512vnni -mprefer-vector-width=512
ar rcs "$work/tree/lib/libggml_dots.a" "$work"/tree/lib/ggml_*.o
rm "$work"/tree/lib/ggml_*.o
mv "$work/LICENSE" "$work/tree/LICENSE.txt"

# By rename, so that an interrupted or a second, concurrent fetch leaves no half-filled cache.
rm -rf "$cache"
mv -T "$work/tree" "$cache" 2>/dev/null || [ -e "$cache/lib/libggml_dots.a" ] || fail "cannot write $cache"
echo "$cache"
