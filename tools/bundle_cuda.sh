#!/usr/bin/env bash
# Collects what a GPU machine without a compiler and without Debian's packages needs: the command and
# the tests of build/cuda, stripped, with the shared libraries that such a machine may lack.
#
# usage: tools/bundle_cuda.sh [FOLDER]      FOLDER: default build/cuda-bundle
#   FOLDER/run logitlab doctor              there, from anywhere
#   FOLDER/run cuda_conformance
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
OUT=${1:-$ROOT/build/cuda-bundle}
PROGRAMS=(apps/logitlab/logitlab tests/conformance/cuda/cuda_conformance)
readonly MOST_MIB=60

# The C and C++ libraries are the machine's own: they have to fit its kernel and its driver.
is_systems() {
  case $1 in
    libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | ld-linux* | libstdc++.so* | \
      libgcc_s.so* | linux-vdso*) return 0 ;;
  esac
  return 1
}

rm -rf "$OUT"
mkdir -p "$OUT/bin" "$OUT/lib"
for program in "${PROGRAMS[@]}"; do
  built=$ROOT/build/cuda/$program
  if [[ ! -x $built ]]; then
    printf 'bundle: %s is not there; run ./lab build cuda first\n' "$built" >&2
    exit 1
  fi
  strip -o "$OUT/bin/$(basename "$program")" "$built"
  while read -r name _ path _; do
    if [[ $path == /* ]] && ! is_systems "$name"; then cp -L "$path" "$OUT/lib/$name"; fi
  done < <(ldd "$built")
done
cat >"$OUT/run" <<'RUN'
#!/bin/sh
# run PROGRAM ARGUMENTS...: one of bin/, with the libraries of lib/.
here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/bin/$program" "$@"
RUN
chmod +x "$OUT/run"
mib=$(du -sm "$OUT" | cut -f1)
printf 'bundle: %s, %d MiB\n' "$OUT" "$mib"
if ((mib > MOST_MIB)); then
  printf 'bundle: more than %d MiB\n' "$MOST_MIB" >&2
  exit 1
fi
