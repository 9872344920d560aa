# shellcheck shell=bash
# Sourced by build.sh and smoke.sh: containers and images of their own under .image/, apart from the machine's.
# Nothing here is needed to run the image elsewhere.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
readonly WORK=$PWD/.image
# shellcheck disable=SC2034 # used by what sources this
readonly IMAGE=localhost/limner:latest
mkdir -p "$WORK"

# runc with cgroupfs and modest limits runs in most places: also where cgroups are of version 1, where there is no
# systemd, and where root may not raise limits
cat >"$WORK/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
cat >"$WORK/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$WORK/storage"
runroot = "$WORK/run"
CONF
export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf

fail() { echo "image: $*" >&2; exit 1; }

needs() {
  local program missing=""
  [ "$(id -u)" = 0 ] || fail "needs root, to make file systems and network namespaces"
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=" $program"
  done
  [ -z "$missing" ] || fail "not installed:$missing (on Debian and Ubuntu apt-get install has packages of these names)"
}
