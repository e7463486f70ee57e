"""A model as clients know it, and what its operator allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from postprocessing.reasoning import Style
from postprocessing.tool_calls.families import Family
from preprocessing.errors import Kind, OpenAIError
from preprocessing.lora import Adapter
from preprocessing.tokenizer import Tokenizer

MAX_CHOICES = 64
# What the contract has; an engine that is not configured for it says so.
GUIDE_TYPES = ("json", "json_schema", "regex", "ebnf_grammar")
# Switches that templates of known model families have; none can replace what the server itself passes to a template.
TEMPLATE_VARIABLES = ("enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "date_string")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_choices: answers of one request, prompts times `best_of`.
        ignore_unknown: drop request fields that are unknown, instead of refusing them.
        template_variables: names allowed in `chat_template_kwargs`.
    """

    max_choices: int = MAX_CHOICES
    ignore_unknown: bool = False
    template_variables: tuple[str, ...] = TEMPLATE_VARIABLES


@dataclass(frozen=True, slots=True)
class Model:
    """A served model.

    Attributes:
        name: what clients put into `model`.
        max_model_len: prompt and answer together, in tokens.
        created: Unix time in seconds, for /v1/models.
        guide_types: what the engine can enforce, in the words of its contract.
        tools: how the model writes tool calls; None: its text is never taken for a call.
        reasoning: how the model writes its thoughts, if it does.
        reasoning_fields: what they are called in answers.
        adapters: LoRA adapters, by what clients call them.
    """

    name: str
    tokenizer: Tokenizer
    max_model_len: int
    created: int
    limits: Limits = field(default_factory=Limits)
    guide_types: tuple[str, ...] = GUIDE_TYPES
    tools: Family | None = None
    reasoning: Style | None = None
    reasoning_fields: tuple[str, ...] = ("reasoning_content",)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def adapter(self, name: str | None) -> Adapter | None:
        """The adapter that a request names, if it names one.

        Raises:
            OpenAIError: 404 if there is none of that name.
        """
        if name is None:
            return None
        if name not in self.adapters:
            told = f"The model '{self.name}' has no LoRA adapter '{name[:128]}'."
            raise OpenAIError(Kind.MODEL_NOT_FOUND, told, "model")
        return self.adapters[name]
