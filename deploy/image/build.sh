#!/usr/bin/env bash
# Builds the server's image as localhost/limner:latest, with buildah, into .image/storage.
#
# BASE=… names the base image; without it, the Dockerfile's own is pulled, and where no registry can be reached an
# equal one is made with debootstrap, from its own mirror or from MIRROR=…. Logs lie in .image/.
set -euo pipefail
# shellcheck source=deploy/image/containers.sh
source "$(dirname "$0")/containers.sh"
needs buildah podman runc

readonly REGISTRY_BASE=python:3.11-slim-bookworm
readonly OWN_BASE=localhost/limner-base:bookworm

# Says what a step took, and shows the end of its log if it failed.
step() {
  local log=$WORK/$1.log what=$2 started=$SECONDS
  shift 2
  if ! "$@" >"$log" 2>&1; then
    tail -30 "$log" >&2
    fail "$what: failed; the whole log is $log"
  fi
  echo "image: $what ($((SECONDS - started)) s)"
}

# A Debian with Python where python:3.11-slim-bookworm has it.
make_base() {
  local root=$WORK/rootfs
  if [ ! -e "$root.complete" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip,libpython3.11 \
      bookworm "$root" ${MIRROR:+"$MIRROR"}
    rm -f "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
    ln -sf /usr/bin/python3.11 "$root/usr/local/bin/python"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    touch "$root.complete"
  fi
  tar -C "$root" -c . | podman import - "$OWN_BASE"
}

choose_base() {
  if [ -n "${BASE:-}" ]; then
    echo "image: base $BASE, as asked for"
  elif buildah inspect --type image "$OWN_BASE" >/dev/null 2>&1; then
    BASE=$OWN_BASE
  elif timeout 60 buildah pull --quiet --policy missing "$REGISTRY_BASE" >"$WORK/pull.log" 2>&1; then
    BASE=$REGISTRY_BASE
  else
    needs debootstrap
    step base "no registry can be reached: base made with debootstrap" make_base
    BASE=$OWN_BASE
  fi
}

# The certificates and the package index that this machine trusts, for the time of the build only.
mounts() {
  local path
  for path in /etc/ssl/certs /etc/pip.conf; do
    [ ! -e "$path" ] || printf -- '--volume %s:%s:ro ' "$path" "$path"
  done
}

choose_base
# shellcheck disable=SC2046 # several words
step build "$IMAGE built on $BASE" buildah bud --isolation chroot --network host --layers --format docker \
  --pull-never $(mounts) --build-arg "BASE=$BASE" --build-arg "EMBEDDED_TRITON=${EMBEDDED_TRITON:-true}" \
  --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag "$IMAGE" .
size=$(buildah images --format '{{.Size}}' "$IMAGE" | head -1)
echo "image: $IMAGE, $size, in $WORK/storage; to have it in the machine's own storage:"
echo "image:   podman --root $WORK/storage --runroot $WORK/run save $IMAGE | podman load"
