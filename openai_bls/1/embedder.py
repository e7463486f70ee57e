"""The way to the Triton model that makes embeddings: what it takes and gives is found out by asking it.

A Python-backend model cannot read another model's configuration, but Triton says what a request lacked. So the model is
asked with nothing, then with one short text in each form that its inputs allow, until it answers; the answer's tensors
say the rest. docs/embeddings.md lists the contracts.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from embedding_contract import MOST_ROWS, Form, Vectors, best_output, forms_of, numbers
from embedding_settings import SHARED_SUFFIX, EmbeddingSettings
from postprocessing.pooling import normalise, pool
from preprocessing import sentences, tokenizer
from preprocessing.batching import batches, padded
from preprocessing.embeddings import EmbeddingModel, Embeddings, Input
from preprocessing.errors import Kind, OpenAIError
from preprocessing.model import Model
from preprocessing.sentences import Recipe
from transports.bls import Engine, EngineError

ROWS_UNDER_WAY = 128  # inputs of one client's request that are with the engine at a time
MOST_TOKENS = 16384  # in one request to the engine, padding included: attention's memory grows with it
SAMPLE = "a b c"
# What Triton says (core, infer_request.cc and model.cc: the same words in 2.51 and in June 2026).
MISSING = re.compile(r"missing required input\(s\) \[([^\]]*)\]")
TOO_MANY = re.compile(r"batch-size must be <= (\d+)")
WRONG_FORM = re.compile(r"data-type is|shape|unexpected inference input|missing required input")


def own_embedding(
    settings: EmbeddingSettings | None, ignore_unknown: bool = False
) -> tuple[EmbeddingModel, Recipe] | None:
    """The embedding model whose folder is named, and what its files say; None if none is.

    Raises:
        ValueError: the folder cannot be used.
    """
    if settings is None or settings.tokenizer_dir is None:
        return None
    folder = settings.tokenizer_dir
    recipe = sentences.read(folder)
    longest = settings.max_len or recipe.max_tokens
    if longest is None:
        raise ValueError(f"parameter embedding_max_len must be set: the files in {folder} do not say it")
    loaded = tokenizer.load(recipe.transformer)
    # Some tokenizers were saved as they were used in training: every text cut or padded to the same length.
    loaded.backend.no_truncation()
    loaded.backend.no_padding()
    model = EmbeddingModel(
        settings.name or folder.name,
        loaded,
        longest,
        int(folder.stat().st_mtime),
        lower_case=recipe.lower_case,
        prompts=recipe.prompts,
        default_prompt=recipe.default_prompt,
        sizes=recipe.sizes if settings.sizes is None else settings.sizes,
        ignore_unknown=ignore_unknown,
    )
    return model, recipe


def shared_embedding(settings: EmbeddingSettings, model: Model) -> EmbeddingModel:
    """An embedding model that has tokenizer and limits of the generating one."""
    return EmbeddingModel(
        settings.model_name or model.name + SHARED_SUFFIX,
        model.tokenizer,
        settings.max_len or model.max_model_len,
        model.created,
        sizes=settings.sizes,
        ignore_unknown=model.limits.ignore_unknown,
    )


@dataclass(frozen=True)
class Contract:
    """What the engine takes and gives.

    Attributes:
        output: the tensor that is asked for.
        hidden: it has a vector for each token.
        size: of a text's vector.
    """

    form: Form
    output: str
    hidden: bool
    size: int


class Embedder:
    """Texts → vectors, by a Triton model. Safe from many threads.

    Args:
        model: the model as clients know it.
        recipe: what the model's files say.
    """

    def __init__(self, settings: EmbeddingSettings, model: EmbeddingModel, recipe: Recipe) -> None:
        self.model = model
        self._settings = settings
        self._recipe = recipe
        self._engine = Engine(settings.engine)
        self._contract: Contract | None = None
        self._asking = threading.Lock()
        self._most_rows = MOST_ROWS

    @property
    def size(self) -> int:
        """Of a text's vector. Asks the engine if that has not been done."""
        return self._known().size

    def split(self, inputs: Sequence[Input]) -> list[list[int]]:
        """The inputs' indexes in batches that the engine takes."""
        most = min(self._most_rows, self._known().form.most)
        return batches([len(each.ids) for each in inputs], most, MOST_TOKENS)

    def vectors(self, inputs: Sequence[Input], request_id: str = "") -> Vectors:
        """FP32 [inputs, size] of one batch.

        Raises:
            EngineError: the engine failed, or gave something that is no embedding.
        """
        contract = self._known()
        try:
            found = self._ask(contract, inputs, request_id)
        except EngineError as error:
            fewer = self._fewer(str(error), len(inputs))
            if fewer is None:
                raise
            self._most_rows = fewer
            parts = [inputs[at : at + fewer] for at in range(0, len(inputs), fewer)]
            return np.concatenate([self._ask(contract, part, request_id) for part in parts])
        return found

    def _fewer(self, message: str, count: int) -> int | None:
        """How many inputs to send, after the engine refused `count`; None if that was not the reason."""
        told = TOO_MANY.search(message)
        if told:
            return int(told[1])
        return 1 if count > 1 and "unexpected shape" in message else None

    def _ask(self, contract: Contract, inputs: Sequence[Input], request_id: str) -> Vectors:
        texts = self._with_texts(inputs) if contract.form.takes == "text" else inputs
        response = self._engine.answer(contract.form.tensors(texts), [contract.output], request_id)
        values = numbers(output_tensors(response)[contract.output])
        if contract.hidden:
            _, mask = padded([each.ids for each in inputs], np.float32)
            found = pool(values, mask[:, : values.shape[1]], self._settings.pooling or self._recipe.pooling)
        else:
            found = values.reshape(len(inputs), -1)
        if found.shape != (len(inputs), contract.size) or not np.isfinite(found).all():
            raise EngineError(f"output {contract.output} of the engine is no embedding of {len(inputs)} inputs")
        return normalise(found) if self._normalises(contract.hidden) else found

    def _normalises(self, hidden: bool) -> bool:
        """As the model's files say; without such files a vector that the engine has pooled is left as it is."""
        return self._recipe.normalises and (hidden or self._recipe.declared)

    def _with_texts(self, inputs: Sequence[Input]) -> list[Input]:
        """Token ids as text too."""
        decode = self.model.tokenizer.backend.decode
        return [each if each.text is not None else Input(each.ids, decode(each.ids)) for each in inputs]

    def _known(self) -> Contract:
        with self._asking:
            if self._contract is None:
                self._contract = self._find_out()
                told = self._contract
                pb_utils.Logger.log_info(
                    f"openai_bls: embeddings '{self.model.name}' from '{self._settings.engine}': {told.form.name}, "
                    f"output {told.output}{' of each token' if told.hidden else ''}, {told.size} dimensions"
                )
            return self._contract

    def _find_out(self) -> Contract:
        """The first form that the engine answers.

        Raises:
            OpenAIError: there is none.
            EngineError: it cannot answer now.
        """
        ids = self.model.tokenizer.encode(SAMPLE, add_special_tokens=True)
        sample = [Input(ids, SAMPLE)]
        said = "nothing"
        for form in self._forms():
            try:
                response = self._engine.answer(form.tensors(sample))
            except EngineError as error:
                if not WRONG_FORM.search(str(error)):
                    raise
                said = str(error)
                continue
            return self._contract_of(form, output_tensors(response), len(ids))
        raise self._unusable(f"it takes none of the known forms of input; it said: {said}")

    def _forms(self) -> list[Form]:
        if self._settings.inputs is not None:
            return forms_of(self._settings.inputs)
        try:
            self._engine.answer({})
        except EngineError as error:
            missing = MISSING.search(str(error))
            if missing is None:
                raise
            names = re.findall(r"'([^']+)'", missing[1])
            return [form for type_ in ("TYPE_INT64", "TYPE_INT32") for form in forms_of(dict.fromkeys(names, type_))]
        raise self._unusable("it has no required input, so the parameter embedding_inputs must name its inputs")

    def _contract_of(self, form: Form, outputs: Mapping[str, Any], tokens: int) -> Contract:
        name = self._settings.output or best_output(outputs)
        if name not in outputs:
            raise self._unusable(f"no output of it can be an embedding, among {', '.join(outputs) or 'none'}")
        try:
            values = numbers(outputs[name])
        except (ValueError, TypeError):
            raise self._unusable(f"its output {name} holds something else than numbers") from None
        hidden = values.ndim == 3 and values.shape[1] == tokens and form.takes == "tokens"
        if hidden and any(step.kind == "Dense" for step in self._recipe.steps):
            raise self._unusable("it gives token vectors, but the model's files want a dense layer behind the pooling")
        poolings = self._settings.pooling or self._recipe.pooling
        return Contract(form, name, hidden, values.shape[-1] * (len(poolings) if hidden else 1))

    def _unusable(self, why: str) -> OpenAIError:
        pb_utils.Logger.log_error(f"openai_bls: the embedding engine '{self._settings.engine}' cannot be used: {why}")
        return OpenAIError(Kind.UNAVAILABLE, "The embedding model of this server is not set up correctly.")


class Job:
    """One request's way through the engine, a batch at a time; several threads may take batches.

    Attributes:
        asked: what the request asks for.
        parallel: how many batches to have under way at a time.
    """

    def __init__(self, asked: Embeddings, embedder: Embedder, request_id: str = "") -> None:
        self.asked = asked
        self._request_id = request_id
        self._embedder = embedder
        self._waiting = deque(embedder.split(asked.inputs))
        self._running = 0
        self._lock = threading.Lock()
        # Enough to keep the engine busy, and few enough that other requests do not stand behind all of them.
        largest = max(map(len, self._waiting))
        self.parallel = min(len(self._waiting), max(1, ROWS_UNDER_WAY // largest))
        self._vectors = np.empty((len(asked.inputs), embedder.size), np.float32)

    @property
    def waits(self) -> bool:
        """Whether there are batches that nobody has taken."""
        return bool(self._waiting)

    def step(self) -> Vectors | None:
        """Has a batch computed, if one is left. All vectors, if this was the last one; else None."""
        with self._lock:
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._running += 1
        found = self._embedder.vectors([self.asked.inputs[index] for index in batch], self._request_id)
        with self._lock:
            self._vectors[batch] = found
            self._running -= 1
            return None if self._waiting or self._running else self._vectors


def output_tensors(response: Any) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
