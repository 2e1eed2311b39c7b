#!/bin/sh
# Makes .venv with the project in it, editable; does, and says, nothing where it is up to date.
# Usage: scripts/venv.sh [EXTRA,...]
set -eu
cd "$(dirname "$0")/.."
extras="${1:-}"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "envbridge needs Python 3.11 or newer; name one with PYTHON=/path/of/python3.11" >&2
    exit 1
fi
stamp=".venv/envbridge-${extras:-base}.stamp"
wanted="$(cat pyproject.toml constraints.txt | cksum) $("$python" -V)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/envbridge ]; then
    exit 0
fi
echo "setting up .venv (the first time takes a minute) ..."
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv .venv || {
        echo "the venv module is missing; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".${extras:+[$extras]}"
printf '%s' "$wanted" >"$stamp"
