#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings a package to a robot: copies it, installs it, asks `tendon doctor` there, restarts the service (which starts in
# standby) and follows its log. If the doctor says that it could not arm, or the service does not come up, the package
# that was there before is put back, and the service runs again if it ran before.
#   cross/deploy.sh HOST [DEB]        DEB: default the newest of target/aarch64-unknown-linux-gnu/release
# TENDON_CONFIG: the deployment on the target (/etc/tendon/tendon.toml). TENDON_SERVICE: its unit (tendon).
# TENDON_DOCTOR: further words for the doctor, e.g. --no-link. TENDON_ASK: further words for `tendon mode status`, e.g.
# --robot arm-1 --connect tcp/127.0.0.1:7447. TENDON_FOLLOW=0: do not follow the log. TENDON_BEFORE: the package that is
# installed there, where this script did not bring it: what it does not have it could not put back, and does not replace.
# The robot must be in standby: a service that is armed is not replaced, unless TENDON_FORCE=1.
set -euo pipefail
host=${1:?HOST}
cd "$(dirname "$0")/.."
deb=${2:-$(ls -t "${CARGO_TARGET_DIR:-target}"/aarch64-unknown-linux-gnu/release/tendon_*.deb 2>/dev/null | head -1)}
[ -f "${deb:-}" ] || { echo "no package: cross/build.sh --deb makes one" >&2; exit 2; }
before=${TENDON_BEFORE:-}
[ -z "$before" ] || [ -f "$before" ] || { echo "TENDON_BEFORE: expected a package, found no file $before" >&2; exit 2; }
config=${TENDON_CONFIG:-/etc/tendon/tendon.toml}; service=${TENDON_SERVICE:-tendon}; doctor=${TENDON_DOCTOR:-}; ask=${TENDON_ASK:-}
case "$config$service$doctor$ask" in *[!A-Za-z0-9/_.@\ -]*) echo "odd characters in TENDON_*" >&2; exit 2 ;; esac
name=$(basename "$deb"); there=/var/cache/tendon
remote() { ssh -o BatchMode=yes "$host" "$@"; }
say() { printf '== %s\n' "$*"; }

copy() { # package, its name there
  scp -q -o BatchMode=yes "$1" "$host:$there/$2"
  remote "test \$(sha256sum < $there/$2 | cut -d' ' -f1) = $(sha256sum < "$1" | cut -d' ' -f1)"
}

say "copy to $host"
remote "sudo install -d -o \$(id -u) -m 755 $there"
copy "$deb" new.deb

if [ "${TENDON_FORCE:-0}" != 1 ]; then
  # A runtime that runs and does not answer may be moving a robot.
  mode=$(remote "if systemctl is-active --quiet $service; then tendon mode status $ask 2>/dev/null || echo unknown; else echo off; fi")
  case ${mode%%:*} in
    standby|stopped|off) ;;
    *) echo "the robot is in mode \"$mode\"; bring it to standby first (tendon mode stop) and stop the service" >&2; exit 1 ;;
  esac
fi

# What a roll-back puts back is current.deb, which this script brought, or TENDON_BEFORE. none: there was nothing before the
# first package that this script brought, which may lie there yet, stopped.
installed=$(remote "dpkg-query -W -f '\${db:Status-Status} \${Version}' tendon 2>/dev/null || true")
case ${installed%% *} in
  ''|not-installed|config-files)
    [ -z "$before" ] || { echo "TENDON_BEFORE: no tendon is installed on $host; leave it out" >&2; exit 2; }
    remote "rm -f $there/current.deb; touch $there/none" ;;
  *)
    if [ -n "$before" ]; then
      copy "$before" before.deb
      found=$(remote "dpkg-deb --field $there/before.deb Version")
      [ "$found" = "${installed#* }" ] || { echo "TENDON_BEFORE: expected version ${installed#* }, which is installed on $host, found $found" >&2; exit 1; }
      remote "mv $there/before.deb $there/current.deb; rm -f $there/none"
    elif ! remote "test -f $there/current.deb || test -f $there/none"; then
      echo "tendon ${installed#* } is installed on $host, not by this script, which could not put it back: name its package (TENDON_BEFORE=DEB), or remove it there first (sudo dpkg --remove tendon)" >&2
      exit 1
    fi ;;
esac
ran=$(remote "systemctl is-active --quiet $service && echo yes || echo no")

back() {
  say "roll back: $1"
  if remote "test -f $there/current.deb"; then
    remote "sudo systemctl stop $service; sudo dpkg -i --force-downgrade $there/current.deb >/dev/null" \
      || { say "dpkg refused the package from before too; the service is stopped"; exit 1; }
    if [ "$ran" = yes ]; then
      remote "sudo systemctl restart $service"
      say "the package from before is back and running"
    else
      say "the package from before is back; the service did not run, and is not started"
    fi
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
remote "mv $there/new.deb $there/current.deb; rm -f $there/none"
say "running, in standby; arm it with: tendon mode active"
[ "${TENDON_FOLLOW:-1}" = 0 ] || remote "journalctl --namespace=tendon -u $service -f -n 50"
