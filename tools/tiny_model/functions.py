"""The functions that dialogues offer as tools: hand-written families, and random ones that no model can know.

In: a Source. Out: an Offer (a tool as the server gets it) and Calls to it, each with the question that needs it, the
arguments, a result, and the sentence that tells the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from . import lexicon
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
    Family(("book_flight", "find_flight", "fly"), ("Book a flight to a city.", "Finds flights"),
           (Slot(("to", "city", "airport"), "city", "Where to fly"),
            Slot(("day", "date", "weekday"), "Monday|Tuesday|Friday|Sunday", "The day")),
           ("I want to fly to {0} on {1}", "Book a flight to {0} on {1}", "Is there a flight to {0} on {1}")),
    Family(("book_table", "reserve_table", "restaurant"), ("Reserve a table in a restaurant.", "Books a table"),
           (Slot(("restaurant", "name", "place"), "word", "The restaurant"),
            Slot(("people", "guests", "seats"), "small", "How many people")),
           ("Reserve a table at {0} for {1} people", "I need a table at {0} for {1} people",
            "Book a table for {1} people at {0}", "We are {1} people and want to eat at {0}")),
    Family(("call_taxi", "order_taxi", "taxi"), ("Order a taxi.", "Sends a taxi to an address"),
           (Slot(("place", "address", "pickup"), "city", "Where it picks up"),
            Slot(("time", "at"), "clock", "When")),
           ("I need a taxi in {0} at {1}", "Order a taxi to {0} at {1}", "Send a taxi to {0} at {1}")),
    Family(("get_news", "news", "headlines"), ("Get the news about a topic.", "Latest headlines"),
           (Slot(("topic", "subject", "about"), "text", "The topic"),),
           ("What is new about {0}", "Show me the news about {0}", "News on {0}", "Any news about {0}"), "text"),
    Family(("add_reminder", "remind", "create_reminder"), ("Set a reminder.", "Reminds of something"),
           (Slot(("what", "text", "task"), "text", "What to remember"), Slot(("time", "at"), "clock", "When")),
           ("Remind me of {0} at {1}", "Set a reminder for {0} at {1}", "At {1} remind me of {0}")),
    Family(("save_note", "note", "write_note"), ("Save a note.", "Writes something down"),
           (Slot(("text", "note", "content"), "text", "The note"),),
           ("Note: {0}", "Write down {0}", "Make a note: {0}", "Save the note {0}")),
    Family(("set_volume", "volume", "loudness"), ("Set the volume.", "How loud it plays"),
           (Slot(("level", "percent", "volume"), "small", "From 0 to 100"),),
           ("Set the volume to {0}", "Volume {0}", "Make it louder: {0}", "Turn the sound to {0}")),
    Family(("distance", "get_distance", "how_far"), ("The distance between two cities.", "Measures how far it is"),
           (Slot(("from", "start", "a"), "city", "The first city"),
            Slot(("to", "end", "b"), "city", "The second city")),
           ("How far is it from {0} to {1}", "Distance from {0} to {1}", "What is the distance from {0} to {1}"),
           "number"),
    Family(("track_parcel", "parcel_status", "where_is_parcel"), ("Track a parcel.", "Finds out where a parcel is"),
           (Slot(("number", "code", "tracking_id"), "code", "The parcel's code"),),
           ("Where is my parcel {0}", "Track the parcel {0}", "Where is {0} now"), "text"),
    Family(("add_task", "todo", "new_task"), ("Add a task to the list.", "Something to do"),
           (Slot(("task", "title", "text"), "text", "The task"),
            Slot(("priority", "importance"), "low|normal|high", "How important")),
           ("Add the task {0} with {1} priority", "I have to {0}, priority {1}", "New {1} priority task: {0}")),
    Family(("open_app", "start_app", "launch"), ("Open an app.", "Starts a program"),
           (Slot(("app", "program", "name"), "word", "The app"),),
           ("Open the app {0}", "Start {0}", "Launch the program {0}", "I want to use {0}")),
    Family(("define_word", "meaning", "lookup_word"), ("Get the meaning of a word.", "Explains a word"),
           (Slot(("word", "term"), "word", "The word"),),
           ("What does {0} mean", "Define {0}", "Meaning of {0}", "Explain the word {0}"), "text"),
    Family(("get_age", "how_old", "person_age"), ("Get the age of a person.", "Tells how old somebody is"),
           (Slot(("name", "person", "who"), "name", "The person"),),
           ("How old is {0}", "What is the age of {0}", "Age of {0}"), "number"),
    Family(("vote", "rate_movie", "give_stars"), ("Rate a movie.", "Gives stars to a movie"),
           (Slot(("movie", "title", "film"), "text", "The movie"), Slot(("stars", "rating"), "small", "The stars")),
           ("Give the movie {0} {1} stars", "Rate {0} with {1} stars", "I give {1} stars to {0}")),
)
EVERYDAY = tuple(FAMILIES[number] for number in (0, 1, 2, 5))  # weather, time, calculator, search
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
)
_UNSEEN_TITLES = ("Now {verb} the {noun}", "Let us {verb} the {noun}")
_FUNCTIONS = (
    "{verb}_{noun}", "{verb}_{noun}", "{noun}_{verb}", "{verb}{Noun}",
    "{verb}_{adjective}_{noun}", "{Verb}{Noun}", "{verb}-{noun}", "{noun}", "{noun}{Verb}", "{adjective}_{noun}",
)
_ABOUTS = ("{Verb} the {noun}.", "{Verb} a {noun}", "Use this to {verb} a {noun}.",
           "Function to {verb} one {noun}.", "{Verb} the {adjective} {noun}.", "Lets you {verb} the {noun}")
_USUAL_FUNCTIONS, _USUAL_ABOUTS = 4, 3  # so many of these, from the first, are in the evaluation
_LINKS = (" with ", " with the ", " for ", ", ")
_MENTIONS = (
    "{name} {value}", "{name} {value}", "{name} {value}", "the {name} {value}", "{name} = {value}", "{name}: {value}",
    "{name} of {value}", "{value} as {name}", "{value} {name}", "{name} set to {value}", "{name}={value}",
    "a {name} of {value}", "{value} as the {name}", "the {name} is {value}", '{name} "{value}"',
)
_BARE = (" ", " ", " for ", " in ", " with ", " to ", " at ", " of ", " by ", " on ", ": ", " from ", " as ", " about ")


def family(source: Source) -> Family:
    """An everyday family, any hand-written one, or a random one."""
    if source.chance(0.6):
        return random_family(source)
    if source.unseen:
        return source.choice(UNSEEN_FAMILIES)
    return source.choice(EVERYDAY if source.chance(0.4) else FAMILIES)


def random_family(source: Source, short: bool = False) -> Family:
    """A function whose name, parameters and values make no more sense than the question says.

    Args:
        short: one parameter at most.
    """
    verb, noun = source.pick(lexicon.VERBS), source.pick(lexicon.NOUNS)
    if not source.unseen and source.chance(0.2):
        noun = source.invented(2)
    parts = {"verb": verb, "noun": noun, "Verb": verb.capitalize(), "Noun": noun.capitalize(),
             "adjective": source.choice(lexicon.ADJECTIVES)}
    function = source.choice(_FUNCTIONS[:_USUAL_FUNCTIONS] if source.unseen else _FUNCTIONS).format(**parts)
    abouts = tuple(about.format(**parts) for about in (_ABOUTS[:_USUAL_ABOUTS] if source.unseen else _ABOUTS))
    slots = _random_slots(source, source.choice((0, 0, 1) if short else _COUNTS))
    ask = _unseen_ask if source.unseen else _ask
    asks = tuple(ask(source, {**parts, "function": function}, slots) for _ in range(4))
    return Family((function,), abouts, slots, asks, source.choice(("status", "number", "text", "pairs", "pairs")))


def _unseen_ask(source: Source, parts: dict[str, str], slots: tuple[Slot, ...]) -> str:
    mentions = " and ".join(f"{slot.names[0]} {{{number}}}" for number, slot in enumerate(slots))
    title, link = source.choice(_UNSEEN_TITLES).format(**parts).capitalize(), source.choice(_LINKS)
    return title + (link + mentions if slots else "")


def _ask(source: Source, parts: dict[str, str], slots: tuple[Slot, ...]) -> str:
    """The title, then the values: bare where the kind tells which is which, else with the parameter's name."""
    title = source.choice(_TITLES)
    text = title.format(**parts)
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
    """A parameter's name: one that tells the kind, a word, two words, or one that does not exist."""
    chance = source.random.random()
    if chance < 0.35 and kind in _TELLING:
        return source.choice(_TELLING[kind].split())
    if chance < 0.5:
        return source.invented()
    word = source.pick(lexicon.PARAMETERS)
    if chance < 0.75:
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
