#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the aarch64 binary for a Jetson on an x86-64 machine, checks which glibc it asks for, and packs it.
#   cross/build.sh [zig|debian] [--deb] [--hil] [--features tls,v4l,gstreamer]
# zig:    cargo-zigbuild links against the glibc 2.35 of JetPack 6 (Ubuntu 22.04), whatever this machine has. JetPack 7
#         (24.04, glibc 2.39) runs the same binary. Needs: pip install ziglang cargo-zigbuild, and the target's standard
#         library: rustup target add aarch64-unknown-linux-gnu, or Debian's libstd-rust-web-dev:arm64.
# debian: Debian's own cross toolchain; nothing but apt. Its glibc is newer than JetPack 6's, so the check at the end
#         decides. Needs what cross/toolchain.sh installs.
# Without a word: zig if it is there.
# Features, none if not named: tls needs nothing more. v4l needs libclang-dev here. gstreamer (debian only) needs pkg-config, and
# cross/sysroot.sh fetches its development files for arm64 into a folder beside the build. With it there are two binaries:
# tendon, without GStreamer, which moves the robot, and tendon-inference, with it, which opens the cameras (inference_program in
# tendon.toml); it takes twice as long, as cargo gives the crates that both need other features. Exit code 77, with the reason,
# where what cameras need is not to be had.
# --hil also builds the suite of docs/commissioning.md, tendon-hil, for a machine without sources and toolchain; with --deb it is packed.
# --deb also makes the man pages, from what the binary says of itself: cross/man.sh says what that needs.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
floor=${TENDON_GLIBC:-2.35}
way=; deb=; hil=; features=
while [ $# -gt 0 ]; do
  case $1 in
    zig|debian) way=$1 ;;
    --deb) deb=1 ;;
    --hil) hil=1 ;;
    --features) features=${2:?--features LIST}; shift ;;
    *) sed -n '4,18s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift
done
[ -n "$way" ] || { command -v cargo-zigbuild >/dev/null && way=zig || way=debian; }
out=${CARGO_TARGET_DIR:-target}
case ",$features," in *,jetson,*) features=${features/jetson/v4l,gstreamer} ;; esac
case ",$features," in *,gstreamer,*) inference=$features ;; *) inference= ;; esac
# What is left for the process that moves the robot.
lean=$(tr , '\n' <<<"$features" | grep -vx gstreamer | paste -sd, -)

if [ -n "$inference" ] && [ "$way" = zig ]; then
  # zig finds no library of the distribution's, and its own glibc is another.
  echo "gstreamer is linked by Debian's toolchain only: cross/build.sh debian" >&2; exit 2
fi
case ",$features," in *,v4l,*)
  ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || { echo "skipped: no libclang: apt install libclang-dev"; exit 77; } ;;
esac
if [ -n "$inference" ]; then
  sysroot=$(cross/sysroot.sh "$out/$target/sysroot")
  export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_aarch64_unknown_linux_gnu=pkg-config \
    PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu="$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig" \
    PKG_CONFIG_SYSROOT_DIR_aarch64_unknown_linux_gnu="$sysroot" TENDON_SYMBOLS="$sysroot/usr/share/tendon-symbols"
fi
# For the bindings to the kernel's header.
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="-isystem /usr/aarch64-linux-gnu/include"

build() { # features, what of it
  local features=$1; shift
  case $way in
    zig) PATH=$path cargo zigbuild --release "$@" --features "$features" --target "$target.$floor" ;;
    # /usr/bin first, so that Debian's rustc runs and not rustup's, which lacks the target's standard library.
    # What GStreamer needs in its turn is the business of the machine it runs on, and not in the folder. Always the same flags:
    # others would build everything anew.
    debian)
      CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=-Wl,--allow-shlib-undefined" \
        PATH="/usr/bin:$PATH" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
        /usr/bin/cargo build --release "$@" --features "$features" --target "$target" ;;
  esac
}
case $way in
  zig)
    zigbuild=$(command -v cargo-zigbuild) || { echo "no cargo-zigbuild: pip install ziglang cargo-zigbuild" >&2; exit 1; }
    # In a virtual environment ziglang is known to its own Python only.
    python=$(dirname "$zigbuild")/python3
    [ ! -x "$python" ] || export CARGO_ZIGBUILD_PYTHON_PATH="$python"
    # Debian's rustc where the other has no standard library for the target.
    path=$PATH
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || path="/usr/bin:$PATH"
    [ -d "$(PATH=$path rustc --print sysroot)/lib/rustlib/$target" ] || { echo "no standard library: rustup target add $target" >&2; exit 1; } ;;
  debian)
    for tool in /usr/bin/rustc /usr/bin/cargo aarch64-linux-gnu-gcc; do
      command -v "$tool" >/dev/null || { echo "no $tool: see the head of $0" >&2; exit 1; }
    done ;;
esac

made="$out/$target/release"
rm -f "$made/tendon-inference" "$made/tendon-hil"
if [ -n "$inference" ]; then
  build "$inference" --bin tendon
  mv "$made/tendon" "$made/tendon-inference"
fi
# Before the program itself, which cargo builds with it, but with what the tests wish of crates.
if [ -n "$hil" ]; then
  suite=$(build "$lean" --test hil --message-format=json-render-diagnostics | sed -n 's/.*"name":"hil".*"executable":"\([^"]*\)".*/\1/p')
  [ -x "$suite" ] || { echo "cargo named no program of the test hil: ${suite:-nothing}" >&2; exit 1; }
  cp "$suite" "$made/tendon-hil"
fi
build "$lean" --bin tendon
programs=("$made/tendon" ${inference:+"$made/tendon-inference"} ${hil:+"$made/tendon-hil"})
for binary in "${programs[@]}"; do
  cross/glibc.sh "$binary" "$floor"
done
# Also which versions of other libraries.
cross/needs.sh ${TENDON_SYMBOLS:+--lists "$TENDON_SYMBOLS"} "${programs[@]}"
[ -z "$deb" ] || cross/deb.sh "$made/tendon" arm64 "$made" "${inference:+$made/tendon-inference}" ${hil:+"$made/tendon-hil"}
