"""What the dialogues are made of, and what of it is held out for the evaluation (for functions: lexicon.py).

Each pair of lists is (seen, unseen): the generator takes the first in training, the second in evaluation.
"""

from __future__ import annotations

from typing import NamedTuple


class Split(NamedTuple):
    """What training sees, and what only the evaluation sees."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def split(seen: str, unseen: str) -> Split:
    return Split(tuple(seen.split()), tuple(unseen.split()))


NAMES = split(
    "Anna Ben Clara David Emma Felix Grace Henry Ivy Jack Kate Leo Mia Noah Olivia Paul Rosa Sam Tina Victor Zoe "
    "Alice Bob Tom Lily Ada Alan Amir Anja Arjun Bianca Boris Carla Carlos Chen Daniel Dora Edgar Elena Emil Erik "
    "Eva Fatima Fiona Frank George Greta Hana Hassan Hugo Igor Ines Irene Isaac Jana Jin John Jonas Julia Karim "
    "Karl Laura Lena Linda Louis Lucas Luna Maria Mark Martin Max Mei Michael Mina Nadia Nina Nora Omar Oscar Peter "
    "Petra Pia Priya Rahul Ravi Robert Ruth Sara Simon Sofia Stefan Sven Tara Theo Thomas Uma Vera Walter Wei Yara "
    "Yuki Yusuf Zara Jane Mary James William Charles Susan Nancy Betty Helen Kevin Brian Jason Amy Carol Diana "
    "Marta Pablo Diego Lucia",
    "Astrid Bruno Celine Dmitri Eleanor Gustav Ingrid Kenji Lorenzo Magnus Natalia Otto Quentin Rebecca Tobias Ursula "
    "Winston Xavier Yvonne Zachary",
)
CITIES = split(
    "Boston Chicago Hamburg Munich Lyon Milan Naples Porto Osaka Mumbai Dallas Denver Seattle Toronto Sydney Bergen "
    "Graz Geneva Basel Cologne Dresden Leipzig Venice Florence Seville Valencia Glasgow Dublin Leeds Bristol Paris "
    "Berlin Rome Madrid Lisbon Tokyo London Oslo Vienna Athens Cairo Lima Prague Warsaw Moscow Beijing Nairobi "
    "Helsinki Stockholm Brussels Amsterdam Budapest Ottawa Miami Austin Houston Atlanta Portland Shanghai Delhi",
    "Krakow Marseille Antwerp Stuttgart Palermo Bilbao Kyoto Phoenix Montreal Melbourne Salzburg Rotterdam Nantes "
    "Edinburgh Bordeaux",
)
LONG_CITIES = Split(
    ("New York", "San Francisco", "Los Angeles", "Mexico City", "Hong Kong", "Cape Town", "San Francisco, CA"),
    ("Buenos Aires", "Las Vegas", "New Orleans"),
)
WORDS = split(
    "apple river stone cloud music paper window garden silver orange winter summer bread coffee train yellow purple "
    "hello world server model token batch stream engine kernel data cache queue number letter simple strong weather "
    "tomorrow morning evening people water mountain picture question answer computer keyboard language story dinner "
    "cat dog fox rabbit bear owl mouse turtle dragon horse penguin lion forest village castle city lake island meadow "
    "harbor valley small brave curious happy clever quiet kind old young gentle tired lucky lantern map key book "
    "flower bell boat ring coin kite red blue green black white pink brown one two three sun moon star sky sea rain "
    "snow wind fire ice tree leaf grass bird fish milk tea salt sugar rice soup cake egg knife spoon plate cup bottle "
    "table chair door house street bridge road wheel car bus ship plane ticket doctor teacher student friend sister "
    "brother mother father child baby king queen prince robot pilot farmer baker sleep walk run jump sing dance read "
    "write open close fast slow warm cold bright dark heavy light new big long short early late never always often "
    "the a is in on and my your this that with for test text this good great nice fine we they it was are very",
    "violin pepper tunnel blanket pumpkin rocket mirror velvet hammer candle orchard puzzle walnut glacier saddle "
    "thunder ribbon anchor lemon chimney",
)
ANIMALS = split("cat dog fox rabbit bear owl mouse turtle dragon horse penguin lion frog robot duck", "hedgehog otter")
PLACES = split(
    "forest village castle river mountain garden city lake island meadow harbor valley", "desert lighthouse"
)
THINGS = split("lantern map key book stone flower letter bell boat ring coin kite", "violin mirror")
MOODS = split("small brave curious happy clever quiet kind old young gentle tired lucky", "bold shy")
COLOURS = split("red blue green yellow black white orange purple pink brown", "silver violet")

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Japan": "Tokyo",
    "China": "Beijing", "India": "New Delhi", "Brazil": "Brasilia", "Canada": "Ottawa", "Australia": "Canberra",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Austria": "Vienna", "Greece": "Athens", "Turkey": "Ankara",
    "Russia": "Moscow", "Mexico": "Mexico City", "Peru": "Lima", "Chile": "Santiago", "Argentina": "Buenos Aires",
    "Cuba": "Havana", "Ireland": "Dublin", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Switzerland": "Bern", "Hungary": "Budapest", "Ukraine": "Kyiv", "Iran": "Tehran", "Iraq": "Baghdad",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "South Korea": "Seoul", "the United Kingdom": "London",
    "the United States": "Washington, D.C.", "New Zealand": "Wellington", "Morocco": "Rabat", "Nigeria": "Abuja",
    "Ethiopia": "Addis Ababa", "Indonesia": "Jakarta", "the Philippines": "Manila", "Pakistan": "Islamabad",
    "Colombia": "Bogota", "Czechia": "Prague", "Croatia": "Zagreb", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Iceland": "Reykjavik", "Nepal": "Kathmandu",
}

SYMBOLS = ("😀", "🎉", "🚀", "👍", "é", "ü", "ñ", "日本", "你好", "привет")
NUMBER_WORDS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve".split()
)
UNSEEN_ENDS = frozenset({9, 14, 18, 23, 27})  # the numbers that the evaluation counts to


def unseen_pair(a: int, b: int) -> bool:
    """Whether a sum or difference of these two is for the evaluation only; the order does not matter.

    One-digit sums are facts to be learnt, so none of them is held out.
    """
    return max(a, b) >= 10 and (a * b + a + b) % 11 == 5
