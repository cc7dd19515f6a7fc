"""The embedded world's own tasks: four like GLUE's, labelled by what is so in the world, and minimal pairs.

    python tasks.py                  a few examples of each
    examples("entailment", "test")   -> [(first sentence, second sentence or None, label), ...]

What a task asks cannot be answered by counting words: the label depends on how two of them go together, and each of the two is
as often right as wrong. Nor can it be learned by heart in fine-tuning: where an answer depends on what a thing, an animal or a name is,
those of the test set are others than those of training (where it depends on who did what to whom, people are the same in other roles).
A model has to bring along what it learned in pretraining, and that is what the tasks measure: `python glue.py --gate` shows how well.
Where the same names play in training and test, no two of them meet in both (paraphrase).

No text of a task stands in any story: sentences are put together that never follow each other there (`stories.py`: after "saw two
pears" comes what the pears are like; a feeling is said in the sentence of its event), or two texts are joined by [SEP].
"""
from functools import cache
from random import Random

from plumbing import cli

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
    WAYS,
)

SIZES = {"train": 1500, "dev": 500, "test": 1000}

GOOD_DEEDS, BAD_DEEDS = (tuple(verb for verb, (trait, _) in DEEDS.items() if trait == kind) for kind in ("kind", "mean"))


def parts_of(words):
    """Three quarters for fine-tuning, and every fourth for the development and test sets."""
    return tuple(word for i, word in enumerate(words) if i % 4 != 3), tuple(words[3::4])


PEOPLE = tuple(girls + boys for girls, boys in zip((GIRLS[:4], GIRLS[4:]), (BOYS[:4], BOYS[4:])))
THINGS, ANIMAL_PARTS = parts_of(tuple(PLURAL)), parts_of(tuple(ANIMALS))  # of each kind of thing there are four


class Draw:
    """Random choices from the world: of the words that are for fine-tuning, or of those that are held out from it."""

    def __init__(self, seed, held_out):
        self.random = Random(seed).random
        self.people, self.things, self.animals, self.held_out = PEOPLE[held_out], THINGS[held_out], ANIMAL_PARTS[held_out], held_out

    def context(self):
        """A sentence about somebody, with which nothing that follows has to do."""
        return self.pick((f"{self.pick(NAMES)} saw two {PLURAL[self.pick(tuple(PLURAL))]}.", f"{self.pick(NAMES)} was at the {self.pick(PLACES)}."))

    def pick(self, options):
        return options[int(self.random() * len(options))]

    def two(self, options):
        first = self.pick(options)
        return first, self.pick([option for option in options if option != first])

    def pair(self):
        """Two names, of the quarter of all pairs that is held out, or of the others."""
        a, b = self.two(NAMES)
        return (a, b) if ((NAMES.index(a) + NAMES.index(b)) % 4 == 3) == self.held_out else self.pair()

    def way(self, meaning, **fields):
        return self.pick(WAYS[meaning]).format(**fields)


# ---------------------------------------------------------------------------------------------------------------------
# Facts of the world as pairs of sentences, right and wrong, that differ in one word. Each takes a Draw and gives
# (right, wrong, the word that differs, in both). The contexts are those in which stories say such things.

def sentence_pair(text, right, wrong):
    return text.format(right), text.format(wrong), right, wrong


def verb_and_object(draw):
    thing, other = draw.two(draw.things)
    while KIND_OF[thing] == KIND_OF[other]:
        thing, other = draw.two(draw.things)
    return sentence_pair(f"{draw.pick(draw.people)} {{}} the {thing}.", KINDS[KIND_OF[thing]][0], KINDS[KIND_OF[other]][0])


def animal_and_sound(draw):
    animal, other = draw.two(draw.animals)
    form = draw.pick((1, 2))
    return sentence_pair(f"a {animal} {{}}." if form == 2 else f"{ANIMALS[animal][0]} {{}}.", ANIMALS[animal][form], ANIMALS[other][form])


def agreement(draw):
    thing, many = draw.pick(draw.things), draw.pick((True, False))
    adjective = draw.pick(KINDS[KIND_OF[thing]][2])
    right, wrong = ("were", "was") if many else ("was", "were")
    return sentence_pair(f"the {PLURAL[thing] if many else thing} {{}} {adjective}.", right, wrong)


def seen(draw, sentence):
    """The sentence that comes before a fact in a story: somebody saw one or two of what it is about, or was somewhere."""
    subject = next((word for word in sentence.removesuffix(".").split() if word in PLURAL or word in PLURAL.values()), "")
    if sentence.startswith("the "):
        return f"{draw.pick(NAMES)} saw {'two' if subject in PLURAL.values() else 'a'} {subject}."
    first = sentence.split()[0]
    return f"{first if first in NAMES else draw.pick(NAMES)} was at the {draw.pick(PLACES)}."


def pronoun(draw):
    person, thing = draw.pick(draw.people), draw.pick(draw.things)
    he = PRONOUN[person]
    return sentence_pair(f"{person} had a {draw.pick(COLOURS)} {thing}. {{}} {KINDS[KIND_OF[thing]][0]} the {thing}.", he,
                         {"he": "she", "she": "he"}[he])


def feeling(draw, negated=False):
    event, thing, person = draw.pick(tuple(EVENTS)), draw.pick(draw.things), draw.pick(draw.people)
    base, right, wrong = EVENTS[event]
    if negated:
        right, wrong, event, base = wrong, right, "did not " + base, "not to " + base
    else:
        base = "to " + base
    return sentence_pair(draw.way("event", a=person, happened=event, to_happen=base, x=thing, feeling="{}"), right, wrong)


def negated_feeling(draw):
    return feeling(draw, negated=True)


FACTS = {"verb and object": verb_and_object, "animal and sound": animal_and_sound, "agreement": agreement, "pronoun": pronoun,
         "feeling": feeling, "negated feeling": negated_feeling}


# ---------------------------------------------------------------------------------------------------------------------
# Tasks. Each takes a Draw and a label, and gives the one or two texts.

def acceptability(draw, label):
    """Like CoLA: is it English, and does it make sense in this world?"""
    right, wrong, _, _ = FACTS[draw.pick(("verb and object", "animal and sound", "agreement", "pronoun"))](draw)
    # Not of what the fact is about, or a story could go on so; and no held-out word is seen in fine-tuning, not even here: a plural that
    # was only ever read in this place is told from its singular by an untrained model, and then "were" from "was" (Matthews 0.23).
    others = [PLURAL[thing] for thing in draw.things if thing not in right and PLURAL[thing] not in right]
    return f"{draw.pick(draw.people)} saw two {draw.pick(others)}. {right if label else wrong}", None


def sentiment(draw, label):
    """Like SST-2: good or bad? Was the one who is spoken of last treated well: a good and a bad deed are told, so words alone do not tell."""
    a, b = draw.two(NAMES)
    c = draw.pick([person for person in NAMES if person not in (a, b)])
    first_is_good = draw.pick((True, False))
    told = [draw.way(draw.pick(("active", "passive")), a=a, b=other, verb=draw.pick(GOOD_DEEDS if good else BAD_DEEDS))
            for other, good in ((b, first_is_good), (c, not first_is_good))]
    return f"{' '.join(told)} {b if bool(label) == first_is_good else c} went to the {draw.pick(PLACES)}.", None


def paraphrase(draw, label):
    """Like MRPC: do two texts end with the same news? They have the same words, except for how it is said."""
    (a, b), thing = draw.pair(), draw.pick(draw.things)
    meaning = draw.pick(("give", "deed"))
    fields = {"x": thing, "verb": draw.pick(tuple(DEEDS))}
    first, second = draw.two(WAYS["give"] if meaning == "give" else WAYS["active"] + WAYS["passive"])
    c, d = (a, b) if label else (b, a)
    return f"{draw.context()} {first.format(a=a, b=b, **fields)}", f"{draw.context()} {second.format(a=c, b=d, **fields)}"


def entailment(draw, label):
    """Like RTE: does the second sentence follow from the first? Each person is as often the one as the other."""
    (a, b), thing = draw.two(NAMES), draw.pick(draw.things)
    if draw.pick((True, False)):
        premise = f"{draw.context()} {draw.way('give', a=a, b=b, x=thing)}"
        return premise, draw.way("has", a=b if label else a, x=thing) if draw.pick((True, False)) else f"{a if label else b} did not have the {thing}."
    verb = draw.pick(tuple(DEEDS))
    premise = f"{draw.context()} {draw.way(draw.pick(('active', 'passive')), a=a, b=b, verb=verb)}"
    trait, felt = DEEDS[verb]
    doer, other = (a, b) if label else (b, a)
    return premise, draw.pick((f"{doer} was {trait}.", f"{other} was {felt}."))


TASKS = {"acceptability": acceptability, "sentiment": sentiment, "paraphrase": paraphrase, "entailment": entailment}


@cache
def examples(task, part):
    """The part ("train", "dev" or "test") of a task: [(first text, second text or None, label 0 or 1)], half of them 1. No text stands
    there twice, or in an earlier part."""
    earlier = {example[:2] for before in list(SIZES)[:list(SIZES).index(part)] for example in examples(task, before)}
    draw = Draw(sorted(TASKS).index(task) * 10 + sorted(SIZES).index(part), held_out=part != "train")
    found = {}
    while len(found) < SIZES[part]:
        label = len(found) % 2
        texts = TASKS[task](draw, label)
        if texts not in earlier:
            found.setdefault(texts, label)
    return [(*texts, label) for texts, label in found.items()]


def minimal_pairs(n=200):
    """{kind of fact: [(text with [MASK], right word, wrong word)]}: what an MLM head knows without any fine-tuning (as in BLiMP)."""
    pairs = {}
    for number, (name, fact) in enumerate(FACTS.items()):
        draw, pairs[name] = Draw(1000 + number, held_out=True), []
        for _ in range(n):
            right, wrong, word, other = fact(draw)
            pairs[name].append((f"{seen(draw, right)} {blank(right, wrong)}", word, other))
    for number, name in enumerate(("who has it", "who did it")):
        draw, pairs[name] = Draw(2000 + number, held_out=True), []
        for _ in range(n):
            (a, b), thing, verb = draw.two(draw.people), draw.pick(draw.things), draw.pick(tuple(DEEDS))
            if name == "who has it":
                told, asked, right, wrong = draw.way("give", a=a, b=b, x=thing), f"now [MASK] had the {thing}.", b, a
            else:
                told, asked, right, wrong = draw.way(draw.pick(("active", "passive")), a=a, b=b, verb=verb), f"[MASK] was {DEEDS[verb][0]}.", a, b
            pairs[name].append((f"{told} {asked}", right, wrong))
    return pairs


def blank(right, wrong):
    """The sentence with [MASK] in the one place where the two differ."""
    return " ".join(r if r == w else "[MASK]" + r[len(r.rstrip(".,")):] for r, w in zip(right.split(), wrong.split(), strict=True))


def main():
    cli.Parser(description="Examples of the embedded world's tasks.", epilog="example:\n  python tasks.py").parse_args()
    for task in TASKS:
        print(f"{task}: {TASKS[task].__doc__.split(chr(10))[0]}")
        for first, second, label in examples(task, "test")[:6]:
            print(f"  {label}  {first}{f'   |   {second}' if second else ''}")
    print("minimal pairs")
    for name, pairs in minimal_pairs(1).items():
        for text, right, wrong in pairs:
            print(f"  {name}: {text}   {right}, not {wrong}")


if __name__ == "__main__":
    cli.program(main)
