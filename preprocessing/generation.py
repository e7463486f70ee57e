"""A checked body → what to generate: prompt ids, limits, sampling and how to answer. Chat and completions become one
here.

In: a body of `preprocessing.body` and the model it names. Out: a `Generation`. It knows nothing of tensors or chunks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preprocessing.body import ChatBody, CompletionBody, parse
from preprocessing.errors import Kind, OpenAIError, invalid
from preprocessing.tokenizer import Tokenizer

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for completions; chat has none but the context
SMALLEST_TEMPERATURE = 1e-5  # dividing float32 logits by less overflows; nothing but the likeliest token is left anyway
# Templates know three roles; OpenAI renamed "system" to "developer" for its newer models.
TEMPLATE_ROLES = {"developer": "system"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model as clients know it.

    Attributes:
        name: what clients put into `model`.
        max_model_len: prompt and answer together, in tokens.
        created: Unix time in seconds, for /v1/models.
    """

    name: str
    tokenizer: Tokenizer
    max_model_len: int
    created: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; `seed` is never absent, so that an engine with a fixed default does not repeat itself."""

    temperature: float
    top_p: float
    seed: int

    @property
    def greedy(self) -> bool:
        return self.temperature < SMALLEST_TEMPERATURE or self.top_p == 0


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to be generated.

    Attributes:
        chat: chat completion (True) or text completion.
        prompt_ids: the prompt's tokens, never empty.
        max_tokens: most new tokens, already within the context.
        end_ids: token ids that end the answer and are not shown, the foremost first.
        stops: strings that end the answer and are not shown.
    """

    chat: bool
    model: str
    prompt_ids: list[int]
    max_tokens: int
    end_ids: tuple[int, ...]
    stops: tuple[str, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool


def prepare(endpoint: str, raw: bytes, model: Model, seed: int) -> Generation:
    """Everything from the client's bytes to a `Generation`.

    Args:
        endpoint: "chat/completions" or "completions".
        raw: the request body as the client sent it.
        seed: a random number, used if the client gives none.

    Raises:
        OpenAIError: the request is at fault; the message says how.
    """
    body = parse(endpoint, raw)
    require_model(body.model, [model.name])
    chat = isinstance(body, ChatBody)
    prompt_ids = chat_prompt(body, model) if isinstance(body, ChatBody) else completion_prompt(body, model)
    options = body.stream_options
    return Generation(
        chat=chat,
        model=model.name,
        prompt_ids=prompt_ids,
        max_tokens=token_limit(body, len(prompt_ids), model.max_model_len),
        end_ids=model.tokenizer.end_ids,
        stops=body.stops,
        sampling=Sampling(body.temperature, body.top_p, seed if body.seed is None else body.seed),
        stream=body.stream,
        include_usage=bool(options and options.include_usage),
    )


def require_model(wanted: str, names: Iterable[str]) -> None:
    """404 unless the model is one of those served."""
    if wanted not in names:
        shown = wanted[:128]
        raise OpenAIError(Kind.MODEL_NOT_FOUND, f"The model '{shown}' does not exist.", "model")


def chat_prompt(body: ChatBody, model: Model) -> list[int]:
    """The conversation through the model's chat template; the template itself writes the special tokens."""
    messages = []
    for message in body.messages:
        entry = {"role": TEMPLATE_ROLES.get(message.role, message.role), "content": message.text()}
        messages.append(entry | ({"name": message.name} if message.name is not None else {}))
    return nonempty(model.tokenizer.encode(model.tokenizer.render(messages), add_special_tokens=False), "messages")


def completion_prompt(body: CompletionBody, model: Model) -> list[int]:
    """The prompt's tokens; an empty text is the BOS token alone where the model has one."""
    prompt = body.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise invalid("A list of several prompts is not supported yet; send one prompt.", "prompt")
        prompt = prompt[0]
    if isinstance(prompt, str):
        bos = [] if model.tokenizer.bos_id is None else [model.tokenizer.bos_id]
        return nonempty(model.tokenizer.encode(prompt, add_special_tokens=True) or bos, "prompt")
    ids = [token for token in prompt if isinstance(token, int)]
    return nonempty(within_vocabulary(ids, model.tokenizer.vocab_size), "prompt")


def nonempty(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise invalid("The prompt is empty: it has no tokens.", param)
    return ids


def within_vocabulary(ids: list[int], vocab_size: int) -> list[int]:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise invalid(f"Token id {token} in 'prompt' is outside the vocabulary (0 to {vocab_size - 1}).", "prompt")
    return ids


def token_limit(body: ChatBody | CompletionBody, prompt_len: int, max_model_len: int) -> int:
    """The most new tokens: what was asked for, or the default of the endpoint, never past the context.

    Raises:
        OpenAIError: 400 context_length_exceeded, with the numbers, as OpenAI does.
    """
    wanted, param = asked_tokens(body)
    room = max_model_len - prompt_len
    if room < max(1, wanted or 1):
        raise OpenAIError(Kind.CONTEXT_LENGTH, context_message(max_model_len, prompt_len, wanted), param)
    if wanted is not None:
        return wanted
    return room if isinstance(body, ChatBody) else min(COMPLETION_MAX_TOKENS, room)


def asked_tokens(body: ChatBody | CompletionBody) -> tuple[int | None, str]:
    """The client's own limit, if it gave one, and the field to blame for the length; the newer name wins."""
    if isinstance(body, CompletionBody):
        return body.max_tokens, "prompt"
    newer = body.max_completion_tokens
    return (body.max_tokens if newer is None else newer), "messages"


def context_message(max_model_len: int, prompt_len: int, wanted: int | None) -> str:
    asked = f"{prompt_len} in the prompt" + (f" and {wanted} for the answer" if wanted else "")
    return (
        f"This model's maximum context length is {max_model_len} tokens, but the request has "
        f"{prompt_len + (wanted or 0)} tokens ({asked}). Shorten the prompt or ask for fewer tokens."
    )
