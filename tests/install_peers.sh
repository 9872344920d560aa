#!/usr/bin/env bash
# Makes the programs available that the tests talk to and judge with. As root on Debian or Ubuntu they are installed
# from the distribution; otherwise what is missing is named, with the way to get it, and the tests that need it are
# skipped (in CI, where nothing may be skipped, they fail).
set -euo pipefail

# program, and the package that has it
readonly PROGRAMS="
Orthanc orthanc
storescu dcmtk
dcmsend dcmtk
gdcmconv libgdcm-tools
cjxl libjxl-tools
nginx nginx-light
openssl openssl
ip iproute2
strace strace
faketime faketime
podman podman
buildah buildah
runc runc
debootstrap debootstrap
chromium chromium
npm npm
"
# parts without a program on PATH: a file, and the package that has it
readonly FILES="
/usr/share/orthanc/plugins/libOrthancDicomWeb.so orthanc-dicomweb
/usr/share/orthanc/plugins/libOrthancGdcm.so orthanc-gdcm
"

missing_packages() {
  local what package
  while read -r what package; do
    [ -z "$what" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "$what" >/dev/null || echo "$package"
  done <<<"$PROGRAMS"
  while read -r what package; do
    [ -z "$what" ] || [ -e "$what" ] || echo "$package"
  done <<<"$FILES"
}

missing=$(missing_packages | sort -u | tr '\n' ' ')
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  log=$(mktemp)
  echo "peers: installing $missing…"
  started=$SECONDS
  # the daemons are started by the tests that need them, in places of their own, not by the installation
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  fail() {
    tail -20 "$log" >&2
    echo "peers: the installation failed; its log is $log" >&2
    exit 1
  }
  apt-get update >"$log" 2>&1 || fail
  # Ubuntu has no Chromium of its own, only one as a snap, which tests can't run
  known=$(for package in $missing; do ! apt-cache show "$package" >/dev/null 2>&1 || echo "$package"; done)
  # shellcheck disable=SC2086 # one word a package
  apt-get install -y --no-install-recommends $known >>"$log" 2>&1 || fail
  rm -f "$log"
  echo "peers: installed after $((SECONDS - started)) s"
else
  echo "peers: not installed: $missing"
  echo "peers: the tests that need them are skipped; to run them too: sudo apt-get install --no-install-recommends $missing"
  [ "${CI:-}" != true ] || exit 1
fi
