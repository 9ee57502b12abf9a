#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The packages that hold the shared libraries which binaries name, each with the oldest version that has every symbol they ask for:
# the words of a package's Depends. Fails if a binary asks for more than JetPack 6 (Ubuntu 22.04) has.
#   cross/needs.sh [--lists FOLDER] BINARY...
# The lists are Debian's own, which say for each symbol the version of the library that brought it: those of cross/sysroot.sh
# in FOLDER, or of this machine's dpkg.
set -euo pipefail
lists=(/var/lib/dpkg/info/*.symbols)
if [ "${1:-}" = --lists ]; then lists=("$2"/*); shift 2; fi
[ $# -gt 0 ] || { sed -n '5s/^# //p' "$0" >&2; exit 2; }
objdump=$(command -v aarch64-linux-gnu-objdump || command -v llvm-objdump || echo objdump)
# As Ubuntu 22.04 was released; its updates are newer.
ceiling() {
  case $1 in
    libc6) echo "${TENDON_GLIBC:-2.35}" ;;
    libgstreamer*) echo 1.20.1 ;;
    libglib2.0-0) echo 2.72.1 ;;
  esac
}
newest() { sort -V | tail -1; }

for binary; do
  needed=$("$objdump" -p "$binary" | awk '$1 == "NEEDED" { print $2 }')
  [ -n "$needed" ] || { echo "$binary: names no shared library; is it a dynamic binary?" >&2; exit 1; }
  echo "libc6 $("$objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | newest)"
  others=$(grep -Ev '^(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux-.*)\.so\.[0-9]+$' <<< "$needed" || true)
  ! grep -q '^libgcc_s\.' <<< "$needed" || echo "libgcc-s1 -"
  [ -n "$others" ] || continue
  # Symbols without a version are those of the other libraries; weak ones may be missing.
  { printf 'LIB %s\n' $others; "$objdump" -T "$binary" | awk '/\*UND\*/ && !/ w / && !/GLIBC|GCC/ { print "SYM " $NF }'; } \
    | awk -v binary="$binary" '
      FILENAME != "-" { if (/^[^ *|]/) { lib = $1; package[lib] = $2 } else if (/^ /) { split($1, name, "@"); brought[lib, name[1]] = $2 } next }
      $1 == "LIB" { if ($2 in package) { libs[$2]; print package[$2], 0 } else { print binary ": no list knows " $2 > "/dev/stderr"; bad = 1 } next }
      { for (lib in libs) if ((lib, $2) in brought) { print package[lib], brought[lib, $2]; next }
        print binary ": no library that it names has " $2 > "/dev/stderr"; bad = 1 }
      END { exit bad }' "${lists[@]}" -
done | sort -k1,1 -k2,2V | awk '{ last[$1] = $2 } END { for (p in last) print p, last[p] }' | sort | {
  words=
  while read -r package version; do
    version=${version%%-*}
    most=$(ceiling "$package")
    if [ -n "$most" ] && [ "$(printf '%s\n' "$version" "$most" | newest)" != "$most" ]; then
      echo "asks for $package $version, JetPack 6 has $most" >&2; exit 1
    fi
    case $version in ''|0) ;; *) package="$package (>= $version)" ;; esac
    words=${words:+$words, }$package
  done
  echo "$words"
}
