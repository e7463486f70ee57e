#!/usr/bin/env bash
# Turns a Hugging Face model into a Triton model repository that serves OpenAI: ./build_engine.sh --help lists every
# option with its default and why it is that.
#
#   ./build_engine.sh MODEL OUTPUT_REPO                    for TensorRT-LLM 1.0 or newer; nothing is compiled
#   ./build_engine.sh MODEL OUTPUT_REPO --flow engine      for NVIDIA's C++ backend: converts, compiles, configures
#   ./build_engine.sh MODEL OUTPUT_REPO --flow cpu         no GPU
#   ... --dry-run                                          says what would be done, with every command
#
# Run it where the repository will be served: an engine works only with the TensorRT-LLM and on the kind of GPU that it
# was built with. The work is done by the Python package builder/; PYTHON names the interpreter. Without it the one
# that the flow needs is taken: the container's own, which has TensorRT-LLM, or for the CPU the one of ./serve.sh.
set -euo pipefail

root="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1

python="${PYTHON:-python3}"
if [[ -z "${PYTHON:-}" && " $* " == *" --flow cpu "* && " $* " != *" --dry-run "* ]]; then
    # shellcheck source=launcher/bootstrap.sh
    source "$root/launcher/bootstrap.sh"
    bootstrap requirements.txt
    python="$venv_python"
fi
exec "$python" -m builder "$@"
