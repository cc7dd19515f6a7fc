"""tasks.py: labels follow from the world, no word gives an answer away, and no text was seen in pretraining."""
import collections
import re

import pytest

from world import stories, tasks

PARTS = {task: {part: tasks.examples(task, part) for part in tasks.SIZES} for task in tasks.TASKS}


def words(text):
    return re.findall(r"\w+|[.,]", text or "")


@pytest.mark.parametrize("task", tasks.TASKS)
def test_parts_have_their_sizes_half_of_them_yes_and_share_no_text(task):
    texts = {part: {(first, second) for first, second, _ in examples} for part, examples in PARTS[task].items()}
    for part, size in tasks.SIZES.items():
        assert len(PARTS[task][part]) == len(texts[part]) == size
        assert sum(label for _, _, label in PARTS[task][part]) == size / 2
    assert not texts["train"] & texts["dev"] and not texts["train"] & texts["test"]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_examples_are_the_same_each_time(task):
    assert tasks.examples(task, "dev") == PARTS[task]["dev"]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_all_words_are_words_of_the_world(task):
    assert all(set(words(first) + words(second)) <= set(stories.WORDS) for first, second, _ in PARTS[task]["test"])


@pytest.mark.parametrize("task", tasks.TASKS)
def test_counting_words_answers_no_better_than_chance(task):
    # Naive Bayes over the words of the training set, on the test set: within 5 points of a coin. (It is scikit-learn's.)
    naive_bayes = pytest.importorskip("sklearn.naive_bayes")
    from sklearn.feature_extraction.text import CountVectorizer
    counter = CountVectorizer(token_pattern=r"\w+")
    (x, y), (x_test, y_test) = (([f"{a} {b or ''}" for a, b, _ in PARTS[task][part]], [label for *_, label in PARTS[task][part]])
                                for part in ("train", "test"))
    model = naive_bayes.MultinomialNB().fit(counter.fit_transform(x), y)
    assert abs(model.score(counter.transform(x_test), y_test) - 0.5) < 0.05


def test_no_text_of_a_task_stands_in_a_story():
    told = [f" {stories.story(seed, index)} " for seed in (0, 1) for index in range(15_000)]
    together = " | ".join(told)
    for task in tasks.TASKS:
        for first, second, _ in PARTS[task]["test"]:
            assert second is not None or first not in together, first


def test_the_texts_of_paraphrases_have_the_same_people_and_things_whatever_the_label():
    for first, second, _ in PARTS["paraphrase"]["test"]:
        said, second = first.split(". ")[1], second.split(". ")[1]
        assert collections.Counter(w for w in words(said) if w in stories.NAMES or w in stories.PLURAL) == \
            collections.Counter(w for w in words(second) if w in stories.NAMES or w in stories.PLURAL)


# What each sentence means, read back by rules of its own.

def meaning(sentence):
    """(who did or gave, the deed or the thing, to whom)"""
    for pattern, order in ((r"(\w+) gave the (\w+) to (\w+)\.", (1, 2, 3)), (r"(\w+) got the (\w+) from (\w+)\.", (3, 2, 1)),
                           (r"the (\w+) was given to (\w+) by (\w+)\.", (3, 1, 2)), (r"(\w+) was (\w+) by (\w+)\.", (3, 2, 1)),
                           (r"(\w+) (\w+) (\w+)\.", (1, 2, 3))):
        if match := re.fullmatch(pattern, sentence):
            return tuple(match[i] for i in order)


def test_paraphrases_mean_the_same_and_others_do_not():
    for first, second, label in PARTS["paraphrase"]["test"]:
        assert (meaning(first.split(". ")[1]) == meaning(second.split(". ")[1])) == bool(label)


def test_two_people_of_a_paraphrase_in_the_test_set_never_meet_in_training():
    def met(part):
        return {frozenset(w for w in words(text.split(". ")[1]) if w in stories.NAMES) for text, _, _ in PARTS["paraphrase"][part]}
    assert {len(pair) for pair in met("train") | met("test")} == {2} and not met("train") & met("test")
    assert len(set.union(*map(set, met("test")))) == len(stories.NAMES)  # but each of them is met in both


def test_what_is_entailed_is_so_in_the_world():
    for first, second, label in PARTS["entailment"]["test"]:
        giver, what, taker = meaning(first.split(". ")[1])
        if what in stories.PLURAL:
            truths = {f"now {taker} had the {what}.", f"now the {what} was with {taker}.", f"{giver} did not have the {what}."}
        else:
            trait, feeling = stories.DEEDS[what]
            truths = {f"{giver} was {trait}.", f"{taker} was {feeling}."}
        assert (second in truths) == bool(label), (first, second)


def test_sentiment_is_how_the_one_who_is_spoken_of_last_was_treated():
    for first, _, label in PARTS["sentiment"]["test"]:
        *deeds, last = [sentence.rstrip(".") + "." for sentence in first.split(". ")]
        treated = {other: stories.DEEDS[verb][1] for _, verb, other in map(meaning, deeds)}
        assert sorted(treated.values()) == ["hurt", "thankful"] and (treated[last.split()[0]] == "thankful") == bool(label)


def test_unacceptable_sentences_are_wrong_in_one_word():
    good = {pair for kind in stories.KINDS.values() for thing in kind[3] for pair in [(kind[0], thing)]}
    for first, _, label in PARTS["acceptability"]["test"]:
        said = first.split(". ", 1)[1]
        if match := re.fullmatch(r"\w+ (\w+) the (\w+)\.", said):
            assert ((match[1], match[2]) in good) == bool(label)
        elif match := re.fullmatch(r"a (\w+) (\w+)\.", said):
            assert (stories.ANIMALS[match[1]][2] == match[2]) == bool(label)
        elif match := re.fullmatch(r"the (\w+) (was|were) \w+\.", said):
            assert ((match[1] in stories.PLURAL) == (match[2] == "was")) == bool(label)
        elif match := re.fullmatch(r"(\w+) had a \w+ \w+\. (\w+) \w+ the \w+\.", said):
            assert (stories.PRONOUN[match[1]] == match[2]) == bool(label)
        else:
            plural, sound = re.fullmatch(r"(\w+) (\w+)\.", said).groups()
            assert (next(a for a in stories.ANIMALS.values() if a[0] == plural)[1] == sound) == bool(label)


def test_words_of_the_test_set_are_not_those_of_training():
    def facts(part, pattern):
        return {match for first, _, _ in PARTS["acceptability"][part] for match in re.findall(pattern, first)}
    for pattern in (r"\. \w+ (?:ate|used|rode|played|wore|read) the (\w+)\.", r"\. a (\w+) \w+\.", r"\. the (\w+) w", r"saw two (\w+)\.",
                    r"(\w+) saw two"):
        assert facts("train", pattern) and facts("test", pattern) and not facts("train", pattern) & facts("test", pattern)


def test_a_minimal_pair_differs_in_the_masked_word_and_the_right_one_is_right():
    pairs = tasks.minimal_pairs(50)
    assert all(text.count("[MASK]") == 1 and right != wrong for kind in pairs.values() for text, right, wrong in kind)
    for text, right, wrong in pairs["agreement"]:
        assert (right == "were") == (text.split("the ")[-1].split()[0] in stories.PLURAL.values())
    for text, right, _ in pairs["animal and sound"]:
        assert any(right in (sound, sounds) and (plural in text or f"a {animal} " in text) for animal, (plural, sound, sounds) in
                   stories.ANIMALS.items())


def test_the_program_prints_examples(python):
    done = python("tasks.py")
    assert done.returncode == 0 and all(task in done.stdout for task in tasks.TASKS)
