"""The embedded world's own tasks: four that resemble GLUE's, and minimal pairs as in BLiMP.

    python -m world.tasks            a few examples of each
    examples("entailment", "test")   -> [(first text, second text or None, label), ...]

The labels follow from what is true in the world (stories.py). Three rules make the tasks measure
what a model brings along from pretraining:
 1. Counting words gives no answer. The label depends on how two words go together, and each of the
    two is right as often as wrong.
 2. Fine-tuning does not teach the answers. Where the label depends on what a word means (a thing,
    an animal, a name), the development and test sets use other words than the training set. In
    paraphrase, no two people who meet in training meet in the test set. Where the label depends on
    who did what to whom, the same people return in other roles.
 3. No text of a task occurs in any story. Either its sentences never follow each other there (after
    "tom saw two pears." a story says what the pears are like), or it is two texts joined by [SEP].

`python -m tools.gate` shows how well the tasks tell models apart.
"""
from functools import cache, partial
from random import Random

from program import cli

from world.stories import (
    ANIMALS,
    BOYS,
    COLOURS,
    DEEDS,
    EVENTS,
    GIRLS,
    KIND_OF,
    KINDS,
    NAMES,
    PLACES,
    PLURAL,
    PRONOUN,
    THINGS,
    WAYS,
)

SIZES = {"train": 1500, "dev": 500, "test": 1000}  # how many examples each part of a task has

GOOD_DEEDS = tuple(verb for verb, deed in DEEDS.items() if deed.trait == "kind")
BAD_DEEDS = tuple(verb for verb, deed in DEEDS.items() if deed.trait == "mean")


def split(words):
    """(three quarters of the words, for training; every fourth, held out from it)."""
    training = tuple(word for i, word in enumerate(words) if i % 4 != 3)
    return training, tuple(words[3::4])


# Each is a pair: what the training set uses, and what is held out for the other two.
SPLIT_PEOPLE = (GIRLS[:4] + BOYS[:4], GIRLS[4:] + BOYS[4:])
SPLIT_THINGS = split(THINGS)  # there are four things of each kind: one of them is held out
SPLIT_ANIMALS = split(tuple(ANIMALS))


class Draw:
    """Random choices from the words of the training set, or from those that are held out."""

    def __init__(self, seed, held_out):
        self.random = Random(seed).random
        self.held_out = held_out
        self.people, self.things, self.animals = (
            pair[held_out] for pair in (SPLIT_PEOPLE, SPLIT_THINGS, SPLIT_ANIMALS))

    def pick(self, options):
        return options[int(self.random() * len(options))]

    def two(self, options):
        """Two different ones."""
        first = self.pick(options)
        return first, self.pick([option for option in options if option != first])

    def couple(self):
        """Two names. A quarter of all couples is held out, while each name occurs on both sides."""
        while True:
            a, b = self.two(NAMES)
            is_held_out = (NAMES.index(a) + NAMES.index(b)) % 4 == 3
            if is_held_out == self.held_out:
                return a, b

    def way(self, meaning, **fields):
        """A sentence that says `meaning`, in one of the ways of the stories."""
        return self.pick(WAYS[meaning]).format(**fields)

    def deed(self, doer, other, verb):
        """A sentence that says who did something to whom."""
        voice = self.pick(("active", "passive"))
        return self.way(voice, a=doer, b=other, verb=verb)

    def context(self):
        """A sentence about somebody that has nothing to do with what follows."""
        saw = f"{self.pick(NAMES)} saw two {PLURAL[self.pick(THINGS)]}."
        was = f"{self.pick(NAMES)} was at the {self.pick(PLACES)}."
        return self.pick((saw, was))


# --------------------------------------------------------------------------------------------------
# Facts. Each function takes a Draw and gives a text with [MASK] in the place of one word, then the
# right word for that place, then a wrong one.

def verb_and_object(draw):
    thing, other = draw.two(draw.things)
    while KIND_OF[thing] == KIND_OF[other]:
        thing, other = draw.two(draw.things)
    right, wrong = KINDS[KIND_OF[thing]].past, KINDS[KIND_OF[other]].past
    return f"{draw.pick(draw.people)} [MASK] the {thing}.", right, wrong


def animal_and_sound(draw):
    animal, other = draw.two(draw.animals)
    if draw.pick(("plural", "singular")) == "plural":
        return f"{ANIMALS[animal].plural} [MASK].", ANIMALS[animal].sound, ANIMALS[other].sound
    return f"a {animal} [MASK].", ANIMALS[animal].sounds, ANIMALS[other].sounds


def agreement(draw):
    thing = draw.pick(draw.things)
    number = draw.pick(("plural", "singular"))
    adjective = draw.pick(KINDS[KIND_OF[thing]].adjectives)
    if number == "plural":
        return f"the {PLURAL[thing]} [MASK] {adjective}.", "were", "was"
    return f"the {thing} [MASK] {adjective}.", "was", "were"


def pronoun(draw):
    person, thing = draw.pick(draw.people), draw.pick(draw.things)
    colour, verb = draw.pick(COLOURS), KINDS[KIND_OF[thing]].past
    right = PRONOUN[person]
    wrong = "she" if right == "he" else "he"
    return f"{person} had a {colour} {thing}. [MASK] {verb} the {thing}.", right, wrong


def feeling(draw, happens=True):
    verb, thing, person = draw.pick(tuple(EVENTS)), draw.pick(draw.things), draw.pick(draw.people)
    base, right, wrong = EVENTS[verb]
    happened, to_happen = verb, f"to {base}"
    if not happens:
        happened, to_happen, right, wrong = f"did not {base}", f"not to {base}", wrong, right
    text = draw.way("event", a=person, happened=happened, to_happen=to_happen, x=thing,
                    feeling="[MASK]")
    return text, right, wrong


FACTS = {"verb and object": verb_and_object, "animal and sound": animal_and_sound,
         "agreement": agreement, "pronoun": pronoun, "feeling": feeling,
         "negated feeling": partial(feeling, happens=False)}


# Facts about the story itself: the text tells first what happened.

def who_has_it(draw):
    (a, b), thing, _ = two_people_thing_deed(draw)
    return f"{draw.way('give', a=a, b=b, x=thing)} now [MASK] had the {thing}.", b, a


def who_did_it(draw):
    (a, b), _, verb = two_people_thing_deed(draw)
    return f"{draw.deed(a, b, verb)} [MASK] was {DEEDS[verb].trait}.", a, b


def two_people_thing_deed(draw):
    return draw.two(draw.people), draw.pick(draw.things), draw.pick(tuple(DEEDS))


STORY_FACTS = {"who has it": who_has_it, "who did it": who_did_it}


# --------------------------------------------------------------------------------------------------
# Tasks. Each function takes a Draw and a label, and gives the one or two texts. The first line of
# its docstring is what `main` prints.

def acceptability(draw, label):
    """Like CoLA: is it English, and does it make sense in this world?"""
    kinds = ("verb and object", "animal and sound", "agreement", "pronoun")
    text, right, wrong = FACTS[draw.pick(kinds)](draw)
    # The sentence before it is about other things, because a story could continue with the fact
    # after one about the same thing. These things come from the draw, too, so that fine-tuning
    # shows no held-out word. Otherwise it would show the held-out plurals in this one place, and
    # even an untrained model would tell them from their singulars, and so "were" from "was"
    # (Matthews 0.23).
    others = [PLURAL[thing] for thing in draw.things
              if thing not in text and PLURAL[thing] not in text]
    first = f"{draw.pick(draw.people)} saw two {draw.pick(others)}."
    return f"{first} {text.replace('[MASK]', right if label else wrong)}", None


def sentiment(draw, label):
    """Like SST-2: was the person whom the last sentence is about treated well?

    Two deeds are told, a good one and a bad one, so that single words do not give the answer."""
    a, b = draw.two(NAMES)
    c = draw.pick([person for person in NAMES if person not in (a, b)])
    first_is_good = draw.pick((True, False))
    treated_well, treated_badly = (b, c) if first_is_good else (c, b)
    sentences = []
    for other in (b, c):
        voice = draw.pick(("active", "passive"))
        verb = draw.pick(GOOD_DEEDS if other == treated_well else BAD_DEEDS)
        sentences.append(draw.way(voice, a=a, b=other, verb=verb))
    last = treated_well if label else treated_badly
    sentences.append(f"{last} went to the {draw.pick(PLACES)}.")
    return " ".join(sentences), None


def paraphrase(draw, label):
    """Like MRPC: do two texts end with the same news?

    The two have the same people and things, whatever the label."""
    a, b = draw.couple()
    thing = draw.pick(draw.things)
    meaning = draw.pick(("give", "deed"))
    verb = draw.pick(tuple(DEEDS))
    ways = WAYS["give"] if meaning == "give" else WAYS["active"] + WAYS["passive"]
    way, other_way = draw.two(ways)
    c, d = (a, b) if label else (b, a)
    first = f"{draw.context()} {way.format(a=a, b=b, x=thing, verb=verb)}"
    second = f"{draw.context()} {other_way.format(a=c, b=d, x=thing, verb=verb)}"
    return first, second


def entailment(draw, label):
    """Like RTE: does the second sentence follow from the first text?

    Whatever the label, each of the two people is the one whom it is about equally often."""
    a, b = draw.two(NAMES)
    thing = draw.pick(draw.things)
    if draw.pick((True, False)):  # a gift
        premise = f"{draw.context()} {draw.way('give', a=a, b=b, x=thing)}"
        giver, taker = (a, b) if label else (b, a)  # according to the second sentence
        if draw.pick((True, False)):
            return premise, draw.way("has", a=taker, x=thing)
        return premise, f"{giver} did not have the {thing}."
    verb = draw.pick(tuple(DEEDS))
    premise = f"{draw.context()} {draw.deed(a, b, verb)}"
    doer, other = (a, b) if label else (b, a)
    trait, other_feeling = DEEDS[verb]
    return premise, draw.pick((f"{doer} was {trait}.", f"{other} was {other_feeling}."))


TASKS = {"acceptability": acceptability, "sentiment": sentiment, "paraphrase": paraphrase,
         "entailment": entailment}


@cache
def examples(task, part):
    """[(first text, second text or None, label)] of a task's part: "train", "dev" or "test".

    The label is 1 in half of them, and 0 in the others. No text occurs twice, nor in an earlier
    part."""
    earlier = set()
    for before in list(SIZES)[:list(SIZES).index(part)]:
        earlier.update((first, second) for first, second, _ in examples(task, before))
    seed = sorted(TASKS).index(task) * 10 + sorted(SIZES).index(part)
    draw = Draw(seed, held_out=part != "train")
    label_of = {}
    while len(label_of) < SIZES[part]:
        label = len(label_of) % 2
        texts = TASKS[task](draw, label)
        if texts not in earlier and texts not in label_of:
            label_of[texts] = label
    return [(first, second, label) for (first, second), label in label_of.items()]


# --------------------------------------------------------------------------------------------------
# Minimal pairs

def minimal_pairs(n=200):
    """{kind of fact: [(text with [MASK], right word, wrong word)]}, n of each kind.

    They show what an MLM head knows without any fine-tuning: does it find the right word more
    likely than the wrong one? (BLiMP, Warstadt et al. 2020)"""
    pairs = {}
    for i, (kind, fact) in enumerate(FACTS.items()):
        draw = Draw(1000 + i, held_out=True)
        pairs[kind] = [in_context(draw, fact) for _ in range(n)]
    for i, (kind, fact) in enumerate(STORY_FACTS.items()):
        draw = Draw(2000 + i, held_out=True)
        pairs[kind] = [fact(draw) for _ in range(n)]
    return pairs


def in_context(draw, fact):
    """A fact's text and words, after the sentence that stands before such a fact in a story."""
    text, right, wrong = fact(draw)
    return f"{sentence_before(draw, text)} {text}", right, wrong


def sentence_before(draw, text):
    """Somebody saw the one or two things that the text is about, or was somewhere."""
    words = text.removesuffix(".").split()
    if words[0] == "the":  # the pear [MASK] sweet. the pears [MASK] sweet.
        one_or_two = "a" if words[1] in PLURAL else "two"
        return f"{draw.pick(NAMES)} saw {one_or_two} {words[1]}."
    person = words[0] if words[0] in NAMES else draw.pick(NAMES)
    return f"{person} was at the {draw.pick(PLACES)}."


def main():
    cli.Parser(prog="-m world.tasks", description="Prints examples of the tasks.").parse_args()
    for name, task in TASKS.items():
        print(f"{name}: {task.__doc__.splitlines()[0]}")
        for first, second, label in examples(name, "test")[:6]:
            print(f"  {label}  {first}", f"   |   {second}" if second else "", sep="")
    print("minimal pairs")
    for kind, pairs in minimal_pairs(1).items():
        for text, right, wrong in pairs:
            print(f"  {kind}: {text}   {right}, not {wrong}")


if __name__ == "__main__":
    cli.program(main)
