#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The package and its unit under a real systemd: boots one, as PID 1 of a container, over a copy-on-write view of this
# machine's own file system; nothing of what happens in there stays. In it: installs the package, starts tendon.service with the
# bench deployment and `tendon bench-robot`, arms it, stops it, hangs its governor, removes the package.
#   systemd/live.sh [BINARY [INFERENCE]]        default: tendon of target/release
# With INFERENCE, a build with cameras, the package has both, and policy and cameras run in a process of that program.
# Needs root, systemd-nspawn (Debian: systemd-container), overlayfs and cgroup2. Exit code 77, with the reason, where these
# are not. TENDON_PATIENCE_S: after so long (300) it is ended, and has failed.
set -Eeuo pipefail
# Nowhere `| grep -q`: who writes into a pipe that closes early has failed.
here=$(realpath "$(dirname "$0")"); stage=/opt/tendon-live
skip() { echo "skipped: $*"; exit 77; }

# ---- 1. on this machine: makes the package
outside() {
  [ "$(id -u)" = 0 ] || skip "not root"
  for tool in systemd-nspawn unshare nsenter setpriv ps ip dpkg-deb; do
    command -v "$tool" >/dev/null || skip "no $tool (apt install systemd-container iproute2 procps)"
  done
  [ -x /lib/systemd/systemd ] || skip "no systemd (apt install systemd)"
  grep -qw cgroup2 /proc/filesystems || skip "this kernel has no cgroup2"
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "this kernel has no overlayfs"
  local target=${CARGO_TARGET_DIR:-$here/../target}
  local binary=${1:-$target/release/tendon}
  [ -x "$binary" ] || { echo "no $binary: cargo build --release" >&2; exit 2; }
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  mkdir "$work/box"
  "$here/../cross/deb.sh" "$binary" "$(dpkg --print-architecture)" "$work" ${2:+"$2"} >/dev/null
  local rc=0
  unshare --mount --propagation private "$here/live.sh" --apart "$work" || rc=$?
  exit "$rc"
}

# ---- 2. in a mount namespace of its own: makes the machine and boots it
apart() {
  local box=$1/box root=$1/box/root
  mount -t tmpfs tmpfs "$box" || skip "no right to mount"
  mkdir "$box"/{up,work,root}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$box/up,workdir=$box/work" "$root" || skip "overlayfs does not lie over /"
  # Not this machine's: its identity, its running state.
  mount -t tmpfs tmpfs /run -o mode=755
  mkdir -p "$root$stage"
  cp "$1"/tendon_*.deb "$here/live.sh" "$here/tendon.service.d/jetson.conf" "$root$stage/"
  tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
  # systemd starts what this says, and nothing of what this machine starts beside.
  local units="$root/etc/systemd/system"
  cat > "$units/tendon-live.service" <<UNIT
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=$stage/live.sh --inside
StandardOutput=file:$stage/said
StandardError=inherit
TimeoutStartSec=infinity
UNIT
  local rc=0
  SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout --kill-after=20 "${TENDON_PATIENCE_S:-300}" systemd-nspawn --quiet --boot --directory="$root" \
    --machine=tendon-live --register=no --keep-unit --private-network --link-journal=no --system-call-filter=bpf --capability=CAP_IPC_LOCK --console=pipe --kill-signal=SIGRTMIN+4 \
    -- --unit=tendon-live.service --log-level=warning --show-status=no < /dev/null > "$box/console" 2>&1 || rc=$?
  cat "$root$stage/said" 2>/dev/null || true
  if ! [ -e "$root$stage/begun" ]; then
    tail -20 "$box/console" >&2
    skip "systemd-nspawn did not boot here (above: what it said)"
  fi
  if ! [ -e "$root$stage/done" ]; then
    tail -40 "$box/console" >&2
    echo "live: failed${rc:+ ($rc)}" >&2; exit 1
  fi
}

# ---- 3. in it, started by its systemd
inside() {
  touch $stage/begun
  cd /
  trap 'failed $LINENO' ERR
  systemctl --version | head -1; echo "cgroup: $(stat -fc %T /sys/fs/cgroup)"

  # The package, into a machine that runs. There are no devices in here: what is asked of udev is noted.
  mkdir -p /usr/local/sbin
  printf '#!/bin/sh\necho "$*" >> %s/udev\n' $stage > /usr/local/sbin/udevadm
  chmod 755 /usr/local/sbin/udevadm
  DEBIAN_FRONTEND=noninteractive dpkg --force-depends -i $stage/tendon_*.deb > $stage/dpkg 2>&1
  id tendon > /dev/null
  good "the package is installed, with its user: $(id -Gn tendon)"
  [ "$(cut -d' ' -f1 $stage/udev | paste -sd' ')" = "control trigger settle" ]
  local subsystem subsystems
  subsystems=$(sed -n 's/.*SUBSYSTEM=="\([^"]*\)".*/\1/p' /usr/lib/udev/rules.d/72-tendon.rules | sort -u)
  [ -n "$subsystems" ]
  for subsystem in $subsystems; do
    grep "^trigger --action=change .*--subsystem-match=$subsystem\( \|$\)" $stage/udev > /dev/null
  done
  good "devices that are plugged in already are asked for again: $(paste -sd' ' <<< "$subsystems")"
  cp /usr/share/tendon/deploy/bench/* /etc/tendon/
  sed -i 's|^bundle = .*|bundle = "/usr/share/tendon/engines/bench-vla"|' /etc/tendon/tendon.toml
  inference=/usr/lib/tendon/tendon-inference
  if [ -x $inference ]; then sed -i "1i isolation = \"process\"\ninference_program = \"$inference\"" /etc/tendon/tendon.toml; fi
  systemd-run --quiet --unit=bench tendon bench-robot --config /etc/tendon/tendon.toml

  # Ready means standby.
  systemctl enable --quiet tendon
  systemctl start tendon
  [ "$(property ActiveState)/$(property SubState)" = active/running ]
  [ "$(property StatusText)" = standby ]
  good "Type=notify: active after READY=1, status \"$(property StatusText)\""
  ask "tendon mode status" standby
  said "Watch and instruct"
  local page; page=$(journal | sed -n 's|^Watch and instruct: http://[^/]*||p')
  page "$page" | grep ' 200 ' >/dev/null; page / | grep ' 40' >/dev/null
  good "the link answers (tendon mode status: $(tendon mode status)), and the page, to whom the journal told its address"
  if [ -x $inference ]; then apart_from_cameras; fi
  granted

  # A person arms it; SIGTERM while it follows the policy.
  motion
  local from; from=$(ms)
  systemctl stop tendon
  local took=$(($(ms) - from))
  # One a line: what fails before an && ends nothing.
  [ "$(property Result)" = success ]
  [ "$(property ExecMainStatus)" = 0 ]
  [ "$took" -lt 10000 ]
  said "at rest"
  good "SIGTERM while it is armed: at rest and ended in $took ms, of the 10,000 of TimeoutStopSec"

  # The watchdog's drill.
  drop_in '[Service]\nExecStart=\nExecStart=/usr/bin/tendon run --config /etc/tendon/tendon.toml --drill hang:governor\n'
  systemctl start tendon
  local first; first=$(property MainPID)
  motion
  from=$(ms)
  systemctl kill --kill-whom=main --signal=USR1 tendon
  until_true 50 "it is ended" '[ "$(property MainPID)" != '"$first"' ]'
  local ended=$(($(ms) - from))
  until_true 300 "it is back" '[ "$(property NRestarts)/$(property SubState)" = 1/running ]'
  local back=$(($(ms) - from))
  journalctl --quiet --no-pager -u tendon | grep 'Watchdog timeout (limit 500ms)' >/dev/null
  # Deadline of the thread, then WatchdogSec; RestartSec is a second, and a start takes its time.
  [ "$ended" -le 1500 ]
  good "hang of governor: systemd's watchdog ended it $ended ms after the signal, started again after $back ms"
  # The governor's end is a latched stop, which outlives the restart.
  ask "tendon mode status" "^stopped"
  until_true 50 "the status line follows the mode" '[ "$(property StatusText)" = stopped ]'
  local answer; if answer=$(tendon mode active 2>&1); then echo "armed after that: $answer"; false; fi
  good "nothing moves before a person has seen it: tendon mode active: ${answer#tendon: }"
  ls /var/lib/tendon/silent-*.json >/dev/null
  tendon mode reset > /dev/null
  systemctl stop tendon
  drop_in ''
  side_by_side
  on_a_jetson

  # A kill of the service manager's own: restarted as well.
  systemctl start tendon; first=$(property MainPID)
  systemctl kill --kill-whom=main --signal=KILL tendon
  until_true 300 "it is back" '[ "$(property SubState)" = running ] && [ "$(property MainPID)" != '"$first"' ] && [ "$(property StatusText)" = standby ]'
  good "killed: in standby again"

  # On removal the service ends, and its files go.
  dpkg --purge tendon > $stage/dpkg 2>&1
  [ "$(property ActiveState)" = inactive ]
  if [ -e /usr/lib/systemd/system/tendon.service ]; then echo "the unit is still there"; false; fi
  good "purged: the service was stopped, the unit is gone"
  echo "live: $checks of $checks"
  touch $stage/done
}

checks=0
good() { checks=$((checks + 1)); echo "good  $*"; }
ms() { echo $(($(date +%s%N) / 1000000)); }
property() { systemctl show tendon --property="$1" --value; }
journal() { journalctl --namespace=tendon --quiet --no-pager --output=cat "$@"; }
said() { journalctl --namespace=tendon --sync 2>/dev/null || true; until_true 50 "the journal has: $1" "journal | grep '$1' >/dev/null"; }
ask() { $1 | grep "$2" >/dev/null || { echo "$1: $($1)"; return 1; }; }
until_true() { # tenths of a second, what for, condition
  local n
  for ((n = 0; n < $1; n++)); do if eval "$3"; then return; fi; sleep 0.1; done
  echo "waited in vain: $2"; return 1
}
failed() {
  echo "FAILED at line $1"
  tail -3 $stage/dpkg
  systemctl --no-pager --full status tendon bench 'tendon@*' | head -60
  journalctl --namespace=tendon --sync 2>/dev/null || true
  journal | tail -30
  journalctl --quiet --no-pager -u tendon | tail -15
}

# First line of what the page answers.
page() {
  exec 3<> /dev/tcp/127.0.0.1/8765
  printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1:8765\r\n\r\n' "$1" >&3
  head -1 <&3; exec 3>&-
}

# Armed, and the robot follows a sentence.
motion() {
  tendon instruct "touch the red block" > /dev/null
  until_true 300 "armed" 'tendon mode active > /dev/null 2>&1'
  until_true 50 "the status line follows the mode" '[ "$(property StatusText)" = active ]'
  sleep 1.5 # It is on its way to the block.
}

# Who moves the robot has none of the cameras' libraries mapped.
apart_from_cameras() {
  local pid child; pid=$(property MainPID)
  child=$(pgrep --parent "$pid" --exact tendon-inferenc)
  grep -q libgstreamer "/proc/$child/maps"
  if grep -q libgst "/proc/$pid/maps"; then echo "the control process has GStreamer mapped"; false; fi
  good "policy and cameras in a process of their own: $(readlink "/proc/$child/exe"), with GStreamer; the control process without"
}

# Two robots on this machine: the end of one takes nothing from the other.
side_by_side() {
  local name port=7451 of
  for name in one two; do
    of=/etc/tendon/$name
    mkdir "$of"
    cp /usr/share/tendon/deploy/bench/* "$of/"
    sed -i "s|^name = \"bench\"|name = \"$name\"|" "$of/robot.toml"
    sed -e "s|:7447|:$port|; s|:8765\"|:$((port + 1000))\"\ntoken_file = \"/run/tendon/$name/page.token\"|" \
      /etc/tendon/tendon.toml > "$of/tendon.toml"
    port=$((port + 1))
  done
  systemctl start tendon@one tendon@two
  for name in one two; do
    [ "$(stat -c '%U %a' /run/tendon/$name)" = "tendon 750" ]
    [ -s /run/tendon/$name/page.token ]
  done
  systemctl stop tendon@one
  systemctl is-active --quiet tendon@two
  [ -s /run/tendon/two/page.token ]
  if [ -e /run/tendon/one ]; then echo "/run/tendon/one stays"; false; fi
  systemctl stop tendon@two
  good "two robots: tendon@one stopped and its /run/tendon/one went; tendon@two runs on with its own"
}

# With Jetson's drop-in the socket of the CSI cameras' daemon is in reach, and /tmp can be written as without.
on_a_jetson() {
  touch /tmp/argus_socket
  drop_in "$(cat $stage/jetson.conf)\n"
  systemctl start tendon
  local inside; inside="nsenter --target $(property MainPID) --mount setpriv --reuid tendon --regid tendon --init-groups"
  $inside test -e /tmp/argus_socket
  $inside touch /tmp/try /var/tmp/try
  systemctl stop tendon
  drop_in ''
  good "with jetson.conf it sees /tmp/argus_socket, and may write /tmp"
}

# What the unit grants and what it takes away, asked of the kernel.
granted() {
  local pid; pid=$(property MainPID)
  local status=/proc/$pid/status
  [ "$(stat -c %U "/proc/$pid")" = tendon ]
  grep -q '^NoNewPrivs:.1$' $status; grep -q '^Seccomp:.2$' $status; grep -q '^CapEff:.0*$' $status; grep -q '^CapBnd:.0*$' $status
  good "user tendon, no capability, no new one, system calls filtered"
  [ "$(stat -c '%U %a' /var/lib/tendon)" = "tendon 700" ]
  [ "$(stat -c '%U %a' /run/tendon)" = "tendon 750" ]
  local inside="nsenter --target $pid --mount setpriv --reuid tendon --regid tendon --init-groups"
  $inside touch /var/lib/tendon/try
  rm /var/lib/tendon/try
  for place in /usr/lib/tendon-try /etc/tendon/try /home/try /sys/kernel/try /run/try; do
    if $inside touch $place 2>/dev/null; then echo "it may write $place"; false; fi
  done
  good "it writes its state directory and nowhere else"
  # Whoever is in its control group reaches this machine's own addresses only.
  ip address add 192.0.2.1/32 dev lo
  local sends='echo $$ > /sys/fs/cgroup/system.slice/tendon.service/cgroup.procs; echo x > /dev/udp/'
  bash -c "${sends}127.0.0.1/9"
  if bash -c "${sends}192.0.2.1/9" 2> $stage/why; then echo "its packets to elsewhere are let through"; false; fi
  grep -q 'not permitted' $stage/why
  good "IPAddressDeny: a datagram to loopback leaves, one to 192.0.2.1 is \"not permitted\""
  # A systemd without CAP_SYS_RESOURCE, as in some containers, cannot raise what it was started with.
  if (((16#$(sed -n 's/^CapEff:\s*//p' /proc/1/status) >> 24) & 1)); then
    grep -q 'Max realtime priority *85 ' "/proc/$pid/limits"; grep -q 'Max locked memory *unlimited' "/proc/$pid/limits"
    realtime "by the limits"
  else
    said "SCHED_FIFO priorities were not granted"; said "memory could not be locked"
    good "NOT granted here: this systemd may raise no limit (no CAP_SYS_RESOURCE); the journal says what is missing, and it runs"
    # In their place, so that the filters are seen to let it through.
    drop_in '[Service]\nCapabilityBoundingSet=CAP_SYS_NICE CAP_IPC_LOCK\nAmbientCapabilities=CAP_SYS_NICE CAP_IPC_LOCK\n'
    systemctl restart tendon
    realtime "by CAP_SYS_NICE and CAP_IPC_LOCK in place of the limits"
    drop_in ''
    systemctl restart tendon
  fi
}

# One more of the unit's; the last one only.
drop_in() {
  mkdir -p /run/systemd/system/tendon.service.d
  printf "$1" > /run/systemd/system/tendon.service.d/live.conf
  systemctl daemon-reload
}

realtime() { # by what
  local pid fifo; pid=$(property MainPID)
  until_true 30 "the highest priority of the table" 'ps -L -o class=,rtprio= -p '"$pid"' | grep "FF *85" >/dev/null'
  fifo=$(ps -L -o class=,rtprio=,comm= -p "$pid" | awk '$1 == "FF" { print $3 " " $2 }' | sort | paste -sd, | sed 's/,/, /g')
  until_true 30 "locked memory" 'grep "^VmLck:" /proc/'"$pid"'/status | grep -v " 0 kB" >/dev/null'
  good "granted $1: $fifo; locked memory: $(sed -n 's/^VmLck:\s*//p' "/proc/$pid/status")"
}

case ${1:-} in
  --apart) apart "$2" ;;
  --inside) inside ;;
  --*) sed -n '4,9s/^# //p' "$0" >&2; exit 2 ;;
  *) outside "$@" ;;
esac
