"""The functions that dialogues offer as tools: the hand-written families, and random ones that no model can know.

In: a Source. Out: an Offer (a tool as the server gets it) and Calls to it, each with the question that needs it, the
arguments, a result, and the sentence that tells the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from . import lexicon
from .families import EVERYDAY, FAMILIES, UNSEEN_FAMILIES, Family, Slot
from .source import Source


class Offer(NamedTuple):
    """A family as one request offers it: its names chosen."""

    family: Family
    name: str
    about: str
    parameters: tuple[str, ...]
    with_about: bool = False  # parameters have descriptions

    def tool(self) -> dict[str, Any]:
        """As OpenAI's `tools` has it."""
        slots = list(zip(self.parameters, self.family.slots, strict=True))
        properties = {name: self._schema(slot) for name, slot in slots}
        required = [name for name, slot in slots if not slot.said]
        schema = {"type": "object", "properties": properties, "required": required}
        about = {"description": self.about} if self.about else {}
        return {"type": "function", "function": {"name": self.name, **about, "parameters": schema}}

    def _schema(self, slot: Slot) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": _TYPES.get(slot.kind, "string")}
        if slot.kind not in _VALUES:
            schema["enum"] = slot.kind.split("|")
        if self.with_about:
            schema["description"] = slot.about
        return schema


class Call(NamedTuple):
    """A question, the call that it needs, what the function returns, and the sentence that says so."""

    question: str
    name: str
    arguments: dict[str, Any]
    returned: str
    sentence: str

    def text(self) -> str:
        return json.dumps({"name": self.name, "parameters": self.arguments}, ensure_ascii=False)


_TYPES = {"whole": "integer", "small": "integer", "decimal": "number", "switch": "boolean"}
_VALUES: dict[str, Callable[[Source], Any]] = {
    "city": Source.city,
    "name": Source.name,
    "word": Source.word,
    "text": lambda source: source.phrase(2, 4),
    "whole": lambda source: source.number(1, 999),
    "small": lambda source: source.number(1, 60),
    "decimal": lambda source: source.choice((source.number(1, 500), source.number(1, 999) / 10)),
    "switch": lambda source: source.chance(0.5),
    "code": lambda source: "".join(source.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(source.number(2, 4))),
    "mail": lambda source: f"{source.name().lower()}@example.com",
    "clock": lambda source: f"{source.number(0, 23):02d}:{source.choice((0, 15, 30, 45)):02d}",
    "sum": lambda source: _sum(source),
}


def _sum(source: Source) -> str:
    a, b = source.pair(1, 99)
    return f"{a} {source.choice('+-*')} {b}"


_PLAIN_KINDS = ("city", "name", "word", "word", "whole", "whole", "small", "decimal", "code", "switch", "enum")
_COUNTS = (1, 1, 2, 2, 3)  # of parameters
_NO_TEXT = ("city", "name", "code", "whole", "mail")
_RICH_KINDS = (*_PLAIN_KINDS, "enum", "enum", "text", "mail", "clock")  # those of training
_TELLING = {
    "city": "city location place town destination origin area region home_town start end",
    "name": "name person user customer guest owner author contact employee friend member driver player who",
    "mail": "email mail address email_address to recipient sender reply_to",
    "clock": "time at when start_time end_time hour begin until",
    "whole": "id number amount total year price user_id", "small": "count quantity times days minutes age size",
    "code": "code key serial abbreviation ref", "text": "text message title subject note query description",
    "switch": "on enabled active state switch", "decimal": "amount value price weight rate",
}  # kind -> names that tell it
_TITLES = (
    "{verb} the {noun}", "{verb} the {noun}", "{verb} {noun}", "Please {verb} the {noun}",
    "I want to {verb} the {noun}", "{verb} a {noun}", "Can you {verb} the {noun}",
    "You should {verb} the {noun}", "Could you {verb} my {noun}",
    "{verb} my {noun}", "{verb} this {noun}", "We have to {verb} the {noun}", "I need to {verb} a {noun}",
    "What is the {noun}", "Show me the {noun}", "I need a {noun}", "Give me the {noun}", "When is the {noun}",
    "How is the {noun}", "Which {noun} is it", "The {noun}", "{noun}", "Use {function}", "Call {function}",
    "Do you have a {noun}", "Where is the {noun}", "Get me a {noun}", "{verb} some {noun}",
    "Is there a {noun}", "Find the {noun}", "Next {noun}", "When does the {noun} come", "How much is the {noun}",
    "What about the {noun}", "Tell me the {noun}", "The next {noun}", "{verb} the {noun} of the {other}",
    "What is the {noun} of the {other}", "The {other} {noun}", "{verb} the {other} {noun}", "My {noun}, please",
    "What can I {verb} as a {noun}", "Let the {noun} {verb}", "Make the {noun} {verb}", "How do I {verb} the {noun}",
)
_AMID = ("{verb} the {value} {noun}", "{verb} {value} {noun}", "The {value} {noun}", "I want the {value} {noun}",
         "{verb} {value} of the {noun}", "Please {verb} the {value} {noun}", "Is the {value} {noun} here",
         "Make the {value} {noun} {verb}", "Which {value} {noun} is it", "{value} {noun}", "{noun}: {value}")
_UNSEEN_TITLES = ("Now {verb} the {noun}", "Let us {verb} the {noun}")
_FUNCTIONS = (
    "{verb}_{noun}", "{verb}_{noun}", "{noun}_{verb}", "{verb}{Noun}",
    "{verb}_{adjective}_{noun}", "{Verb}{Noun}", "{verb}-{noun}", "{noun}", "{noun}{Verb}", "{adjective}_{noun}",
    "{verb}_{other}_{noun}", "{verb}_{noun}_{other}", "{other}_{noun}", "{verb}{Other}{Noun}",
)
_ABOUTS = ("{Verb} the {noun}.", "{Verb} a {noun}", "Use this to {verb} a {noun}.",
           "Function to {verb} one {noun}.", "{Verb} the {adjective} {noun}.", "Lets you {verb} the {noun}",
           "{Verb} the {noun} of a {other}.", "{Verb} the {other} {noun}.", "{Noun}: {verb}",
           "The {noun} of the {other}.",
           "{Verb} the {noun} for a {other}", "To {verb} the {noun}", "{Verb} or change the {noun}.")
_USUAL_FUNCTIONS, _USUAL_ABOUTS = 4, 3  # so many of these, from the first, are in the evaluation
_USUAL_VERBS = "get get find set add create send show check start book search save make list delete open".split()
_HELD_OUT = {name for family in UNSEEN_FAMILIES for name in family.names}
_LINKS = (" with ", " with the ", " for ", ", ")
_MENTIONS = (
    "{name} {value}", "{name} {value}", "{name} {value}", "the {name} {value}", "{name} = {value}", "{name}: {value}",
    "{name} of {value}", "{value} as {name}", "{value} {name}", "{name} set to {value}", "{name}={value}",
    "a {name} of {value}", "{value} as the {name}", "the {name} is {value}", '{name} "{value}"',
)
_BARE = (" ", " ", " for ", " in ", " with ", " to ", " at ", " of ", " by ", " on ", ": ", " from ", " as ", " about ")


def family(source: Source, near: Sequence[Family] = (), short: bool = False) -> Family:
    """An everyday family, any hand-written one, or a random one (for `near` and `short` see there)."""
    if source.chance(0.5):
        return random_family(source, short, near)
    if source.unseen:
        return source.choice(UNSEEN_FAMILIES)
    return source.choice(EVERYDAY if source.chance(0.2) else FAMILIES)


def random_family(source: Source, short: bool = False, near: Sequence[Family] = ()) -> Family:
    """A function whose name, parameters and values make no more sense than the question says.

    Args:
        short: one parameter at most.
        near: others on offer; now and then it begins like one of them.
    """
    named, told, said = _words(source, near)
    function = source.choice(_FUNCTIONS[:_USUAL_FUNCTIONS] if source.unseen else _FUNCTIONS).format(**named)
    while function in _HELD_OUT:
        function += f"_{source.invented(1)}"
    abouts = tuple(about.format(**told) for about in (_ABOUTS[:_USUAL_ABOUTS] if source.unseen else _ABOUTS))
    slots = _random_slots(source, source.choice((0, 1, 1) if short else _COUNTS))
    ask = _unseen_ask if source.unseen else _ask
    asks = tuple(ask(source, {**said, "function": function}, slots) for _ in range(4 if source.unseen else 6))
    return Family((function,), abouts, slots, asks, source.choice(("status", "number", "text", "pairs", "pairs")))


_Words = dict[str, str]  # what stands for {verb}, {noun}, ... and capitalised for {Verb}, {Noun}


def _words(source: Source, near: Sequence[Family]) -> tuple[_Words, _Words, _Words]:
    """The words of the name, the description and the question.

    Mostly they are the same. In training the question may use others that mean about the same, or only the description
    has its words and the name says something else.
    """
    verb, noun = source.pick(lexicon.VERBS), source.pick(lexicon.NOUNS)
    if source.unseen:
        same = _forms(verb, noun, source.choice(lexicon.ADJECTIVES), "")
        return same, same, same
    verb, noun = _usual(source, verb, near), _varied(source, noun, 0.2)
    other = _varied(source, source.pick(lexicon.NOUNS), 0.0)
    adjective = source.choice(lexicon.ADJECTIVES)
    chance = source.random.random()
    if chance < 0.6:
        same = _forms(verb, noun, adjective, other)
        return same, same, same
    if chance < 0.78:
        noun, said_noun = source.random.sample(source.choice(lexicon.ALIKE_NOUNS), 2)
        named = _forms(verb, noun, adjective, other)
        said = _forms(verb if source.chance(0.3) else source.pick(lexicon.VERBS), said_noun, adjective, other)
    elif chance < 0.86:
        verb, said_verb = source.random.sample(source.choice(lexicon.ALIKE_VERBS), 2)
        named, said = _forms(verb, noun, adjective, other), _forms(said_verb, noun, adjective, other)
    else:
        named = _forms(source.pick(lexicon.VERBS), _varied(source, source.pick(lexicon.NOUNS), 0.2), adjective, other)
        told = _forms(verb, noun, adjective, other)
        return named, told, told
    return named, source.choice((named, named, said)), said


def _forms(verb: str, noun: str, adjective: str, other: str) -> _Words:
    return {"verb": verb, "noun": noun, "adjective": adjective, "other": other,
            "Verb": verb.capitalize(), "Noun": noun.capitalize(), "Other": other.capitalize()}


def _usual(source: Source, verb: str, near: Sequence[Family]) -> str:
    """Now and then a verb that many functions begin with, that of another one on offer, or any word."""
    chance = source.random.random()
    if chance < 0.2:
        return source.choice(_USUAL_VERBS)
    if chance < 0.65 and near:
        begin = source.choice(near).names[0].split("_")[0]
        return begin if begin.isascii() and begin.islower() else verb
    return source.choice(lexicon.ANY) if chance < 0.72 else verb


def _varied(source: Source, noun: str, invented: float) -> str:
    """The noun, any word in its place, or one that does not exist."""
    chance = source.random.random()
    if chance < invented:
        return source.invented(2)
    return source.choice(lexicon.ANY) if chance < 0.55 else noun


def _unseen_ask(source: Source, parts: dict[str, str], slots: tuple[Slot, ...]) -> str:
    mentions = " and ".join(f"{slot.names[0]} {{{number}}}" for number, slot in enumerate(slots))
    title, link = source.choice(_UNSEEN_TITLES).format(**parts).capitalize(), source.choice(_LINKS)
    return title + (link + mentions if slots else "")


def _ask(source: Source, parts: dict[str, str], slots: tuple[Slot, ...]) -> str:
    """The title, then the values: bare where the kind tells which is which, else with the parameter's name."""
    title = source.choice(_TITLES)
    text = title.format(**parts)
    if len(slots) == 1 and source.chance(0.25):
        text = source.choice(_AMID).format(**parts, value="{0}")
        return text[0].upper() + text[1:]
    if "{function}" not in title and source.chance(0.9):
        text = text[0].upper() + text[1:]
    order = list(enumerate(slots))
    if source.chance(0.2):
        source.random.shuffle(order)
    named = False
    for number, slot in order:
        if all(_apart(slot, other) for other in slots if other is not slot) and source.chance(0.5):
            text, named = text + source.choice(_BARE) + f"{{{number}}}", False
            continue
        link = source.choice((" and ", " and ", ", ", " with ")) if named else source.choice(_LINKS)
        said = source.choice(_MENTIONS).format(name=_spoken(slot.names[0]), value=f"{{{number}}}")
        text, named = text + link + said, True
    return text


def _apart(one: Slot, other: Slot) -> bool:
    """Whether a value says to which of the two it belongs: by its type, by its options, or by what the names tell."""
    if _TYPES.get(one.kind, "string") != _TYPES.get(other.kind, "string"):
        return True
    return one.kind != other.kind and all(_tells(slot) for slot in (one, other))


def _tells(slot: Slot) -> bool:
    return slot.kind not in _VALUES or slot.names[0] in _TELLING.get(slot.kind, "").split()


def _spoken(name: str) -> str:
    """A parameter's name as a question says it."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return words.replace("_", " ").strip()


def _random_slots(source: Source, count: int) -> tuple[Slot, ...]:
    if source.unseen:
        kinds = [source.choice(_PLAIN_KINDS) for _ in range(count)]
        names = source.random.sample(lexicon.PARAMETERS.unseen, count)
    else:
        kinds = [source.choice(_RICH_KINDS) for _ in range(count)]
        names = list(dict.fromkeys(_parameter(source, kind) for kind in kinds))
    return tuple(Slot((name,), _options(source) if kind == "enum" else kind, f"The {_spoken(name)}")
                 for name, kind in zip(names, kinds, strict=False))


def _options(source: Source) -> str:
    options = "|".join(dict.fromkeys(source.word() for _ in range(source.number(2, 4))))
    return "low|high" if options in _VALUES else options


def _parameter(source: Source, kind: str) -> str:
    """A parameter's name: one that tells the kind, a usual one, any word, two words, or one that does not exist."""
    chance = source.random.random()
    if chance < 0.35 and kind in _TELLING:
        return source.choice(_TELLING[kind].split())
    if chance < 0.45:
        return source.invented()
    if chance < 0.62:
        return source.choice(lexicon.ANY)
    word = source.pick(lexicon.PARAMETERS)
    if chance < 0.8:
        return word
    first = source.choice(lexicon.ADJECTIVES) if source.chance(0.5) else source.pick(lexicon.NOUNS)
    return first + word.capitalize() if source.chance(0.25) else f"{first}_{word}"


def offer(source: Source, family: Family) -> Offer:
    """Chooses the names by which one request knows the family; training sees many that say nothing."""
    name = source.choice(family.names)
    about = source.choice(family.about)
    if source.chance(0.12):
        name = "".join(part[0].upper() + part[1:] for part in name.split("_"))
    elif not source.unseen:
        name, about = _renamed(source, name, about)
    slots = family.slots
    if slots and slots[-1].said and source.chance(0.6):
        slots = slots[:-1]
    slots = tuple(slot._replace(about=source.choice(slot.about.split(" | "))) for slot in slots)
    return Offer(replace(family, slots=slots), name, about, _parameter_names(source, slots), source.chance(0.3))


def _renamed(source: Source, name: str, about: str) -> tuple[str, str]:
    """Now and then a name with something before or behind it, one that says nothing, or no description."""
    chance = source.random.random()
    if chance < 0.15:
        extra = source.invented(1)
        return (f"{name}_{extra}" if source.chance(0.5) else f"{extra}_{name}"), about
    if chance < 0.27:
        return source.invented(2), about
    return name, "" if chance < 0.33 else about


def _parameter_names(source: Source, slots: tuple[Slot, ...]) -> tuple[str, ...]:
    """In training one that stands alone may have any name: its value is what the question has."""
    if len(slots) == 1 and not source.unseen and source.chance(0.3):
        return (_parameter(source, ""),)
    names: list[str] = []
    for slot in slots:
        name = source.choice(slot.names)
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return tuple(names)


def call(source: Source, offer: Offer) -> Call:
    """A question that this function answers."""
    values = [_value(source, slot) for slot in offer.family.slots]
    question = source.choice(offer.family.wordings(source.unseen)).format(*map(_said, values))
    if offer.family.slots and offer.family.slots[-1].said:
        if source.chance(0.6):
            question += offer.family.slots[-1].said.format(value=values[-1])
        else:
            values = values[:-1]
    return _finish(source, offer, _closed(source, question), values)


def takes_two(offer: Offer) -> bool:
    """Whether one question may hold two values: not where they are free text."""
    family = offer.family
    return bool(family.both) or len(family.slots) == 1 and family.slots[0].kind in _NO_TEXT


def two_calls(source: Source, offer: Offer) -> tuple[str, Call, Call]:
    """One question for two values of the first slot."""
    first, second = (_value(source, offer.family.slots[0]) for _ in range(2))
    wordings = offer.family.both or [ask.replace("{0}", "{0} and {1}") for ask in offer.family.asks]
    question = source.choice(wordings).format(first, second)
    return question, _finish(source, offer, question, [first]), _finish(source, offer, question, [second])


def _finish(source: Source, offer: Offer, question: str, values: list[Any]) -> Call:
    arguments = dict(zip(offer.parameters, values, strict=False))
    returned, sentence = _RESULTS[offer.family.result](source, values)
    return Call(question, offer.name, arguments, returned, sentence)


def _value(source: Source, slot: Slot) -> Any:
    return _VALUES[slot.kind](source) if slot.kind in _VALUES else source.choice(slot.kind.split("|"))


def _said(value: Any) -> Any:
    return ("off", "on")[value] if isinstance(value, bool) else value


def _closed(source: Source, question: str) -> str:
    """With the end mark that fits, or none."""
    if source.chance(0.15) or question[-1] in ".?!":
        return question
    first = question.split()[0].rstrip(".,:").lower().removesuffix("'s")
    asking = first in ("what", "how", "is", "who", "when", "can", "weather", "current", "population", "next", "price",
                        "where", "which", "did", "does", "will", "should", "are", "am", "any", "has")
    return question + ("?" if asking else ".")


# Results: what the function returns, and how the answer says it.

def _weather(source: Source, values: list[Any]) -> tuple[str, str]:
    degrees = source.number(-15, 40)
    sky = source.choice(("sunny", "cloudy", "rainy", "windy", "clear", "foggy", "snowy", "stormy"))
    form = source.number(0, 5)
    if form < 4:
        keys = source.choice((("temperature", "condition"), ("temp", "sky"), ("degrees", "weather"),
                              ("temperature", "conditions"), ("temperature_c", "description")))
        pairs: list[tuple[str, Any]] = [(keys[0], degrees), (keys[1], sky)]
        if source.chance(0.4):
            pairs.reverse()
        if source.chance(0.3):
            pairs.insert(0, ("city", values[0]))
        returned = json.dumps(dict(pairs), ensure_ascii=False)
    elif form == 4:
        returned = source.choice((f"{degrees} degrees and {sky}", f"{sky}, {degrees} degrees", f"{sky}, {degrees} C"))
    else:
        returned = source.choice((f"{degrees} C, {sky}", f"{sky} and {degrees} degrees", f"{degrees} degrees, {sky}"))
    return returned, f"It is {degrees} degrees and {sky} in {values[0]}."


def _time(source: Source, values: list[Any]) -> tuple[str, str]:
    clock = f"{source.number(0, 23):02d}:{source.number(0, 59):02d}"
    returned = source.choice((json.dumps({"time": clock}), clock, json.dumps({"current_time": clock})))
    return returned, f"It is {clock} in {values[0]}."


def _number(source: Source, values: list[Any]) -> tuple[str, str]:
    number = source.choice((source.number(0, 999), source.number(1000, 99999), source.number(0, 999) / 10))
    key = source.choice(("result", "value", "answer", "price", "amount", "total", "population"))
    returned = source.choice((json.dumps({key: number}), json.dumps({key: number}), str(number)))
    return returned, f"The {key if '{' in returned else 'result'} is {number}."


def _clock(source: Source, values: list[Any]) -> tuple[str, str]:
    clock = f"{source.number(0, 23):02d}:{source.number(0, 59):02d}"
    return json.dumps({"departure": clock}), f"The departure is {clock}."


def _status(source: Source, values: list[Any]) -> tuple[str, str]:
    if source.chance(0.12):
        why = source.choice(("not found", "no access", "timeout", source.phrase(1, 3)))
        return json.dumps({"error": why}), f"That did not work: {why}."
    return source.choice((json.dumps({"status": "ok"}), json.dumps({"ok": True}), "ok", "done",
                          json.dumps({"success": True}))), "Done."


def _text(source: Source, values: list[Any]) -> tuple[str, str]:
    text = source.phrase(1, 5)
    key = source.choice(("text", "result", "answer", "content"))
    return source.choice((json.dumps({key: text}), text)), f"The answer is: {text}."


def _found(source: Source, values: list[Any]) -> tuple[str, str]:
    text = source.phrase(2, 6)
    returned = source.choice((json.dumps({"found": text}), json.dumps({"results": [text]})))
    return returned, f"I found this: {text}."


def _person(source: Source, values: list[Any]) -> tuple[str, str]:
    name, age = source.name(), source.number(1, 99)
    return json.dumps({"name": name, "age": age}), f"The name is {name} and the age is {age}."


def _pairs(source: Source, values: list[Any]) -> tuple[str, str]:
    known = lexicon.PARAMETERS.unseen if source.unseen else lexicon.PARAMETERS.seen
    keys = source.random.sample(known, source.choice((1, 2, 2)))
    pairs = {key: source.choice((source.number(0, 999), source.word(), source.name(), _VALUES["clock"](source)))
             for key in keys}
    said = " and the ".join(f"{key} is {value}" for key, value in pairs.items())
    return json.dumps(pairs, ensure_ascii=False), f"The {said}."


_RESULTS: dict[str, Callable[[Source, list[Any]], tuple[str, str]]] = {
    "weather": _weather, "time": _time, "number": _number, "clock": _clock, "status": _status, "text": _text,
    "found": _found, "person": _person, "pairs": _pairs,
}
