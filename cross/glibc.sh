#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Which glibc does a binary ask for? Fails if it is newer than the floor: it would not start there.
#   cross/glibc.sh BINARY [FLOOR]
set -euo pipefail
binary=${1:?BINARY}; floor=${2:-2.35}
objdump=$(command -v aarch64-linux-gnu-objdump || command -v llvm-objdump || echo objdump)
newest=$("$objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -1)
[ -n "$newest" ] || { echo "$binary: no glibc symbols found; is it a dynamic binary?" >&2; exit 1; }
if [ "$(printf '%s\n%s\n' "$newest" "$floor" | sort -V | tail -1)" != "$floor" ]; then
  echo "$binary asks for glibc $newest, the target has $floor; these symbols are why:" >&2
  "$objdump" -T "$binary" | grep "GLIBC_$newest" >&2
  exit 1
fi
echo "$binary: glibc $newest at most (floor $floor)"
