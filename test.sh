#!/usr/bin/env bash
# Checks everything: style, types, tests. With arguments, only pytest with these arguments: ./test.sh tests/core -k stop
set -euo pipefail

root="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)"
source "$root/launcher/bootstrap.sh"
bootstrap requirements-test.txt
cd "$root"
bootstrap_browser

if [[ $# -eq 0 ]]; then
    "$venv_python" -m ruff check .
    # Each Triton model has a model.py of its own, so they are checked one after the other.
    "$venv_python" -m mypy
    "$venv_python" -m mypy openai_bls/1/model.py
    "$venv_python" -m mypy model_repository/tensorrt_llm/1/model.py
    "$venv_python" -m mypy model_repository/embedding/1/model.py
    # Two processes, because tests with whole servers wait more than they compute. The tests of a file share servers.
    set -- --numprocesses 2 --dist loadfile --no-loadscope-reorder
fi
exec "$venv_python" -m pytest "$@"
