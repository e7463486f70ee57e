"""A stand-in for TensorRT-LLM: the LLM API's names, arguments and results, without a GPU.

The signatures are those of TensorRT-LLM 1.0 to 1.2 as its API reference and its API stability tests state them; what
they do not know is refused, as the real classes refuse it. What is generated is arithmetic, so that tests can foretell
it (`following`). How it behaves where versions differ, and what goes wrong, is said by `behaviour`.
"""

from __future__ import annotations

from .llmapi.llm import LLM, Behaviour, behaviour, following
from .sampling_params import GuidedDecodingParams, SamplingParams

__version__ = "1.2.1"
__all__ = ["LLM", "Behaviour", "GuidedDecodingParams", "SamplingParams", "behaviour", "following"]
