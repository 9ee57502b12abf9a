#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings a package to a robot: copies it, installs it, asks `tendon doctor` there, restarts the services (which start in
# standby) and follows their log. If the doctor says that one is not ready to arm, or one does not come up, the package that was
# there before is put back, and the services run again that ran before.
#   cross/deploy.sh HOST [DEB]        DEB: default the newest of target/aarch64-unknown-linux-gnu/release
# TENDON_SERVICE: the units on the target, default tendon; of several robots all that run there, as they share the program:
# "tendon@one tendon@two". The deployment of tendon is /etc/tendon/tendon.toml, that of tendon@one /etc/tendon/one/tendon.toml;
# TENDON_CONFIG: another, of a single unit. TENDON_DOCTOR: further words for the doctor, e.g. --no-link. TENDON_FOLLOW=0: do not
# follow the log. TENDON_BEFORE: the package that is installed there, where this script did not bring it: what it does not have
# it could not put back, and does not replace. Every robot must be in standby: one that is armed keeps its program, unless TENDON_FORCE=1.
set -euo pipefail
host=${1:?HOST}
cd "$(dirname "$0")/.."
deb=${2:-$(ls -t "${CARGO_TARGET_DIR:-target}"/aarch64-unknown-linux-gnu/release/tendon_*.deb 2>/dev/null | head -1)}
[ -f "${deb:-}" ] || { echo "no package: cross/build.sh --deb makes one" >&2; exit 2; }
before=${TENDON_BEFORE:-}
[ -z "$before" ] || [ -f "$before" ] || { echo "TENDON_BEFORE: expected a package, found no file $before" >&2; exit 2; }
config=${TENDON_CONFIG:-}; services=${TENDON_SERVICE:-tendon}; services=${services//.service/}; doctor=${TENDON_DOCTOR:-}
case "$config$services$doctor" in *[!A-Za-z0-9/_.@\ -]*) echo "odd characters in TENDON_*" >&2; exit 2 ;; esac
case "${config:+$services}" in *\ *) echo "TENDON_CONFIG: expected one unit in TENDON_SERVICE beside it, found \"$services\"" >&2; exit 2 ;; esac
name=$(basename "$deb"); there=/var/cache/tendon
remote() { ssh -o BatchMode=yes "$host" "$@"; }
say() { printf '== %s\n' "$*"; }

copy() { # package, its name there
  scp -q -o BatchMode=yes "$1" "$host:$there/$2"
  remote "test \$(sha256sum < $there/$2 | cut -d' ' -f1) = $(sha256sum < "$1" | cut -d' ' -f1)"
}

deployment() { # of a unit
  case $1 in
    tendon@*) echo "${config:-/etc/tendon/${1#tendon@}/tendon.toml}" ;;
    *) echo "${config:-/etc/tendon/tendon.toml}" ;;
  esac
}

say "copy to $host"
remote "sudo install -d -o \$(id -u) -m 755 $there"
copy "$deb" new.deb

# dpkg replaces the program of whatever runs there; a runtime would start its next inference process from another version.
running=$(remote "systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating tendon.service 'tendon@*.service' $(printf '%s.service ' $services)" \
  | awk '{ sub(/\.service$/, "", $1); print $1 }' | paste -sd' ')
for unit in $running; do
  case " $services " in
    *" $unit "*) ;;
    *) echo "$unit runs on $host too, and the package replaces its program: name all that run there (TENDON_SERVICE=\"$running\"), or stop it first" >&2; exit 1 ;;
  esac
  # The status line is the mode. A runtime that runs and does not say it may be moving a robot.
  mode=$(remote "systemctl show $unit --property=StatusText --value")
  case ${TENDON_FORCE:-0}${mode:-unknown} in
    0standby|0stopped|1*) ;;
    *) echo "the robot of $unit is in mode \"${mode:-unknown}\"; bring it to standby first (tendon mode stop), or stop the service" >&2; exit 1 ;;
  esac
done

# What a roll-back puts back is current.deb, which this script brought, or TENDON_BEFORE. none: there was nothing before the
# first package that this script brought, which may lie there yet, stopped: of the versions in that file. What else is installed
# has come by another hand.
installed=$(remote "dpkg-query -W -f '\${db:Status-Status} \${Version}' tendon 2>/dev/null || true")
case ${installed%% *} in
  ''|not-installed|config-files)
    [ -z "$before" ] || { echo "TENDON_BEFORE: no tendon is installed on $host; leave it out" >&2; exit 2; }
    remote "rm -f $there/current.deb; : > $there/none" ;;
  *)
    if [ -n "$before" ]; then
      copy "$before" before.deb
      found=$(remote "dpkg-deb --field $there/before.deb Version")
      [ "$found" = "${installed#* }" ] || { echo "TENDON_BEFORE: expected version ${installed#* }, which is installed on $host, found $found" >&2; exit 1; }
      remote "mv $there/before.deb $there/current.deb; rm -f $there/none"
    elif ! remote "{ cat $there/none; dpkg-deb --field $there/current.deb Version; } 2>/dev/null | grep -qxF '${installed#* }'"; then
      echo "tendon ${installed#* } is installed on $host, not by this script, which could not put it back: name its package (TENDON_BEFORE=DEB), or remove it there first (sudo dpkg --remove tendon)" >&2
      exit 1
    fi ;;
esac

back() {
  say "roll back: $1"
  if remote "test -f $there/current.deb"; then
    remote "sudo systemctl stop $services; sudo dpkg -i --force-downgrade $there/current.deb >/dev/null" \
      || { say "dpkg refused the package from before too; stopped: $services"; exit 1; }
    if [ -n "$running" ]; then
      remote "sudo systemctl restart $running"
      say "the package from before is back and running: $running"
    else
      say "the package from before is back; nothing ran before, and nothing is started"
    fi
  else
    remote "sudo systemctl stop $services"
    say "there was none before; stopped: $services"
  fi
  exit 1
}

remote "! test -f $there/none || dpkg-deb --field $there/new.deb Version >> $there/none"
say "install $name"
remote "sudo dpkg -i $there/new.deb >/dev/null" || back "dpkg refused the package"
say "doctor"
# The old runtimes hold the links: stop them, so that the doctor hears the motor controllers itself. A crash of an old one
# that waits for a person is no fault of the new one.
# The program that opens the cameras, where there is one of its own, can look at them as well.
whole=/usr/lib/tendon/tendon-inference
remote "sudo systemctl stop $services" || back "not to be stopped: $services"
for unit in $services; do
  remote "p=$whole; test -x \$p || p=tendon; sudo -u tendon \$p doctor --config $(deployment "$unit") --acknowledged $doctor" \
    || back "tendon doctor says that $unit is not ready to arm"
done
say "restart"
remote "sudo systemctl restart $services && sleep 2" || back "did not come up: $services"
# One at a time: of several, is-active says yes if any of them is.
for unit in $services; do
  remote "systemctl is-active --quiet $unit" || back "$unit did not come up"
done
remote "mv $there/new.deb $there/current.deb; rm -f $there/none"
say "running, in standby; arm it with: tendon mode active"
[ "${TENDON_FOLLOW:-1}" = 0 ] || remote "journalctl --namespace=tendon $(printf -- '-u %s ' $services)-f -n 50"
