"""An endless source of short English stories about a small world. It needs no download.

    python -m world.stories                           a few stories
    python -m world.stories --tokens 1e6 > text.txt   a million tokens, one story a line

    leo was at the school. leo had a blue scarf. nora was at the school. nora teased leo. leo was
    hurt, because he was teased by nora. leo was happy to fix the scarf. the scarf was given to nora
    by leo. now nora had the scarf.

A masked word of such a story can be guessed at four levels. A language model climbs them one after
the other:
 1. how frequent each word is,
 2. grammar: `the dogs were`, `he` for tom and `she` for mia,
 3. what is always true: dogs bark, a bike is ridden, who loses a thing is sad,
 4. what is true in this story: who is where, who has what, who did what to whom.

The file begins with the world, as plain data. Then comes `Story`, which keeps the state of a story.
It has one method for each thing that can happen: the method changes the state, and says so.

A story is a pure function of (seed, index). Python promises for `Random(int).random()`, and for no
other function of its random module, that every version gives the same numbers. So each choice here
is made with that one function.
"""
import re
from itertools import count
from random import Random
from textwrap import fill
from typing import NamedTuple

from program import cli

# --------------------------------------------------------------------------------------------------
# The world: what never changes. It is kept in tuples and dicts, because the order of a set differs
# from run to run.

GIRLS = ("mia", "anna", "lily", "emma", "rosa", "nora")
BOYS = ("tom", "ben", "sam", "max", "leo", "jack")
NAMES = GIRLS + BOYS
PRONOUN = dict.fromkeys(GIRLS, "she") | dict.fromkeys(BOYS, "he")
OBJECT_PRONOUN = {"she": "her", "he": "him"}

PLACES = ("park", "school", "farm", "beach", "market", "lake")
COLOURS = ("red", "blue", "green", "yellow")


class Kind(NamedTuple):
    """A kind of thing."""
    past: str          # what people do with such a thing, in the past tense
    base: str          # the same verb in its base form
    adjectives: tuple  # what such a thing is like
    plurals: dict      # the things of this kind, each with its plural


KINDS = {
    "fruit": Kind("ate", "eat", ("sweet", "ripe"),
                  {"pear": "pears", "plum": "plums", "peach": "peaches", "lemon": "lemons"}),
    "tool": Kind("used", "use", ("heavy", "useful"),
                 {"hammer": "hammers", "rake": "rakes", "broom": "brooms", "drill": "drills"}),
    "vehicle": Kind("rode", "ride", ("fast", "safe"),
                    {"bike": "bikes", "sled": "sleds", "boat": "boats", "truck": "trucks"}),
    "instrument": Kind("played", "play", ("loud", "quiet"),
                       {"drum": "drums", "flute": "flutes", "horn": "horns", "bell": "bells"}),
    "garment": Kind("wore", "wear", ("warm", "soft"),
                    {"hat": "hats", "coat": "coats", "scarf": "scarves", "shirt": "shirts"}),
    "text": Kind("read", "read", ("long", "funny"),
                 {"book": "books", "letter": "letters", "poem": "poems", "tale": "tales"}),
}
KIND_OF = {thing: name for name, kind in KINDS.items() for thing in kind.plurals}
PLURAL = {thing: kind.plurals[thing] for kind in KINDS.values() for thing in kind.plurals}
THINGS = tuple(PLURAL)


class Animal(NamedTuple):
    """An animal and the sound that it makes."""
    plural: str
    sound: str   # dogs bark
    sounds: str  # a dog barks


ANIMALS = {
    "dog": Animal("dogs", "bark", "barks"),
    "cat": Animal("cats", "meow", "meows"),
    "cow": Animal("cows", "moo", "moos"),
    "duck": Animal("ducks", "quack", "quacks"),
    "bee": Animal("bees", "buzz", "buzzes"),
    "frog": Animal("frogs", "croak", "croaks"),
    "lion": Animal("lions", "roar", "roars"),
    "horse": Animal("horses", "neigh", "neighs"),
}


class Event(NamedTuple):
    """What can happen to somebody with a thing. Its key in EVENTS is the verb in the past tense."""
    base: str              # the verb in its base form
    feeling: str           # what the person feels if it happened
    opposite_feeling: str  # what the person feels if it did not happen


EVENTS = {
    "found": Event("find", "glad", "sad"),
    "won": Event("win", "proud", "upset"),
    "fixed": Event("fix", "happy", "angry"),
    "lost": Event("lose", "sad", "glad"),
    "dropped": Event("drop", "upset", "proud"),
    "broke": Event("break", "angry", "happy"),
}
NEW_THING = ("found", "won")                       # these happen with a thing that nobody has
OWN_THING = ("fixed", "lost", "dropped", "broke")  # these happen with a thing of one's own


class Deed(NamedTuple):
    """What one person can do to another."""
    trait: str    # what the one who does it is
    feeling: str  # what the other one feels


DEEDS = {
    "helped": Deed("kind", "thankful"),
    "hugged": Deed("kind", "thankful"),
    "saved": Deed("kind", "thankful"),
    "pushed": Deed("mean", "hurt"),
    "kicked": Deed("mean", "hurt"),
    "teased": Deed("mean", "hurt"),
}

# The ways to say each meaning. {a} and {b} are people, {p} is a place, {x} a thing or an animal and
# {xs} its plural. All ways of a meaning say the same in other words, with two exceptions: "use" may
# add a reason, and each truth at the end is another fact about the same thing.
WAYS = {
    # What happens
    "go": ("{a} went to the {p}.", "{a} walked to the {p}.", "{a} ran to the {p}."),
    "give": ("{a} gave the {x} to {b}.", "{b} got the {x} from {a}.",
             "the {x} was given to {b} by {a}."),
    "use": ("{a} {verb} the {x}.", "the {x} was {adjective}, so {a} {verb} the {x}."),
    "want": ("{a} wanted to {base} the {x}.",),
    "event": ("{a} {happened} the {x} and was {feeling}.",
              "{a} was {feeling} {to_happen} the {x}."),
    "active": ("{a} {verb} {b}.",),
    "passive": ("{b} was {verb} by {a}.",),
    "trait": ("{a} was {trait} and {verb} {b}.", "{a} {verb} {b} and was {trait}."),
    "because": ("{b} was {feeling}, because {a} {verb} {him}.",
                "{b} was {feeling}, because {he} was {verb} by {a}."),
    "see one": ("{a} saw a {x}.", "at the {p}, {a} saw a {x}."),
    "see two": ("{a} saw two {xs}.", "at the {p}, {a} saw two {xs}."),
    # What is true afterwards
    "at": ("{a} was at the {p}.",),
    "both at": ("{pair} were at the {p}.",),
    "has a": ("{a} had a {colour} {x}.",),
    "has": ("now {a} had the {x}.", "now the {x} was with {a}."),
    "has not": ("{a} did not have the {x}.",),
    "is": ("{a} was {word}.",),
    "is one": ("the {x} was {word}.",),
    "is two": ("the {xs} were {word}.",),
    "hear one": ("{a} heard the {x} {sound}.",),
    "hear two": ("{a} heard the two {xs} {sound}.",),
    # What is always true
    "truth": ("a {x} is a {kind}.", "{xs} are {adjective}.", "you can {base} a {x}.",
              "you can {base} {xs}."),
    "animal truth": ("a {x} {sounds}.", "{xs} {sound}."),
}

# What a person does next. A step that stands here twice happens twice as often.
STEPS = ("go", "give", "give", "give", "give", "use", "use", "event", "event", "event", "event",
         "deed", "deed", "deed", "animal", "animal", "look", "recall", "recall")


def words_of_the_world():
    """All words and punctuation marks that a story can contain, sorted."""
    templates = " ".join(way for ways in WAYS.values() for way in ways)
    words = set(re.findall(r"[a-z]+|[.,]", re.sub(r"{\w+}", " ", templates)))
    words.update(NAMES, PRONOUN.values(), OBJECT_PRONOUN.values(), PLACES, COLOURS)
    words.update(PLURAL, PLURAL.values(), KINDS, ANIMALS, EVENTS, DEEDS)
    for kind in KINDS.values():
        words.update((kind.past, kind.base), kind.adjectives)
    for forms in (*ANIMALS.values(), *EVENTS.values(), *DEEDS.values()):
        words.update(forms)
    return sorted(words)


WORDS = words_of_the_world()


# --------------------------------------------------------------------------------------------------
# A story

class Story:
    """A story while it is made: its people, its state, and the sentences so far.

    `uniform()` gives the next random number from [0, 1)."""

    def __init__(self, uniform):
        self.uniform = uniform
        self.people = []
        self.place = {}           # person -> the place where they are
        self.owner = {}           # thing -> the person who has it
        self.sentences = []
        self.last_said = None     # what the last sentence means
        self.last_subject = None  # whom the last sentence began with: `he` or `she` now means them

    # Choices

    def pick(self, options):
        return options[int(self.uniform() * len(options))]

    def pick_not_in(self, taken, options):
        while (option := self.pick(options)) in taken:
            pass
        return option

    def chance(self, probability):
        return self.uniform() < probability

    # Sentences

    def say(self, meaning, subject="", **fields):
        """Adds a sentence: one of the ways to say `meaning`, unless the last one said the same.

        subject: the person of {a}, whom the sentence may call `he` or `she` if the last one began
        with the same person. fields: the values of the template's other fields."""
        said = meaning, subject, fields
        if said == self.last_said:
            return
        self.last_said = said
        way = self.pick(WAYS[meaning])
        beginning = way.removeprefix("now ").removeprefix("at the {p}, ")
        name = subject
        if beginning.startswith("{a} ") and subject == self.last_subject and self.chance(0.4):
            name = PRONOUN[subject]
        self.sentences.append(way.format(a=name, **fields))
        subjects = {"{a}": subject, "{b}": fields.get("b")}
        self.last_subject = subjects.get(beginning.split()[0])

    # What can happen. Each method changes the state, says so, and says some of what follows.

    def own(self, person, thing):
        """Somebody has a thing from the beginning."""
        colour = self.pick(COLOURS)
        self.owner[thing] = person
        self.say("has a", person, colour=colour, x=thing)
        if self.chance(0.2):
            self.say("is one", x=thing, word=colour)
        if self.chance(0.5):
            self.use(person, thing)

    def go(self, person, place):
        self.place[person] = place
        self.say("go", person, p=place)
        if self.chance(0.6):
            self.say("at", person, p=place)

    def meet(self, person, other):
        """The person goes where the other one is: only there can they do something together."""
        if self.place[person] != self.place[other]:
            self.go(person, self.place[other])

    def give(self, giver, thing, taker):
        self.owner[thing] = taker
        self.say("give", giver, x=thing, b=taker)
        self.say("has", taker, x=thing)
        if self.chance(0.4):
            self.say("has not", giver, x=thing)
        if self.chance(0.3):
            self.use(taker, thing)

    def use(self, person, thing):
        kind = KINDS[KIND_OF[thing]]
        if self.chance(0.3):
            self.say("want", person, base=kind.base, x=thing)
        self.say("use", person, verb=kind.past, x=thing, adjective=self.pick(kind.adjectives))
        if kind.past == "ate":
            del self.owner[thing]

    def event(self, person, thing, verb):
        """Something happens with a thing, or does not, and the person has a feeling about it."""
        base, feeling, opposite_feeling = EVENTS[verb]
        if self.chance(0.25):
            self.say("event", person, happened=f"did not {base}", to_happen=f"not to {base}",
                     x=thing, feeling=opposite_feeling)
            return
        self.say("event", person, happened=verb, to_happen=f"to {base}", x=thing, feeling=feeling)
        if verb in NEW_THING:
            self.owner[thing] = person
        if verb == "lost":
            del self.owner[thing]
            self.say("has not", person, x=thing)

    def deed(self, doer, other, verb):
        """One person does something to another. The story may repeat it in other words, and may say
        what the one is and what the other feels."""
        trait, feeling = DEEDS[verb]
        if self.chance(0.3):
            self.say("trait", doer, verb=verb, b=other, trait=trait)
        else:
            voices = ("active", "passive") if self.chance(0.5) else ("passive", "active")
            self.say(voices[0], doer, verb=verb, b=other)
            if self.chance(0.4):
                self.say(voices[1], doer, verb=verb, b=other)
            if self.chance(0.8):
                self.say("is", doer, word=trait)
        if self.chance(0.4):
            self.say("is", other, word=feeling)
        elif self.chance(0.6):
            he = PRONOUN[other]
            self.say("because", doer, verb=verb, b=other, he=he, him=OBJECT_PRONOUN[he],
                     feeling=feeling)

    def see(self, person, one, two):
        """The person sees `one`, or two of them, whose plural is `two`. Returns "one" or "two": the
        sentences that follow speak of as many."""
        how_many = self.pick(("one", "two"))
        self.say(f"see {how_many}", person, p=self.place[person], x=one, xs=two)
        return how_many

    def animal(self, person):
        """Somebody sees and hears an animal."""
        animal = self.pick(tuple(ANIMALS))
        plural, sound, sounds = ANIMALS[animal]
        how_many = self.see(person, animal, plural)
        self.say(f"hear {how_many}", person, x=animal, xs=plural, sound=sound)
        if self.chance(0.7):
            self.say("animal truth", x=animal, xs=plural, sound=sound, sounds=sounds)

    def look(self, person):
        """Somebody sees a thing that nobody has."""
        thing = self.pick_not_in(self.owner, THINGS)
        plural, kind = PLURAL[thing], KIND_OF[thing]
        adjective = self.pick(KINDS[kind].adjectives)
        how_many = self.see(person, thing, plural)
        self.say(f"is {how_many}", x=thing, xs=plural, word=adjective)
        if self.chance(0.7):
            self.say("truth", x=thing, xs=plural, kind=kind, base=KINDS[kind].base,
                     adjective=adjective)

    def recall(self, person, other):
        """Nothing happens. The story repeats what is true: where people are, or who has a thing, or
        who has not."""
        if self.owner and self.chance(0.5):
            thing, owner = self.pick(tuple(self.owner.items()))
            if self.chance(0.7):
                self.say("has", owner, x=thing)
            else:
                self.say("has not", other if owner == person else person, x=thing)
        elif self.place[person] == self.place[other]:
            self.say("both at", pair=f"{person} and {other}", p=self.place[person])
        else:
            self.say("at", person, p=self.place[person])
            self.say("at", other, p=self.place[other])

    # The order of events

    def begin(self):
        """Chooses two people, sometimes three, and introduces each."""
        self.people = [self.pick(NAMES)]
        others = 2 if self.chance(0.1) else 1
        for _ in range(others):
            self.people.append(self.pick_not_in(self.people, NAMES))
        for person in self.people:
            self.introduce(person)

    def introduce(self, person):
        """Says where a person is, and often what they have. The first one has a thing most often,
        and the others are often at the same place."""
        first = self.people[0]
        if person != first and self.chance(0.6):
            self.place[person] = self.place[first]
        else:
            self.place[person] = self.pick(PLACES)
        self.say("at", person, p=self.place[person])
        if self.chance(0.8 if person == first else 0.3):
            self.own(person, self.pick_not_in(self.owner, THINGS))

    def step(self):
        """Lets somebody do something that is possible now."""
        person = self.pick(self.people)
        other = self.pick_not_in((person,), self.people)
        own_things = tuple(thing for thing, owner in self.owner.items() if owner == person)
        happening = self.pick(STEPS)
        if happening in ("give", "use") and not own_things:
            happening = self.pick(("event", "deed", "recall"))
        if happening == "go":
            self.go(person, self.pick_not_in((self.place[person],), PLACES))
        elif happening == "give":
            self.meet(person, other)
            self.give(person, self.pick(own_things), other)
        elif happening == "use":
            self.use(person, self.pick(own_things))
        elif happening == "event":
            self.any_event(person, own_things)
        elif happening == "deed":
            self.meet(person, other)
            self.deed(person, other, self.pick(tuple(DEEDS)))
        elif happening == "animal":
            self.animal(person)
        elif happening == "look":
            self.look(person)
        else:
            self.recall(person, other)

    def any_event(self, person, own_things):
        """An event with one of the person's things or, if they have none, with a new one."""
        if own_things:
            verb = self.pick(OWN_THING)
            thing = self.pick(own_things)
        else:
            verb = self.pick(NEW_THING)
            thing = self.pick_not_in(self.owner, THINGS)
        self.event(person, thing, verb)


def story(seed, index):
    """Story number `index` of the stream `seed`, as one line of text.

    Raises ValueError if one of them is negative, or if index is 2 ** 64 or more."""
    if not (0 <= seed and 0 <= index < 2 ** 64):
        raise ValueError("seed and index must not be negative, and index must be below 2 ** 64")
    pair = seed * 2 ** 64 + index  # a number of its own for each pair: no two streams meet
    made = Story(Random(pair).random)
    made.begin()
    for _ in range(4 + int(made.uniform() * 3)):
        made.step()
    return " ".join(made.sentences)


def stories(seed, first=0):
    """Yields the stream `seed` from story number `first` on, without end."""
    for index in count(first):
        yield story(seed, index)


def main():
    parser = cli.Parser(prog="-m world.stories", usage="python -m world.stories [options]",
                        description=__doc__.splitlines()[0], epilog="example:\n  python -m "
                        "world.stories --tokens 1e6 --seed 7 > stories.txt")
    parser.add_argument("--tokens", type=cli.number, metavar="N",
                        help="print stories, one a line, until N tokens are printed")
    parser.add_argument("--seed", type=cli.whole(0, 2 ** 63 - 1), default=0, metavar="n",
                        help="which stream (default: 0)")
    args = parser.parse_args()
    if args.tokens is None:  # five of them, for a reader
        for index in range(5):
            print(fill(story(args.seed, index), width=100, subsequent_indent="  "), end="\n\n")
        print(f"A story is made of {len(WORDS)} words and punctuation marks. --tokens 1e6 prints a "
              "million tokens of them.")
        return
    printed = 0  # words and punctuation marks
    for text in stories(args.seed):
        print(text)
        printed += len(re.findall(r"\w+|[.,]", text))
        if printed >= args.tokens:
            return


if __name__ == "__main__":
    cli.program(main)
