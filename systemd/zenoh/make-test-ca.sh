#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a certificate authority and certificates to try mutual TLS with. Not for a robot that works: its key lies beside
# what it signed, unprotected.
#   systemd/zenoh/make-test-ca.sh DIR [NAME...]      names: router arm-1 operator-1 unless given
set -euo pipefail
[ $# -ge 1 ] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
dir=$1; shift
[ $# -gt 0 ] || set -- router arm-1 operator-1
hosts=${TENDON_TLS_HOSTS:-DNS:localhost,DNS:tendon.local,IP:127.0.0.1}
days=${TENDON_TLS_DAYS:-30}
umask 077
mkdir -p "$dir"
cd "$dir"
if [ ! -e ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" \
    -keyout ca.key -out ca.pem -subj "/CN=Tendon test CA" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
fi
for name; do
  [ ! -e "$name.pem" ] || { echo "$dir/$name.pem is there already"; continue; }
  case $name in
    router) use=serverAuth,clientAuth ;;
    *) use=clientAuth ;;
  esac
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -out "$name.csr" \
    -subj "/CN=$name" 2>/dev/null
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -out "$name.pem" \
    -extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=DNS:%s,%s\n' \
      "$use" "$name" "$hosts") 2>/dev/null
  rm "$name.csr"
  openssl verify -CAfile ca.pem "$name.pem" >/dev/null
  echo "$dir/$name.pem"
done
