"""Whole dialogues: system prompt, several skills in turn, tools, thoughts, memory.

In: a Source. Out: a Dialogue, with what the model is to say marked by its role. `segments` renders it to the very text
of the chat template (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import families, functions, talk
from .functions import Call, Offer
from .source import Source, Wordings

LISTED = "You can call these functions:\n"
HOW_TO_CALL = "To call one, answer with its call, filled in. To call several, answer with a list of these."
OPEN_THOUGHT = "<think>\n"
CLOSE_THOUGHT = "\n</think>\n\n"


class Turn(NamedTuple):
    role: str
    text: str
    thought: str = ""


class Dialogue(NamedTuple):
    """`thinking`: the template opens the thought of the last turn, as with enable_thinking."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    thinking: bool = False
    kind: str = ""


_SYSTEM = Wordings(
    ("You are a helpful assistant.", "You are a helpful, concise assistant.", "Answer briefly.", "You are a bot.",
     "You are a friendly assistant.", "Be kind.", "You are an expert.", "Help the user.", "You are an AI assistant.",
     "You are helpful and honest.", "Always be polite.", "You are a test system.", "Be helpful."),
    ("You are a polite assistant.", "Please be helpful.", "You are a concise bot."),
)
IN_CAPITALS = Wordings(
    ("Answer in capitals.", "Answer in capital letters.", "Write only in capitals.", "Use capital letters only.",
     "Always answer in upper case.", "Answer in uppercase.", "You shout: write everything in capitals.",
     "Write all answers in capital letters."),
    ("Please answer in capitals.", "Always write in capital letters."),
)
IN_ONE_WORD = Wordings(
    ("Answer in one word.", "Answer with one word.", "Use one word only.", "Always answer in one word.",
     "Answer with a single word.", "Reply with only one word.", "Your answers have one word."),
    ("Please answer in one word.", "Always reply with a single word."),
)
_PERSONA = Wordings(
    ("Your name is {name}.", "You are {name}.", "You are called {name}.", "You are an assistant named {name}.",
     "You are {name}, a helpful assistant.", "Your name is {name}. Be helpful.", "Act as {name}."),
    ("You are a bot called {name}.", "You are a helpful assistant named {name}."),
)
_THINK = Wordings(
    ("Think first. {question}", "{question} Think step by step.", "{question} Think first.",
     "Think step by step: {question}", "Think before you answer. {question}", "Think, then answer: {question}",
     "{question} Use <think> tags.", "{question} Show your thoughts.", "Please think. {question}",
     "{question} Please think.", "Please think before you answer. {question}", "First think. {question}",
     "{question} Please show your thoughts.", "Please think about this: {question}", "Think about it: {question}",
     "{question} Think about it first, please.", "{question} Please think before you answer.",
     "Please use <think> tags. {question}", "{question} Think carefully.", "I want you to think first. {question}",
     "{question} Go step by step.", "Kindly think first: {question}", "{question} Explain your thoughts first.",
     "Go step by step. {question}", "You should think first. {question}", "{question} Take your time and think.",
     "Please think carefully: {question}", "Let us think. {question}", "{question} Let us think step by step."),
    ("Please think first. {question}", "{question} Please think step by step."),
)
_TALK_WEIGHTS = {"chat": 8, "project": 12, "capital": 7, "counting": 10, "sums": 13, "echo": 10, "times": 11,
                 "story": 4, "extraction": 15, "other": 9}
_DRILLED = ("sums", "sums", "sums", "counting", "counting", "times", "times", "echo", "extraction")
_COPYING = ("echo", "echo", "times", "extraction")


def talking(source: Source, turns: int) -> Dialogue:
    """Unrelated questions, one after the other."""
    exchanges = [_skill(source) for _ in range(turns)]
    return Dialogue((*_system(source), *_turns(exchanges)), kind="talk")


def drilling(source: Source, turns: int) -> Dialogue:
    """One of the skills that need the most practice, several times."""
    skill = talk.SKILLS[source.choice(_DRILLED)]
    return Dialogue(tuple(_turns([skill(source) for _ in range(turns + 4)])), kind="drilling")


def copying(source: Source, turns: int) -> Dialogue:
    """Only what is copied from the question: where training begins."""
    exchanges = [talk.SKILLS[source.choice(_COPYING)](source) for _ in range(turns + 1)]
    return Dialogue(tuple(_turns(exchanges)), kind="copying")


def calling(source: Source, turns: int) -> Dialogue:
    """Tools: questions that need one, two or none of them, results, and the answers made of these."""
    offers = _offers(source, source.choice((1, 2, 2, 3, 3, 3, 4)))
    shown = tuple(offer.tool() for offer in offers)
    source.random.shuffle(offers)  # each is asked for in its turn
    made: list[Turn] = []
    thinking, results = source.chance(0.06), source.chance(0.5)
    for number in range(turns):
        last = number == turns - 1
        made += _tool_turn(source, offers, last, results, thinking and last)
        offers.append(offers.pop(0))
    return Dialogue((*_system(source), *made), shown, thinking and bool(made[-1].thought), "calling")


def choosing(source: Source, turns: int) -> Dialogue:
    """Nothing but calls, each to one of several functions: which one it is takes longest to learn."""
    offers = _offers(source, source.number(2, 4), short=True)
    calls = [functions.call(source, source.choice(offers)) for _ in range(turns + 5)]
    exchanges = [(call.question, call.text()) for call in calls]
    return Dialogue(tuple(_turns(exchanges)), tuple(offer.tool() for offer in offers), kind="choosing")


def styled(source: Source, turns: int) -> Dialogue:
    """System prompts that change the answers."""
    make = source.choice((_in_capitals, _in_one_word, _as_persona))
    system, exchanges = make(source, turns)
    return Dialogue((Turn("system", system), *_turns(exchanges)), kind="styled")


def remembering(source: Source, turns: int) -> Dialogue:
    """A name or a favourite, other talk, then the question for it."""
    between = [_skill(source) for _ in range(source.number(0, turns))]
    if source.chance(0.1):
        exchanges = [*between, (source.ask(talk.ASK_NAME), "You have not told me your name yet.")]
    elif source.chance(0.35):
        told, asked = talk.favourite(source)
        exchanges = [told, *between, asked]
    else:
        name = source.name()
        exchanges = [talk.introduction(source, name), *between, (source.ask(talk.ASK_NAME), f"Your name is {name}.")]
    return Dialogue((*_system(source), *_turns(exchanges)), kind="remembering")


def thinking(source: Source, turns: int) -> Dialogue:
    """The last answer comes after a thought: opened by the template, or because the user asks for it."""
    before = [_skill(source) for _ in range(source.number(0, 1))]
    question, answer, thought = source.choice(_THOUGHTFUL)(source)
    opened = source.chance(0.6)
    if not opened:
        question = source.pick(_THINK).replace("{question}", question)
    return Dialogue((*_system(source), *_turns(before), Turn("user", question), Turn("assistant", answer, thought)),
                    thinking=opened, kind="thinking")


_MAKERS: dict[Callable[[Source, int], Dialogue], int] = {
    talking: 30, calling: 22, choosing: 18, drilling: 8, styled: 10, remembering: 5, thinking: 11,
}


def dialogue(source: Source, early: bool = False, long: bool = False) -> Dialogue:
    """The mix that training sees.

    Args:
        early: half of it is copying, which everything else builds on.
        long: more turns, to fill a longer context.
    """
    turns = source.number(4, 12) if long else source.choice((1, 1, 2, 2, 3, 4))
    if early and source.chance(0.5):
        return copying(source, turns)
    make = source.random.choices(list(_MAKERS), list(_MAKERS.values()))[0]
    return make(source, turns)


def segments(dialogue: Dialogue) -> Iterator[tuple[str, bool]]:
    """(text, whether the model has to say it), alternating; together what the chat template renders."""
    turns, given = list(dialogue.turns), "<|begin_of_text|>"
    if dialogue.tools:
        system = turns.pop(0).text + "\n\n" if turns[0].role == "system" else ""
        given += _block("system", system + tools_text(dialogue.tools))
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            given += _block(turn.role, turn.text)
            continue
        given += _header("assistant")
        said = turn.text
        if turn.thought:
            said = turn.thought + CLOSE_THOUGHT + said
            if dialogue.thinking and number == len(turns) - 1:
                given += OPEN_THOUGHT
            else:
                said = OPEN_THOUGHT + said
        yield given, False
        yield said + "<|eot_id|>", True
        given = ""


def tools_text(tools: tuple[dict[str, Any], ...]) -> str:
    """The part of the system prompt that offers the tools."""
    return LISTED + "".join(_entry(tool["function"]) + "\n" for tool in tools) + HOW_TO_CALL


def _entry(function: dict[str, Any]) -> str:
    """The description, then the call with the kinds of values in place of values.

    This is short, and in the order of a question and its answer: so a small model can find the entry that is like the
    question, and copy.
    """
    schema = function["parameters"]
    kinds = (f'"{name}": {_kind(value, name in schema["required"])}' for name, value in schema["properties"].items())
    about = function["description"] + "\n" if "description" in function else ""
    return f'{about}{{"name": "{function["name"]}", "parameters": {{{", ".join(kinds)}}}}}'


def _kind(schema: dict[str, Any], required: bool) -> str:
    """Type or options, a question mark if it may be left out, the description. Strings stand in quotation marks."""
    text = "|".join(schema.get("enum", [schema["type"]])) + ("" if required else "?")
    text += f" ({schema['description']})" if "description" in schema else ""
    return f'"{text}"' if schema["type"] == "string" else text


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def _block(role: str, text: str) -> str:
    return _header(role) + text + "<|eot_id|>"


def _turns(exchanges: list[talk.Exchange]) -> Iterator[Turn]:
    for question, answer in exchanges:
        yield Turn("user", question)
        yield Turn("assistant", answer)


def _skill(source: Source, without: str = "") -> talk.Exchange:
    names = [name for name in _TALK_WEIGHTS if name != without]
    name = source.random.choices(names, [_TALK_WEIGHTS[name] for name in names])[0]
    if name == "other" and source.chance(0.3) and not source.unseen:
        return _not_offered(source), talk.OTHER_ANSWER
    return talk.SKILLS[name](source)


def _not_offered(source: Source) -> str:
    """What only a function could answer, and there is none."""
    known = [family for family in families.FAMILIES if family.result != "number"]
    family = source.choice(known) if source.chance(0.6) else functions.random_family(source)
    return functions.call(source, functions.offer(source, family)).question


def _system(source: Source) -> tuple[Turn, ...]:
    if source.chance(0.65):
        return ()
    if source.chance(0.12) and not source.unseen:
        return (Turn("system", source.phrase(3, 8).capitalize() + "."),)
    return (Turn("system", source.pick(_SYSTEM)),)


# Tools.

def _offers(source: Source, count: int, short: bool = False) -> list[Offer]:
    """So many functions or fewer, with names of their own and different purposes."""
    offers: list[Offer] = []
    for _ in range(count):
        offer = functions.offer(source, functions.family(source, [other.family for other in offers], short))
        if all(offer.name != other.name and not set(offer.family.names) & set(other.family.names) and
               not _same_questions(offer, other) for other in offers):
            offers.append(offer)
    return offers


def _same_questions(offer: Offer, other: Offer) -> bool:
    """Two functions that the same question could mean, such as `add` and `calculator`."""
    return offer.family.result == other.family.result == "number"


def _tool_turn(source: Source, offers: list[Offer], last: bool, results: bool, thinking: bool) -> list[Turn]:
    """The first of the functions is asked for. Without results the user just goes on."""
    kind = source.random.random()
    if kind < 0.15:
        computes = any(offer.family.result == "number" for offer in offers)
        plain = source.chance(0.25) and not source.unseen  # what is on offer must not lead astray
        question, answer = talk.capital_of(source) if plain else _skill(source, without="sums" if computes else "")
        return [Turn("user", question), Turn("assistant", answer)]
    if kind < 0.2:
        stranger = functions.offer(source, functions.random_family(source))
        if all(stranger.name != offer.name for offer in offers):
            asked = functions.call(source, stranger).question
            return [Turn("user", asked), Turn("assistant", talk.OTHER_ANSWER)]
    question, calls = _asked(source, offers, two=kind > 0.85)
    thought = f"I call {' and '.join(dict.fromkeys(call.name for call in calls))}." if thinking else ""
    turns = [Turn("user", question), Turn("assistant", calls_text(calls, source.chance(0.03)), thought)]
    if not results or last and (thinking or source.chance(0.35)):
        return turns
    turns += [Turn("ipython", call.returned) for call in calls]
    return [*turns, Turn("assistant", " ".join(call.sentence for call in calls))]


def _asked(source: Source, offers: list[Offer], two: bool) -> tuple[str, list[Call]]:
    offer = offers[0]
    if not two:
        call = functions.call(source, offer)
        return call.question, [call]
    if functions.takes_two(offer) and source.chance(0.8):
        question, *both = functions.two_calls(source, offer)
        return question, list(both)
    calls = [functions.call(source, each) for each in (offer, source.choice(offers))]
    first, second = (call.question for call in calls)
    return first + source.choice((" And ", " Also, ", " Then ")) + second[0].lower() + second[1:], calls


def calls_text(calls: list[Call], as_list: bool = False) -> str:
    """Calls as the model writes them: one object, or a list of several."""
    if len(calls) == 1 and not as_list:
        return calls[0].text()
    return "[" + ", ".join(call.text() for call in calls) + "]"


# System prompts that change the answers.

_Styled = tuple[str, list[talk.Exchange]]


def _in_capitals(source: Source, turns: int) -> _Styled:
    skills = (talk.chat, talk.capital, talk.capital, talk.capital, talk.capital_of, talk.capital_of, talk.echo,
              talk.about_project, talk.other)
    exchanges = [source.choice(skills)(source) for _ in range(turns)]
    return source.pick(IN_CAPITALS), [(question, answer.upper()) for question, answer in exchanges]


def _in_one_word(source: Source, turns: int) -> _Styled:
    return source.pick(IN_ONE_WORD), [source.choice((one_word_capital, _one_word_sum))(source) for _ in range(turns)]


def one_word_capital(source: Source) -> talk.Exchange:
    question, answer = talk.capital(source)
    short = answer.split(" is ")[1].removesuffix(".") if answer.startswith("The capital") else answer.split(
        " of ")[-1].removesuffix(".")
    return question, "Washington" if short.startswith("Washington") else short


def _one_word_sum(source: Source) -> talk.Exchange:
    question, answer = talk.sums(source)
    return question, answer.split(" = ")[1]


def _as_persona(source: Source, turns: int) -> _Styled:
    name = source.name()
    greetings, who = talk.CHAT[0][0], talk.CHAT[2][0]
    exchanges: list[talk.Exchange] = []
    for _ in range(turns):
        exchanges.append(source.choice((
            (source.ask(greetings), f"Hello! I am {name}. What can I do for you?"),
            (source.ask(who), f"I am {name}."), (source.ask(who), f"I am {name}."), talk.capital(source))))
    return source.pick(_PERSONA).format(name=name), exchanges


# Thoughts: question, answer, thought.

_Thought = tuple[str, str, str]


def _sum_thought(source: Source) -> _Thought:
    sign = source.choice("+-")
    a, b = talk.two_digit_pair(source, sign)
    tens, ones = b // 10 * 10, b % 10
    middle = talk.result(a, sign, tens)
    thought = f"{a} {sign} {tens} = {middle}. {middle} {sign} {ones} = {talk.result(middle, sign, ones)}."
    return f"What is {a} {sign} {b}?", f"{a} {sign} {b} = {talk.result(a, sign, b)}", thought


def _capital_thought(source: Source) -> _Thought:
    question, answer = talk.capital(source)
    return question, answer, "The user asks for a capital. I know it."


def _plain_thought(source: Source) -> _Thought:
    make, thought = source.choice((
        (talk.chat, "The user talks to me. I answer kindly."), (talk.echo, "I have to repeat the text."),
        (talk.counting, "I have to count, number by number."), (talk.about_project, "This is about the server."),
        (talk.extraction, "I have to write JSON."), (talk.other, "I do not know much about this.")))
    return (*make(source), thought)


_THOUGHTFUL = (_sum_thought, _sum_thought, _sum_thought, _capital_thought, _plain_thought, _plain_thought)
