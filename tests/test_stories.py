"""What the stories promise. The checks read the text alone, with rules written here, not the maker's own state."""
import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import stories
from stories import story

MANY = [story(0, index) for index in range(5000)]
SENTENCES = [[s.rstrip(".").replace(",", "").split() for s in re.findall(r"[^.]+\.", text)] for text in MANY]


def words(text):
    return re.findall(r"[a-z]+|[^a-z ]", text)


def subject(sentence):
    """The name or pronoun that a sentence is about: `now tom had ...` -> tom; None for a thing, or for two people."""
    first, second = [word for word in sentence if word != "now"][:2]
    return first if second != "and" and (first in stories.NAMES or first in ("he", "she")) else None


# ---------------------------------------------------------------------------------------------------------------------
# The same stories everywhere

def test_the_same_seed_gives_the_same_stories():
    """On every machine, in every Python. Who changes the world changes every result: then this number changes too."""
    text = "\n".join(MANY[:1000])
    assert hashlib.sha256(text.encode()).hexdigest() == "FIXED"


def test_a_story_does_not_depend_on_the_stories_before_it():
    assert [story(3, index) for index in (7, 2, 7)] == [story(3, 7), story(3, 2), story(3, 7)]
    assert list(itertools.islice(stories.stories(3, first=5), 4)) == [story(3, index) for index in range(5, 9)]


def test_streams_of_different_seeds_share_almost_nothing():
    a, b = ({story(seed, index) for index in range(3000)} for seed in (1, 2))
    assert len(a & b) <= 3  # the very shortest stories may meet by chance
    assert story(0, 1) != story(1, 0)


def test_the_stream_does_not_repeat():
    assert len(set(MANY)) >= len(MANY) - 3


def test_there_is_no_story_before_the_first():
    for seed, index in ((-1, 0), (0, -1)):
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


def test_an_animal_makes_its_own_sound_only():
    for plural, sound, sounds in stories.ANIMALS.values():
        said = re.findall(rf"\b{plural} (?:{'|'.join(forms[1] for forms in stories.ANIMALS.values())})\b", " ".join(MANY))
        assert said and set(said) == {f"{plural} {sound}"}


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
    assert pronouns > 5000


def test_one_was_and_two_were():
    singular = set(stories.NAMES) | {"he", "she"} | set(stories.PLURAL)
    plural = set(stories.PLURAL.values())
    found = {"was": 0, "were": 0}
    for sentence in itertools.chain.from_iterable(SENTENCES):
        for before, verb in zip(sentence, sentence[1:]):
            if verb in found:
                found[verb] += 1
                several = before in plural or "and" in sentence
                assert verb == ("were" if several else "was") and before in singular | plural, sentence
    assert min(found.values()) > 1000


# ---------------------------------------------------------------------------------------------------------------------
# The state: what a story says at one place holds until something changes it

GIVE = [(r"(\w+) gave the (\w+) to (\w+)", (1, 2, 3)), (r"(\w+) gave (\w+) the (\w+)", (1, 3, 2)),
        (r"(\w+) got the (\w+) from (\w+)", (3, 2, 1)), (r"the (\w+) was given to (\w+) by (\w+)", (3, 1, 2))]
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
            if match := re.fullmatch(r"(\w+) (?:found|won) the (\w+)", sentence):
                owner[match[2]] = match[1]
            if match := re.search(r"\w+ (?:lost|ate) the (\w+)", sentence):
                del owner[match[1]]
            if match := re.fullmatch(r"(?:now )?(\w+) did not have the (\w+)", sentence):
                assert owner[match[2]] != match[1], sentences
                checked += 1
            for pattern in HAVE:
                if match := re.fullmatch(pattern, sentence):
                    if " had a " in sentence:
                        assert match["thing"] not in owner
                        owner[match["thing"]] = match["who"]
                    assert owner[match["thing"]] == match["who"], sentences
                    checked += 1
    assert checked > 5000 and gifts > 1000


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
    assert checked > 10000


def test_people_meet_before_they_give_or_do_something_to_each_other():
    deeds = 0
    for sentences in SENTENCES:
        place = {}
        for sentence in with_names(sentences):
            people = [word for word in sentence.split() if word in stories.NAMES]
            if match := re.search(r"(?:to|at) the (\w+)$", sentence):
                place.update((person, match[1]) for person in people)
            elif len(people) == 2:
                deeds += 1
                assert place[people[0]] == place[people[1]], sentences
    assert deeds > 1000


def test_what_one_feels_follows_from_what_happened():
    happy, sad = 0, 0
    for sentences in SENTENCES:
        for event, feeling in itertools.pairwise(with_names(sentences)):
            if match := re.fullmatch(r"(\w+) (found|won|fixed|did not (?:lose|break|drop)) the \w+", event):
                assert feeling in (f"{match[1]} was happy", f"{match[1]} was glad"), (event, feeling)
                happy += 1
            if match := re.fullmatch(r"(\w+) (lost|broke|dropped|did not (?:find|win|fix)) the \w+", event):
                assert feeling in (f"{match[1]} was sad", f"{match[1]} was upset"), (event, feeling)
                sad += 1
    assert happy > 500 and sad > 500


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
    assert run("--tokens", "1e9", head=3) == (0, "\n".join(MANY[:3]) + "\n", "")


@pytest.mark.parametrize("arguments", [["--tokens", "many"], ["--tokens", "-1"], ["--tokens", "nan"], ["--seed", "-1"],
                                       ["--first", "1.5"], ["--colour"], ["text"]])
def test_mistakes_end_in_one_line(arguments):
    status, out, errors = run(*arguments)
    assert (status, out) == (2, "")
    assert errors.splitlines()[-1].startswith("error: ") and "Traceback" not in errors
