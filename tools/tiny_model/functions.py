"""The functions that dialogues offer as tools: hand-written families, and random ones that no model can know.

In: a Source. Out: an Offer (a tool as the server gets it) and Calls to it, each with the question that needs it, the
arguments, a result, and the sentence that tells the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .source import Source


class Slot(NamedTuple):
    """A parameter: names it may go by, its kind (a key of _VALUES, or the words of an enum), what it is."""

    names: tuple[str, ...]
    kind: str
    about: str  # or several, with " | " between
    said: str = ""  # an optional parameter: how a question mentions it


@dataclass(frozen=True)
class Family:
    """Functions for one purpose. Wordings hold {0}, {1}, ...: the slots in their order."""

    names: tuple[str, ...]
    about: tuple[str, ...]
    slots: tuple[Slot, ...]
    asks: tuple[str, ...]
    result: str = "status"  # a key of _RESULTS
    both: tuple[str, ...] = ()  # wordings that need two calls, for the first slot twice
    unseen_asks: tuple[str, ...] = ()  # wordings for the evaluation only

    def wordings(self, unseen: bool) -> tuple[str, ...]:
        return self.unseen_asks if unseen and self.unseen_asks else self.asks


class Offer(NamedTuple):
    """A family as one request offers it: its names chosen."""

    family: Family
    name: str
    about: str
    parameters: tuple[str, ...]
    with_about: bool = False  # parameters have descriptions
    strict: bool = False  # says that there are no further parameters
    titled: bool = False  # as pydantic writes schemas: with titles, the type last

    def tool(self) -> dict[str, Any]:
        """As OpenAI's `tools` has it."""
        slots = list(zip(self.parameters, self.family.slots, strict=True))
        properties = {name: self._schema(name, slot) for name, slot in slots}
        required = [name for name, slot in slots if not slot.said]
        schema: dict[str, Any] = {"properties": properties, "required": required}
        if self.titled:
            schema = {**schema, "title": self.name, "type": "object"}
        else:
            schema = {"type": "object", **schema}
        if self.strict:
            schema["additionalProperties"] = False
        return {"type": "function",
                "function": {"name": self.name, "description": self.about, "parameters": schema}}

    def _schema(self, name: str, slot: Slot) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": _TYPES.get(slot.kind, "string")}
        if slot.kind not in _VALUES:
            options = {"enum": slot.kind.split("|")}
            schema = {**options, **schema} if self.titled else {**schema, **options}
        if self.titled:
            schema = {"title": name.replace("_", " ").title(), **schema}
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


_CITY = Slot(("city", "location", "place", "city", "town"), "city", "The name of the city | The city | "
             "The city and state, e.g. San Francisco, CA | Name of the place, for example London")
FAMILIES = (
    Family(("get_weather", "get_weather", "get_current_weather", "weather", "fetch_weather", "weather_lookup"),
           ("Get the current weather in a city.", "Get weather", "Get the weather for a place", "Current weather",
            "Get the current weather in a given location"),
           (_CITY, Slot(("unit", "units"), "celsius|fahrenheit", "The temperature unit", " in {value}")),
           ("What is the weather in {0}", "What's the weather like in {0}", "How is the weather in {0}",
            "Tell me the weather in {0}", "What is the weather in {0} today", "Weather in {0}", "Is it raining in {0}",
            "How warm is it in {0}", "What's the weather in {0}", "Get the weather for {0}", "Is it cold in {0}",
            "What is the weather like in {0} today", "I am in {0}. What is the weather"),
           "weather", ("What is the weather in {0} and in {1}?", "Compare the weather in {0} and {1}.",
                       "What's the weather in {0} and {1}?", "What is the weather like in {0} and in {1}?",
                       "Weather in {0} and {1}?"),
           ("Can you tell me the weather in {0}", "What is the current weather in {0}",
            "Please check the weather in {0}")),
    Family(("get_time", "get_current_time", "current_time", "clock", "time_in"),
           ("Get the current time in a city.", "Get the time", "Tells what time it is somewhere"),
           (_CITY,),
           ("What time is it in {0}", "I want to know the time in {0}", "Do you know what time it is in {0}",
            "Tell me the time in {0}", "What is the time in {0}", "How late is it in {0}",
            "Current time in {0}", "What time is it now in {0}"),
           "time", ("What time is it in {0} and in {1}?", "Tell me the time in {0} and {1}."),
           ("Can you tell me the time in {0}", "Which time is it in {0}")),
    Family(("calculator", "calculate", "compute", "eval_expression", "math"),
           ("Compute an arithmetic expression.", "A calculator", "Evaluates an expression"),
           (Slot(("expression", "expr", "formula", "input"), "sum", "What to compute"),),
           ("What is {0}", "Calculate {0}", "How much is {0}", "Compute {0}", "{0}", "Calculate: {0}",
            "I need the result of {0}", "Use the calculator for {0}", "Find out what {0} is"), "number",
           unseen_asks=("Please compute {0}", "Can you calculate {0}")),
    Family(("add", "add_numbers", "sum", "plus"), ("Add two numbers.", "Adds a and b", "Get the sum of two numbers"),
           (Slot(("a", "x", "first", "number1"), "whole", "The first number"),
            Slot(("b", "y", "second", "number2"), "whole", "The second number")),
           ("Add {0} and {1}", "What is {0} plus {1}", "What is {0} + {1}", "How much is {0} plus {1}"), "number"),
    Family(("multiply", "multiply_numbers", "times", "product"), ("Multiply two numbers.", "Multiplies x and y"),
           (Slot(("a", "x", "first"), "whole", "The first number"),
            Slot(("b", "y", "second"), "whole", "The second number")),
           ("Multiply {0} by {1}", "What is {0} times {1}", "Compute {0} * {1}"), "number"),
    Family(("search", "web_search", "search_web", "google", "find"),
           ("Search the web.", "Search the internet for a query", "Web search"),
           (Slot(("query", "q", "text", "search_query"), "text", "What to search for"),),
           ("Search for {0}", "Search the web for {0}", "Find {0} on the web", "Look up {0}", "Google {0}",
            "Please search for {0}"), "found", unseen_asks=("Please look up {0}", "Do a search for {0}")),
    Family(("set_light", "switch_light", "light", "control_light"),
           ("Turn a light on or off.", "Controls the light in a room"),
           (Slot(("room", "place", "area"), "kitchen|bedroom|office|garage", "The room"),
            Slot(("on", "enabled", "state"), "switch", "Whether the light is on")),
           ("Turn {1} the light in the {0}", "Switch the {0} light {1}", "Please turn {1} the {0} light")),
    Family(("send_email", "email", "send_mail", "mail"), ("Send an email.", "Sends a mail to somebody"),
           (Slot(("to", "recipient", "address"), "mail", "Who gets it"),
            Slot(("subject", "title"), "text", "The subject")),
           ("Send an email to {0} with the subject {1}", "Write a mail to {0} with the subject {1}",
            "Email {0} with the subject {1}")),
    Family(("send_message", "message", "text_contact", "sms"), ("Send a message to a contact.", "Send a text message"),
           (Slot(("contact", "name", "to", "person"), "name", "The contact"),
            Slot(("text", "message", "body"), "text", "What to say")),
           ("Tell {0}: {1}", "Send {0} the message {1}", "Message {0}: {1}", "Write to {0}: {1}")),
    Family(("set_timer", "timer", "start_timer", "countdown"), ("Set a timer.", "Starts a timer for some minutes"),
           (Slot(("minutes", "duration", "length"), "small", "Minutes"),),
           ("Set a timer for {0} minutes", "Start a timer of {0} minutes", "Timer for {0} minutes",
            "Wake me in {0} minutes")),
    Family(("set_alarm", "alarm", "wake_up"), ("Set an alarm.", "Sets the alarm clock"),
           (Slot(("time", "at", "when"), "clock", "The time of day"),),
           ("Wake me at {0}", "Set an alarm for {0}", "Set the alarm to {0}")),
    Family(("convert_currency", "exchange", "convert_money"),
           ("Convert money to another currency.", "Currency exchange"),
           (Slot(("amount", "value"), "decimal", "How much"),
            Slot(("from", "from_currency", "source"), "USD|EUR|GBP|JPY", "The currency to convert"),
            Slot(("to", "to_currency", "target"), "CHF|INR|SEK|CAD", "The currency wanted")),
           ("Convert {0} {1} to {2}", "How much is {0} {1} in {2}", "Change {0} {1} into {2}"), "number"),
    Family(("play_music", "play", "start_music", "play_artist"), ("Play music by an artist.", "Plays songs"),
           (Slot(("artist", "name", "musician"), "name", "Who plays"),),
           ("Play music by {0}", "Play songs by {0}", "I want to hear {0}", "Play something by {0}")),
    Family(("create_event", "add_event", "calendar", "schedule"),
           ("Add an event to the calendar.", "Schedules a meeting"),
           (Slot(("title", "name", "event"), "text", "What it is"),
            Slot(("day", "date", "weekday"), "Monday|Tuesday|Wednesday|Thursday|Friday", "The day")),
           ("Add {0} to my calendar on {1}", "Schedule {0} on {1}", "Put {0} into the calendar for {1}")),
    Family(("translate", "translate_word", "dictionary"), ("Translate a word.", "Looks a word up in a dictionary"),
           (Slot(("word", "text", "term"), "word", "The word"),
            Slot(("language", "to", "target"), "French|German|Spanish|Italian", "The language wanted")),
           ("Translate {0} into {1}", "What is {0} in {1}", "How do you say {0} in {1}"), "text"),
    Family(("get_user", "find_user", "lookup_user", "user_info"), ("Look up a user by id.", "Get a user's data"),
           (Slot(("id", "user_id", "number"), "whole", "The id"),),
           ("Who is user {0}", "Look up user {0}", "Show me user {0}", "Find the user with id {0}"), "person"),
    Family(("get_population", "population", "count_people"),
           ("Get the population of a city.", "How many people live there"),
           (_CITY,),
           ("How many people live in {0}", "What is the population of {0}", "Population of {0}"), "number",
           ("How many people live in {0} and in {1}?",)),
    Family(("set_temperature", "thermostat", "heat"), ("Set the temperature of a room.", "Controls the heating"),
           (Slot(("room", "place"), "kitchen|bedroom|bathroom|office", "The room"),
            Slot(("degrees", "temperature", "value"), "small", "Degrees")),
           ("Set the {0} to {1} degrees", "Heat the {0} to {1} degrees", "Make it {1} degrees in the {0}")),
    Family(("buy_item", "order", "shop", "add_to_cart"), ("Buy something.", "Orders an item from the shop"),
           (Slot(("item", "product", "article"), "word", "What to buy"),
            Slot(("quantity", "count", "amount"), "small", "How many")),
           ("Buy {1} of the item {0}", "Order {1} x {0}", "I need {1} pieces of {0}")),
    Family(("read_file", "open_file", "show_file"), ("Read a file.", "Shows the content of a file"),
           (Slot(("path", "file", "filename"), "word", "The file's name"),),
           ("Read the file {0}", "Open {0}", "Show me the file {0}", "What is in the file {0}"), "text"),
    Family(("call_person", "phone", "dial"), ("Call somebody on the phone.", "Makes a phone call"),
           (Slot(("name", "person", "contact"), "name", "Whom to call"),),
           ("Call {0}", "Phone {0}", "Please call {0}", "Give {0} a call")),
    Family(("route", "get_directions", "navigate"), ("Find the way between two cities.", "Get directions"),
           (Slot(("start", "from", "origin"), "city", "Where it begins"),
            Slot(("end", "to", "destination"), "city", "Where it ends")),
           ("How do I get from {0} to {1}", "Find a route from {0} to {1}", "Navigate from {0} to {1}",
            "I want to go from {0} to {1}"), "text"),
)
UNSEEN_FAMILIES = (
    Family(("get_stock_price", "stock_quote"), ("Get the price of a stock.",),
           (Slot(("symbol", "ticker"), "code", "The stock's symbol"),),
           ("What is the stock price of {0}", "Get the price of {0}", "Price of the stock {0}"), "number"),
    Family(("book_hotel", "reserve_hotel"), ("Book a hotel in a city.",),
           (Slot(("city", "location"), "city", "Where"), Slot(("nights", "days"), "small", "How many nights")),
           ("Book a hotel in {0} for {1} nights", "I need a hotel in {0} for {1} nights")),
    Family(("find_recipe", "get_recipe"), ("Find a recipe for an ingredient.",),
           (Slot(("ingredient", "food"), "word", "What to cook with"),),
           ("Find a recipe with {0}", "What can I cook with {0}", "Give me a recipe for {0}"), "text"),
    Family(("roll_dice", "throw_dice"), ("Roll a number of dice.",),
           (Slot(("count", "dice"), "small", "How many dice"),), ("Roll {0} dice", "Please roll {0} dice"), "number"),
    Family(("set_color", "paint_lamp"), ("Set the colour of a lamp.",),
           (Slot(("color", "colour"), "red|green|blue|white", "The colour"),),
           ("Make the lamp {0}", "Set the lamp to {0}", "Please turn the lamp {0}")),
    Family(("add_contact", "save_contact"), ("Save a contact with an email address.",),
           (Slot(("name", "person"), "name", "The name"), Slot(("email", "address"), "mail", "The address")),
           ("Save {0} with the address {1}", "Add the contact {0} with {1}")),
    Family(("lock_door", "door"), ("Lock or unlock a door.",),
           (Slot(("door", "which"), "front|back|cellar", "Which door"),),
           ("Lock the {0} door", "Please lock the {0} door")),
    Family(("get_train", "next_train"), ("Get the next train to a city.",),
           (Slot(("destination", "to"), "city", "Where it goes"),),
           ("When is the next train to {0}", "Next train to {0}"), "clock"),
)

_VERBS = ("activate adjust analyse approve archive assign attach bake bind block boost browse cancel capture charge "
          "check clean clone collect compile connect cut debug delete deliver deploy describe detect disable download "
          "draw drop edit enable encode export fetch filter fix format freeze get grant hide import inspect install "
          "invite launch link list load lock log mark measure merge move mute notify pack park pause ping plan plot "
          "post print publish pull push rank rate reboot record refresh remove rename report request reset resize "
          "restart restore rotate save scan score sell share ship sort start stop store submit sync tag test trace "
          "track train transfer trim unlock update upload validate verify wash").split()
_NOUNS = ("account address album alert app archive article asset backup badge balance bike board bookmark "
          "branch bucket budget build bug camera campaign card cart channel cluster comment contract course "
          "customer database dataset device disk document door drone employee engine fan field fleet folder "
          "form game garden group heater image invoice issue item job label layer lease lesson library list "
          "machine map meeting member menu metric motor network node note oven package page parcel patient "
          "payment photo pipeline plant player playlist policy pool port post printer product profile "
          "project pump queue record region rent report reservation review robot sample sensor server shelf "
          "shop site slot snapshot song story student subscription survey switch table task team template "
          "tenant thread ticket tool topic tower trip tunnel user valve vehicle video volume wallet "
          "warehouse window worker zone").split()
_PARAMETERS = ("id name title label owner color size count limit level speed mode region tag value amount "
               "price weight height width depth age code key token user group team branch target source "
               "priority status format kind type category comment reason note page offset rate delay hours "
               "days year month score rank zone port host path version address phone language currency "
               "model brand material shape volume distance angle").split()
_UNSEEN_VERBS = "audit buffer calibrate dispatch enroll flush gather hire index juggle".split()
_UNSEEN_NOUNS = "antenna beacon canal dossier ferry harvest lantern orchestra satellite turbine".split()
_UNSEEN_PARAMETERS = "altitude batch capacity deadline flavour grade humidity interval quota radius".split()

_PLAIN_KINDS = ("city", "name", "word", "word", "whole", "whole", "small", "decimal", "code", "switch", "enum")
_TITLES = ("{verb} the {noun}", "{verb} {noun}", "Please {verb} the {noun}", "I want to {verb} the {noun}",
           "{verb} a {noun}", "Can you {verb} the {noun}", "You should {verb} the {noun}")
_UNSEEN_TITLES = ("Now {verb} the {noun}", "Let us {verb} the {noun}")


def unseen_words() -> tuple[list[str], list[str], list[str]]:
    """What the names of functions and parameters are made of in the evaluation only."""
    return _UNSEEN_VERBS, _UNSEEN_NOUNS, _UNSEEN_PARAMETERS


def family(source: Source) -> Family:
    """A hand-written family or a random one, half and half."""
    if source.chance(0.55):
        return source.choice(UNSEEN_FAMILIES if source.unseen else FAMILIES)
    return random_family(source)


def random_family(source: Source) -> Family:
    """A function whose name, parameters and values make no more sense than the question says."""
    verb = source.choice(_UNSEEN_VERBS if source.unseen else _VERBS)
    noun = source.choice(_UNSEEN_NOUNS if source.unseen else _NOUNS)
    if not source.unseen and source.chance(0.3):
        noun = source.invented(2)
    count = source.choice((1, 1, 2, 2, 3))
    names = source.random.sample(_UNSEEN_PARAMETERS if source.unseen else _PARAMETERS, count)
    slots = tuple(_random_slot(source, name) for name in names)
    mentions = " and ".join(f"{name.replace('_', ' ')} {{{number}}}" for number, name in enumerate(names))
    link = source.choice((" with ", " with the ", " for ", ", "))
    titles = _UNSEEN_TITLES if source.unseen else _TITLES
    asks = tuple(title.format(verb=verb, noun=noun).capitalize() + link + mentions for title in titles)
    function = source.choice((f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"))
    about = (f"{verb.capitalize()} the {noun}.", f"{verb.capitalize()} a {noun}", f"Use this to {verb} a {noun}.")
    return Family((function,), about, slots, asks, source.choice(("status", "number", "text", "pairs", "pairs")))


def _random_slot(source: Source, name: str) -> Slot:
    kind = source.choice(_PLAIN_KINDS)
    if kind == "enum":
        kind = "|".join(dict.fromkeys(source.word() for _ in range(source.number(2, 4))))
        if kind in _VALUES:
            kind = "low|high"
    return Slot((name,), kind, f"The {name.replace('_', ' ')}")


def offer(source: Source, family: Family) -> Offer:
    """Chooses the names by which one request knows the family; training sees many that say nothing."""
    name = source.choice(family.names)
    if source.chance(0.12):
        name = "".join(part[0].upper() + part[1:] for part in name.split("_"))
    elif not source.unseen and source.chance(0.15):
        name = f"{name}_{source.invented(1)}" if source.chance(0.5) else f"{source.invented(1)}_{name}"
    slots = family.slots
    if slots[-1].said and source.chance(0.6):
        slots = slots[:-1]
    slots = tuple(slot._replace(about=source.choice(slot.about.split(" | "))) for slot in slots)
    family = replace(family, slots=slots)
    return Offer(family, name, source.choice(family.about), _parameter_names(source, slots),
                 source.chance(0.4), source.chance(0.15), source.chance(0.12))


def _parameter_names(source: Source, slots: tuple[Slot, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for slot in slots:
        name = source.choice(slot.names)
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return tuple(names)


def call(source: Source, offer: Offer) -> Call:
    """A question that this function answers."""
    values = [_value(source, slot) for slot in offer.family.slots]
    question = source.choice(offer.family.wordings(source.unseen)).format(*map(_said, values))
    if offer.family.slots[-1].said:
        if source.chance(0.6):
            question += offer.family.slots[-1].said.format(value=values[-1])
        else:
            values = values[:-1]
    return _finish(source, offer, _closed(source, question), values)


def two_calls(source: Source, offer: Offer) -> tuple[str, Call, Call]:
    """One question for two values of the first slot. Only for families with `both`."""
    first, second = (_value(source, offer.family.slots[0]) for _ in range(2))
    question = source.choice(offer.family.both).format(first, second)
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
    if source.chance(0.15):
        return question
    first = question.split()[0].rstrip(".,:").lower().removesuffix("'s")
    asking = first in ("what", "how", "is", "who", "when", "can", "weather", "current", "population", "next", "price")
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
    returned = source.choice((json.dumps({"result": text}), json.dumps({"results": [text]}), text))
    return returned, f"I found this: {text}."


def _person(source: Source, values: list[Any]) -> tuple[str, str]:
    name, age = source.name(), source.number(1, 99)
    return json.dumps({"name": name, "age": age}), f"The name is {name} and the age is {age}."


def _pairs(source: Source, values: list[Any]) -> tuple[str, str]:
    keys = source.random.sample(_UNSEEN_PARAMETERS if source.unseen else _PARAMETERS, source.choice((1, 2, 2)))
    pairs = {key: source.choice((source.number(0, 999), source.word(), source.name())) for key in keys}
    said = " and the ".join(f"{key} is {value}" for key, value in pairs.items())
    return json.dumps(pairs, ensure_ascii=False), f"The {said}."


_RESULTS: dict[str, Callable[[Source, list[Any]], tuple[str, str]]] = {
    "weather": _weather, "time": _time, "number": _number, "clock": _clock, "status": _status, "text": _text,
    "found": _found, "person": _person, "pairs": _pairs,
}
