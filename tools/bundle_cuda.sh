#!/usr/bin/env bash
# Collects what a GPU machine without a compiler and without Debian's packages needs: the command,
# the tests and the checks of build/cuda, stripped, with the shared libraries that such a machine
# may lack, in one compressed file.
#
# usage: tools/bundle_cuda.sh [FOLDER]      FOLDER: default build/cuda-bundle; replaced once the
#                                         new one is whole, if it is a bundle or empty
#   FOLDER/run logitlab doctor              there, from anywhere; unpacks them once, to /tmp
#   FOLDER/run cuda_conformance
#   FOLDER/run --folder                     where they are unpacked
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
if (($# > 1)) || [[ ${1:-} == -* ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
TARGET=$(realpath -m -- "${1:-$ROOT/build/cuda-bundle}")
PROGRAMS=(apps/logitlab/logitlab tests/conformance/cuda/cuda_conformance
  tests/conformance/cuda/device_logits bench/cuda/decode_check bench/cuda/prefill_check)
readonly MOST_MIB=46

# The C and C++ libraries are the machine's own: they have to fit its kernel and its driver.
is_systems() {
  case $1 in
    libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | ld-linux* | libstdc++.so* | \
      libgcc_s.so* | linux-vdso*) return 0 ;;
  esac
  return 1
}

is_bundle() {
  [[ -f $1/run && -f $1/name && -f $1/content.tar.gz ]]
}

if [[ -e $TARGET && -n $(ls -A -- "$TARGET") ]] && ! is_bundle "$TARGET"; then
  printf 'bundle: %s is there and is no bundle; nothing was removed\n' "$TARGET" >&2
  exit 2
fi
for program in "${PROGRAMS[@]}"; do
  if [[ ! -x $ROOT/build/cuda/$program ]]; then
    printf 'bundle: %s is not there; run ./lab build cuda first\n' "$ROOT/build/cuda/$program" >&2
    exit 1
  fi
done
mkdir -p -- "$(dirname -- "$TARGET")"
# Beside the target, so that it can be renamed into place; mktemp makes random letters of the X.
OUT=$(mktemp -d -- "$TARGET.XXXXXX")
trap 'rm -rf -- "$OUT"' EXIT
chmod 755 "$OUT"
mkdir -p "$OUT/content/bin" "$OUT/content/lib"
for program in "${PROGRAMS[@]}"; do
  built=$ROOT/build/cuda/$program
  strip -o "$OUT/content/bin/$(basename "$program")" "$built"
  while read -r name _ path _; do
    if [[ $path == /* ]] && ! is_systems "$name"; then cp -L "$path" "$OUT/content/lib/$name"; fi
  done < <(ldd "$built")
done
tar -C "$OUT/content" -czf "$OUT/content.tar.gz" bin lib
rm -r "$OUT/content"
sha256sum "$OUT/content.tar.gz" | cut -c1-16 >"$OUT/name"
cat >"$OUT/run" <<'RUN'
#!/bin/sh
# run PROGRAM ARGUMENTS...: one of the bundle's programs, with its libraries. run --folder: where
# they are. The folder is whole or absent: it is renamed into place; mktemp makes random letters of
# the X in the name that it has before.
here=$(cd "$(dirname "$0")" && pwd)
folder=${TMPDIR:-/tmp}/logitlab-bundle-$(cat "$here/name")
if [ ! -d "$folder" ]; then
  stage=$(mktemp -d "$folder.XXXXXX") && tar -C "$stage" -xzf "$here/content.tar.gz" || exit 1
  chmod 755 "$stage"
  mv -T "$stage" "$folder" 2>/dev/null || rm -rf "$stage" # another was faster
fi
if [ "$1" = --folder ]; then
  echo "$folder"
  exit
fi
program=$1
shift
LD_LIBRARY_PATH=$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$folder/bin/$program" "$@"
RUN
chmod +x "$OUT/run"
mib=$(du -sm "$OUT" | cut -f1)
rm -rf -- "$TARGET"
mv -T -- "$OUT" "$TARGET"
printf 'bundle: %s, %d MiB\n' "$TARGET" "$mib"
if ((mib > MOST_MIB)); then
  printf 'bundle: more than %d MiB\n' "$MOST_MIB" >&2
  exit 1
fi
