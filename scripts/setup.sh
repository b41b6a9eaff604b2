#!/usr/bin/env bash
# Usage: setup.sh VENV. Makes the virtual environment VENV from requirements.lock, with this package in editable mode.
# make calls it if VENV is missing or older than pyproject.toml, requirements.lock or this file. PYTHON: the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>/dev/null | head -n 1 || true)
    echo "setup: Python 3.11 or newer is needed, but $python is ${found:-not installed}; choose another one: make PYTHON=python3.12 …" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "setup: $python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
fi

packages=$(grep -c '^[a-z].*==' requirements.lock)
echo "setup: installing $packages packages into $venv (some minutes, once; log: $venv/setup.log)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
log=$venv/setup.log
pip=
trap 'kill ${pip:-} 2>/dev/null; echo "setup: interrupted; repeat the command to continue" >&2; exit 130' INT TERM
install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" >>"$log" 2>&1 &
    pip=$! # in the background: bash acts on Ctrl-C only after a command in the foreground, and pip may go on
    while kill -0 "$pip" 2>/dev/null; do
        sleep 1
        ((++seconds % 20)) && continue
        step="downloading, $(grep -cE '^(Collecting|Processing) ' "$log" || true) packages so far"
        if grep -q '^Installing' "$log"; then step=installing; fi
        echo "setup: $step, $seconds s"
    done
    wait "$pip"
}
seconds=0
: >"$log"
if ! { install --require-hashes -r requirements.lock && install --no-deps --no-build-isolation -e .; }; then
    grep -E '^ *ERROR' "$log" >&2 || tail -n 5 "$log" >&2
    echo "setup: the installation failed; the full output is in $log; repeat the command to try again" >&2
    exit 1
fi
touch "$venv/.ready"
echo "setup: done"
