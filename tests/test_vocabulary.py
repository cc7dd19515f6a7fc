"""plumbing/vocabulary.py: one text gives one vocabulary, in every process."""
import collections
import os
import random

from plumbing import vocabulary
from plumbing.wordpiece import SPECIAL

import pytest


def words_of_equal_frequency(n):
    """A text in which every pair of letters is as frequent as many others."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=5)) for _ in range(n)]
    return [" ".join(words[i:i + 10]) for i in range(0, n, 10)]


# A new process has hash tables in another order, and threads that count in another order.
@pytest.mark.parametrize("size", [30, 60, 200])
def test_every_process_makes_the_same_vocabulary(python, tmp_path, size):
    (tmp_path / "a.txt").write_text("\n".join(words_of_equal_frequency(2000)))
    code = ("import sys; from plumbing import vocabulary; "
            "texts = open(sys.argv[1]).read().splitlines(); "
            f"tokenizer = vocabulary.train_wordpiece(lambda: iter(texts), {size}); "
            "print(sorted(tokenizer.get_vocab().items()))")
    made = {python("-c", code, str(tmp_path / "a.txt"),
                   env={**os.environ, "RAYON_NUM_THREADS": str(threads)}).stdout
            for threads in (1, 2, 2, 2)}
    assert len(made) == 1 and "[MASK]" in made.pop()


def test_the_most_frequent_letters_are_kept_and_of_equals_the_first():
    texts = ["b a c a", "d \u00e9 \u4e2d"]
    normalizer = vocabulary.wordpiece.wordpiece({piece: i for i, piece in enumerate(SPECIAL)})
    letters = vocabulary.most_frequent_letters(texts, normalizer.normalizer, 3)
    assert letters == ["a", "b", "c"]


def test_punctuation_and_chinese_characters_are_words_of_their_own():
    text = "don't stop! \u4e2d\u6587 a-b 42"
    tokenizer = vocabulary.train_wordpiece(lambda: iter([text] * 3), 200)
    pieces = tokenizer.get_vocab()
    assert {"'", "!", "\u4e2d", "\u6587", "-"} <= pieces.keys()
    assert not {"##'", "##!", "##\u4e2d", "##-"} & pieces.keys()
    assert {"##o", "##2"} <= pieces.keys()


def test_a_vocabulary_has_the_size_that_is_wanted_and_holds_the_frequent_words():
    texts = ["the cat sat on the mat and the dog ran to the man"] * 5
    tokenizer = vocabulary.train_wordpiece(lambda: iter(texts), 60)
    frequent = collections.Counter(" ".join(texts).split()).most_common(1)[0][0]
    assert frequent in tokenizer.get_vocab() and tokenizer.get_vocab_size() <= 60


def test_a_word_of_ten_thousand_letters_does_not_stop_the_trainer():
    assert list(vocabulary.beginning(iter(["a " + "b" * 20_000 + " c"]))) == ["a   c"]


def test_only_the_beginning_of_a_long_text_is_read(monkeypatch):
    monkeypatch.setattr(vocabulary, "VOCABULARY_CHARACTERS", 10)
    assert list(vocabulary.beginning(iter(["123456"] * 9))) == ["123456"] * 2
