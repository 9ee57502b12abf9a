#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Are the units good? `systemd-analyze verify`, and `security --threshold=20` (an exposure of 2.0) offline: neither needs
# a running systemd. Also: the two runtime units say the same, every shipped drop-in fits, the CA script's certificates
# verify. Takes some seconds. What this machine has no tool for is named at the end, and it then exits 77, as "skipped".
set -euo pipefail
cd "$(dirname "$0")"
command -v systemd-analyze >/dev/null || { echo "skipped: no systemd-analyze (apt install systemd)"; exit 77; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
threshold=20
left=

# What the unit starts need not be installed here; `verify` would stop at that.
unit() { sed 's|^ExecStart=/usr/bin/[a-z]*|ExecStart=/bin/true|' "$1"; }

# The template is the single unit with %i; a sed of those lines must give it back.
diff <(sed -e 's|/%i||; s| of %i$||; s|of the robot %i\.|of one robot.|' -e '/drift apart/d' -e '/^# Folders/,/^StateDirectory=/{/^#/d}' tendon@.service) \
     <(sed -e '/drift apart/d' -e '/^# Folders/,/^StateDirectory=/{/^#/d}' tendon.service) \
  || { echo "tendon@.service and tendon.service differ in more than %i"; exit 1; }

check() { # file, name of the unit, drop-in or nothing
  local folder="$work/$2.${3:-plain}"
  mkdir -p "$folder"
  { unit "$1"; [ -z "${3:-}" ] || { echo; grep -v '^\[Install' "$3"; }; } > "$folder/$2"
  systemd-analyze verify --man=no --recursive-errors=no "$folder/$2"
  printf '%s%s: ' "$2" "${3:+ with $3}"
  systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$folder/$2" > "$work/report" \
    || { cat "$work/report"; exit 1; }
  grep -o 'Overall exposure level.*' "$work/report" | sed 's/Overall exposure level for [^:]*: //'
}
check tendon.service tendon.service
check tendon.service tendon.service tendon.service.d/jetson.conf
check tendon.service tendon.service tendon.service.d/network.conf
check tendon@.service tendon@arm-1.service
check tendon-zenohd.service tendon-zenohd.service

# Users and folders, where the tools are. --root keeps them off this machine.
mkdir -p "$work/root/etc" "$work/root/usr/lib/sysusers.d" "$work/root/usr/lib/tmpfiles.d"
cp sysusers.conf "$work/root/usr/lib/sysusers.d/tendon.conf"
cp tmpfiles.conf "$work/root/usr/lib/tmpfiles.d/tendon.conf"
if command -v systemd-sysusers >/dev/null; then
  systemd-sysusers --root="$work/root" tendon.conf >/dev/null 2>&1
  grep -q '^tendon:' "$work/root/etc/passwd"
  grep -q '^video:.*tendon' "$work/root/etc/group"
  systemd-tmpfiles --root="$work/root" --create tendon.conf
  [ "$(stat -c %a "$work/root/var/lib/tendon")" = 700 ]
  echo "sysusers, tmpfiles: good"
else
  left="$left; users and folders (no systemd-sysusers)"
fi
if command -v udevadm >/dev/null && udevadm verify --help >/dev/null 2>&1; then
  udevadm verify --no-style udev.rules
  echo "udev rules: good"
else
  left="$left; udev rules (no udevadm that has verify: systemd 254), of which tests/install.rs reads each line"
fi
zenoh/make-test-ca.sh "$work/tls" >/dev/null
echo "test CA: good"
[ -z "$left" ] || { echo "SKIPPED: not checked here: ${left#; }"; exit 77; }
