"""The word lists that dialogues are filled from, and invented words for learning to copy."""

# ruff: noqa: E501, SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import random

CITIES: tuple[str, ...] = tuple(
    """
    Paris|London|Berlin|Madrid|Rome|Vienna|Lisbon|Dublin|Oslo|Stockholm|Helsinki|Copenhagen|Warsaw
    Prague|Budapest|Athens|Brussels|Amsterdam|Zurich|Geneva|Milan|Naples|Turin|Venice|Munich|Hamburg
    Cologne|Frankfurt|Barcelona|Valencia|Seville|Porto|Lyon|Marseille|Nice|Toulouse|Bordeaux|Glasgow
    Edinburgh|Manchester|Liverpool|Bristol|Cardiff|Belfast|Cork|Bergen|Gothenburg|Tampere|Riga|Tallinn
    Vilnius|Krakow|Gdansk|Brno|Bratislava|Ljubljana|Zagreb|Belgrade|Sofia|Bucharest|Istanbul|Ankara
    Cairo|Tunis|Algiers|Rabat|Casablanca|Dakar|Accra|Lagos|Abuja|Nairobi|Kampala|Kigali|Lusaka|Harare
    Durban|Pretoria|Cape Town|Johannesburg|Tel Aviv|Amman|Beirut|Doha|Dubai|Muscat|Tehran|Baku|Tbilisi
    Delhi|New Delhi|Mumbai|Pune|Chennai|Kolkata|Bangalore|Karachi|Lahore|Dhaka|Colombo|Kathmandu
    Bangkok|Hanoi|Manila|Jakarta|Singapore|Kuala Lumpur|Taipei|Hong Kong|Shanghai|Beijing|Shenzhen
    Chengdu|Wuhan|Nanjing|Tokyo|Osaka|Kyoto|Nagoya|Sapporo|Seoul|Busan|Sydney|Melbourne|Perth|Brisbane
    Adelaide|Auckland|Wellington|Honolulu|Anchorage|Vancouver|Calgary|Toronto|Ottawa|Montreal|Quebec
    Boston|New York|Philadelphia|Washington|Atlanta|Miami|Orlando|Chicago|Detroit|Denver|Dallas|Houston
    Austin|Phoenix|Las Vegas|Los Angeles|San Diego|San Francisco|Seattle|Portland|Mexico City|Havana
    Bogota|Quito|Lima|La Paz|Santiago|Buenos Aires|Montevideo|Asuncion|Brasilia|Rio de Janeiro
    Sao Paulo|Caracas|Panama City|Kingston|Reykjavik|Luxembourg|Monaco|Malta|Nicosia|Kyiv|Minsk
    """.replace("\n", "|").split("|")
)
CITIES = tuple(city.strip() for city in CITIES if city.strip())

NAMES: tuple[str, ...] = tuple(
    """
    Ana Anna Alice Amir Anders Anil Aria Ben Bruno Carla Carlos Chen Chloe Clara Dana Daniel David Diego
    Elena Eli Emma Eric Eva Felix Fatima Finn Gina George Grace Hana Hugo Ian Ines Ingrid Iris Ivan Jack
    Jane John Julia Kai Karim Kate Kim Lara Lea Leo Lin Lisa Luca Lucy Luis Maria Mark Marta Max Maya Mei
    Mia Mila Mina Nadia Nils Nina Noah Nora Olga Oliver Omar Oscar Paul Pedro Peter Priya Ravi Rita Robin
    Rosa Ruth Sam Sana Sara Sofia Sven Tara Theo Tim Tom Uma Vera Victor Wei Will Yara Yuki Zoe Alex Bob
    """.split()
)

PERSONAS: tuple[str, ...] = tuple(
    """
    Nova Atlas Echo Luna Pixel Sparky Orion Juno Milo Cosmo Dot Ember Fizz Gizmo Halo Indigo Jade Kite
    Lumen Maple Nimbus Opal Pepper Quill Rusty Sage Tango Vega Willow Zephyr Bolt Coral Delta Flint Pip
    Moss Ruby Sky Storm Comet Robo Clover Biscuit Ziggy Otto Kiwi Mango Tofu Waffle Mofi
    """.split()
)

WORDS: tuple[str, ...] = tuple(
    """
    apple river stone green blue yellow red purple orange silver golden dark bright quiet loud happy sad
    brave calm quick slow warm cold soft hard small big tall short round square sharp smooth fresh old new
    young clean dusty empty full heavy light early late open closed gentle wild tiny huge lazy busy clever
    dog cat horse bird fish mouse tiger lion bear wolf fox rabbit sheep goat cow duck goose swan owl eagle
    whale shark crab snail spider ant bee butterfly frog turtle snake dragon monkey elephant zebra camel
    tree flower leaf root seed grass forest field mountain hill valley lake ocean sea beach island desert
    sun moon star sky cloud rain snow wind storm thunder fire water earth ice sand rock metal wood paper
    glass cup plate spoon fork knife table chair lamp door window wall roof floor house garden bridge road
    street city village castle tower church market school library museum station harbor boat ship train
    car bus bicycle plane rocket engine wheel clock watch phone camera radio piano guitar violin drum song
    dance story poem book letter page word pen pencil brush color picture music game ball kite toy puzzle
    bread butter cheese milk honey sugar salt pepper soup rice bean carrot potato tomato onion lemon pear
    peach plum cherry grape banana melon berry nut cake cookie pie tea coffee juice hat coat shirt shoe
    sock glove scarf ring crown button pocket bag box basket bottle bucket rope chain key lock coin gold
    king queen prince knight farmer baker doctor teacher sailor pilot artist writer singer dancer friend
    brother sister mother father baby child neighbor stranger hero giant robot wizard ghost pirate clown
    runs walks jumps sings sleeps eats drinks reads writes paints builds breaks finds hides opens closes
    carries throws catches holds pulls pushes climbs swims flies falls grows shines burns melts freezes
    turns moves stops starts waits looks listens speaks whispers shouts laughs cries smiles dreams thinks
    the a my your our this that every some two three four five six seven eight nine ten under over near
    behind beside between inside outside above below through around with without after before and or but
    always never often today tomorrow morning evening night summer winter spring autumn north south east
    west left right up down here there again together alone slowly quickly gently softly silently
    agent model tensor token server plugin kernel memory number letter signal pattern window matrix vector
    hello world good night see you soon best of luck thank well done make it simple keep going
    """.split()
)
WORDS = tuple(dict.fromkeys(WORDS))

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kl pl pr sh sk st th tr".split()
_VOWELS = "a e i o u a e i o u ai ea ee io oo ou".split()
_CODAS = ("", "", "", "n", "r", "s", "l", "t", "m", "k", "nd", "x", "ng")


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of one to three syllables that is most likely no word of any language."""
    n_syllables = rng.choice((1, 2, 2, 2, 3))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(n_syllables)
    )


def invented_place(rng: random.Random) -> str:
    """An invented place name of one or two capitalised words."""
    n_words = 2 if rng.random() < 0.2 else 1
    return " ".join(invented_word(rng).capitalize() for _ in range(n_words))


def phrase(rng: random.Random, *, max_words: int = 6) -> str:
    """A phrase to repeat: known words, mixed with invented ones, numbers and capitals."""
    n_words = rng.randint(1, max_words)
    parts: list[str] = []
    for _ in range(n_words):
        kind = rng.random()
        if kind < 0.68:
            parts.append(rng.choice(WORDS))
        elif kind < 0.90:
            parts.append(invented_word(rng))
        elif kind < 0.95:
            parts.append(rng.choice(NAMES + CITIES))
        else:
            parts.append(str(rng.randint(0, 999)))
    text = " ".join(parts)
    return text[:1].upper() + text[1:] if rng.random() < 0.2 else text
