#!/usr/bin/env bash
# Brings the arm64 packages that the cross build (cmake --preset aarch64) links its command and tests against, unpacked
# into a folder of their own, and prints its path: this system's own packages and architectures stay as they are. Does
# nothing when they are already there.
#   FA_ARM64_PACKAGES   the folder (default ${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/arm64)
set -euo pipefail

packages=(libcjson1 libcjson-dev libcmocka0 libcmocka-dev libpopt0 libpopt-dev)
cache=${FA_ARM64_PACKAGES:-${XDG_CACHE_HOME:-$HOME/.cache}/fastattention/arm64}

fail() { printf 'fetch_arm64: %s\n' "$*" >&2; exit 1; }

if [ -e "$cache/complete" ]; then
  echo "$cache"
  exit 0
fi
[ ! -e "$cache" ] ||
  fail "$cache is there, but holds no file 'complete': remove the folder, or make that file if it holds: ${packages[*]}"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  fail "this is not Debian; set FA_ARM64_PACKAGES to a root with these for arm64, and an empty file 'complete': ${packages[*]}"

mkdir -p "$(dirname "$cache")" 2>/dev/null ||
  fail "cannot create $(dirname "$cache"); set FA_ARM64_PACKAGES to a folder that can be made"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# apt's lists of another architecture, in a state of its own: no root, no foreign architecture on this system.
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/tree"
apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::Lists=$work/lists"
     -o Dir::State::status=/dev/null -o "Dir::Cache=$work" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
"${apt[@]}" update </dev/null >"$work/log" 2>&1 && (cd "$work/archives" && "${apt[@]}" download "${packages[@]}") \
  </dev/null >>"$work/log" 2>&1 || {
  tail -n 1 "$work/log" >&2
  fail "apt could not get these for arm64 (apt's line is above): ${packages[*]}"
}
for package in "$work"/archives/*.deb; do dpkg-deb --extract "$package" "$work/tree"; done
touch "$work/tree/complete"

# By rename, so that an interrupted or a second, concurrent fetch leaves no half-filled cache.
mv -T "$work/tree" "$cache" 2>/dev/null || [ -e "$cache/complete" ] || fail "cannot write $cache"
echo "$cache"
