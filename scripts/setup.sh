#!/usr/bin/env bash
# Make .venv: find a Python 3.10 that runs, then install the pinned lock file and this project.
# A second run with nothing changed does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8
stamp=.venv/.installed
wanted=$(cat requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

is_310() { # a shim may exist and still not run, so ask it for its version
    [ -n "${1:-}" ] && "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1
}

find_python() {
    local candidate tools
    for candidate in "${PYTHON:-}" python3.10 "$HOME"/.pyenv/versions/3.10*/bin/python; do
        if is_310 "$candidate"; then echo "$candidate"; return; fi
    done
    # Last: a Python that uv has, or can get.
    tools=.tools
    if python3 -m venv "$tools" >/dev/null 2>&1 && "$tools/bin/pip" install -q "uv==$UV_VERSION" >/dev/null 2>&1; then
        "$tools/bin/uv" python install -q 3.10 >/dev/null 2>&1 || true
        candidate=$("$tools/bin/uv" python find 3.10 2>/dev/null || true)
        if is_310 "$candidate"; then echo "$candidate"; return; fi
    fi
    return 1
}

if ! python=$(find_python); then
    echo "No Python 3.10 that runs was found (looked at \$PYTHON, python3.10 on PATH, ~/.pyenv/versions/3.10*, uv's own); install one, for example with 'pyenv install 3.10' or 'uv python install 3.10', or name it: PYTHON=/path/to/python3.10 make setup" >&2
    exit 1
fi

echo "setup: $("$python" --version) from $python"
rm -rf .venv
"$python" -m venv .venv
if .venv/bin/python -m pip install -q --disable-pip-version-check "uv==$UV_VERSION"; then
    # Compiled now, once: every worker process imports SecretFlow, and where Python may not write
    # its cache (PYTHONDONTWRITEBYTECODE) each would compile all of it again, for ten seconds.
    .venv/bin/uv pip install -q --compile-bytecode --python .venv/bin/python -r requirements.lock
    .venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
else
    echo "setup: uv could not be installed, going on with pip" >&2
    .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
fi
echo "$wanted" >"$stamp"
echo "setup: done"
