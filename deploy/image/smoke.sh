#!/usr/bin/env bash
# Starts a container of localhost/limner:latest as it should run in production (not root, root file system read-only, no
# capabilities), sends a real CT into it by C-STORE, waits for the DICOM-SEG at an archive, and stops it with SIGTERM.
#
# Container, archive and sender share a network namespace that has nothing but a loopback interface.
set -euo pipefail
# shellcheck source=deploy/image/containers.sh
source "$(dirname "$0")/containers.sh"
needs podman runc ip nsenter

readonly NAME=limner-smoke-$$
readonly FOLDER=$WORK/smoke
readonly PYTHON=$PWD/.venv/bin/python
readonly JOB_SECONDS=${JOB_SECONDS:-600}
archive=""

inside() { nsenter --net="/run/netns/$NAME" "$@"; }

clean_up() {
  local code=$?
  [ "$code" = 0 ] || { echo "image: the container's log ends with:" >&2; podman logs --tail 40 "$NAME" >&2 || true; }
  podman rm --force --volumes --time 5 "$NAME" >/dev/null 2>&1 || true
  [ -z "$archive" ] || kill "$archive" 2>/dev/null || true
  ip netns delete "$NAME" 2>/dev/null || true
}
trap clean_up EXIT

# Waits until a command succeeds; gives up when the container has ended.
wait_until() {
  local what=$1 seconds=$2 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(podman inspect --format '{{.State.Running}}' "$NAME")" = true ] || fail "the container ended while waiting until $what"
    [ "$SECONDS" -lt "$deadline" ] || fail "not within $seconds s: $what"
    sleep 1
  done
}

arrived() { compgen -G "$FOLDER/archive/*.dcm"; }

jobs() { podman exec "$NAME" limner jobs --json --settings /etc/limner/limner.toml; }

# Succeeds when the segmentation is there or the job ended without one.
ended() { arrived || jobs | grep -E '"state": "(failed|refused)"'; }

rm -rf "$FOLDER"
mkdir -p "$FOLDER"
ip netns add "$NAME"
ip -n "$NAME" link set lo up

# not by inside(): a function in the background is a shell of its own, and ending that would leave the archive running
nsenter --net="/run/netns/$NAME" "$PYTHON" deploy/image/smoke_archive.py "$FOLDER/archive" "$FOLDER/port" \
  >"$FOLDER/archive.log" 2>&1 &
archive=$!
until [ -s "$FOLDER/port" ]; do
  kill -0 "$archive" || fail "the archive did not start: $(cat "$FOLDER/archive.log")"
  sleep 0.2
done
cat >"$FOLDER/limner.toml" <<TOML
[listener]
low_water_bytes = 104857600

[routing]
series_quiet_seconds = 2
study_quiet_seconds = 4

[[pipeline]]
name = "liver-spleen"
model = "nnunet_liver_spleen_demo"

[[rule]]
name = "abdominal-ct"
pipeline = "liver-spleen"
destinations = ["archive"]
match = { Modality = "CT" }

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = $(cat "$FOLDER/port")
TOML

started=$SECONDS
podman run --detach --name "$NAME" --network "ns:/run/netns/$NAME" --pull never \
  --read-only --tmpfs /tmp --shm-size 1g --memory 6g --cap-drop all --security-opt no-new-privileges \
  --volume "$FOLDER/limner.toml:/etc/limner/limner.toml:ro" "$IMAGE" >/dev/null 2>"$FOLDER/run.log" \
  || { cat "$FOLDER/run.log" >&2; fail "the container did not start"; }
wait_until "its health check passes" 240 podman healthcheck run "$NAME"
echo "image: the container is healthy: its listener answers C-ECHO ($((SECONDS - started)) s)"

[ "$(podman exec "$NAME" id -u)" = 10001 ] || fail "the container does not run as the user limner"
! podman exec "$NAME" python -c 'import torch' 2>/dev/null || fail "the image holds torch"
! podman exec "$NAME" touch /opt/limner/written 2>/dev/null || fail "the root file system can be written"
[ "$(podman exec "$NAME" cat /proc/1/comm)" = tini ] || fail "process 1 is not tini"

started=$SECONDS
"$PYTHON" deploy/image/smoke_archive.py --write-study "$FOLDER/study"
inside "$PYTHON" -m app.cli submit "$FOLDER/study" --to 127.0.0.1:11112 --called LIMNER --calling MODALITY
wait_until "the job ends" "$JOB_SECONDS" ended
arrived >/dev/null || fail "the job ended without a segmentation: $(jobs | grep -E '"(state|code|reason)"' | tr -s ' \n' ' ')"
"$PYTHON" deploy/image/smoke_archive.py --judge "$FOLDER/study" "$FOLDER/archive"
echo "image: a study went through the container: C-STORE in, DICOM-SEG out ($((SECONDS - started)) s)"

started=$SECONDS
podman exec "$NAME" limner audit verify --settings /etc/limner/limner.toml
podman stop --time 60 "$NAME" >/dev/null 2>&1
code=$(podman inspect --format '{{.State.ExitCode}}' "$NAME")
[ "$code" = 0 ] || fail "the container ended with $code at SIGTERM"
echo "image: the container ended by itself at SIGTERM ($((SECONDS - started)) s)"
