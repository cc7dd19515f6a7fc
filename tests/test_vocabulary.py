"""files/vocabulary.py: one text gives one vocabulary, in every process."""
import collections
import os
import random

from files import vocabulary

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
    code = ("import sys; from files import vocabulary; "
            "texts = open(sys.argv[1]).read().splitlines(); "
            f"tokenizer = vocabulary.train_wordpiece(lambda: iter(texts), {size}); "
            "print(sorted(tokenizer.get_vocab().items()))")
    made = {python("-c", code, str(tmp_path / "a.txt"),
                   env={**os.environ, "RAYON_NUM_THREADS": str(threads)}).stdout
            for threads in (1, 2, 2, 2)}
    assert len(made) == 1 and "[MASK]" in made.pop()


def test_letters_are_counted_as_bert_reads_them_and_of_equals_the_first_comes_first():
    texts = ["b A c a", "d \u00e9 \u4e2d"]
    counts = vocabulary.letter_counts(texts, vocabulary.without_words().normalizer)
    assert list(counts.items()) == [("a", 2), *((letter, 1) for letter in "bcde\u4e2d")]


@pytest.mark.parametrize("room, common, kept", [
    (8, 0, "ab"),    # 9,995 of 10,000
    (8, 3, "abc"),   # the common ones, however rare
    (8, 9, "abcd"),  # as many as there are
    (5, 9, "ab"), (3, 9, "a"),  # two places for a letter
    (0, 9, "a")])
def test_the_most_frequent_letters_get_places_until_they_cover_the_text(monkeypatch, room, common,
                                                                        kept):
    monkeypatch.setattr(vocabulary, "COMMON_LETTERS", common)
    counts = {"a": 9000, "b": 995, "c": 4, "d": 1}
    pieces_of = {letter: [letter, "##" + letter] for letter in counts}
    assert "".join(vocabulary.kept_letters(counts, pieces_of, room)) == kept


def share_unknown(texts, size):
    """The share of the texts' tokens that a vocabulary made from them does not know."""
    tokenizer = vocabulary.train_wordpiece(lambda: iter(texts), size)
    assert tokenizer.get_vocab_size() <= size
    tokens = [token for text in texts for token in tokenizer.encode(text).tokens[1:-1]]
    return tokens.count("[UNK]") / len(tokens)


@pytest.mark.parametrize("size, unknown", [
    (8192, 0), (1205, 0),
    (1005, 200 / 1300)])  # all of its places hold letters
def test_a_text_of_many_letters_has_no_unknown_ones_where_there_are_places(size, unknown):
    letters = [chr(0x4E00 + i) for i in range(1200)]
    texts = ["".join(letters), "".join(letters[:100])]
    assert share_unknown(texts, size) == pytest.approx(unknown)


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


@pytest.mark.parametrize("run, words", [
    ("\u4e2d\u6587" * 6000, 12_000), ("one_two_" * 2000, 8000),
    ("\u4e2d" + "b" * 20_000 + "\u6587", 2)])
def test_a_run_of_ten_thousand_letters_that_are_many_words_is_read(run, words):
    text, = vocabulary.beginning(iter([run]))
    assert len(text.split()) == words and set(text) - {" "} <= set(run)
    assert share_unknown(["\u4e2d\u6587" * 6000], 50) == 0


def test_only_the_beginning_of_a_long_text_is_read(monkeypatch):
    monkeypatch.setattr(vocabulary, "VOCABULARY_CHARACTERS", 10)
    assert list(vocabulary.beginning(iter(["123456"] * 9))) == ["123456"] * 2
