#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings a package to a robot: copies it, installs it, asks `tendon doctor` there, restarts the service (which starts in
# standby) and follows its log. If the doctor says that it could not arm, or the service does not come up, the package
# that was there before is put back.
#   cross/deploy.sh HOST [DEB]        DEB: default the newest of target/aarch64-unknown-linux-gnu/release
# TENDON_CONFIG: the deployment on the target (/etc/tendon/tendon.toml). TENDON_SERVICE: its unit (tendon).
# TENDON_DOCTOR: further words for the doctor, e.g. --no-link. TENDON_ASK: further words for `tendon mode status`, e.g.
# --robot arm-1 --connect tcp/127.0.0.1:7447. TENDON_FOLLOW=0: do not follow the log.
# The robot must be in standby: a service that is armed is not replaced, unless TENDON_FORCE=1.
set -euo pipefail
host=${1:?HOST}
cd "$(dirname "$0")/.."
deb=${2:-$(ls -t "${CARGO_TARGET_DIR:-target}"/aarch64-unknown-linux-gnu/release/tendon_*.deb 2>/dev/null | head -1)}
[ -f "${deb:-}" ] || { echo "no package: cross/build.sh --deb makes one" >&2; exit 2; }
config=${TENDON_CONFIG:-/etc/tendon/tendon.toml}; service=${TENDON_SERVICE:-tendon}; doctor=${TENDON_DOCTOR:-}; ask=${TENDON_ASK:-}
case "$config$service$doctor$ask" in *[!A-Za-z0-9/_.@\ -]*) echo "odd characters in TENDON_*" >&2; exit 2 ;; esac
name=$(basename "$deb"); there=/var/cache/tendon
remote() { ssh -o BatchMode=yes "$host" "$@"; }
say() { printf '== %s\n' "$*"; }

say "copy to $host"
remote "sudo install -d -o \$(id -u) -m 755 $there"
scp -q -o BatchMode=yes "$deb" "$host:$there/new.deb"
remote "test \$(sha256sum < $there/new.deb | cut -d' ' -f1) = $(sha256sum < "$deb" | cut -d' ' -f1)"

if [ "${TENDON_FORCE:-0}" != 1 ]; then
  # A runtime that runs and does not answer may be moving a robot.
  mode=$(remote "if systemctl is-active --quiet $service; then tendon mode status $ask 2>/dev/null || echo unknown; else echo off; fi")
  case ${mode%%:*} in
    standby|stopped|off) ;;
    *) echo "the robot is in mode \"$mode\"; bring it to standby first (tendon mode stop) and stop the service" >&2; exit 1 ;;
  esac
fi

back() {
  say "roll back: $1"
  if remote "test -f $there/current.deb"; then
    remote "sudo dpkg -i --force-downgrade $there/current.deb >/dev/null && sudo systemctl restart $service"
    say "the package from before is back and running"
  else
    remote "sudo systemctl stop $service"
    say "there was none before; the service is stopped"
  fi
  exit 1
}

say "install $name"
remote "sudo dpkg -i $there/new.deb >/dev/null" || back "dpkg refused the package"
say "doctor"
# The old runtime holds the link: stop it, so that the doctor hears the motor controller itself. A crash of the old one
# that waits for a person is no fault of the new one.
# The program that opens the cameras, where there is one of its own, can look at them as well.
whole=/usr/lib/tendon/tendon-inference
remote "sudo systemctl stop $service; p=$whole; test -x \$p || p=tendon; sudo -u tendon \$p doctor --config $config --acknowledged $doctor" || back "tendon doctor says that it could not arm"
say "restart"
remote "sudo systemctl restart $service && sleep 2 && systemctl is-active --quiet $service" || back "$service did not come up"
remote "mv $there/new.deb $there/current.deb"
say "running, in standby; arm it with: tendon mode active"
[ "${TENDON_FOLLOW:-1}" = 0 ] || remote "journalctl --namespace=tendon -u $service -f -n 50"
