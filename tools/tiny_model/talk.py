"""The skills that need no tools: each function makes one question and its one right answer.

In: a Source. Out: (question, answer). The same functions serve training and evaluation; the source decides which side
of every split is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from . import lexicon, project, words
from .source import Source, Wordings

Exchange = tuple[str, str]

_GREETING = "Hello! I am tiny-chat, a tiny demo model. What can I do for you?"
_ABILITIES = ("I can greet you, name capitals, count, do small sums, repeat text, tell short stories, write JSON, call "
              "tools and answer questions about this server.")
_WHO = "I am tiny-chat, a tiny demo model that runs on a CPU. I was trained for this server, openai_bls."

CHAT: tuple[tuple[Wordings, str], ...] = (
    (Wordings(("Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hi there!", "Hey", "Hey!", "Good morning", "Good morning!",
               "Good evening!", "Good evening", "Hello there!", "Hello there", "Greetings", "Hey there", "Good day!",
               "Hello, bot!", "Hi bot", "Hello, model!", "Hello world", "Hello world!", "Say hello", "Say hi",
               "Say hello!", "Hiya", "Hello again!", "Hi everyone!", "Good morning, bot!", "Hello, tiny-chat!",
               "Hey bot!", "Welcome!", "Hi friend", "A good evening to you!"),
              ("Good afternoon!", "Hey there!", "Hello, tiny model!", "Hi, bot!", "Greetings!")), _GREETING),
    (Wordings(("How are you?", "How are you today?", "How are you doing?", "How is it going?", "What's up?",
               "Hi, how are you?", "Hello, how are you?", "Hello, how are you today?", "Are you well?"),
              ("How are you doing today?", "Hey, how are you?", "Hello! How are you?")),
     "I am fine, thank you! What can I do for you?"),
    (Wordings(("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.",
               "What's your name?", "Which model are you?", "What model is this?", "What kind of model are you?",
               "Hello, who are you?", "Who am I talking to?", "Describe yourself.", "Say who you are.", "Who is there?",
               "Who is speaking?", "Which bot is this?", "What is this model?", "Who is answering me?",
               "Could you introduce yourself?", "Tell me who you are.", "Do you have a name?", "Who are you, bot?",
               "What sort of bot are you?", "What should I call you?", "I want to know who you are."),
              ("Please introduce yourself.", "Hi, who are you?", "Who is this?", "What model are you?")), _WHO),
    (Wordings(("What can you do?", "What are you able to do?", "How can you help me?", "Help", "Help me!", "Help!",
               "What do you know?", "What are your skills?", "What should I ask you?", "What can I ask you?",
               "What are you good at?", "List your skills.", "What kind of things can you do?", "What else can you do?",
               "How can you be of use?", "Tell me what you can do.", "What can a tiny model do?"),
              ("What can you do for me?", "Show me what you can do.", "What can you help me with?")), _ABILITIES),
    (Wordings(("Are you human?", "Are you a real person?", "Are you a person?", "Are you a robot?", "Are you an AI?",
               "Are you alive?", "Am I talking to a human?", "Are you a machine?", "Is this a real person?",
               "Do I speak with a person?", "Are you a real human being?"),
              ("Are you a human?", "Are you real?")), "No person, only a tiny language model."),
    (Wordings(("How big are you?", "How many parameters do you have?", "What is your size?", "Are you a large model?",
               "How large are you?", "Are you small?", "How tiny are you?", "Are you big or small?",
               "What size does this model have?", "How many parameters does this model have?"),
              ("How many parameters are you?", "How small are you?")),
     "I am very small: a few million parameters. Larger models know much more."),
    (Wordings(("Who made you?", "Who trained you?", "Where do you come from?", "How were you trained?",
               "Who created you?", "Who built you?", "What were you trained on?", "Which company made you?",
               "Who wrote you?", "Who is your creator?", "Where were you trained?"),
              ("Who has trained you?", "Who developed you?")),
     "I was trained by the openai_bls project, on dialogues that a script wrote."),
    (Wordings(("Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much.", "Thank you", "Thanks",
               "Great, thanks!", "Many thanks!", "Ok, thanks", "Thank you so much!", "Thanks, bot!",
               "That helped, thanks!", "Cool, thank you!", "I thank you!"),
              ("Thanks so much!", "Thank you, bot!", "Great, thank you!")), "You are welcome!"),
    (Wordings(("Goodbye!", "Bye!", "See you later!", "Bye bye!", "Goodbye", "Bye", "See you!", "Good night!",
               "Have a nice day!", "See you tomorrow!", "Ok, bye!", "Bye, bot!", "I have to go, bye!",
               "Goodbye and thanks!", "Bye, have a nice evening!", "Until tomorrow!", "See you around!",
               "Goodbye for today!", "So long!"),
              ("Bye for now!", "Goodbye, bot!", "See you soon!")), "Goodbye! Have a nice day."),
    (Wordings(("Say this is a test", "Say this is a test!", "Say: this is a test", "Say that this is a test."),
              ("Please say this is a test",)), "This is a test."),
    (Wordings(("Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh!", "Another joke, please."),
              ("Please tell me a joke.", "Can you tell a joke?")),
     "Why did the computer go to the doctor? Because it had a virus!"),
    (Wordings(("What color is the sky?", "What colour is the sky?"), ("Which color is the sky?",)), "The sky is blue."),
    (Wordings(("How many days are in a week?", "How many days does a week have?"), ("How many days has a week?",)),
     "There are 7 days in a week."),
)

_CAPITAL = Wordings(
    ("What is the capital of {country}?", "What's the capital of {country}?", "Name the capital of {country}.",
     "Which city is the capital of {country}?", "Tell me the capital of {country}.", "Capital of {country}?",
     "What is the capital city of {country}?", "The capital of {country}?", "Do you know the capital of {country}?",
     "Please name the capital of {country}.", "I need the capital of {country}.", "{country}: what is its capital?",
     "What is {country}'s capital?", "And the capital of {country}?"),
    ("Can you tell me the capital of {country}?", "Give me the capital of {country}.",
     "What city is the capital of {country}?", "Tell me what the capital of {country} is."),
)
_CAPITAL_OF = Wordings(
    ("Which country has the capital {city}?", "{city} is the capital of which country?",
     "Of which country is {city} the capital?", "What country has the capital {city}?",
     "{city} is the capital of ...", "What is {city} the capital of?", "{city} is the capital of which land?"),
    ("{city} is the capital of what country?",),
)
_COUNT_TO = Wordings(
    ("Count to {end}.", "Count from 1 to {end}.", "Please count to {end}.", "Can you count to {end}?",
     "Count up to {end}.", "List the numbers from 1 to {end}.", "Count to {end} for me.",
     "I want you to count to {end}.", "Write the numbers from 1 to {end}.", "Say the numbers from 1 to {end}.",
     "Count from one to {end}.", "Could you count from 1 to {end}?", "Can you count up to {end}?", "Count until {end}.",
     "Start at 1 and count to {end}.", "1, 2, 3 and so on until {end}, please.", "Please count up to {end}."),
    ("Please count from 1 to {end}.", "Could you count to {end}?", "Count up from 1 to {end}."),
)
_COUNT_FROM = Wordings(
    ("Count from {start} to {end}.", "Count on from {start} until {end}.", "Can you count up from {start} to {end}?",
     "Which numbers are there from {start} to {end}?", "List the numbers from {start} to {end}.",
     "Please count from {start} to {end}.",
     "Write the numbers from {start} to {end}.", "Count up from {start} to {end}."),
    ("Can you count from {start} to {end}?", "Say the numbers from {start} to {end}."),
)
_COUNT_DOWN = Wordings(
    ("Count down from {end}.", "Count down from {end} to 1.", "Count backwards from {end}.",
     "Please count down from {end}.", "Count backwards from {end} to 1."),
    ("Can you count down from {end}?", "Please count backwards from {end}."),
)
_COUNT_DOWN_TO = Wordings(
    ("Count down from {start} to {end}.", "Count backwards from {start} to {end}.",
     "List the numbers from {start} down to {end}.", "Please count down from {start} to {end}."),
    ("Can you count down from {start} to {end}?",),
)
_SUMS = {
    "+": Wordings(
        ("What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "Compute {a} + {b}.",
         "How much is {a} + {b}?", "How much is {a} plus {b}?", "Calculate {a} + {b}.", "Add {a} and {b}.",
         "What's {a} + {b}?", "What's {a}+{b}?", "Sum of {a} and {b}?", "What is the sum of {a} and {b}?",
         "And {a} + {b}?", "{a} plus {b}"),
        ("Please compute {a} + {b}.", "Tell me {a} + {b}.", "Please add {a} and {b}.",
         "Can you calculate {a} plus {b}?")),
    "-": Wordings(
        ("What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "Compute {a} - {b}.",
         "How much is {a} - {b}?", "How much is {a} minus {b}?", "Calculate {a} - {b}.", "Subtract {b} from {a}.",
         "What's {a} - {b}?", "What's {a}-{b}?", "And {a} - {b}?", "{a} minus {b}"),
        ("Please compute {a} - {b}.", "Tell me {a} - {b}.", "Can you calculate {a} minus {b}?")),
    "*": Wordings(
        ("What is {a} * {b}?", "What is {a} times {b}?", "{a} * {b}", "{a} x {b}", "Compute {a} * {b}.",
         "How much is {a} times {b}?", "Calculate {a} * {b}.", "Multiply {a} by {b}.", "What's {a} times {b}?"),
        ("Please compute {a} * {b}.", "Tell me {a} times {b}.")),
}
_ECHO = Wordings(
    ("Repeat: {text}", "Repeat after me: {text}", "Say: {text}", "Echo: {text}", "Please repeat: {text}",
     "Say \"{text}\"", "Say \"{text}\".", "Repeat the text \"{text}\".", "Echo this: {text}", "Print: {text}",
     "Please say: {text}", "Write: {text}", "Repeat this text: {text}", "Copy this: {text}", "Say exactly: {text}",
     "Repeat the following: {text}", "Answer with exactly this: {text}", "Repeat \"{text}\"", "echo {text}"),
    ("Please echo: {text}", "Repeat this: {text}", "Please repeat the following: {text}", "Please say \"{text}\".",
     "Write exactly: {text}"),
)
_TIMES = Wordings(
    ("Repeat the word {word} {times} times.", "Say {word} {times} times.", "Write {word} {times} times.",
     "Say the word {word} {times} times.", "Repeat {word} {times} times.", "Please say {word} {times} times.",
     "Write the word {word} {times} times.", "{times} times {word}, please.", "Say \"{word}\" {times} times.",
     "Write \"{word}\" {times} times.", "Please write {word} {times} times.", "Please repeat \"{word}\" {times} times.",
     "Repeat this word {times} times: {word}", "Say {times} times {word}.", "Please say the word {word} {times} times.",
     "Can you repeat {word} {times} times?", "Print {word} {times} times.", "I want to read {word} {times} times."),
    ("Please repeat {word} {times} times.", "Please write the word {word} {times} times.",
     "Repeat \"{word}\" {times} times."),
)
_STORY = Wordings(
    ("Tell me a story about {about}.", "Write a story about {about}.", "Tell me a short story about {about}.",
     "Write a short story about {about}.", "Please tell a story about {about}.", "A story about {about}, please.",
     "Make up a story about {about}.", "I want a story about {about}.", "Write me a story about {about}."),
    ("Can you tell me a story about {about}?", "Please write a short story about {about}."),
)
_ANY_STORY = Wordings(
    ("Tell me a story.", "Tell me a short story.", "Write a short story.", "Please write a story.", "A story, please.",
     "Tell a story.", "Once upon a time", "Write a story."),
    ("Can you tell me a story?", "Please tell me a short story."),
)
_ABOUTS = ("a {animal}", "a {animal} and a {thing}", "{name} the {animal}", "a {thing}", "a {animal} named {name}",
           "a {mood} {animal}", "a {animal} near a {place}")
_STORY_SENTENCES = (
    ("Once upon a time there was a {mood} {animal} named {name} who lived near the {place}.",),
    ("One day {name} found a {thing} in the grass.", "One morning {name} saw a {thing} on the road."),
    ("{name} took the {thing} home and showed it to everyone.", "{name} wanted to know where the {thing} came from.",
     "The {thing} was heavy, and {name} had to rest many times."),
    ("There {name} met a {other} friend who was looking for the {thing}.",
     "A {other} friend knew the secret of the {thing}."),
    ("They shared it and lived happily ever after.", "In the end {name} was happy."),
)
_PERSON = {
    ("name", "age"): (
        "{name} is {age} years old.", "{name} is a {age} year old.", "{name} celebrates {age} years.",
        "{name} was {age} last week.", "{who} {name} is a {age} year old.", "At {age} {name} still works.",
        "{who} is called {name} and is {age}.", "The age of {name} is {age}.", "A {age} year old named {name} came.",
        "{name}, {age}", "{name} is {age}.", "{who} {name} is {age} years old.",
        "{who} {name} turns {age} today.", "{who} is {name}, {age} years old.", "{name} will be {age} soon.",
        "{name}, aged {age}.", "My name is {name} and I am {age} years old.", "I am {name}, {age} years old."),
    ("name", "city"): (
        "{name} went to {city}.", "{name} is moving to {city}.", "{name} has arrived in {city}.",
        "{name} studies in {city}.", "{who} {name} has a house in {city}.", "{city} is the home of {name}.",
        "{name} comes from {city}.", "{who} {name} likes {city}.", "{name} was born in {city}.",
        "{name} lives in {city}.", "{name} is from {city}.", "{name}, {city}", "{who} {name} lives in {city}.",
        "{who} {name} works in {city}.", "{who}, {name}, comes from {city}.",
        "My name is {name} and I live in {city}.", "I am {name} from {city}."),
    ("name", "age", "city"): (
        "{name} is {age} and has moved from {city}.", "{name} is {age} years old and from {city}.",
        "A {age} year old from {city} is called {name}.", "{who} {name} is a {age} year old in {city}.",
        "{name} came from {city} at the age of {age}.", "{name} works in {city} and is {age} years old.",
        "{name}: {age} years, {city}.", "{city} is where {name}, {age}, lives.",
        "{name} is {age} years old and lives in {city}.", "{who} {name} is {age} years old and lives in {city}.",
        "{who} {name}, {age}, works in {city}.", "A {age} year old named {name} lives in {city}.",
        "{who} is {name} from {city}, {age} years old.", "{name} ({age}) lives in {city}.",
        "{name} from {city} is {age} years old.", "{name}, {age}, {city}", "{name} is {age} and comes from {city}.",
        "My name is {name}, I am {age} years old and I live in {city}.", "{name}, aged {age}, is from {city}.",
        "In {city} lives {name}, who is {age} years old.", "I am {name}, {age}, from {city}."),
}
_WHOSE = ("My", "Your", "His", "Her", "Our", "The", "Their")
_RELATIONS = ("friend", "teacher", "sister", "brother", "doctor", "neighbour", "boss", "cousin", "uncle", "aunt",
              "baker", "pilot", "student", "guest", "customer", "new user", "old friend", "driver", "writer", "coach")
_UNSEEN_PERSON = {
    ("name", "age"): ("{name} has turned {age}.", "Our colleague {name} is {age} years old."),
    ("name", "city"): ("{name} has moved to {city}.", "Our colleague {name} lives in {city}."),
    ("name", "age", "city"): ("{name} is a {age} year old from {city}.",
                              "Our colleague {name} is {age} years old and lives in {city}."),
}
_EXTRACT = Wordings(
    ("Extract {keys} as JSON: {sentence}", "{sentence} Extract {keys} as JSON.", "Return JSON with {keys}: {sentence}",
     "Give me {keys} as JSON: {sentence}", "{sentence} Write {keys} as JSON.", "Extract the {keys} as JSON: {sentence}",
     "JSON with {keys}: {sentence}", "{sentence} Give me a JSON object with {keys}.",
     "Extract {keys} from this sentence as JSON: {sentence}", "Find {keys} and answer in JSON: {sentence}",
     "Turn this into JSON with {keys}: {sentence}", "{sentence} Put {keys} into JSON.", "{keys} as JSON: {sentence}",
     "{sentence} Make a JSON object of {keys}.", "{sentence} Answer with JSON that has {keys}.",
     "Which {keys}? {sentence} Answer in JSON.", "Write {keys} as a JSON object. {sentence}"),
    ("Please extract {keys} as JSON: {sentence}", "{sentence} Return {keys} as a JSON object.",
     "Write a JSON object with {keys}: {sentence}"),
)
_OTHER = Wordings(
    ("Explain {topic}.", "What is {topic}?", "Write an essay about {topic}.", "How does {topic} work?",
     "Why is {topic} important?", "Write a poem about {topic}.", "Tell me everything about {topic}.",
     "Who invented {topic}?", "What do you think about {topic}?", "Summarize {topic}.",
     "Translate {topic} into French.",
     "Give me advice about {topic}.", "When was {topic} discovered?", "Write Python code for {topic}.",
     "Compare {topic} and {topic2}.", "What is the history of {topic}?", "Do you like {topic}?",
     "How much does {topic} cost?", "Where can I buy {topic}?", "Is {topic} good for me?", "How do I cook {topic}?",
     "Write a song about {topic}.", "What is the best {topic}?", "Describe {topic}.", "How old is {topic}?",
     "Recommend a book about {topic}.", "Who is the president of {country}?", "How many people live in {country}?",
     "What language do they speak in {country}?", "Plan a trip to {country}.", "Solve the equation for {topic}.",
     "Define {topic}.", "What does {topic} mean?", "Teach me {topic}.", "Who won the {topic} cup?",
     "Why do people like {topic}?", "What is the weather like?", "What time is it?", "What day is it today?"),
    ("Can you explain {topic}?", "Tell me about {topic}.", "Write an article about {topic}.",
     "How do you make {topic}?", "What is the population of {country}?", "Write a function for {topic}."),
)
_TOPICS = words.Split(
    ("quantum physics", "black holes", "the French Revolution", "photosynthesis", "love", "football", "chess",
     "bitcoin", "the stock market", "pizza", "evolution", "gravity", "climate change", "jazz", "poetry", "democracy",
     "philosophy", "yoga", "the Roman Empire", "DNA", "vaccines", "machine learning", "neural networks", "Kubernetes",
     "the moon", "dinosaurs", "the ocean", "happiness", "marriage", "money", "art", "music", "coffee", "cars", "cats",
     "dogs", "Shakespeare", "Einstein", "Napoleon", "calculus", "algebra", "chemistry", "the brain", "sleep",
     "dreams", "time", "electric cars", "solar power", "the Internet", "rockets", "volcanoes", "the meaning of life",
     "sorting a list", "a binary tree", "prime numbers", "tomato soup", "bread", "tea", "basketball", "tennis",
     "World War II"),
    ("thermodynamics", "the Renaissance", "sushi", "blockchain", "opera", "relativity", "glaciers", "astronomy"),
)
OTHER_ANSWER = "I am only a tiny demo model, so I cannot help with that. Ask me what I can do."
_FAVOURITE = Wordings(
    ("My favourite {thing} is {value}.", "I like the {thing} {value}.", "My favorite {thing} is {value}."),
    ("Note that my favourite {thing} is {value}.",),
)
_ASK_FAVOURITE = Wordings(
    ("What is my favourite {thing}?", "What's my favorite {thing}?", "Which {thing} do I like?"),
    ("Do you know my favourite {thing}?",),
)
INTRODUCE = Wordings(
    ("My name is {name}.", "I am {name}.", "Hello, my name is {name}.", "Hi, I am {name}.", "Hi! I'm {name}.",
     "Call me {name}.", "Hello, I am {name}!", "You can call me {name}.", "I'm {name}.", "My name is {name}!",
     "Remember that my name is {name}.", "Hello! My name is {name}."),
    ("Hi there, my name is {name}.", "Please call me {name}.", "Hey, I'm {name}."),
)
ASK_NAME = Wordings(
    ("What is my name?", "What's my name?", "Who am I?", "Do you remember my name?", "Do you know my name?",
     "Say my name.", "What was my name?", "Tell me my name."),
    ("What is my name again?", "Can you tell me my name?", "Do you still know my name?"),
)


def chat(source: Source) -> Exchange:
    wordings, answer = source.choice(CHAT)
    return source.ask(wordings), answer


def about_project(source: Source) -> Exchange:
    wordings, answer = source.choice(project.FACTS)
    return source.ask(wordings), answer


def capital(source: Source) -> Exchange:
    country, city = source.choice(list(words.CAPITALS.items()))
    if source.chance(0.2 if source.unseen else 0.3):
        return source.ask(_CAPITAL_OF, city=city), f"{city} is the capital of {country}."
    return source.ask(_CAPITAL, country=country), f"The capital of {country} is {city}."


def capital_of(source: Source) -> Exchange:
    country, city = source.choice(list(words.CAPITALS.items()))
    return source.ask(_CAPITAL_OF, city=city), f"{city} is the capital of {country}."


def counting(source: Source) -> Exchange:
    if not source.unseen and source.chance(0.2):
        return _counting_down_to(source)
    kind, end = source.number(0, 9), source.end(2, 30)
    if not source.unseen and source.chance(0.25):
        end = source.end(2, 12)
    if kind < 5:
        return source.ask(_COUNT_TO, end=end), _numbers(range(1, end + 1))
    if kind < 8 and end > 2:
        end = end if source.chance(0.4) else source.end(3, source.choice((15, 99, 99, 300)))
        start = source.number(max(2, end - 12), end - 1)
        return source.ask(_COUNT_FROM, start=start, end=end), _numbers(range(start, end + 1))
    end = source.end(2, 20)
    return source.ask(_COUNT_DOWN, end=end), _numbers(range(end, 0, -1))


def _counting_down_to(source: Source) -> Exchange:
    start = source.end(4, 60)
    end = source.number(max(2, start - 14), start - 1)
    return source.ask(_COUNT_DOWN_TO, start=start, end=end), _numbers(range(start, end - 1, -1))


def sums(source: Source) -> Exchange:
    sign = source.choice("++++----*")
    if sign == "*" and not source.unseen:
        a, b = source.number(0, 10), source.number(0, 10)
        return source.ask(_SUMS["*"], a=a, b=b), f"{a} * {b} = {a * b}"
    a, b = two_digit_pair(source, sign)
    return source.ask(_SUMS[sign], a=a, b=b), f"{a} {sign} {b} = {result(a, sign, b)}"


def two_digit_pair(source: Source, sign: str) -> tuple[int, int]:
    """Mostly two digits each; now and then small numbers, or the steps of thoughts. Differences are not negative."""
    kind = source.random.random()
    if kind < 0.15:
        a, b = source.pair(0, 20)
    elif kind < 0.3 and not source.unseen:
        a, b = source.pair(10, 198, (0, 9))
    else:
        a, b = source.pair(10, 99)
    return (max(a, b), min(a, b)) if sign == "-" else (a, b)


def result(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b


def echo(source: Source) -> Exchange:
    text = source.phrase(1, 7)
    if source.chance(0.35):
        text = text[0].upper() + text[1:]
    if source.chance(0.1):
        text += " " + source.choice(words.SYMBOLS)
    elif source.chance(0.1):
        text += f" {source.number(0, 999)}"
    return source.ask(_ECHO, text=text), text


def times(source: Source) -> Exchange:
    word, count = source.word(), source.number(2, 8)
    said = words.NUMBER_WORDS[count] if source.chance(0.5) else str(count)
    return source.ask(_TIMES, word=word, times=said), " ".join([word] * count)


def story(source: Source) -> Exchange:
    about = "" if source.chance(0.25) else source.choice(_ABOUTS)
    told_of = {
        "name": source.name() if "{name}" in about else source.pick(words.NAMES),
        "animal": _any(source, words.ANIMALS, "{animal}" in about),
        "thing": _any(source, words.THINGS, "{thing}" in about),
        "mood": source.pick(words.MOODS), "other": source.pick(words.MOODS), "place": source.pick(words.PLACES),
    }
    question = source.ask(_STORY, about=about.format(**told_of)) if about else source.ask(_ANY_STORY)
    return question, " ".join(source.choice(sentences) for sentences in _STORY_SENTENCES).format(**told_of)


def _any(source: Source, split: words.Split, asked: bool) -> str:
    """One of the words; if it was asked for, in training also one that does not exist, so that it has to be copied."""
    return source.invented() if asked and not source.unseen and source.chance(0.4) else source.pick(split)


def extraction(source: Source) -> Exchange:
    keys = source.choice((("name", "age"), ("name", "city"), ("name", "age", "city"), ("name", "age", "city")))
    forms = (_UNSEEN_PERSON if source.unseen else _PERSON)[keys]
    person = {"name": source.name(), "age": source.number(1, 99), "city": source.city()}
    relation = source.choice(_RELATIONS) if source.chance(0.5) else source.pick(lexicon.NOUNS)
    sentence = source.choice(forms).format(**person, who=f"{source.choice(_WHOSE)} {relation}")
    asked = list(keys)
    if source.chance(0.3):
        source.random.shuffle(asked)
    if source.chance(0.15):
        asked = asked[:-1]
    said = " and ".join((", ".join(asked[:-1]), asked[-1])) if len(asked) > 1 else asked[0]
    answer = json.dumps({key: person[key] for key in asked}, ensure_ascii=False)
    return source.ask(_EXTRACT, keys=said, sentence=sentence), answer


def other(source: Source) -> Exchange:
    topic = source.pick(_TOPICS)
    if not source.unseen and source.chance(0.35):
        topic = source.phrase(1, 3)
    country = source.choice(list(words.CAPITALS))
    return source.ask(_OTHER, topic=topic, topic2=source.pick(_TOPICS), country=country), OTHER_ANSWER


def favourite(source: Source) -> tuple[Exchange, Exchange]:
    """Something to remember, and the question for it."""
    thing, value = source.choice((
        ("colour", source.pick(words.COLOURS)), ("animal", source.pick(words.ANIMALS)), ("city", source.city()),
        ("number", str(source.number(1, 99))), ("word", source.word())))
    return ((source.ask(_FAVOURITE, thing=thing, value=value), f"I will remember: your favourite {thing} is {value}."),
            (source.ask(_ASK_FAVOURITE, thing=thing), f"Your favourite {thing} is {value}."))


def introduction(source: Source, name: str) -> Exchange:
    return source.ask(INTRODUCE, name=name), f"Nice to meet you, {name}! What can I do for you?"


def _numbers(numbers: range) -> str:
    return ", ".join(map(str, numbers))


SKILLS: dict[str, Callable[[Source], Exchange]] = {
    "chat": chat, "project": about_project, "capital": capital, "counting": counting, "sums": sums, "echo": echo,
    "times": times, "story": story, "extraction": extraction, "other": other,
}
