#!/bin/sh
# Brings ptxas 12.9, the last that assembles for Volta (sm_70; CUDA 13 begins at sm_75), into a cache outside the build
# tree and prints its path. Does nothing when it is already there.
#   FA_PTXAS_CACHE   the directory (default ${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/ptxas-12.9.86)
#   PYTHON           a Python with pip (default the checkout's .venv/bin/python where it is there, else python3, which
#                    has no pip on Debian)
set -eu

version=12.9.86
cache=${FA_PTXAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/ptxas-$version}
venv_python=$(dirname "$0")/../.venv/bin/python
[ -x "$venv_python" ] || venv_python=python3
python=${PYTHON:-$venv_python}

fail() {
  echo "fetch_ptxas: $*" >&2
  exit 1
}

if [ -x "$cache/ptxas" ]; then
  echo "$cache/ptxas"
  exit 0
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "the pinned wheel is for Linux on x86-64 only"
"$python" -m pip --version >/dev/null 2>&1 || fail "'$python' has no pip; install python3-pip or set PYTHON to a Python that has it"

mkdir -p "$(dirname "$cache")" 2>/dev/null || fail "cannot create $(dirname "$cache"); set FA_PTXAS_CACHE to a writable directory"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

echo "nvidia-cuda-nvcc-cu12==$version --hash=sha256:5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0" >"$work/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --retries 1 --no-deps --only-binary=:all: --require-hashes \
  --dest "$work" --requirement "$work/requirements.txt" >&2 ||
  fail "no package registry reachable (or a hash differs): wanted nvidia-cuda-nvcc-cu12 $version"

mkdir "$work/unpacked" "$work/tree"
"$python" -m zipfile -e "$work"/*.whl "$work/unpacked"
mv "$work/unpacked/nvidia/cuda_nvcc/bin/ptxas" "$work/tree/ptxas"
find "$work/unpacked" -name 'License*' -exec cp {} "$work/tree/" \;
chmod +x "$work/tree/ptxas"

# By rename, so that an interrupted or a second, concurrent fetch leaves no half-filled cache.
rm -rf "$cache"
mv -T "$work/tree" "$cache" 2>/dev/null || [ -x "$cache/ptxas" ] || fail "cannot write $cache"
echo "$cache/ptxas"
