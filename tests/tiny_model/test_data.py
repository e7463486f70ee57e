"""The generator of the tiny model's dialogues: what is held out stays out, and every answer is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from random import Random
from string import Formatter
from typing import Any

import jsonschema
import pytest

from tools.tiny_model import dialogue as dialogues
from tools.tiny_model import evaluate, families, functions, lexicon, packing, project, talk, vocabulary, words
from tools.tiny_model.dialogue import Dialogue, Turn
from tools.tiny_model.source import Source, Wordings
from tools.tiny_model.words import Split

COUNT = 3000


@pytest.fixture(scope="module")
def seen() -> list[Dialogue]:
    return [dialogues.dialogue(Source(Random(number)), early=number % 10 == 0, long=number % 20 == 0)
            for number in range(COUNT)]


def text_of(dialogue: Dialogue) -> str:
    return "".join(text for text, _ in dialogues.segments(dialogue))


def splits() -> Iterator[Split | Wordings]:
    """Every (seen, unseen) pair of the modules."""
    for module in (words, talk, dialogues):
        yield from (value for value in vars(module).values() if isinstance(value, Split | Wordings))
    yield from (wordings for wordings, _ in (*project.FACTS, *talk.CHAT))
    yield from talk._SUMS.values()


def test_the_split_is_a_split() -> None:
    assert all(split.unseen and not set(split.seen) & set(split.unseen) for split in splits())
    assert sum(1 for _ in splits()) > 50
    names = [name for family in families.FAMILIES for name in family.names]
    assert not set(names) & {name for family in families.UNSEEN_FAMILIES for name in family.names}
    for split in (lexicon.VERBS, lexicon.NOUNS, lexicon.PARAMETERS):
        assert not set(split.unseen) & set(split.seen)
    assert not any(set(family.asks) & set(family.unseen_asks) for family in families.FAMILIES)


def test_training_never_sees_what_is_held_out(seen: list[Dialogue]) -> None:
    said = set(re.findall(r"\w+", " ".join(map(text_of, seen))))
    assert not said & {*words.NAMES.unseen, *words.CITIES.unseen}
    offered = {tool["function"]["name"] for dialogue in seen for tool in dialogue.tools}
    assert not offered & {name for family in families.UNSEEN_FAMILIES for name in family.names}
    assert not offered & {f"{verb}_{noun}" for verb, noun in product(lexicon.VERBS.unseen, lexicon.NOUNS.unseen)}


def test_every_question_of_a_family_holds_its_required_values() -> None:
    for family in (*families.FAMILIES, *families.UNSEEN_FAMILIES):
        wanted = [number for number, slot in enumerate(family.slots) if not slot.said]
        for ask in (*family.asks, *family.unseen_asks):
            assert sorted(int(name) for _, name, _, _ in Formatter().parse(ask) if name is not None) == wanted, ask


def test_families_share_no_name() -> None:
    names = [name for family in (*families.FAMILIES, *families.UNSEEN_FAMILIES) for name in set(family.names)]
    assert len(names) == len(set(names))


def test_words_held_out_are_in_no_list_of_training() -> None:
    held_out = {*lexicon.VERBS.unseen, *lexicon.NOUNS.unseen, *lexicon.PARAMETERS.unseen}
    groups = (*lexicon.ALIKE_VERBS, *lexicon.ALIKE_NOUNS)
    assert not held_out & {*lexicon.ANY, *(word for group in groups for word in group)}
    assert all(len(group) == len(set(group)) > 1 for group in groups)


def test_a_random_function_can_be_told_by_its_name_description_or_the_meaning_of_words() -> None:
    groups = [set(group) for group in (*lexicon.ALIKE_VERBS, *lexicon.ALIKE_NOUNS)]
    shared = meant = 0
    for number in range(400):
        family = functions.random_family(Source(Random(number)))
        name, *abouts = (words_of(text) for text in (family.names[0], *family.about))
        for ask in family.asks:
            known = name | set.intersection(*abouts)
            near = set[str]().union(*(group for group in groups if group & known))
            assert words_of(ask) & (known | near), (ask, family)
            shared += bool(words_of(ask) & known)
            meant += not words_of(ask) & known
    assert shared > 1500 and meant > 100


def words_of(text: str) -> set[str]:
    """In lower case; `getUser`, `get_user` and `get-user` have two."""
    return set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", text).lower()))


def test_functions_on_offer_often_begin_alike() -> None:
    alike = 0
    for number in range(300):
        tools = dialogues.choosing(Source(Random(number)), 1).tools
        begins = [re.findall("[A-Z]?[a-z]+", tool["function"]["name"])[0].lower() for tool in tools]
        alike += len(begins) > len(set(begins))
    assert alike > 20


def test_training_never_asks_as_the_evaluation_does(seen: list[Dialogue]) -> None:
    asked = {turn.text for dialogue in seen for turn in dialogue.turns if turn.role == "user"}
    for skill in evaluate.SKILLS:
        for case in evaluate.cases(skill, 40, seed=0):
            assert case.dialogue.turns[-2].text not in asked or case.dialogue.turns[-2].role == "ipython"


def test_training_never_sums_what_is_held_out(seen: list[Dialogue]) -> None:
    sums = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", "\n".join(turn.text for each in seen for turn in each.turns))
    assert len(sums) > 500
    for a, sign, b, result in sums:
        assert not words.unseen_pair(int(a), int(b))
        assert int(result) == talk.result(int(a), sign, int(b)) >= 0
    assert 0.05 < sum(words.unseen_pair(a, b) for a, b in product(range(10, 100), repeat=2)) / 8100 < 0.15


@pytest.mark.parametrize("unseen", [False, True])
def test_counting(unseen: bool) -> None:
    for number in range(300):
        question, answer = talk.counting(Source(Random(number), unseen))
        numbers = [int(each) for each in answer.split(", ")]
        step = 1 if numbers[-1] > numbers[0] else -1
        assert numbers == list(range(numbers[0], numbers[-1] + step, step))
        end = max(numbers)
        assert str(end) in question and (end in words.UNSEEN_ENDS) == unseen


@pytest.mark.parametrize("unseen", [False, True])
def test_what_is_copied_stands_in_the_question(unseen: bool) -> None:
    for number in range(300):
        source = Source(Random(number), unseen)
        question, answer = talk.echo(source)
        assert answer in question
        question, answer = talk.extraction(source)
        assert all(str(value) in question for value in json.loads(answer).values())
        question, answer = talk.times(source)
        assert answer.split()[0] in question and 2 <= len(set(answer.split())) + 1 <= len(answer.split())


@pytest.mark.parametrize("skill", talk.SKILLS)
def test_every_skill_asks_and_answers(skill: str) -> None:
    for number, unseen in product(range(100), (False, True)):
        question, answer = talk.SKILLS[skill](Source(Random(number), unseen))
        assert question.strip() == question and answer.strip() == answer and question and answer
        assert "{" not in question


def calls(dialogue: Dialogue) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what was asked, one call) for all calls."""
    for before, turn in zip(dialogue.turns, dialogue.turns[1:], strict=False):
        if turn.role == "assistant" and before.role == "user" and turn.text.startswith(('{"name": ', '[{"name": ')):
            found = json.loads(turn.text)
            if dialogue.tools and (isinstance(found, list) or "parameters" in found):
                yield from ((before.text, call) for call in (found if isinstance(found, list) else [found]))


def check_calls(dialogue: Dialogue) -> int:
    """Each call names an offered function, fits its schema, and takes its values from the question."""
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in dialogue.tools}
    assert len(offered) == len(dialogue.tools)
    found = list(calls(dialogue))
    for question, call in found:
        assert list(call) == ["name", "parameters"]
        jsonschema.validate(call["parameters"], offered[call["name"]])
        order = [name for name in offered[call["name"]]["properties"] if name in call["parameters"]]
        assert order == list(call["parameters"]), "in the schema's order"
        for value in call["parameters"].values():
            said = ("off", "on")[value] if isinstance(value, bool) else str(value)
            assert said.lower() in question.lower()
    return len(found)


def test_calls_fit_their_tools(seen: list[Dialogue]) -> None:
    assert sum(map(check_calls, seen)) > 1000
    lists = [turn.text for each in seen for turn in each.turns if turn.text.startswith('[{"name"')]
    assert any(len(json.loads(text)) == 1 for text in lists) and any(len(json.loads(text)) == 2 for text in lists)


def test_calls_of_the_evaluation_fit_their_tools() -> None:
    for skill in ("unseen tools: whole call", "random tools: whole call", "two calls at once"):
        assert all(check_calls(case.dialogue) for case in evaluate.cases(skill, 50, seed=0))


def test_results_are_told(seen: list[Dialogue]) -> None:
    """Each number that a sentence says stands in the results."""
    told = 0
    for dialogue in seen:
        returned = ""
        for turn in dialogue.turns:
            if turn.role == "ipython":
                returned += turn.text
            elif turn.role == "assistant" and returned:
                assert all(number in returned for number in re.findall(r"\d+", re.sub(r" in [^.]*", "", turn.text)))
                told += 1
                returned = ""
    assert told > 300


def test_memory() -> None:
    for number in range(200):
        turns = dialogues.remembering(Source(Random(number)), 2).turns
        name = re.fullmatch(r"Your name is (.+)\.", turns[-1].text)
        said = " ".join(turn.text for turn in turns[:-1])
        assert name is None or name[1] in said


def test_thoughts_are_right() -> None:
    for number in range(200):
        turn = dialogues.thinking(Source(Random(number)), 1).turns[-1]
        assert turn.thought
        for a, sign, b, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", turn.thought):
            assert int(result) == talk.result(int(a), sign, int(b))


def test_what_the_model_says_is_marked(seen: list[Dialogue]) -> None:
    for dialogue in seen[:300]:
        pieces = list(dialogues.segments(dialogue))
        assert [own for _, own in pieces] == [False, True] * (len(pieces) // 2)
        assert all(text.endswith("<|eot_id|>") for text, own in pieces if own)


def test_batches_are_the_same_each_time() -> None:
    tokenizer = vocabulary.train(0)
    encoder = packing.Encoder(tokenizer)
    first, again, other = (encoder.batch(2000, 0, number) for number in (1000, 1000, 1001))
    assert (first.tokens == again.tokens).all() and first.lengths == again.lengths
    assert len(first.tokens) != len(other.tokens) or (first.tokens != other.tokens).any()
    assert sum(first.lengths) == len(first.tokens) == len(first.targets) >= 2000
    assert 0.15 < (first.targets != packing.IGNORED).mean() < 0.7
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    assert (first.tokens == begin).sum() == len(first.lengths)


def test_a_word_has_the_same_tokens_everywhere() -> None:
    tokenizer = vocabulary.train(0)

    def tokens(text: str) -> list[str]:
        return list(tokenizer.encode(text, add_special_tokens=False).tokens)

    for word in ("Astrid", "zoveclin", "Krakow"):
        assert tokens(f"I see {word}")[-len(tokens(word)):] == tokens(word) == tokens(f'"{word}"')[1:-1]
    assert tokenizer.get_vocab_size() == vocabulary.SIZE
    text = "Grüße, 世界! 👩‍🚀 1024\n\n\tça va?"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    thought = tokenizer.encode("<think>\nYes.\n</think>\n\nYes.").ids
    assert tokenizer.decode(thought) == "<think>\nYes.\n</think>\n\nYes."


def test_thinking_only_opens_the_last_turn() -> None:
    opened = Dialogue((Turn("user", "Hi"), Turn("assistant", "Hello", "Kind.")), thinking=True)
    asked = opened._replace(thinking=False)
    assert [text for text, own in dialogues.segments(opened) if own] == ["Kind.\n</think>\n\nHello<|eot_id|>"]
    assert [text for text, own in dialogues.segments(asked) if own] == ["<think>\nKind.\n</think>\n\nHello<|eot_id|>"]
