#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs a binary with units, users, device names, an example deployment and the man pages. Plain dpkg-deb.
#   cross/deb.sh BINARY [arm64|amd64] [OUT [INFERENCE [HIL]]]       OUT: a folder, default the binary's
# INFERENCE: the program of the inference process, of the same version and with cameras (inference_program in tendon.toml), to
# /usr/lib/tendon/tendon-inference; empty: none. HIL: the suite of docs/commissioning.md, to /usr/lib/tendon/tendon-hil.
# TENDON_SYMBOLS: the lists that cross/needs.sh asks, default this machine's.
set -euo pipefail
binary=$(realpath "${1:?BINARY}"); arch=${2:-arm64}; out=$(realpath "${3:-$(dirname "$binary")}")
inference=${4:+$(realpath "$4")}; hil=${5:+$(realpath "$5")}
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "${3:-644}" "$1" "$root/$2"; }

case $arch in arm64) strip=aarch64-linux-gnu-strip ;; *) strip=strip ;; esac
put "$binary" usr/bin/tendon 755
[ -z "$inference" ] || put "$inference" usr/lib/tendon/tendon-inference 755
[ -z "$hil" ] || put "$hil" usr/lib/tendon/tendon-hil 755
programs=("$root/usr/bin/tendon" ${inference:+"$root/usr/lib/tendon/tendon-inference"} ${hil:+"$root/usr/lib/tendon/tendon-hil"})
if command -v "$strip" >/dev/null; then "$strip" --strip-debug "${programs[@]}"; fi
# What moves the robot has no camera's code mapped into it where another program can have it.
if [ -n "$inference" ] && cross/needs.sh ${TENDON_SYMBOLS:+--lists "$TENDON_SYMBOLS"} "${programs[0]}" | grep gstreamer >/dev/null; then
  echo "$binary is linked to GStreamer; with an inference program of its own it should not be" >&2; exit 1
fi
depends=$(cross/needs.sh ${TENDON_SYMBOLS:+--lists "$TENDON_SYMBOLS"} "${programs[@]}")
recommends="systemd (>= 249)"
case $depends in *libgstreamer*) recommends="$recommends, gstreamer1.0-plugins-base, gstreamer1.0-plugins-good" ;; esac
for unit in tendon.service tendon@.service tendon-zenohd.service; do put systemd/$unit usr/lib/systemd/system/$unit; done
put systemd/sysusers.conf usr/lib/sysusers.d/tendon.conf
put systemd/tmpfiles.conf usr/lib/tmpfiles.d/tendon.conf
put systemd/udev.rules usr/lib/udev/rules.d/72-tendon.rules
put systemd/journald@tendon.conf usr/lib/systemd/journald@tendon.conf.d/tendon.conf
examples=usr/share/doc/tendon/examples
for file in systemd/system-watchdog.conf systemd/tendon.service.d/*.conf systemd/zenoh/*.json5; do
  put "$file" "$examples/$(basename "$file")"
done
put systemd/zenoh/make-test-ca.sh "$examples/make-test-ca.sh" 755
put LICENSE usr/share/doc/tendon/copyright
for page in installing configuration operating wire commissioning; do put docs/$page.md usr/share/doc/tendon/$page.md; done
# Deployments to start from, and the bench policy that theirs refer to: `tendon check` works before anything is written.
(cd deploy && find . -type f) | while read -r file; do put "deploy/$file" "usr/share/tendon/deploy/$file"; done
{ git ls-files engines/bench-vla 2>/dev/null || find engines/bench-vla -type f; } | grep -v '/train/' | while read -r file; do put "$file" "usr/share/tendon/$file"; done
cross/man.sh "$binary" "$root/usr/share/man/man1"

install -d "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<END
Package: tendon
Version: $version
Architecture: $arch
Maintainer: The Tendon authors <tendon@localhost>
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $depends
Recommends: $recommends
Suggests: zenohd
Description: carries a vision-language-action policy from camera to motor
 Scheduler, governor, watchdog and link between a policy and a robot's motor
 controller. Starts in standby; nothing moves until somebody arms it.
END
cat > "$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  # Into an image that is being made (DPKG_ROOT), its own users; nothing runs there that could be told.
  root="${DPKG_ROOT:+--root=$DPKG_ROOT}"
  if command -v systemd-sysusers >/dev/null; then systemd-sysusers $root tendon.conf || true; fi
  if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles $root --create tendon.conf || true; fi
  if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    udevadm control --reload 2>/dev/null || true
    # What is plugged in already gets names and groups as well, before anybody asks for them.
    udevadm trigger --action=change --subsystem-match=video4linux --subsystem-match=tty --subsystem-match=gpio \
      --subsystem-match=usb-serial --subsystem-match=usb 2>/dev/null || true
    udevadm settle --timeout=10 2>/dev/null || true
    # A runtime that drives a robot is not restarted behind its operator's back: whoever installs says when.
    echo "tendon: try it with: sudo -u tendon tendon doctor; then: systemctl enable --now tendon"
  fi
fi
END
cat > "$root/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
# On removal the robot comes to rest first (SIGTERM); an upgrade leaves the running one alone.
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl stop tendon.service 'tendon@*.service' tendon-zenohd.service || true
fi
END
cat > "$root/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
END
chmod 755 "$root"/DEBIAN/post* "$root"/DEBIAN/prerm
dpkg-deb --root-owner-group --build "$root" "$out/tendon_${version}_${arch}.deb" >/dev/null
echo "$out/tendon_${version}_${arch}.deb"
