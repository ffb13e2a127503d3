#!/bin/sh
# Brings oneDNN (headers and the GNU OpenMP build of the library) into a cache outside the build tree and prints
# that directory, which cmake/FindOneDNN.cmake searches by itself. Does nothing when it is already there.
# Why a wheel: Debian 12 carries oneDNN 2.6, which has no fp16 and another C API.
#   FA_ONEDNN_CACHE   the directory (default ${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/onednn-3.2.0)
#   PYTHON            a Python with pip (default python3)
set -eu

wheel_version=2023.2.0 # the wheels' name for oneDNN 3.2.0
cache=${FA_ONEDNN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/onednn-3.2.0}
python=${PYTHON:-python3}

fail() {
  echo "fetch_onednn: $*" >&2
  exit 1
}

if [ -e "$cache/lib/libdnnl.so.3" ] && [ -e "$cache/include/oneapi/dnnl/dnnl.h" ]; then
  echo "$cache"
  exit 0
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "wheels exist for Linux on x86-64 only; point OneDNN_ROOT at an oneDNN 3 instead"
"$python" -m pip --version >/dev/null 2>&1 || fail "'$python' has no pip; install python3-pip or set PYTHON to a Python that has it"

mkdir -p "$(dirname "$cache")" || fail "cannot create $(dirname "$cache"); set FA_ONEDNN_CACHE to a writable directory"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

cat >"$work/requirements.txt" <<END
onednn-cpu-gomp==$wheel_version --hash=sha256:2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb
onednn-devel-cpu-gomp==$wheel_version --hash=sha256:9763c69e8c907e119056bd52ad918ca84ac9ba939d130a99dfa95ccca3e5e284
END
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
  --dest "$work" --requirement "$work/requirements.txt" >&2 ||
  fail "no package registry reachable (or a hash differs): wanted onednn-cpu-gomp and onednn-devel-cpu-gomp $wheel_version"

mkdir "$work/unpacked" "$work/tree" "$work/tree/lib"
for wheel in "$work"/*.whl; do
  "$python" -m zipfile -e "$wheel" "$work/unpacked"
done
# Wheels cannot hold links, so each carries the library three times; one copy under its soname is enough.
mv "$work/unpacked/onednn_cpu_gomp-$wheel_version.data/data/lib/libdnnl.so.3.2" "$work/tree/lib/libdnnl.so.3"
ln -s libdnnl.so.3 "$work/tree/lib/libdnnl.so"
mv "$work/unpacked/onednn_devel_cpu_gomp-$wheel_version.data/data/include" "$work/tree/include"
mv "$work/unpacked/onednn_cpu_gomp-$wheel_version.dist-info/LICENSE.txt" "$work/tree/LICENSE.txt"

# By rename, so that an interrupted or a second, concurrent fetch leaves no half-filled cache.
rm -rf "$cache"
mv -T "$work/tree" "$cache" 2>/dev/null || [ -e "$cache/lib/libdnnl.so.3" ] || fail "cannot write $cache"
echo "$cache"
