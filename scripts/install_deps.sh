#!/usr/bin/env bash
# Brings what a build needs that is not here yet: Debian packages, oneDNN, a pinned Python in .venv and, where there is
# CUDA, the assembler for Volta; so that the build itself needs no network.
#   scripts/install_deps.sh        what `make` and `make demo` need
#   scripts/install_deps.sh test   also what `make test` needs (clang for the second compiler and the sanitizers; a compiler,
#                                  an emulator and libraries for 64-bit Arm)
# Quick and silent when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential cmake ninja-build pkg-config git ca-certificates
          libcjson-dev libpopt-dev libpcre2-dev libutf8proc-dev libcmocka-dev python3 python3-venv)
second_compiler=(clang-19 libomp-19-dev libclang-rt-19-dev llvm-19)
for_arm64=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
want=${1:-build}

fail() { printf 'install_deps: %s\n' "$*" >&2; exit 1; }

# Installs those of the named packages that are missing; fails with one line where it cannot.
install_packages() {
  local missing=() package as_root=()
  if ! command -v dpkg-query >/dev/null; then
    echo "install_deps: this is not Debian; make sure that you have what these packages hold: $*" >&2
    return
  fi
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "install_deps: missing packages and no right to install them; as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing Debian packages: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null ||
    echo "install_deps: apt-get update failed; trying with the package lists that are here" >&2
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends -y "${missing[@]}" </dev/null >/dev/null; then
    echo "install_deps: apt-get could not install: ${missing[*]}" >&2
    return 1
  fi
}

# Pinned Python packages, for the tests only. The stamp is the requirements themselves, so that a change of a pin
# makes the environment anew.
install_python() {
  local stamp=.venv/requirements.installed python candidate
  if [ -e "$stamp" ] && cmp -s "$stamp" requirements.txt && .venv/bin/python -c '' 2>/dev/null; then return; fi
  python=
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
  [ -n "$python" ] || fail "no python3 of 3.10 or newer with venv; on Debian: apt-get install python3-venv"
  echo "Making .venv with the pinned Python packages"
  rm -rf .venv
  "$python" -m venv .venv
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --require-hashes \
      --only-binary :all: -r requirements.txt </dev/null >.venv/pip.log 2>&1; then
    cp requirements.txt "$stamp"
    return
  fi
  tail -n 1 .venv/pip.log >&2
  [ "$want" != test ] || fail "pip could not install requirements.txt: is a package registry reachable?"
  echo "install_deps: no pinned Python packages (pip's line is above); the build does not need them, the tests do" >&2
}

install_onednn() {
  PYTHON=.venv/bin/python scripts/fetch_onednn.sh </dev/null >/dev/null ||
    echo "install_deps: building without oneDNN: no standard and eager baselines, no model runner" >&2
}

install_ggml() {
  [ "$(uname -m)" = x86_64 ] || return 0
  PYTHON=.venv/bin/python scripts/fetch_ggml.sh </dev/null >/dev/null ||
    echo "install_deps: building without ggml: the model runner unpacks quantised weights to 16 or 32 bits" >&2
}

install_ptxas() {
  command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || return 0
  PYTHON=.venv/bin/python scripts/fetch_ptxas.sh </dev/null >/dev/null ||
    echo "install_deps: building without ptxas for sm_70: a V100's driver compiles its kernels at first use" >&2
}

install_packages "${packages[@]}" || exit 1
if [ "$want" = test ]; then
  install_packages "${second_compiler[@]}" ||
    echo "install_deps: no clang 19: the tests will not run on a second compiler and the thread sanitizer" >&2
  { install_packages "${for_arm64[@]}" && scripts/fetch_arm64.sh </dev/null >/dev/null; } ||
    echo "install_deps: nothing to build and emulate 64-bit Arm with: the tests will not run on it" >&2
fi
install_python
install_onednn
install_ggml
install_ptxas
