"""files/vocabulary.py: one text gives one vocabulary, in every process."""
import os
import random

from files import vocabulary

import pytest


# A new process has hash tables in another order, and threads that count in another order.
@pytest.mark.parametrize("size", [30, 200])
def test_every_process_makes_the_same_vocabulary(python, tmp_path, size):
    rng = random.Random(0)  # in this text every pair of letters is as frequent as many others
    lines = [" ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(9)) for _ in range(99)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
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
    counts = vocabulary.letter_counts(texts, vocabulary.tokenizer_of([]).normalizer)
    assert list(counts.items()) == [("a", 2), *((letter, 1) for letter in "bcde\u4e2d")]


@pytest.mark.parametrize("room, common, kept", [
    (8, 0, "ab"),    # 9,995 of 10,000
    (8, 3, "abc"), (8, 9, "abcd"),  # the common ones, however rare
    (5, 9, "ab"), (3, 9, "a"), (0, 9, "a")])  # two places for a letter
def test_the_most_frequent_letters_get_places_until_they_cover_the_text(monkeypatch, room, common,
                                                                        kept):
    monkeypatch.setattr(vocabulary, "COMMON_LETTERS", common)
    counts = {"a": 9000, "b": 995, "c": 4, "d": 1}
    pieces_of = {letter: [letter, "##" + letter] for letter in counts}
    assert "".join(vocabulary.kept_letters(counts, pieces_of, room)) == kept


@pytest.mark.parametrize("size, unknown", [
    (8192, 0), (1205, 0),
    (1005, 200 / 1300)])  # all of its places hold letters
def test_a_text_of_many_letters_has_no_unknown_ones_where_there_are_places(size, unknown):
    letters = [chr(0x4E00 + i) for i in range(1200)]
    texts = ["".join(letters), "".join(letters[:100])]
    tokenizer = vocabulary.train_wordpiece(lambda: iter(texts), size)
    assert tokenizer.get_vocab_size() <= size
    tokens = [token for text in texts for token in tokenizer.encode(text).tokens[1:-1]]
    assert tokens.count("[UNK]") / len(tokens) == pytest.approx(unknown)


def test_a_vocabulary_holds_the_frequent_words_and_punctuation_and_chinese_as_words():
    text = "don't stop! \u4e2d\u6587 a-b 42"
    tokenizer = vocabulary.train_wordpiece(lambda: iter([text] * 3), 200)
    pieces = tokenizer.get_vocab()
    assert {"'", "!", "\u4e2d", "\u6587", "-", "##o", "##2", "stop"} <= pieces.keys()
    assert not {"##'", "##!", "##\u4e2d", "##-"} & pieces.keys()


@pytest.mark.parametrize("run, words", [
    ("a " + "b" * 20_000 + " c", 2),  # the trainer would take hours for that word
    ("\u4e2d\u6587" * 6000, 12_000), ("one_two_" * 2000, 8000),
    ("\u4e2d" + "b" * 20_000 + "\u6587", 2)])
def test_a_run_of_ten_thousand_letters_is_left_out_where_it_is_one_word(run, words):
    text, = vocabulary.beginning(iter([run]))
    assert len(text.split()) == words and set(text) - {" "} <= set(run)


def test_only_the_beginning_of_a_long_text_is_read(monkeypatch):
    monkeypatch.setattr(vocabulary, "VOCABULARY_CHARACTERS", 10)
    assert list(vocabulary.beginning(iter(["123456"] * 9))) == ["123456"] * 2
