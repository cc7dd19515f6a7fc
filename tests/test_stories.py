"""world/stories.py: what the stories promise.

The checks read the text alone, with rules that are written here. They do not look at the state of
the class that makes the stories."""
import hashlib
import itertools
import re

import pytest

from world import stories
from world.stories import story

MANY = [story(0, index) for index in range(3000)]


def words(text):
    return re.findall(r"[a-z]+|[^a-z ]", text)


def sentences_of(text):
    """The sentences of a story, each a list of its words."""
    return [re.findall(r"[a-z]+", sentence) for sentence in text.split(".")[:-1]]


SENTENCES = [sentences_of(text) for text in MANY]


def subject(sentence):
    """Whom a sentence is about: a name, `he` or `she`. None for a thing, or for two people.

    `now tom had ...` and `at the lake, tom saw ...` are about tom."""
    if sentence[0] == "at":
        first, second = sentence[3:5]
    else:
        first, second = [word for word in sentence if word != "now"][:2]
    is_person = first in stories.NAMES or first in ("he", "she")
    return first if is_person and second != "and" else None


# --------------------------------------------------------------------------------------------------
# The same stories everywhere

def test_the_same_seed_gives_the_same_stories():
    """On every machine and in every version of Python. If you change the world, you change every
    result, and this number too."""
    sha256 = hashlib.sha256("\n".join(MANY[:1000]).encode()).hexdigest()
    assert sha256 == "60a83bdf687ebb448af60e17c4d3ae77737ae4067990955dbf9738dd6358aa4b"


def test_a_story_does_not_depend_on_the_stories_before_it():
    from_5_on = stories.stories(3, first=5)
    assert list(itertools.islice(from_5_on, 4)) == [story(3, index) for index in range(5, 9)]


def test_streams_of_different_seeds_share_almost_nothing():
    one = {story(1, index) for index in range(3000)}
    assert len(one & set(MANY)) <= 3  # the very shortest stories may be equal by chance
    assert len(one) >= 3000 - 3       # and no stream repeats itself
    assert story(0, 1) != story(1, 0)


def test_there_is_no_story_before_the_first_or_after_the_last():
    for seed, index in ((-1, 0), (0, -1), (0, 2 ** 64)):
        with pytest.raises(ValueError):
            story(seed, index)


# --------------------------------------------------------------------------------------------------
# The words

def test_stories_are_made_of_exactly_the_words_in_WORDS():
    seen = {word for text in MANY for word in words(text)}
    assert sorted(seen) == list(stories.WORDS)
    assert all(re.fullmatch(r"[a-z]+|[.,]", word) for word in stories.WORDS)


# --------------------------------------------------------------------------------------------------
# What is always true

def test_an_animal_makes_its_own_sound_only():
    sounds = {"dog": "bark", "cat": "meow", "cow": "moo", "duck": "quack", "bee": "buzz",
              "frog": "croak", "lion": "roar", "horse": "neigh"}
    patterns = (r"heard the (\w+) (\w+)\.", r"heard the two (\w+)s (\w+)\.",
                r"\. (\w+)s (\w+)(?=\.)", r"\. a (\w+) (\w+?)(?:(?<=z)es|s)(?=\.)")
    for pattern in patterns:
        assert set(re.findall(pattern, " ".join(MANY))) == set(sounds.items())


def test_people_do_with_a_thing_what_it_is_for():
    use = {"pear": "eat", "hammer": "use", "bike": "ride", "drum": "play", "hat": "wear",
           "book": "read"}
    past = {"eat": "ate", "use": "used", "ride": "rode", "play": "played", "wear": "wore",
            "read": "read"}
    verbs = {*past.keys(), *past.values()}
    text = " ".join(MANY)
    for thing, base in use.items():
        before = set(re.findall(rf"(\w+) (?:the|a) {thing}\b", text))
        assert before & verbs == {base, past[base]}
    assert all(len(kind.plurals) == 4 for kind in stories.KINDS.values())


# --------------------------------------------------------------------------------------------------
# Grammar

def test_he_or_she_is_the_person_whom_the_sentence_before_was_about():
    pronouns = 0
    for sentences in SENTENCES:
        before = None
        for sentence in sentences:
            person = subject(sentence)
            if person in ("he", "she"):
                pronouns += 1
                assert before is not None and person == stories.PRONOUN[before], sentences
            else:
                before = person
    assert pronouns > 2000


# --------------------------------------------------------------------------------------------------
# The state: what a story says stays true until something changes it

GIVE = (r"(?P<giver>\w+) gave the (?P<thing>\w+) to (?P<taker>\w+)",
        r"(?P<taker>\w+) got the (?P<thing>\w+) from (?P<giver>\w+)",
        r"the (?P<thing>\w+) was given to (?P<taker>\w+) by (?P<giver>\w+)")
HAVE = (r"(?:now )?(?P<person>\w+) had (?:the|a \w+) (?P<thing>\w+)",
        r"(?:now )?the (?P<thing>\w+) was with (?P<person>\w+)")
GET = r"(?<!not )(?:found|won|to find|to win) the (\w+)"
LOSE = r"(?<!not )(?:lost|ate|to lose) the (\w+)"


def match_of(patterns, sentence):
    """The match of the one pattern that fits the whole sentence, or None."""
    matches = [re.fullmatch(pattern, sentence) for pattern in patterns]
    return next(filter(None, matches), None)


def with_names(sentences):
    """The sentences as strings. `he` and `she` are replaced by the name for which they stand."""
    name = None
    for sentence in sentences:
        person = subject(sentence)
        if person not in ("he", "she"):
            name = person
        yield " ".join(name if word in ("he", "she") else word for word in sentence)


def test_a_thing_is_with_the_person_to_whom_the_story_gave_it():
    statements = gifts = 0
    for sentences in SENTENCES:
        owner = {}
        for sentence in with_names(sentences):
            if match := match_of(GIVE, sentence):
                assert owner[match["thing"]] == match["giver"], sentences
                owner[match["thing"]] = match["taker"]
                gifts += 1
            if match := re.search(GET, sentence):
                assert match[1] not in owner
                owner[match[1]] = sentence.split()[0]
            if match := re.search(LOSE, sentence):
                del owner[match[1]]
            if match := re.fullmatch(r"(\w+) did not have the (\w+)", sentence):
                assert owner.get(match[2]) != match[1], sentences
                statements += 1
            if match := match_of(HAVE, sentence):
                if " had a " in sentence:  # this is how a story introduces a thing
                    assert match["thing"] not in owner
                    owner[match["thing"]] = match["person"]
                assert owner[match["thing"]] == match["person"], sentences
                statements += 1
    assert statements > 2000 and gifts > 1000


def test_what_one_feels_follows_from_what_happened():
    """There are two ways to say it. Who did not lose a thing feels as if they had found it."""
    feeling = {"find": "glad", "win": "proud", "fix": "happy", "lose": "sad", "drop": "upset",
               "break": "angry"}
    opposite = {"glad": "sad", "proud": "upset", "happy": "angry"}
    opposite |= {bad: good for good, bad in opposite.items()}
    base = {"found": "find", "won": "win", "fixed": "fix", "lost": "lose", "dropped": "drop",
            "broke": "break"}
    verbs, text = "|".join([*base, *feeling]), " ".join(MANY)
    event_first = re.findall(rf"(did not )?\b({verbs}) the \w+ and was (\w+)\.", text)
    feeling_first = re.findall(rf"was (\w+) (not )?to ({verbs}) the", text)
    for cases in (event_first, [(negation, verb, felt) for felt, negation, verb in feeling_first]):
        for negation, verb, felt in cases:
            expected = feeling[base.get(verb, verb)]
            assert felt == (opposite[expected] if negation else expected)
        assert len(set(cases)) == 12  # each event, and that it did not happen


# --------------------------------------------------------------------------------------------------
# The command line

def test_without_options_it_prints_a_few_stories(python):
    out = python("-m", "world.stories").stdout
    assert all(" ".join(out.split()).count(story) == 1 for story in MANY[:5])


def test_it_streams_until_the_tokens_are_printed(python):
    lines = python("-m", "world.stories", "--tokens", "1e4", "--seed", "0").stdout.splitlines()
    assert lines == MANY[:len(lines)]
    without_last = sum(len(words(line)) for line in lines[:-1])
    assert without_last < 10_000 <= without_last + len(words(lines[-1]))
