#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs an aarch64 program under qemu-user: with the loader that belongs to the C library it will find.
#   cross/qemu.sh PROGRAM [ARGUMENT...]
# Where libc6:arm64 is installed (it comes with libstd-rust-web-dev:arm64), /etc/ld.so.cache leads every loader to its libc.so.6.
# The loader of libc6-arm64-cross in /usr/aarch64-linux-gnu is another version; the two together stand still for ever at the first
# thread. So: this machine's own, if there is one.
set -euo pipefail
: "${1:?PROGRAM}"
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || { echo "no qemu-aarch64: apt install qemu-user-static" >&2; exit 127; }
for root in / /usr/aarch64-linux-gnu; do
  [ ! -e "$root/lib/ld-linux-aarch64.so.1" ] || exec "$qemu" -L "$root" "$@"
done
echo "no C library for aarch64: apt install libc6-arm64-cross, or libc6:arm64" >&2
exit 127
