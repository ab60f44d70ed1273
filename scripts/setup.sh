# Sourced by scripts/demo and scripts/test: makes .venv once and reuses it.
#   setup_venv EXTRAS     for instance: setup_venv demo,dev
# Afterwards $PY is the environment's Python. Exit codes: 3 Python too old, without venv, or no right to write, 4 packages
# not installed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1

say() { printf '%s\n' "$*" >&2; }

# PEC_PYTHON when it is set, and then nothing else; otherwise the first that is new enough.
find_python() {
    local candidate
    set -- python3.11 python3.12 python3.13 python3
    [ -n "${PEC_PYTHON:-}" ] && set -- "$PEC_PYTHON"
    for candidate in "$@"; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

setup_venv() {
    local extras=$1 python stamp
    PY="$ROOT/.venv/bin/python"
    # The stamp says for which dependencies the environment was made: when they change, it is brought up to date.
    stamp="$extras $(cat setup.cfg constraints.txt | sha256sum | cut -c1-16)"
    if [ -x "$PY" ] && grep -qxF -- "$stamp" .venv/pec-stamp 2>/dev/null; then
        return 0
    fi
    if ! python=$(find_python); then
        if [ -n "${PEC_PYTHON:-}" ]; then
            say "PEC needs Python 3.11 or later; PEC_PYTHON=$PEC_PYTHON is not that. Unset it, or name another interpreter."
        else
            say "PEC needs Python 3.11 or later; found: $({ python3 --version; } 2>/dev/null || echo none)."
            say "On Debian or Ubuntu: apt-get install python3.11 python3.11-venv, or set PEC_PYTHON to another interpreter."
        fi
        exit 3
    fi
    if ! [ -w "$ROOT" ]; then
        say "PEC sets itself up in $ROOT/.venv, and $(id -un 2>/dev/null || echo "this user") may not write to $ROOT."
        say "Give yourself the directory, or clone into one of your own."
        exit 3
    fi
    if [ ! -x "$PY" ] || ! "$PY" -m pip --version >/dev/null 2>&1; then
        say "Making a virtual environment in .venv with $("$python" --version) ..."
        if ! "$python" -m venv --clear .venv; then
            say "Could not make .venv. On Debian or Ubuntu the module is a package of its own: apt-get install python3-venv"
            exit 3
        fi
    fi
    say "Installing PEC and what it needs into .venv (some 300 MB; once, a minute or two) ..."
    "$PY" -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[$extras]" \
        > .venv/pip.log 2>&1 &
    local pip=$! shown=""
    while kill -0 "$pip" 2>/dev/null; do
        local line
        line=$(grep -oE '^(Collecting|  Downloading|Installing collected packages|Building|Preparing)[^(]{0,60}' .venv/pip.log | tail -1)
        if [ -n "$line" ] && [ "$line" != "$shown" ]; then
            shown=$line
            if [ -t 2 ]; then printf '\r\033[K  %s' "$line" >&2; fi
        fi
        sleep 0.3
    done
    [ -t 2 ] && printf '\r\033[K' >&2
    if ! wait "$pip"; then
        tail -15 .venv/pip.log >&2
        if grep -qE 'NewConnectionError|Temporary failure in name resolution|ConnectTimeout|ProxyError|No matching distribution found|Network is unreachable' .venv/pip.log; then
            say "The package index can't be reached, or lacks a version that constraints.txt names."
            say "Check the network, or point pip at your index (PIP_INDEX_URL), and run this again: what is installed is kept."
        else
            say "Installing failed; the whole log is in .venv/pip.log."
        fi
        exit 4
    fi
    # pip would compile on one core, and the packages' own tests too. Files that are no Python (templates) stay as they are.
    "$PY" -m compileall -q -j 0 -x '[/\\]tests?[/\\]' "$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        > /dev/null 2>&1 || true
    # A larger set of extras serves a smaller one too, so both scripts share one environment.
    { echo "$stamp"; [ "$extras" = "demo,dev" ] && echo "demo ${stamp#* }"; } > .venv/pec-stamp
}
