"""What the stories promise. The checks read the text alone, with rules written here, not the maker's own state."""
import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from world import stories
from world.stories import story

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MANY = [story(0, index) for index in range(3000)]
SENTENCES = [[s.rstrip(".").replace(",", "").split() for s in re.findall(r"[^.]+\.", text)] for text in MANY]


def words(text):
    return re.findall(r"[a-z]+|[^a-z ]", text)


def subject(sentence):
    """Whom a sentence is about: `now tom had ...`, `at the lake, tom saw ...` -> tom; None for a thing, or for two people."""
    first, second = sentence[3:5] if sentence[0] == "at" else [word for word in sentence if word != "now"][:2]
    return first if second != "and" and (first in stories.NAMES or first in ("he", "she")) else None


# ---------------------------------------------------------------------------------------------------------------------
# The same stories everywhere

def test_the_same_seed_gives_the_same_stories():
    """On every machine, in every Python. Who changes the world changes every result: then this number changes too."""
    text = "\n".join(MANY[:1000])
    assert hashlib.sha256(text.encode()).hexdigest() == "60a83bdf687ebb448af60e17c4d3ae77737ae4067990955dbf9738dd6358aa4b"


def test_a_story_does_not_depend_on_the_stories_before_it():
    assert [story(3, index) for index in (7, 2, 7)] == [story(3, 7), story(3, 2), story(3, 7)]
    assert list(itertools.islice(stories.stories(3, first=5), 4)) == [story(3, index) for index in range(5, 9)]


def test_streams_of_different_seeds_share_almost_nothing():
    a, b = ({story(seed, index) for index in range(3000)} for seed in (1, 2))
    assert len(a & b) <= 3  # the very shortest stories may meet by chance
    assert story(0, 1) != story(1, 0)


def test_the_stream_does_not_repeat():
    assert len(set(MANY)) >= len(MANY) - 3


def test_there_is_no_story_before_the_first_or_after_the_last():
    for seed, index in ((-1, 0), (0, -1), (0, 2 ** 64)):
        with pytest.raises(ValueError):
            story(seed, index)


# ---------------------------------------------------------------------------------------------------------------------
# The words

def test_stories_are_made_of_exactly_the_words_in_WORDS():
    seen = {word for text in MANY for word in words(text)}
    assert sorted(seen) == list(stories.WORDS)
    assert all(re.fullmatch(r"[a-z]+|[.,]", word) for word in stories.WORDS)


def test_stories_are_short():
    lengths = sorted(len(words(text)) for text in MANY)
    assert 60 < sum(lengths) / len(lengths) < 110
    assert lengths[0] >= 15 and lengths[-1] < 300


# ---------------------------------------------------------------------------------------------------------------------
# What is always so

def test_an_animal_makes_its_own_sound_only():
    sounds = {"dog": "bark", "cat": "meow", "cow": "moo", "duck": "quack", "bee": "buzz", "frog": "croak", "lion": "roar",
              "horse": "neigh"}
    text = " ".join(MANY)
    for pattern in (r"heard the (\w+) (\w+)\.", r"heard the two (\w+)s (\w+)\.", r"\. (\w+)s (\w+)(?=\.)",
                    r"\. a (\w+) (\w+?)(?:(?<=z)es|s)(?=\.)"):
        assert set(re.findall(pattern, text)) == set(sounds.items())


def test_one_hears_what_one_saw():
    """As many of them; and a thing that somebody saw is described in the same number."""
    cases = 0
    for text in MANY:
        for who, seen, again in re.findall(r"(\w+) saw (?:a|two) (\w+)\. (\w+ heard the (?:two )?\w+|the \w+) ", text):
            cases += 1
            assert again.split()[-1] == seen, text
            hearer = again.split()[0]
            assert "the" == hearer or stories.PRONOUN.get(hearer, hearer) == stories.PRONOUN.get(who, who), text
    assert cases > 1000


def test_one_does_with_a_thing_what_it_is_for():
    use = {"pear": "eat", "hammer": "use", "bike": "ride", "drum": "play", "hat": "wear", "book": "read"}
    past = {"eat": "ate", "use": "used", "ride": "rode", "play": "played", "wear": "wore", "read": "read"}
    text = " ".join(MANY)
    for thing, base in use.items():
        assert set(re.findall(rf"(\w+) (?:the|a) {thing}\b", text)) & (past.keys() | set(past.values())) == {base, past[base]}
    assert all(len(plurals) == 4 for _, _, _, plurals in stories.KINDS.values())


# ---------------------------------------------------------------------------------------------------------------------
# Grammar

def test_he_or_she_is_the_one_whom_the_sentence_before_was_about():
    pronouns = 0
    for sentences in SENTENCES:
        about = None
        for sentence in sentences:
            who = subject(sentence)
            if who in ("he", "she"):
                pronouns += 1
                assert about is not None and who == stories.PRONOUN[about], sentences
            else:
                about = who
    assert pronouns > 2000


def test_one_was_and_two_were():
    singular = set(stories.NAMES) | {"he", "she", "and"} | set(stories.PLURAL)
    plural = set(stories.PLURAL.values())
    # "and": tom fixed the bike and was happy
    found = {"was": 0, "were": 0}
    for sentence in itertools.chain.from_iterable(SENTENCES):
        for before, verb in zip(sentence, sentence[1:]):
            if verb in found:
                found[verb] += 1
                several = before in plural or sentence[1] == "and"
                assert verb == ("were" if several else "was") and before in singular | plural, sentence
    assert min(found.values()) > 1000


# ---------------------------------------------------------------------------------------------------------------------
# The state: what a story says at one place holds until something changes it

GIVE = [(r"(\w+) gave the (\w+) to (\w+)", (1, 2, 3)), (r"(\w+) got the (\w+) from (\w+)", (3, 2, 1)),
        (r"the (\w+) was given to (\w+) by (\w+)", (3, 1, 2))]
HAVE = [r"(?:now )?(?P<who>\w+) had (?:the|a \w+) (?P<thing>\w+)", r"(?:now )?the (?P<thing>\w+) was with (?P<who>\w+)"]


def with_names(sentences):
    """The sentences as strings, each `he` and `she` replaced by the name that it stands for."""
    about = None
    for sentence in sentences:
        who = subject(sentence)
        if who not in ("he", "she"):
            about = who
        yield " ".join(about if word in ("he", "she") else word for word in sentence)


def test_a_thing_is_with_the_one_whom_the_story_gave_it_to():
    checked = gifts = 0
    for sentences in SENTENCES:
        owner = {}
        for sentence in with_names(sentences):
            for pattern, (giver, thing, taker) in GIVE:
                if match := re.fullmatch(pattern, sentence):
                    assert owner[match[thing]] == match[giver], sentences
                    owner[match[thing]] = match[taker]
                    gifts += 1
            if match := re.search(r"(?<!not )(?:found|won|to find|to win) the (\w+)", sentence):
                assert match[1] not in owner
                owner[match[1]] = sentence.split()[0]
            if match := re.search(r"(?<!not )(?:lost|ate|to lose) the (\w+)", sentence):
                del owner[match[1]]
            if match := re.fullmatch(r"(\w+) did not have the (\w+)", sentence):
                assert owner.get(match[2]) != match[1], sentences
                checked += 1
            for pattern in HAVE:
                if match := re.fullmatch(pattern, sentence):
                    if " had a " in sentence:
                        assert match["thing"] not in owner
                        owner[match["thing"]] = match["who"]
                    assert owner[match["thing"]] == match["who"], sentences
                    checked += 1
    assert checked > 2000 and gifts > 1000


def test_people_are_where_they_last_went():
    checked = 0
    for sentences in SENTENCES:
        place = {}
        for sentence in with_names(sentences):
            if match := re.fullmatch(r"(\w+) (?:went|walked|ran) to the (\w+)", sentence):
                assert place[match[1]] != match[2]
                place[match[1]] = match[2]
            if match := re.fullmatch(r"(?:now )?(\w+)(?: and (\w+))? (?:was|were) at the (\w+)", sentence):
                for person in filter(None, match.groups()[:2]):
                    checked += 1
                    assert place.setdefault(person, match[3]) == match[3], sentences  # the first time: it begins there
    assert checked > 5000


def test_people_meet_before_they_give_or_do_something_to_each_other():
    deeds = 0
    for sentences in SENTENCES:
        place = {}
        for sentence in with_names(sentences):
            people = [word for word in sentence.split() if word in stories.NAMES]
            if match := re.search(rf"(?:to|at) the ({'|'.join(stories.PLACES)})$", sentence):
                place.update((person, match[1]) for person in people)
            elif len(people) == 2:
                deeds += 1
                assert place[people[0]] == place[people[1]], sentences
    assert deeds > 1000


def test_what_one_feels_follows_from_what_happened():
    """Two ways to say it. What did not happen makes one feel as the opposite event would."""
    feeling = {"find": "glad", "win": "proud", "fix": "happy", "lose": "sad", "drop": "upset", "break": "angry"}
    opposite = {"glad": "sad", "proud": "upset", "happy": "angry", "sad": "glad", "upset": "proud", "angry": "happy"}
    base = {"found": "find", "won": "win", "fixed": "fix", "lost": "lose", "dropped": "drop", "broke": "break"}
    events, text = "|".join([*base, *feeling]), " ".join(MANY)
    after = re.findall(rf"(did not )?\b({events}) the \w+ and was (\w+)\.", text)
    before = [(no, event, feels) for feels, no, event in re.findall(rf"was (\w+) (not )?to ({events}) the", text)]
    for cases in (after, before):
        for no, event, feels in cases:
            expected = feeling[base.get(event, event)]
            assert feels == (opposite[expected] if no else expected)
        assert len(set(cases)) == 12  # each event, and that it did not happen


def test_who_does_good_is_kind_and_who_does_harm_is_mean():
    """And the other one is thankful, or hurt."""
    good, harm, cases = ("helped", "hugged", "saved"), ("pushed", "kicked", "teased"), set()
    for sentences in SENTENCES:
        doer = other = deed = None
        for sentence in map(str.split, with_names(sentences)):
            said = [word for word in sentence if word in good + harm]
            if said:
                people = [word for word in sentence if word in stories.NAMES]
                deed, doer, other = said[0], people[0], people[-1]
                if "by" in sentence:
                    doer, other = other, doer
                if "because" in sentence:
                    other = people[0]
                    doer = next(person for person in people if person != other)
            for word in sentence:
                if word in ("kind", "mean"):
                    assert sentence[0] == doer and word == ("kind" if deed in good else "mean"), sentences
                if word in ("thankful", "hurt"):
                    assert sentence[0] == other and word == ("thankful" if deed in good else "hurt"), sentences
                if word in ("kind", "mean", "thankful", "hurt"):
                    cases.add((deed, word, bool(said)))
    assert len(cases) == 24


def test_him_and_her_are_the_one_to_whom_it_was_done():
    cases = re.findall(r"(\w+) was \w+, because \w+ \w+ (him|her)\.", " ".join(MANY))
    assert {who for who, _ in cases} >= set(stories.NAMES)
    assert all({"he": "him", "she": "her"}[stories.PRONOUN.get(who, who)] == whom for who, whom in cases)


# ---------------------------------------------------------------------------------------------------------------------
# The command line

def run(*arguments, head=None):
    command = [sys.executable, str(ROOT / "stories.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if head:
            lines = "".join(process.stdout.readline() for _ in range(head))
            process.stdout.close()  # as `| head` does
            errors = process.stderr.read()
            return process.wait(timeout=60), lines, errors
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors


def test_without_options_it_prints_a_few_stories():
    status, out, errors = run()
    assert (status, errors) == (0, "")
    assert all(" ".join(re.sub(r"^ *\d* *", " ", out, flags=re.M).split()).count(text) == 1 for text in MANY[:5])


def test_it_streams_until_the_tokens_are_printed():
    status, out, errors = run("--tokens", "1e4", "--seed", "0", "--first", "2")
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert lines == MANY[2:2 + len(lines)]
    without_last = sum(len(words(line)) for line in lines[:-1])
    assert without_last < 10_000 <= without_last + len(words(lines[-1]))


def test_head_ends_it_silently():
    assert run("--tokens", "1e9", head=3) == (141, "\n".join(MANY[:3]) + "\n", "")


@pytest.mark.parametrize("arguments", [["--tokens", "many"], ["--tokens", "-1"], ["--tokens", "nan"], ["--seed", "-1"],
                                       ["--first", "1.5"], ["--colour"], ["text"]])
def test_mistakes_end_in_one_line(arguments):
    status, out, errors = run(*arguments)
    assert (status, out) == (2, "")
    assert errors.splitlines()[-1].startswith("error: ") and "Traceback" not in errors
