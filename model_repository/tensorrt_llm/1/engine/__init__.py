"""An inference engine with the tensor contract of TensorRT-LLM's Triton backend, in-flight batching and sessions.

In: the input tensors of one Triton request as numpy arrays, and a channel to answer through (`Engine.receive`).
Out: responses, also numpy arrays by output name, through that channel.
It does not know Triton: `model.py` beside this package is the only file that imports `triton_python_backend_utils`.

    request.py       tensors -> Request: tables of inputs, rules and refusals
    word_list.py     the stop and bad word encoding
    guides.py        guides of guided decoding -> grammars: one table
    guide_trial.py   a process that tries guides out, so that none can hang the engine
    guided.py        compiles guides beside the steps and keeps them
    matcher.py       where a sequence is in its guide
    sampler.py       logits -> token, for one sequence
    sequence.py      one running generation and what it did last (Progress)
    scheduler.py     in-flight batching: submit, cancel, step
    lora.py          LoRA adapters: tensors -> updates, and which ones are kept
    prefix_cache.py  keys and values of prompts, for others that begin alike
    runner.py        what a model forward looks like; numpy_runner.py and transformers_runner.py are two of them
    batcher.py       what the engine wants of a scheduler: its own one, or a model that batches by itself
    trtllm.py        TensorRT-LLM's LLM API as such a model; trtllm_api.py its arguments, trtllm_reader.py its results
    response.py      what goes back, and the channel it goes through
    answer.py        Progress -> responses of the standard contract
    session.py       Progress -> event records, one poll for many sequences
    courier.py       the one thread that sends
    engine.py        puts these together and owns the threads
"""
