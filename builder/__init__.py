"""Turns a Hugging Face model into a Triton model repository that serves OpenAI; ./build_engine.sh runs it.

In: a model, an output folder, options. Out: a complete repository, and the two lines that start it.

    options.py         what can be set, each with its default and why
    model.py           what a model's files say about it
    steps.py           does steps in order, once each, and goes on where it was interrupted
    images.py          which of NVIDIA's images have which TensorRT-LLM
    pytorch_flow.py    the arguments of TensorRT-LLM's LLM; nothing is compiled
    engine_flow.py     the commands that make a TensorRT engine
    backend_config.py  config.pbtxt of the C++ backend
    tokenizer_info.py  what xgrammar wants to know of a tokenizer
    repository.py      writes the model repository
    stamp.py           what something was built from
    start.py           the two lines that start it
    build.py           puts these together
"""
