"""world/tasks.py: labels follow from the world, no word gives an answer away, and no text is part
of a story."""
import hashlib
import json
import re

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from world import stories, tasks

# {task: {part: [(first text, second text or None, label)]}}
PARTS = {task: {part: tasks.examples(task, part) for part in tasks.SIZES} for task in tasks.TASKS}


def words(text):
    return re.findall(r"\w+|[.,]", text or "")


def last_sentence(text):
    return text.split(". ")[-1]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_parts_have_their_sizes_half_of_them_yes_and_share_no_text(task):
    texts = {}
    for part, size in tasks.SIZES.items():
        examples = PARTS[task][part]
        texts[part] = {(first, second) for first, second, _ in examples}
        assert len(examples) == len(texts[part]) == size
        assert sum(label for _, _, label in examples) == size / 2
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not texts[one] & texts[other]


def test_the_examples_have_not_changed():
    """If you change a task, you change every result, and these numbers too."""
    def sha256(value):
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
    assert sha256(PARTS) == "5c3d0c7cf67e7ef7"
    assert sha256(tasks.minimal_pairs()) == "eb7dd79ff3790b72"


@pytest.mark.parametrize("task", tasks.TASKS)
def test_counting_words_answers_no_better_than_chance(task):
    """Naive Bayes knows the words of a text, but not their order. Trained on the training set, it
    is within 5 points of a coin on the test set."""
    counter = CountVectorizer(token_pattern=r"\w+")
    texts, labels = {}, {}
    for part in ("train", "test"):
        texts[part] = [f"{first} {second or ''}" for first, second, _ in PARTS[task][part]]
        labels[part] = [label for _, _, label in PARTS[task][part]]
    model = MultinomialNB().fit(counter.fit_transform(texts["train"]), labels["train"])
    assert abs(model.score(counter.transform(texts["test"]), labels["test"]) - 0.5) < 0.05


def test_no_text_of_a_task_is_part_of_a_story():
    """The tasks of one text only: two texts are joined by [SEP], which no story contains."""
    together = " | ".join(stories.story(0, index) for index in range(2000))
    for task in tasks.TASKS:
        for first, second, _ in PARTS[task]["test"]:
            assert second is not None or first not in together, first


# --------------------------------------------------------------------------------------------------
# Labels follow from what the sentences mean. Rules of this file read it back.

MEANINGS = (r"(?P<giver>\w+) gave the (?P<what>\w+) to (?P<taker>\w+)",
            r"(?P<taker>\w+) got the (?P<what>\w+) from (?P<giver>\w+)",
            r"the (?P<what>\w+) was given to (?P<taker>\w+) by (?P<giver>\w+)",
            r"(?P<taker>\w+) was (?P<what>\w+) by (?P<giver>\w+)",
            r"(?P<giver>\w+) (?P<what>\w+) (?P<taker>\w+)")


def meaning(sentence):
    """(who gave or did, the thing or the deed, who got the thing or to whom it was done)"""
    for pattern in MEANINGS:
        if match := re.fullmatch(pattern, sentence.removesuffix(".")):
            return match["giver"], match["what"], match["taker"]
    raise AssertionError(f"{sentence} tells of no gift and of no deed")


def test_paraphrases_mean_the_same_and_others_do_not():
    """Whatever the label, the two texts have the same people and things."""
    def people_and_things(text):
        return sorted(word for word in words(text)
                      if word in stories.NAMES or word in stories.PLURAL)
    for *texts, label in PARTS["paraphrase"]["test"]:
        first, second = map(last_sentence, texts)
        assert people_and_things(first) == people_and_things(second)
        assert (meaning(first) == meaning(second)) == bool(label), texts


def test_what_is_entailed_is_true_in_the_world():
    for first, second, label in PARTS["entailment"]["test"]:
        giver, what, taker = meaning(last_sentence(first))
        if what in stories.PLURAL:
            truths = {f"now {taker} had the {what}.", f"now the {what} was with {taker}.",
                      f"{giver} did not have the {what}."}
        else:
            trait, feeling = stories.DEEDS[what]
            truths = {f"{giver} was {trait}.", f"{taker} was {feeling}."}
        assert (second in truths) == bool(label), (first, second)


def test_sentiment_is_how_the_person_of_the_last_sentence_was_treated():
    for text, _, label in PARTS["sentiment"]["test"]:
        *deeds, last = text.split(". ")
        feeling = {other: stories.DEEDS[verb].feeling for _, verb, other in map(meaning, deeds)}
        assert sorted(feeling.values()) == ["hurt", "thankful"]
        assert (feeling[last.split()[0]] == "thankful") == bool(label), text


# --------------------------------------------------------------------------------------------------
# What is held out from training

def test_two_people_of_a_paraphrase_in_the_test_set_never_meet_in_training():
    def couples(part):
        texts = [words(last_sentence(first)) for first, _, _ in PARTS["paraphrase"][part]]
        return {frozenset(text) & set(stories.NAMES) for text in texts}
    training, test = couples("train"), couples("test")
    assert {len(couple) for couple in training | test} == {2}
    assert not training & test
    assert frozenset.union(*test) == set(stories.NAMES)  # though each of them is in both


@pytest.mark.parametrize("pattern", [
    r"\. \w+ (?:ate|used|rode|played|wore|read) the (\w+)\.", r"\. a (\w+) \w+\.",
    r"\. the (\w+) w", r"saw two (\w+)\.", r"(\w+) saw two"])
def test_words_of_the_test_set_are_not_those_of_training(pattern):
    def words_at_the_place(part):
        text = "\n".join(first for first, _, _ in PARTS["acceptability"][part])
        return set(re.findall(pattern, text))
    training, test = words_at_the_place("train"), words_at_the_place("test")
    assert training and test and not training & test


# --------------------------------------------------------------------------------------------------
# Minimal pairs

def test_a_minimal_pair_differs_in_the_masked_word_and_the_right_one_is_right():
    pairs = tasks.minimal_pairs(50)
    for text, right, wrong in [pair for of_a_kind in pairs.values() for pair in of_a_kind]:
        assert text.count("[MASK]") == 1 and right != wrong
    for text, right, _ in pairs["agreement"]:
        noun = text.split("the ")[-1].split()[0]
        assert (right == "were") == (noun in stories.PLURAL.values()), text
    for text, right, _ in pairs["animal and sound"]:
        noun = last_sentence(text.removesuffix(" [MASK].")).split()[-1]
        sound_of = {animal.plural: animal.sound for animal in stories.ANIMALS.values()}
        sound_of |= {name: animal.sounds for name, animal in stories.ANIMALS.items()}
        assert right == sound_of[noun], text


@pytest.mark.parametrize("kind, right, wrong", [("who has it", 2, 0), ("who did it", 0, 2)])
def test_the_minimal_pairs_about_a_story_ask_for_what_the_story_says(kind, right, wrong):
    for text, *answers in tasks.minimal_pairs(50)[kind]:
        told = meaning(text.split(". ")[0])  # giver or doer, what, taker or other
        assert answers == [told[right], told[wrong]], text


def test_the_program_prints_examples(python):
    out = python("-m", "world.tasks").stdout
    assert "Like RTE: does the second sentence follow from the first text?\n  0  " in out
