"""An endless source of short English stories about a small world. No download, no files, standard library only.

    python stories.py                           a few stories
    python stories.py --tokens 1e6 > text.txt   a million tokens, one story a line

    leo was at the school. leo had a blue scarf. nora was at the school. nora teased leo. leo was hurt, because he was
    teased by nora. leo was happy to fix the scarf. the scarf was given to nora by leo. now nora had the scarf.

A masked word of such a story can be guessed at four levels, and a language model climbs them one after the other:
 1. how frequent words are,
 2. grammar: `the dogs were`, `he` for tom and `she` for mia,
 3. what is always so: dogs bark, one rides a bike, who loses a thing is sad,
 4. what is so in this story: who is where, who has what, who did what to whom.

The world comes first, as plain data. Then a `Story`, which keeps the state and has one method for each thing that can
happen: the method changes the state, then says so. Then the order of events, and the command line.

A story is a pure function of (seed, index). Of Python's random module only `Random(int).random()` is promised to be the
same in every version, so everything here is picked with that one function.
"""
import re
from itertools import count
from random import Random
from textwrap import fill

from plumbing import cli
from plumbing.cli import Parser, number, whole

# ---------------------------------------------------------------------------------------------------------------------
# The world: what never changes. Lists are tuples and dicts, because the order of a set differs from run to run.

GIRLS = ("mia", "anna", "lily", "emma", "rosa", "nora")
BOYS = ("tom", "ben", "sam", "max", "leo", "jack")
NAMES = GIRLS + BOYS
PRONOUN = {**{name: "she" for name in GIRLS}, **{name: "he" for name in BOYS}}
OBJECT_PRONOUN = {"she": "her", "he": "him"}

PLACES = ("park", "school", "farm", "beach", "market", "lake")
COLOURS = ("red", "blue", "green", "yellow")

# A kind of thing: what one does with it (past, base form), what it is like, and the things, each with its plural.
KINDS = {
    "fruit": ("ate", "eat", ("sweet", "ripe"), {"pear": "pears", "plum": "plums", "peach": "peaches", "lemon": "lemons"}),
    "tool": ("used", "use", ("heavy", "useful"), {"hammer": "hammers", "rake": "rakes", "broom": "brooms", "drill": "drills"}),
    "vehicle": ("rode", "ride", ("fast", "safe"), {"bike": "bikes", "sled": "sleds", "boat": "boats", "truck": "trucks"}),
    "instrument": ("played", "play", ("loud", "quiet"), {"drum": "drums", "flute": "flutes", "horn": "horns", "bell": "bells"}),
    "garment": ("wore", "wear", ("warm", "soft"), {"hat": "hats", "coat": "coats", "scarf": "scarves", "shirt": "shirts"}),
    "text": ("read", "read", ("long", "funny"), {"book": "books", "letter": "letters", "poem": "poems", "tale": "tales"}),
}
KIND_OF = {thing: kind for kind, (_, _, _, plurals) in KINDS.items() for thing in plurals}
PLURAL = {thing: plural for _, _, _, plurals in KINDS.values() for thing, plural in plurals.items()}
THINGS = tuple(PLURAL)

# An animal: its plural, and the sound that it makes (base form, with -s).
ANIMALS = {
    "dog": ("dogs", "bark", "barks"), "cat": ("cats", "meow", "meows"), "cow": ("cows", "moo", "moos"),
    "duck": ("ducks", "quack", "quacks"), "bee": ("bees", "buzz", "buzzes"), "frog": ("frogs", "croak", "croaks"),
    "lion": ("lions", "roar", "roars"), "horse": ("horses", "neigh", "neighs"),
}

# What can happen to somebody with a thing: past, base form, what one feels then, and what one feels if it did not happen.
EVENTS = {
    "found": ("find", "glad", "sad"), "won": ("win", "proud", "upset"), "fixed": ("fix", "happy", "angry"),
    "lost": ("lose", "sad", "glad"), "dropped": ("drop", "upset", "proud"), "broke": ("break", "angry", "happy"),
}
NEW_THING, OWN_THING = ("found", "won"), ("fixed", "lost", "dropped", "broke")  # these need a thing of nobody, of oneself

# What one can do to another, what the one who does it is, and what the other one feels.
DEEDS = {**dict.fromkeys(("helped", "hugged", "saved"), ("kind", "thankful")),
         **dict.fromkeys(("pushed", "kicked", "teased"), ("mean", "hurt"))}

# The ways to say a thing. The ways of one line say the same in other words ("use" may add a reason); only the truths at the
# end are several facts about one thing.
WAYS = {
    # what happens
    "go": ("{a} went to the {p}.", "{a} walked to the {p}.", "{a} ran to the {p}."),
    "give": ("{a} gave the {x} to {b}.", "{b} got the {x} from {a}.", "the {x} was given to {b} by {a}."),
    "use": ("{a} {verb} the {x}.", "the {x} was {adjective}, so {a} {verb} the {x}."),
    "want": ("{a} wanted to {base} the {x}.",),
    "event": ("{a} {happened} the {x} and was {feeling}.", "{a} was {feeling} {to_happen} the {x}."),
    "active": ("{a} {verb} {b}.",),
    "passive": ("{b} was {verb} by {a}.",),
    "trait": ("{a} was {trait} and {verb} {b}.", "{a} {verb} {b} and was {trait}."),
    "because": ("{b} was {feeling}, because {a} {verb} {him}.", "{b} was {feeling}, because {he} was {verb} by {a}."),
    "see one": ("{a} saw a {x}.", "at the {p}, {a} saw a {x}."),
    "see two": ("{a} saw two {xs}.", "at the {p}, {a} saw two {xs}."),
    # what is so afterwards
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
    # what is always so
    "truth": ("a {x} is a {kind}.", "{xs} are {adjective}.", "you can {base} a {x}.", "you can {base} {xs}."),
    "animal truth": ("a {x} {sounds}.", "{xs} {sound}."),
}

# What a person does next. A step that stands here twice happens twice as often.
STEPS = ("go", "give", "give", "give", "give", "use", "use", "event", "event", "event", "event", "deed", "deed", "deed",
         "animal", "animal", "look", "recall", "recall")


def words_of_the_world():
    """Every word and punctuation mark that a story can hold."""
    templates = " ".join(way for ways in WAYS.values() for way in ways)
    words = set(re.findall(r"[a-z]+|[.,]", re.sub(r"{\w+}", " ", templates)))
    words.update(NAMES, PRONOUN.values(), OBJECT_PRONOUN.values(), PLACES, COLOURS, PLURAL, PLURAL.values(), KINDS, ANIMALS,
                 EVENTS, DEEDS)
    for past, base, adjectives, _ in KINDS.values():
        words.update((past, base), adjectives)
    for forms in (*ANIMALS.values(), *EVENTS.values(), *DEEDS.values()):
        words.update(forms)
    return sorted(words)


WORDS = words_of_the_world()


# ---------------------------------------------------------------------------------------------------------------------
# A story

class Story:
    """The state of a story, and its sentences so far. `uniform()` gives the next random number from [0, 1)."""

    def __init__(self, uniform):
        self.uniform = uniform
        self.place = {}       # person -> where they are
        self.owner = {}       # thing -> who has it
        self.sentences = []
        self.said = None      # what the last sentence means
        self.subject = None   # whom the last sentence began with: the one that `he` or `she` now means

    def pick(self, options):
        return options[int(self.uniform() * len(options))]

    def chance(self, probability):
        return self.uniform() < probability

    def pick_not_in(self, taken, options):
        while True:
            option = self.pick(options)
            if option not in taken:
                return option

    def say(self, meaning, subject="", **fields):
        """Adds a sentence, one of the ways to say the meaning. `subject` is the person of {a}: `tom`, or `he` where the
        last sentence began with tom. Nothing is said twice in a row."""
        if (meaning, subject, fields) == self.said:
            return
        self.said = meaning, subject, fields
        way = self.pick(WAYS[meaning])
        about = way.removeprefix("now ").removeprefix("at the {p}, ")[:4]  # "{a} " where the sentence is about {a}
        pronoun = about == "{a} " and subject == self.subject and self.chance(0.4)
        self.sentences.append(way.format(a=PRONOUN[subject] if pronoun else subject, **fields))
        self.subject = {"{a} ": subject, "{b} ": fields.get("b")}.get(about)

    # What can happen. Each method changes the state, says so, and says some of what follows.

    def own(self, person, thing):
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
        """They cannot do anything to each other while they are at different places."""
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
        past, base, adjectives, _ = KINDS[KIND_OF[thing]]
        if self.chance(0.3):
            self.say("want", person, base=base, x=thing)
        self.say("use", person, verb=past, x=thing, adjective=self.pick(adjectives))
        if past == "ate":
            del self.owner[thing]

    def event(self, person, thing, verb):
        """Something happens with a thing, or does not, and one feels accordingly."""
        base, feeling, other_feeling = EVENTS[verb]
        if self.chance(0.25):
            self.say("event", person, happened="did not " + base, to_happen="not to " + base, x=thing, feeling=other_feeling)
            return
        self.say("event", person, happened=verb, to_happen="to " + base, x=thing, feeling=feeling)
        if verb in NEW_THING:
            self.owner[thing] = person
        if verb == "lost":
            del self.owner[thing]
            self.say("has not", person, x=thing)

    def deed(self, doer, other, verb):
        """One does something to another; then the same in other words, and what it makes of the two."""
        trait, feeling = DEEDS[verb]
        if self.chance(0.3):
            self.say("trait", doer, verb=verb, b=other, trait=trait)
        else:
            first, second = ("active", "passive") if self.chance(0.5) else ("passive", "active")
            self.say(first, doer, verb=verb, b=other)
            if self.chance(0.4):
                self.say(second, doer, verb=verb, b=other)
            if self.chance(0.8):
                self.say("is", doer, word=trait)
        if self.chance(0.4):
            self.say("is", other, word=feeling)
        elif self.chance(0.6):
            he = PRONOUN[other]
            self.say("because", doer, verb=verb, b=other, he=he, him=OBJECT_PRONOUN[he], feeling=feeling)

    def see(self, person, one, two):
        """They see one, or two of its kind. Returns which of these the story goes on to speak of: "one" or "two"."""
        number = self.pick(("one", "two"))
        self.say("see " + number, person, p=self.place[person], x=one, xs=two)
        return number

    def animal(self, person):
        animal = self.pick(tuple(ANIMALS))
        plural, sound, sounds = ANIMALS[animal]
        number = self.see(person, animal, plural)
        self.say("hear " + number, person, x=animal, xs=plural, sound=sound)
        if self.chance(0.7):
            self.say("animal truth", x=animal, xs=plural, sound=sound, sounds=sounds)

    def look(self, person):
        thing = self.pick_not_in(self.owner, THINGS)
        plural, kind = PLURAL[thing], KIND_OF[thing]
        _, base, adjectives, _ = KINDS[kind]
        adjective = self.pick(adjectives)
        number = self.see(person, thing, plural)
        self.say("is " + number, x=thing, xs=plural, word=adjective)
        if self.chance(0.7):
            self.say("truth", x=thing, xs=plural, kind=kind, base=base, adjective=adjective)

    def recall(self, person, other):
        """Says again what is so: where somebody is, or who has a thing and who has not."""
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

    def step(self, people):
        """Something that can happen now."""
        person = self.pick(people)
        other = self.pick_not_in((person,), people)
        mine = tuple(thing for thing, owner in self.owner.items() if owner == person)
        happening = self.pick(STEPS)
        if happening in ("give", "use") and not mine:
            happening = self.pick(("event", "deed", "recall"))
        if happening == "go":
            self.go(person, self.pick_not_in((self.place[person],), PLACES))
        elif happening == "give":
            self.meet(person, other)
            self.give(person, self.pick(mine), other)
        elif happening == "use":
            self.use(person, self.pick(mine))
        elif happening == "event":
            verb = self.pick(OWN_THING if mine else NEW_THING)
            thing = self.pick(mine) if mine else self.pick_not_in(self.owner, THINGS)
            self.event(person, thing, verb)
        elif happening == "deed":
            self.meet(person, other)
            self.deed(person, other, self.pick(tuple(DEEDS)))
        elif happening == "animal":
            self.animal(person)
        elif happening == "look":
            self.look(person)
        else:
            self.recall(person, other)


def story(seed, index):
    """Story number `index` of the stream `seed`."""
    if not (0 <= seed and 0 <= index < 2 ** 64):
        raise ValueError("seed and index must not be negative, and index below 2 ** 64")
    told = Story(Random(seed * 2 ** 64 + index).random)  # one number for each pair: no two streams meet
    people = [told.pick(NAMES)]
    for _ in range(2 if told.chance(0.1) else 1):
        people.append(told.pick_not_in(people, NAMES))
    for person in people:
        told.place[person] = told.place[people[0]] if told.place and told.chance(0.6) else told.pick(PLACES)
        told.say("at", person, p=told.place[person])
        if told.chance(0.8 if person == people[0] else 0.3):
            told.own(person, told.pick_not_in(told.owner, THINGS))
    for _ in range(4 + int(told.uniform() * 3)):
        told.step(people)
    return " ".join(told.sentences)


def stories(seed, first=0):
    """The stream `seed` from story number `first` on, without end."""
    for index in count(first):
        yield story(seed, index)


# ---------------------------------------------------------------------------------------------------------------------
# The command line

def main():
    parser = Parser(description="An endless source of short English stories.",
                    epilog="example:\n  python stories.py --tokens 1e6 --seed 7 > stories.txt")
    parser.add_argument("--tokens", type=number, metavar="N", help="print stories, one a line, until N tokens are printed")
    parser.add_argument("--seed", type=whole(0, 2 ** 63 - 1), default=0, metavar="n", help="which stream (default: 0)")
    parser.add_argument("--first", type=whole(0, 2 ** 63 - 1), default=0, metavar="n", help="its first story (default: 0)")
    args = parser.parse_args()
    stream = stories(args.seed, args.first)
    if args.tokens is None:
        for index in range(args.first, args.first + 5):
            print(fill(next(stream), width=100, initial_indent=f"{index:>4}  ", subsequent_indent=" " * 6), end="\n\n")
        print(f"A story is made of {len(WORDS)} words and punctuation marks. --tokens 1e6 prints a million tokens of them.")
        return
    printed = 0
    while printed < args.tokens:
        text = next(stream)
        print(text)
        printed += len(re.findall(r"\w+|[.,]", text))  # words and punctuation marks


if __name__ == "__main__":
    cli.program(main)
