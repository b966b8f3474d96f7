#!/usr/bin/env bash
# Build the docs site into site/, in an environment of its own: its pins clash with SecretFlow's.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-docs/.installed
wanted=$(cat docs/requirements.txt scripts/docs.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf .venv-docs
    .venv/bin/python -m venv .venv-docs
    if [ -x .venv/bin/uv ]; then
        .venv/bin/uv pip install -q --python .venv-docs/bin/python -r docs/requirements.txt
    else
        .venv-docs/bin/python -m pip install -q --disable-pip-version-check -r docs/requirements.txt
    fi
    echo "$wanted" >"$stamp"
fi
# Without --quiet, which would keep warnings from counting. The variable: no page about MkDocs 2.
NO_MKDOCS_2_WARNING=1 exec .venv-docs/bin/python -m mkdocs build --strict
