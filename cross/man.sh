#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Man pages from what the program says of itself: tendon(1) and one page a verb.
#   cross/man.sh BINARY OUT
# An aarch64 binary is asked through qemu-user where this machine is another (qemu-user-static, and an aarch64 C library:
# cross/qemu.sh). Where that is not, TENDON_MAN_BINARY, a build of the same version for this machine, is asked in its place.
set -euo pipefail
binary=$(realpath "${1:?BINARY}"); out=${2:?OUT}
ask=("$binary")
if ! "$binary" --version >/dev/null 2>&1; then
  ask=("$(dirname "$0")/qemu.sh" "$binary")
  if ! why=$("${ask[@]}" --version 2>&1 >/dev/null); then
    version="tendon $(sed -n 's/^version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -1)"
    ask=("${TENDON_MAN_BINARY:-false}")
    if [ "$("${ask[@]}" --version 2>/dev/null)" != "$version" ]; then
      echo "cannot run $binary here: ${why:-it fails}; or name \"$version\" of this machine in TENDON_MAN_BINARY" >&2
      exit 1
    fi
  fi
fi
mkdir -p "$out"
roff() { sed -e 's/\\/\\e/g' -e "s/^\([.']\)/\\\\\&\1/" -e 's/-/\\-/g'; }
page() { # name of the page, words of the command
  local name=$1; shift
  local text; text=$("${ask[@]}" "$@" --help)
  {
    printf '.\\" Made by cross/man.sh from --help.\n.TH %s 1 "" "%s" "Tendon"\n' "${name^^}" "$("${ask[@]}" --version)"
    printf '.SH NAME\n%s \\- %s\n' "$(roff <<<"$name")" "$(head -1 <<<"$text" | sed 's/\.$//' | roff)"
    printf '.SH DESCRIPTION\n.nf\n'
    tail -n +2 <<<"$text" | roff
    printf '.fi\n.SH EXIT STATUS\n0: done. 1: it was right to try and it did not work. 2: arguments or a configuration are wrong.\n'
    printf '.SH SEE ALSO\n.BR tendon (1),\n/usr/share/doc/tendon/installing.md\n'
  } | gzip -9n > "$out/$name.1.gz"
}
page tendon
"${ask[@]}" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -v '^help$' | while read -r verb; do
  page "tendon-$verb" "$verb"
done
