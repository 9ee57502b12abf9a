#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cross/deploy.sh against a target that is a folder: ssh, scp and sudo are small scripts on PATH that run the command
# here, with dpkg, systemctl, tendon and journalctl of a pretended machine that keeps what happened in a file.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/there" "$work/there/runs"
shim() { cat > "$work/bin/$1"; chmod +x "$work/bin/$1"; }
# The target's folder stands for its /var/cache/tendon; a unit that runs is a file in runs, which holds its status line.
shim ssh <<'END'
#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do shift 2; done; shift
exec bash -c "$(sed "s|/var/cache/tendon|$THERE|g; s|sleep 2|true|" <<<"$*")"
END
shim scp <<'END'
#!/usr/bin/env bash
for last; do :; done
cp "${@: -2:1}" "$THERE/${last##*/}"
END
shim sudo <<'END'
#!/usr/bin/env bash
[ "$1" != -u ] || shift 2
exec "$@"
END
shim dpkg <<'END'
#!/usr/bin/env bash
package=${@: -1}; grep -q broken "$package" && exit 1
echo "dpkg $(cat "$package")" >> "$THERE/log"; cp "$package" "$THERE/installed"
END
# A package's text is its version as well.
shim dpkg-deb <<'END'
#!/usr/bin/env bash
cat "$2"
END
shim dpkg-query <<'END'
#!/usr/bin/env bash
[ -e "$THERE/installed" ] && echo "installed $(cat "$THERE/installed")"
END
shim systemctl <<'END'
#!/usr/bin/env bash
echo "systemctl $*" >> "$THERE/log"
cd "$THERE/runs"; verb=$1; shift
case $verb in
  list-units) for unit in *; do [ ! -e "$unit" ] || echo "$unit.service loaded active running Tendon (a robot)"; done ;;
  show) cat "$1" ;;
  # As systemd: yes if any of them is.
  is-active) shift; for unit; do [ ! -e "$unit" ] || grep -q "dies-[0-9]\|dies-$unit-" "$THERE/installed" || exit 0; done; exit 3 ;;
  restart) for unit; do echo standby > "$unit"; done ;;
  stop) rm -f "$@" ;;
esac
END
shim tendon <<'END'
#!/usr/bin/env bash
echo "tendon $*" >> "$THERE/log"; ! grep -q sick "$THERE/installed"
END
shim journalctl <<'END'
#!/usr/bin/env bash
echo "journalctl $*" >> "$THERE/log"
END
export PATH="$work/bin:$PATH" THERE="$work/there"

deploy() { echo "$1" > "$work/$1.deb"; : > "$THERE/log"; ./deploy.sh robot "$work/$1.deb" > "$work/out" 2>&1; }
fails() { if "$@"; then cat "$work/out"; echo "it should have failed: $*"; exit 1; fi; }
has() { grep -q -- "$1" "$2" || { echo "no \"$1\" in:"; cat "$2" "$work/out"; exit 1; }; }
hasnt() { ! grep -q -- "$1" "$2" || { echo "\"$1\" in:"; cat "$2"; exit 1; }; }

# The first package is sick, and there is none before it: the service stays down.
fails deploy sick-first
has "systemctl stop tendon$" "$THERE/log"; hasnt "restart" "$THERE/log"; has "none before" "$work/out"
# A service that runs and does not say its mode is left alone.
: > "$THERE/runs/tendon"
fails deploy good-0
has 'in mode "unknown"' "$work/out"; hasnt dpkg "$THERE/log"
echo standby > "$THERE/runs/tendon"
# A good one: installed, examined, restarted, followed, kept.
deploy good-1
has "dpkg good-1" "$THERE/log"; has "tendon doctor --config /etc/tendon/tendon.toml" "$THERE/log"
has "systemctl restart tendon$" "$THERE/log"; has "journalctl --namespace=tendon -u tendon -f" "$THERE/log"
grep -q good-1 "$THERE/current.deb"
# The doctor says no, dpkg says no, the service dies: each time the good one is back and runs.
for bad in sick-2 broken-3 dies-4; do
  fails deploy $bad
  has "roll back" "$work/out"; [ "$(cat "$THERE/installed")" = good-1 ]; [ "$(cat "$THERE/current.deb")" = good-1 ]
  [ "$(grep -v is-active "$THERE/log" | tail -1)" = "systemctl restart tendon" ]
done
# An armed robot is left alone.
echo active > "$THERE/runs/tendon"
fails deploy good-5
has 'in mode "active"' "$work/out"; hasnt dpkg "$THERE/log"; [ "$(cat "$THERE/installed")" = good-1 ]
TENDON_FORCE=1 deploy good-5
[ "$(cat "$THERE/current.deb")" = good-5 ]
# Installed by another hand: what could not be put back is not replaced.
echo by-hand > "$THERE/installed"; rm "$THERE/current.deb" "$THERE/runs/tendon"
fails deploy good-6
has "TENDON_BEFORE=DEB" "$work/out"; hasnt "dpkg good-6" "$THERE/log"; [ "$(cat "$THERE/installed")" = by-hand ]
# Nor for a package that is not the one that is installed.
echo another > "$work/another.deb"
TENDON_BEFORE="$work/another.deb" fails deploy good-6
has "found another" "$work/out"; hasnt "dpkg good-6" "$THERE/log"; [ "$(cat "$THERE/installed")" = by-hand ]
# With its package at hand it is put back; a service that did not run is not started.
echo by-hand > "$work/by-hand.deb"
TENDON_BEFORE="$work/by-hand.deb" fails deploy dies-7
has "nothing ran before, and nothing is started" "$work/out"; [ "$(cat "$THERE/installed")" = by-hand ]
[ ! -e "$THERE/runs/tendon" ] || { echo "a service that did not run was left running"; cat "$THERE/log"; exit 1; }
# It is known now, and needs no name any more.
deploy good-8
[ "$(cat "$THERE/current.deb")" = good-8 ]; [ -e "$THERE/runs/tendon" ]
# But not where somebody has installed another since.
echo by-hand-2 > "$THERE/installed"
fails deploy good-9
has "by-hand-2 is installed on robot, not by this script" "$work/out"; hasnt "dpkg good-9" "$THERE/log"; [ "$(cat "$THERE/installed")" = by-hand-2 ]
echo good-8 > "$THERE/installed"
# Units that are starting count as well.
has "list-units .*--state=active,activating,reloading,deactivating" "$THERE/log"
# Another robot of that machine has the same program: not replaced unless it is named, and in standby as well.
rm "$THERE/runs/tendon"; echo standby > "$THERE/runs/tendon@one"; echo active > "$THERE/runs/tendon@two"
TENDON_SERVICE=tendon@one fails deploy good-9
has 'tendon@two runs on robot too' "$work/out"; has 'TENDON_SERVICE="tendon@one tendon@two"' "$work/out"; hasnt dpkg "$THERE/log"
export TENDON_SERVICE="tendon@one tendon@two.service"
fails deploy good-9
has 'of tendon@two is in mode "active"' "$work/out"; hasnt dpkg "$THERE/log"
TENDON_CONFIG=/etc/tendon/two/tendon.toml fails deploy good-9
has "TENDON_CONFIG: expected one unit" "$work/out"; hasnt dpkg "$THERE/log"
# Named and in standby: both are stopped, examined with their own deployments, started and followed.
echo standby > "$THERE/runs/tendon@two"
deploy good-10
has "systemctl stop tendon@one tendon@two$" "$THERE/log"; has "systemctl restart tendon@one tendon@two$" "$THERE/log"
for name in one two; do has "tendon doctor --config /etc/tendon/$name/tendon.toml" "$THERE/log"; done
has "journalctl --namespace=tendon -u tendon@one -u tendon@two -f" "$THERE/log"
# The second does not come up: both have the program of before, and run again.
for bad in dies-tendon@two-11 sick-12; do
  fails deploy $bad
  has "roll back: .*tendon@" "$work/out"; [ "$(cat "$THERE/installed")" = good-10 ]
  [ "$(grep -v is-active "$THERE/log" | tail -1)" = "systemctl restart tendon@one tendon@two" ]
done
# One that did not run is not started by a roll-back.
rm "$THERE/runs/tendon@two"
fails deploy sick-13
[ -e "$THERE/runs/tendon@one" ]; [ ! -e "$THERE/runs/tendon@two" ]
echo "deploy.sh: good"
