#!/usr/bin/env bash
# Makes the virtual environment VENV from requirements.lock and installs this package into it, editable.
# Make calls it when VENV is missing or older than pyproject.toml or requirements.lock. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>/dev/null | head -n 1 || true)
    echo "setup: Python 3.11 or newer is needed, and $python is ${found:-not to be had}; say which to take: make PYTHON=python3.12 …" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "setup: $python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
fi

echo "setup: installing into $venv what requirements.lock names (a few minutes, once)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
log=$venv/setup.log
trap 'echo "setup: interrupted; the same command goes on" >&2; exit 130' INT TERM
install() { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" >>"$log" 2>&1; }
: >"$log"
if ! { install --require-hashes -r requirements.lock && install --no-deps --no-build-isolation -e .; }; then
    grep -E '^ *ERROR' "$log" >&2 || tail -n 5 "$log" >&2
    echo "setup: that failed; $log has all of it, and the same command tries again" >&2
    exit 1
fi
touch "$venv/.ready"
echo "setup: done"
