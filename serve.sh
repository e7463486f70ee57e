#!/usr/bin/env bash
# Starts the OpenAI server on this machine: ./serve.sh --help lists the options.
# The first start installs what is missing (see launcher/bootstrap.sh); after that a start takes seconds.
set -euo pipefail

root="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)"
source "$root/launcher/bootstrap.sh"

# The launcher is imported from the checkout, whatever the current folder contains.
export PYTHONPATH="$root" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1

for argument in "$@"; do
    if [[ "$argument" == "--help" || "$argument" == "-h" ]]; then
        python=$(find_python)
        exec "$python" -m launcher.serve --help
    fi
done

bootstrap requirements.txt
exec "$venv_python" -m launcher.serve "$@"
