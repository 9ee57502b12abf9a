#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GStreamer's development files for aarch64, in a folder: Debian's packages for arm64 cannot be installed beside those of this
# machine, so they are fetched and unpacked, and nothing is installed. Prints the folder.
#   cross/sysroot.sh FOLDER
# usr/lib/aarch64-linux-gnu has what is linked with, usr/share/tendon-symbols which version of a library brought each of its
# symbols (Debian's own lists, for cross/needs.sh). Exit code 77, with the reason, where the packages are not to be had.
set -euo pipefail
folder=${1:?FOLDER}
mkdir -p "$folder"; folder=$(realpath "$folder")
# What GStreamer's and GLib's .pc files name, also for linking statically, which pkg-config wants to see. The libraries themselves
# only of the first line: what those need in their turn is the business of the machine they are on.
packages="libgstreamer1.0-0 libgstreamer1.0-dev libgstreamer-plugins-base1.0-0 libgstreamer-plugins-base1.0-dev libglib2.0-0 libglib2.0-dev
  libpcre2-dev libffi-dev zlib1g-dev libmount-dev libblkid-dev libselinux1-dev libsepol-dev libunwind-dev libdw-dev libelf-dev
  liblzma-dev liborc-0.4-dev"
pc="gstreamer-1.0 gstreamer-base-1.0 gstreamer-app-1.0 gstreamer-video-1.0 glib-2.0 gobject-2.0 gio-2.0"
whole() {
  # shellcheck disable=SC2086
  PKG_CONFIG_LIBDIR="$folder/usr/lib/aarch64-linux-gnu/pkgconfig" pkg-config --exists --print-errors $pc
}
if ! whole 2>/dev/null; then
  for need in apt-get dpkg-deb pkg-config; do
    command -v $need >/dev/null || { echo "skipped: no $need" >&2; exit 77; }
  done
  dpkg --print-foreign-architectures | grep -x arm64 >/dev/null || { echo "skipped: apt knows no arm64 here (cross/toolchain.sh)" >&2; exit 77; }
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  # Fetching as root, apt would drop to a user who may write here.
  chmod 777 "$work"
  # shellcheck disable=SC2086
  if ! (cd "$work" && timeout 300 apt-get download -qq $(printf '%s:arm64 ' $packages)) 2>"$work/why"; then
    echo "skipped: apt-get could not fetch: $(grep -v ^W "$work/why" | head -3)" >&2; exit 77
  fi
  for deb in "$work"/*.deb; do
    dpkg-deb -x "$deb" "$folder"
    dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./symbols > "$work/symbols" 2>/dev/null || continue
    install -D -m 644 "$work/symbols" "$folder/usr/share/tendon-symbols/$(dpkg-deb -f "$deb" Package)"
  done
  whole || { echo "$folder: not whole" >&2; exit 1; }
fi
echo "$folder"
