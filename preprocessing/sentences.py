"""What the files of an embedding model's folder say: how token vectors become one vector, and what texts are given.

In: a folder as sentence-transformers writes it (modules.json and what it names; sbert.net, "Custom Models"), or any
other model folder. Out: a `Recipe`. `read` is the only function here that reads files; it needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from preprocessing.tokenizer import read_json

# Ways to make one vector of many, by the older names that are flags in 1_Pooling/config.json, in the order in which
# several are put together.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = tuple(POOLING_FLAGS.values())
ANY_SIZE = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a vector behind the pooling: "Dense", with its folder, or "Normalize"."""

    kind: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model's vectors are made.

    Attributes:
        transformer: the folder of the transformer and its tokenizer.
        declared: whether the folder says how token vectors become one (else the recipe is a guess).
        pooling: one or several of `POOLINGS`, put together.
        steps: what comes behind the pooling.
        max_tokens: the longest input, special tokens included; None: the files do not say.
        lower_case: texts are lower-cased.
        prompts: name → what is put in front of a text.
        default_prompt: what is put in front if no name is given.
        sizes: sizes that vectors may be cut to (`ANY_SIZE`: any); None: the model is not made for cutting.
    """

    transformer: Path
    declared: bool = False
    pooling: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = (Step("Normalize", Path()),)
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    sizes: tuple[int, ...] | None = None

    @property
    def normalises(self) -> bool:
        return any(step.kind == "Normalize" for step in self.steps)


def read(folder: Path) -> Recipe:
    """Reads a model folder.

    Raises:
        ValueError: it asks for something that is not known here.
    """
    listed = _modules(folder)
    transformer = folder / listed[0]["path"] if listed else folder
    settings = read_json(transformer / "sentence_bert_config.json")
    config = read_json(transformer / "config.json")
    prompts, default_prompt = _prompts(folder)
    recipe = Recipe(
        transformer=transformer,
        max_tokens=settings.get("max_seq_length") or _longest(transformer, config),
        lower_case=bool(settings.get("do_lower_case")),
        prompts=prompts,
        default_prompt=default_prompt,
        sizes=_sizes(config),
    )
    return _with_modules(recipe, folder, listed) if listed else recipe


def _modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of modules.json, in their order; their types without the package that they come from."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    entries = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda entry: entry["idx"])
    return [{"kind": entry["type"].rpartition(".")[2], "path": entry.get("path", "")} for entry in entries]


def _with_modules(recipe: Recipe, folder: Path, listed: list[dict[str, Any]]) -> Recipe:
    kinds = [entry["kind"] for entry in listed]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ValueError(f"{folder}/modules.json: wanted Transformer and Pooling first, found {', '.join(kinds)}")
    unknown = sorted(set(kinds[2:]) - {"Dense", "Normalize"})
    if unknown:
        raise ValueError(f"{folder}/modules.json: the module {unknown[0]} is not known (Dense and Normalize are)")
    pooling = read_json(folder / listed[1]["path"] / "config.json")
    if not pooling.get("include_prompt", True) and any(recipe.prompts.values()):
        raise ValueError(f"{folder}: a pooling that leaves the prompt out is not supported")
    steps = tuple(Step(entry["kind"], folder / entry["path"]) for entry in listed[2:])
    return replace(recipe, declared=True, pooling=_poolings(folder, pooling), steps=steps)


def _poolings(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    flagged = [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)]
    found = tuple(([named] if isinstance(named, str) else named) or flagged or ["mean"])
    wrong = [mode for mode in found if mode not in POOLINGS]
    if wrong:
        raise ValueError(f"{folder}: the pooling {wrong[0]} is not known (known: {', '.join(POOLINGS)})")
    return found


def _prompts(folder: Path) -> tuple[dict[str, str], str]:
    config = read_json(folder / "config_sentence_transformers.json")
    prompts = {name: text for name, text in config.get("prompts", {}).items() if isinstance(text, str)}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ValueError(f"{folder}: the default prompt {default} is not among its prompts")
    return prompts, prompts.get(default, "")


def _longest(folder: Path, config: Mapping[str, Any]) -> int | None:
    """What tokenizer and model take. A tokenizer without a limit names an enormous one."""
    told = (
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
        config.get("text_config", config).get("max_position_embeddings"),
    )
    known = [int(value) for value in told if isinstance(value, int | float) and 0 < value < 10**9]
    return min(known, default=None)


def _sizes(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Whether vectors may be cut, by the two names that config.json of Matryoshka models has for it."""
    sizes = config.get("matryoshka_dimensions")
    if sizes:
        return tuple(sizes)
    return ANY_SIZE if config.get("is_matryoshka") else None
