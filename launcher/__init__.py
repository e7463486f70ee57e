"""Starts the whole server on one machine: Triton with the models, nginx in front.

Standard library only, so that `./serve.sh --help` and every check work before anything is installed. The files, in the
order in which a start passes through them:

    bootstrap.sh   system packages and the virtual environment (shared by serve.sh and test.sh)
    options.py     the command line as one table
    model.py       --model: a folder or a Hugging Face id -> a checked folder
    checks.py      what must hold before anything starts: ports, shared memory, Python
    repository.py  model_repository/ -> the copy that Triton loads, parameters filled in
    triton.py      finds, starts and stops Triton
    access.py      API keys and restricted groups -> what nginx compares
    gateway.py     fills in the nginx template, starts and stops nginx
    processes.py   one child process that never outlives the launcher
    logs.py        what they write: private, and bounded
    opener.py      HTTP to this machine, past any proxy
    stack.py       all of it together, restarted when it dies; the tests start servers with this
    probe.py       the first requests through the finished server
    serve.py       the command behind serve.sh
"""
