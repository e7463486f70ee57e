"""Measures openai_bls: throughput, latency, CPU time and memory at 1 to 256 streams (docs/performance.md).

    python -m bench --help

    build.py       C++ sources → the synthetic engine and the load generator
    engine/        the synthetic engine, a Triton backend; load/: the load generator
    vocabulary.py  what the engine writes, so that every text can be compared
    stacks.py      the servers that are measured
    target.py      one way into a server: where requests go and what they look like
    usage.py       CPU time and memory of processes
    run.py         one measurement
    cases.py       what is measured: matrix, long, instances, idle, soak
    figures.py     results: medians, JSON
    table.py       results as Markdown; plot.py: as SVG
"""
