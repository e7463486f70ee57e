"""A checked body → what to generate: prompts, limits, sampling and how to answer. Chat and completions become one here.

In: the client's body, decoded, and the model. Out: a `Generation`. It knows nothing of tensors or chunks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from postprocessing.reading import PLAIN, Reading
from postprocessing.reasoning import Style
from postprocessing.tool_calls.families import FORCED
from preprocessing.body import Body, ChatBody, CompletionBody, parse
from preprocessing.errors import Kind, OpenAIError, invalid
from preprocessing.guides import STRUCTURED, Guide, behind_thought, leaves_free
from preprocessing.guides import guide as guide_of
from preprocessing.model import Model
from preprocessing.tokenizer import Tokenizer
from preprocessing.tools import NO_TOOLS, ToolUse, arguments_guide, calls_guide, tagged_guide, tool_use

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for completions; chat has none but the context
# Names that templates have for whether to think at all (Qwen 3; DeepSeek V3.1 and Granite).
THINKING_SWITCHES = ("enable_thinking", "thinking")
SMALLEST_TEMPERATURE = 1e-5  # dividing float32 logits by less overflows; nothing but the likeliest token is left anyway


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; `seed` is never absent, so that an engine with a fixed default does not repeat itself.

    Attributes:
        top_k: 0 for no limit.
        bias: token id → what is added to its logit.
        bad_words: token sequences that are never written.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    min_tokens: int
    bias: dict[int, float]
    bad_words: list[list[int]]

    @property
    def greedy(self) -> bool:
        return self.temperature < SMALLEST_TEMPERATURE or self.top_p == 0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log probs are wanted: with so many alternatives, of the prompt's tokens too, tokens named by text or by id."""

    top: int
    prompt: bool
    as_ids: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt and the most new tokens it may get (0: its log probs are all that is wanted)."""

    ids: list[int]
    text: str | None
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything that one request asks for.

    Attributes:
        chat: chat completion (True) or text completion.
        n: choices per prompt; the best of `best_of` candidates.
        end_ids: the model's own end tokens, the foremost first; empty if they are to be ignored.
        stop_ids: further tokens that end an answer. Neither are shown.
        stops: strings that end an answer; shown only with `include_stop`.
        reading: how the answer's text is read: reasoning, tool calls.
        echo: the prompt's text comes first.
    """

    chat: bool
    model: str
    prompts: list[Prompt]
    n: int
    best_of: int
    end_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    stops: tuple[str, ...]
    include_stop: bool
    sampling: Sampling
    log_probs: LogProbs | None
    guide: Guide | None
    reading: Reading
    skip_special_tokens: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    echo: bool


def prepare(endpoint: str, given: dict[str, Any], model: Model, seed: int) -> Generation:
    """Everything from the client's request to a `Generation`.

    Args:
        endpoint: "chat/completions" or "completions".
        given: the request body, decoded.
        model: the one that the request's `model` stands for; the answer has the name that was asked for.
        seed: a random number, used if the client gives none.

    Raises:
        OpenAIError: the request is at fault; the message says how.
    """
    body = parse(endpoint, given, ignore_unknown=model.limits.ignore_unknown)
    completion = body if isinstance(body, CompletionBody) else None
    best_of = (completion and completion.best_of) or body.n
    check_choices(len(as_list(completion.prompt)) if completion else 1, best_of, model.limits.max_choices)
    prompts: list[tuple[list[int], str | None]]
    if isinstance(body, ChatBody):
        ids, guide, reading = chat_prompt(body, model)
        prompts = [(ids, None)]
    else:
        guide, reading = constraint(body, model, NO_TOOLS), PLAIN
        prompts = completion_prompts(body, model)
    options = body.stream_options
    return Generation(
        chat=completion is None,
        model=body.model,
        prompts=[limited(body, ids, text, model.max_model_len) for ids, text in prompts],
        n=body.n,
        best_of=best_of,
        end_ids=() if body.ignore_eos else model.tokenizer.end_ids,
        stop_ids=tuple(within_vocabulary(body.stop_token_ids, model.tokenizer, "stop_token_ids")),
        stops=body.stops,
        include_stop=body.include_stop_str_in_output,
        sampling=sampling(body, model.tokenizer, seed),
        log_probs=log_probs(body),
        guide=guide,
        reading=reading,
        skip_special_tokens=body.skip_special_tokens,
        stream=body.stream,
        include_usage=bool(options and options.include_usage),
        continuous_usage=bool(options and options.include_usage and options.continuous_usage_stats),
        echo=completion is not None and completion.echo,
    )


def check_choices(prompts: int, best_of: int, most: int) -> None:
    if prompts * best_of > most:
        raise invalid(
            f"The request asks for {prompts * best_of} answers ({prompts} prompt(s) times {best_of}), "
            f"but the server allows {most}.",
            "n" if best_of > 1 else "prompt",
        )


# --- Prompts ---------------------------------------------------------------------------------------------------------


class ChatPrompt(NamedTuple):
    """A conversation as the model gets it, what its answer must look like, and how that is read."""

    ids: list[int]
    guide: Guide | None
    reading: Reading


def chat_prompt(body: ChatBody, model: Model) -> ChatPrompt:
    """The conversation through the model's chat template."""
    use = tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
    asked = constraint(body, model, use)
    text = model.tokenizer.template.render(
        body.messages,
        tools=use.tools,
        call=model.tools.tag if model.tools else None,
        add_generation_prompt=body.add_generation_prompt and not body.continue_final_message,
        continue_final_message=body.continue_final_message,
        variables=thinking_variables(body, model) | allowed_variables(body, model.limits.template_variables),
    )
    style = model.reasoning if body.reasoning_effort != "none" else None
    fresh = body.add_generation_prompt and not body.continue_final_message
    opened = model.reasoning is not None and (
        model.reasoning.opened_by(text) if fresh else model.reasoning.opened_within(prefill(body))
    )
    guide, held = asked, False
    if asked is not None and not leaves_free(asked):
        held = True
        guide, style = thoughtful(asked, style, model, opened=opened)
    # Calls are made outside of the answer proper by models whose style owns them, so the prompt must not lead there.
    if style is None and model.reasoning is not None and (held or use.mode == "none" or not model.reasoning.owns_calls):
        text = model.reasoning.thoughtless(text, model.tokenizer.template.source, opened=opened, fresh=fresh)
        opened = False
    check_length(text, model, "messages")
    ids = model.tokenizer.encode(text, add_special_tokens=body.add_special_tokens)
    reading = Reading(
        # What a guide of ours forces is JSON, whatever the model would write by itself.
        family=None if use.mode == "none" else FORCED if held else model.tools,
        tools=use.schemas,
        forced=use.forced,
        only_first=not use.parallel,
        # A model that was asked not to think may do so all the same.
        style=style if style or held else model.reasoning,
        opened=opened,
        show_reasoning=body.include_reasoning,
        names=model.reasoning_fields,
        call_id=model.tools.call_id if model.tools else "openai",
    )
    return ChatPrompt(nonempty(ids, "messages"), guide, reading)


def prefill(body: ChatBody) -> str:
    """The beginning of the answer that the client has written."""
    return body.messages[-1].text if body.continue_final_message else ""


def thoughtful(guide: Guide, style: Style | None, model: Model, *, opened: bool) -> tuple[Guide, Style | None]:
    """A guide that leaves room for a thought, and the style of the thoughts to expect.

    A guide holds from the first token on. Where the engine cannot be told that it holds behind a thought only, there is
    none.
    """
    if style is None or style.fence is None or "structural_tag" not in model.guide_types:
        return guide, None
    (begin, *_), (end, *_) = style.fence.opens, style.fence.closes
    behind = behind_thought(guide, begin, end, opened=opened)
    return (guide, None) if behind is None else (behind, style)


def thinking_variables(body: ChatBody, model: Model) -> dict[str, object]:
    """`reasoning_effort` under the names that templates have for it."""
    effort = body.reasoning_effort
    if effort is None:
        return {}
    given = {"reasoning_effort": effort, **dict.fromkeys(THINKING_SWITCHES, effort != "none")}
    return {name: value for name, value in given.items() if model.tokenizer.template.mentions(name)}


def check_length(text: str, model: Model, param: str) -> None:
    """Refuses a text that is far too long before the work of tokenizing it."""
    fewest = model.tokenizer.fewest_tokens(text)
    if fewest > model.max_model_len:
        raise OpenAIError(
            Kind.CONTEXT_LENGTH,
            f"This model's maximum context length is {model.max_model_len} tokens, but the prompt of {len(text)} "
            f"characters has more than {fewest - 1} tokens. Shorten the prompt.",
            param,
        )


def allowed_variables(body: ChatBody, allowed: Sequence[str]) -> dict[str, object]:
    """Only variables that the server knows reach a template: others could replace what the server itself passes."""
    for name in body.chat_template_kwargs:
        if name not in allowed:
            field = f"chat_template_kwargs.{name[:64]}"
            raise invalid(f"'{field}' is not allowed; allowed are: {', '.join(allowed) or 'none'}.", field)
    return body.chat_template_kwargs


def completion_prompts(body: CompletionBody, model: Model) -> list[tuple[list[int], str | None]]:
    """Each prompt's tokens, and its text if it came as text."""
    found: list[tuple[list[int], str | None]] = []
    for prompt in as_list(body.prompt):
        if isinstance(prompt, str):
            check_length(prompt, model, "prompt")
            check_length(body.suffix or "", model, "suffix")
            ids = text_prompt(body, prompt, model.tokenizer)
            found.append((nonempty(ids, "prompt"), prompt))
        else:
            if body.suffix:
                raise invalid("'suffix' is only allowed when 'prompt' is text.", "suffix")
            ids = within_vocabulary(list(prompt), model.tokenizer, "prompt")
            found.append((nonempty(ids, "prompt"), None))
    if not found:
        raise invalid("'prompt' must not be an empty list.", "prompt")
    return found


def as_list(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str] | list[list[int]]:
    """The four forms of a prompt as a list of prompts."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [prompt]
    return prompt  # type: ignore[return-value]


def text_prompt(body: CompletionBody, text: str, tokenizer: Tokenizer) -> list[int]:
    """A text's tokens; an empty text is the BOS token alone where the model has one."""
    if body.suffix:
        if tokenizer.fim is None:
            raise invalid("This model cannot fill in the middle: its vocabulary has no tokens for it.", "suffix")
        text = f"{tokenizer.fim.prefix}{text}{tokenizer.fim.suffix}{body.suffix}{tokenizer.fim.middle}"
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return tokenizer.encode(text, add_special_tokens=body.add_special_tokens) or bos


def nonempty(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise invalid("The prompt is empty: it has no tokens.", param)
    return ids


def within_vocabulary(ids: list[int], tokenizer: Tokenizer, param: str) -> list[int]:
    for token in ids:
        if not 0 <= token < tokenizer.vocab_size:
            last = tokenizer.vocab_size - 1
            raise invalid(f"Token id {token} in '{param}' is outside the vocabulary (0 to {last}).", param)
    return ids


# --- Limits ----------------------------------------------------------------------------------------------------------


def limited(body: Body, ids: list[int], text: str | None, max_model_len: int) -> Prompt:
    """A prompt with the most new tokens: what was asked for, or the endpoint's default, never past the context.

    Raises:
        OpenAIError: 400 context_length_exceeded, with the numbers, as OpenAI does.
    """
    wanted = asked_tokens(body)
    chat = isinstance(body, ChatBody)
    room = max_model_len - len(ids)
    if room < max(1, wanted or 1):
        message = context_message(max_model_len, len(ids), wanted)
        raise OpenAIError(Kind.CONTEXT_LENGTH, message, "messages" if chat else "prompt")
    most = wanted if wanted is not None else room if chat else min(COMPLETION_MAX_TOKENS, room)
    if body.min_tokens > most:
        raise invalid(
            f"'min_tokens' must be at most the {most} tokens of the answer; got {body.min_tokens}.", "min_tokens"
        )
    return Prompt(ids, text, most)


def asked_tokens(body: Body) -> int | None:
    """The client's own limit, if it gave one; of two names the newer one wins."""
    newer = body.max_completion_tokens if isinstance(body, ChatBody) else None
    return body.max_tokens if newer is None else newer


def context_message(max_model_len: int, prompt_len: int, wanted: int | None) -> str:
    asked = f"{prompt_len} in the prompt" + (f" and {wanted} for the answer" if wanted else "")
    return (
        f"This model's maximum context length is {max_model_len} tokens, but the request has "
        f"{prompt_len + (wanted or 0)} tokens ({asked}). Shorten the prompt or ask for fewer tokens."
    )


# --- Sampling --------------------------------------------------------------------------------------------------------


def sampling(body: Body, tokenizer: Tokenizer, seed: int) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(0, body.top_k),
        seed=seed if body.seed is None else body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        min_tokens=body.min_tokens,
        bias=biases(body.logit_bias, tokenizer),
        bad_words=bad_words(body.bad_words, tokenizer),
    )


def biases(given: dict[str, float], tokenizer: Tokenizer) -> dict[int, float]:
    """Token ids are strings in JSON."""
    for key in given:
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < tokenizer.vocab_size):
            last = tokenizer.vocab_size - 1
            raise invalid(f"'logit_bias' has the key '{key[:32]}', which is no token id (0 to {last}).", "logit_bias")
    return {int(key): value for key, value in given.items()}


def bad_words(words: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """A word is banned at the beginning of a text and after a space: those are different tokens."""
    found: list[list[int]] = []
    for word in words:
        for text in (word, " " + word.lstrip()):
            ids = tokenizer.encode(text, add_special_tokens=False)
            if ids and ids not in found:
                found.append(ids)
    return found


def constraint(body: Body, model: Model, use: ToolUse) -> Guide | None:
    """What the answer must look like.

    Raises:
        OpenAIError: 400 if it cannot be enforced: an answer without it would be worse than none.
    """
    older = {name: getattr(body, f"guided_{name}") for name in STRUCTURED}
    asked = guide_of(body.response_format, body.structured_outputs, older)
    found = calling(use, asked, model)
    if found is not None and found.type not in model.guide_types:
        known = ", ".join(model.guide_types) or "nothing"
        raise invalid(f"The engine cannot enforce a constraint of type '{found.type}'; it can enforce: {known}.")
    return found


def calling(use: ToolUse, asked: Guide | None, model: Model) -> Guide | None:
    """The guide of a request, tools considered: calls that are forced, and calls beside an answer of a given form.

    A call that has to come takes the place of what the answer would have to look like.
    """
    key = FORCED.arguments_key if model.tools is None else model.tools.arguments_key
    if use.mode == "named":
        return arguments_guide(use)
    if use.mode == "required":
        return calls_guide(use, key)
    if use.mode == "none":
        return asked
    if asked is not None:
        if asked.type not in ("json", "json_schema"):
            raise invalid(f"A constraint of type '{asked.type}' cannot be combined with 'tools'.", "tools")
        return calls_guide(use, key, json.loads(asked.text) if asked.text else {"type": "object"})
    # The arguments of strict functions are enforced where the engine can watch for the beginning of a call.
    if use.strict and model.tools is not None and model.tools.tag and "structural_tag" in model.guide_types:
        return tagged_guide(use, model.tools.tag)
    return None


def log_probs(body: Body) -> LogProbs | None:
    if isinstance(body, ChatBody):
        return LogProbs(body.top_logprobs or 0, False, body.return_tokens_as_token_ids) if body.logprobs else None
    assert isinstance(body, CompletionBody)
    if body.logprobs is None:
        return None
    return LogProbs(body.logprobs, body.echo, body.return_tokens_as_token_ids)
