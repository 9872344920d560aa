#!/usr/bin/env bash
# Creates the virtual environments that the Makefile's targets need, and does nothing where they are up to date.
#
#   deploy/environment.sh server        .venv    the server: requirements/server.txt and this project, editable
#   deploy/environment.sh development   .venv    the same with requirements/development.txt
#   deploy/environment.sh triton        .triton  the embedded Triton: requirements/triton.txt
#   deploy/environment.sh tools         .tools   judges of DICOM objects for the tests: requirements/tools.txt
#   deploy/environment.sh exporter      .exporter  torch and nnU-Net, which import models: requirements/exporter.txt
#
# Several names may be given; they are worked on side by side. PYTHON names the interpreter to use, else the first
# fitting one of python3.11, python3.12 and python3 is taken. Needs no root and no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly STAMP=limner-environment.sha256
readonly TORCH=2.13.0

fail() { echo "environment: $*" >&2; exit 1; }

# Says why an interpreter can't be used; says nothing if it can.
fault_of() {
  command -v "$1" >/dev/null 2>&1 || { echo "not found"; return; }
  "$1" - 2>/dev/null <<'PYTHON' || echo "does not run"
import ctypes
import importlib.util
import pathlib
import sys
import sysconfig

version = "%d.%d" % sys.version_info[:2]
library = "libpython%s.so.1.0" % version


def found(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


folders = [sysconfig.get_config_var("LIBDIR") or "", sys.base_prefix + "/lib"]
if version not in ("3.11", "3.12"):
    print("is Python %s, and 3.11 or 3.12 is needed" % version)
elif importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    print("has no venv module: apt install python%s-venv" % version)
elif not found(library) and not any((pathlib.Path(folder) / library).is_file() for folder in folders):
    print("has no %s, which the embedded Triton needs: apt install libpython%s" % (library, version))
PYTHON
}

choose_python() {
  local candidate fault faults=""
  for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
    fault=$(fault_of "$candidate")
    if [ -z "$fault" ]; then
      # the interpreter itself, not a shim that may choose another one tomorrow
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
    faults+=$'\n'"  $candidate $fault"
  done
  fail "no fitting Python was found:$faults
On Debian 12: apt install python3.11 python3.11-venv libpython3.11
On Ubuntu 22.04 and 24.04 the same with 3.11 or 3.12; or name another interpreter with PYTHON=…"
}

# The folder that the environment called $1 lives in.
folder_of() {
  case $1 in
    server | development) echo .venv ;;
    triton | tools | exporter) echo ".$1" ;;
    *) fail "unknown environment '$1': expected server, development, triton, tools or exporter" ;;
  esac
}

# What the environment called $1 is made from, as a digest; $2 is the interpreter.
digest_of() {
  local inputs=("requirements/$1.txt")
  [ "$1" != server ] || inputs+=(pyproject.toml deploy/link_cuda_runtime.py)
  [ "$1" != exporter ] || inputs+=(requirements/exporter_sources.txt)
  { "$2" -VV; pwd; [ "$1" != exporter ] || echo "$TORCH"; cat "${inputs[@]}"; } | sha256sum | cut -d' ' -f1
}

up_to_date() {
  local stamp
  stamp="$(folder_of "$1")/$1-$STAMP"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(digest_of "$1" "$2")" ]
}

create() {
  local name=$1 python=$2 folder binaries
  folder=$(folder_of "$name")
  # an environment of another interpreter, or one that was moved, is made anew
  if [ -d "$folder" ] && ! [ "$("$folder/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable), sys.prefix)' 2>&1)" \
    = "$python $(pwd -P)/$folder" ]; then
    rm -rf "$folder"
  fi
  [ -d "$folder" ] || "$python" -m venv "$folder" || { rm -rf "$folder"; fail "$python could not make $folder"; }
  rm -f "$folder/$name-$STAMP"
  [ "$name" != exporter ] || install_torch "$folder"
  # parts of nnU-Net are published as sources only; they are pure Python
  binaries=(--only-binary :all:)
  [ "$name" != exporter ] || binaries=(--prefer-binary)
  pip_install "$folder" "${binaries[@]}" --requirement "requirements/$name.txt"
  [ "$name" != exporter ] \
    || SAM2_BUILD_CUDA=0 pip_install "$folder" --no-build-isolation --requirement requirements/exporter_sources.txt
  if [ "$name" = server ]; then
    pip_install "$folder" --editable .
    "$folder/bin/python" deploy/link_cuda_runtime.py
  fi
  digest_of "$name" "$python" >"$folder/$name-$STAMP"
}

# torch comes first and alone: what else is installed must find it there, and never bring in one with CUDA.
install_torch() {
  local folder=$1 cuda
  pip_install "$folder" --only-binary :all: "torch==$TORCH"
  cuda=$("$folder/bin/python" - <<'PYTHON'
import importlib.util
import pathlib
import runpy

# read, not imported: a build with CUDA can't be imported where its libraries are missing
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
print(runpy.run_path(str(folder / "version.py"))["cuda"] or "")
PYTHON
  ) || fail "torch $TORCH could not be looked at in $folder"
  [ -z "$cuda" ] || fail "pip chose torch $TORCH for CUDA $cuda, and the exporter needs the build for CPUs (2 GB less).
Let pip know the index of torch's CPU builds, which its installation page names, in PIP_EXTRA_INDEX_URL or pip.conf;
then remove $folder and run this again."
}

# --no-deps: the files in requirements/ are whole, and say why what the packages ask for beyond them is left out.
pip_install() {
  local folder=$1
  shift
  "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps "$@" \
    || fail "pip could not fill $folder; its message is above"
}

# Makes the environments that share a folder one after the other.
work_on() {
  local name python=$1 started
  shift
  for name in "$@"; do
    up_to_date "$name" "$python" && continue
    started=$SECONDS
    echo "environment: setting up $(folder_of "$name") for $name with $("$python" -V) …"
    create "$name" "$python"
    echo "environment: $name is ready after $((SECONDS - started)) s"
  done
}

main() {
  local python name venv=() others=() processes=() process
  python=$(choose_python)
  # what runs in the background doesn't get the interrupt key by itself
  trap 'trap - INT; kill 0' INT
  for name in "$@"; do
    case $(folder_of "$name") in
      .venv) venv+=("$name") ;;
      *) others+=("$name") ;;
    esac
  done
  for name in "${others[@]}"; do
    work_on "$python" "$name" & processes+=($!)
  done
  [ ${#venv[@]} -eq 0 ] || { work_on "$python" "${venv[@]}" & processes+=($!); }
  for process in "${processes[@]}"; do
    wait "$process" || fail "not all environments could be set up"
  done
}

main "$@"
