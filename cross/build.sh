#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the aarch64 binary for a Jetson on an x86-64 machine, checks which glibc it asks for, and packs it.
#   cross/build.sh [zig|debian] [--deb] [--features tls,v4l,gstreamer]
# zig:    cargo-zigbuild links against the glibc 2.35 of JetPack 6 (Ubuntu 22.04), whatever this machine has. JetPack 7
#         (24.04, glibc 2.39) runs the same binary. Needs: rustup target add aarch64-unknown-linux-gnu,
#         pip install ziglang cargo-zigbuild (or cargo install cargo-zigbuild).
# debian: Debian's own cross toolchain; nothing but apt. Its glibc is newer than JetPack 6's, so the check at the end
#         decides. Needs: dpkg --add-architecture arm64; apt install rustc-web cargo-web libstd-rust-web-dev:arm64
#         gcc-aarch64-linux-gnu libc6-dev-arm64-cross (and qemu-user-static for cross/test.sh).
# Without a word: zig if it is there.
# Features, none if not named: tls needs nothing more; v4l needs libclang-dev here; gstreamer needs its development files for arm64
# (libgstreamer1.0-dev:arm64 libgstreamer-plugins-base1.0-dev:arm64) and pkg-config for aarch64-linux-gnu, so: debian,
# or `cargo build --release --features jetson,tls` on the Jetson itself.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
floor=${TENDON_GLIBC:-2.35}
way=; deb=; features=
while [ $# -gt 0 ]; do
  case $1 in
    zig|debian) way=$1 ;;
    --deb) deb=1 ;;
    --features) features=${2:?--features LIST}; shift ;;
    *) sed -n '4,15s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift
done
[ -n "$way" ] || { command -v cargo-zigbuild >/dev/null && way=zig || way=debian; }
out=${CARGO_TARGET_DIR:-target}

case $way in
  zig)
    command -v cargo-zigbuild >/dev/null || { echo "no cargo-zigbuild: pip install ziglang cargo-zigbuild" >&2; exit 1; }
    cargo zigbuild --release --bin tendon --features "$features" --target "$target.$floor" ;;
  debian)
    for tool in /usr/bin/rustc /usr/bin/cargo aarch64-linux-gnu-gcc; do
      command -v "$tool" >/dev/null || { echo "no $tool: see the head of $0" >&2; exit 1; }
    done
    # /usr/bin first, so that Debian's rustc runs and not rustup's, which lacks the target's standard library.
    PATH="/usr/bin:$PATH" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
      CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_aarch64_unknown_linux_gnu=aarch64-linux-gnu-pkg-config \
      /usr/bin/cargo build --release --bin tendon --features "$features" --target "$target" ;;
esac

binary="$out/$target/release/tendon"
cross/glibc.sh "$binary" "$floor"
[ -z "$deb" ] || cross/deb.sh "$binary" arm64
