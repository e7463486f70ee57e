"""The embedded embedding model. In the order in which a request goes through the files:

    load.py                 parameters of config.pbtxt -> an encoder
    requests.py             tensors of several requests -> texts in batches -> vectors of each request
    transformers_encoder.py any model of Hugging Face, with torch
    numpy_encoder.py        the embedded engine's own Llama layout, without torch
    head.py                 what the checkpoint's files want done with the token vectors

`engine`, `preprocessing` and `postprocessing` beside this folder are links: one source, several models.
"""
