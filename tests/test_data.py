"""data.py: blocks, order and masks are what BERT's are, and functions of (seed, step) alone."""
import contextlib
import errno
import mmap
import os

from files import wordpiece
from program.cli import UserError

import numpy as np
import pytest

import data
from budget import masked_positions
from world import source

VOCABULARY = wordpiece.Vocabulary(1000, *range(5))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def book(tmp_path, cache):
    """A text of 2,000 lines, each with a word of its own, so that each document can be told."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{spelled(i)} is line of the book\n" for i in range(2000)))
    return [str(path)]


def spelled(i):
    """A number as a word of four letters."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{i:04d}")


def masked(B=400, T=128, seed=0, blocks=None):
    """(blocks, inputs, positions, labels) of blocks, by default of B blocks of random words."""
    if blocks is None:
        blocks = np.random.default_rng(1).integers(5, 1000, (B, T))
    return blocks, *data.mask_tokens(blocks, data.generator(seed), VOCABULARY)


def test_each_block_has_exactly_k_masked_positions():
    for T in (7, 32, 128, 511):
        blocks, inputs, positions, labels = masked(10, T)
        counts = np.bincount(positions // T, minlength=10)
        assert np.array_equal(counts, np.full(10, masked_positions(T)))
        assert len(set(positions)) == len(positions)


def test_labels_are_the_words_that_stood_there_and_other_words_stay():
    blocks, inputs, positions, labels = masked()
    assert np.array_equal(labels, blocks.reshape(-1)[positions])
    untouched = np.setdiff1d(np.arange(blocks.size), positions)
    assert np.array_equal(inputs.reshape(-1)[untouched], blocks.reshape(-1)[untouched])


def test_80_percent_become_mask_10_a_random_word_10_stay():
    blocks, inputs, positions, labels = masked()
    seen = inputs.reshape(-1)[positions]
    n = len(positions)  # 7,600: a share's standard error is below 0.005
    assert abs((seen == VOCABULARY.mask).mean() - 0.8) < 0.02
    assert abs((seen == labels).mean() - 0.1) < 0.015
    assert abs(((seen != labels) & (seen != VOCABULARY.mask)).sum() / n - 0.1) < 0.015


def test_special_tokens_are_never_masked_and_never_the_random_word():
    blocks = np.random.default_rng(2).integers(0, 1000, (300, 64))
    blocks[:, ::3] = VOCABULARY.sep
    blocks, inputs, positions, labels = masked(blocks=blocks)
    assert (labels >= 5).all()
    changed = inputs.reshape(-1)[positions]
    assert set(changed[changed < 5]) == {VOCABULARY.mask}


def test_every_word_is_masked_equally_often():
    T = 20
    counts = np.zeros(T)
    blocks = np.full((50, T), 7)
    blocks[:, 0] = VOCABULARY.cls
    for seed in range(200):
        counts += np.bincount(masked(blocks=blocks, seed=seed)[2] % T, minlength=T)
    expected = 50 * 200 * masked_positions(T) / (T - 1)
    assert counts[0] == 0 and np.abs(counts[1:] / expected - 1).max() < 0.1


def test_a_block_of_too_few_words_keeps_its_bill_and_gives_no_labels_for_the_rest():
    blocks = np.full((1, 32), VOCABULARY.sep)
    blocks[0, 5] = 77
    _, inputs, positions, labels = masked(blocks=blocks)
    assert len(positions) == masked_positions(32)
    assert sorted(labels) == [-100] * (masked_positions(32) - 1) + [77]
    assert (np.delete(inputs, 5, axis=1) == VOCABULARY.sep).all()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 1000, 4097])
def test_the_shuffle_is_a_permutation(n):
    assert np.array_equal(np.sort(data.shuffled(np.arange(n), n, 0, 1)), np.arange(n))


def test_the_shuffle_leaves_no_order_behind():
    n = 20000
    place = data.shuffled(np.arange(n), n, 3, 0, 1)
    # A random permutation has one fixed point on average, and its neighbours are uncorrelated. The
    # standard error of a correlation is 1 / sqrt(n) = 0.007.
    assert (place == np.arange(n)).sum() < 10
    assert abs(np.corrcoef(place[:-1], place[1:])[0, 1]) < 0.035
    assert abs(np.corrcoef(np.arange(n), place)[0, 1]) < 0.035
    assert abs(np.corrcoef(place, data.shuffled(np.arange(n), n, 3, 1, 1))[0, 1]) < 0.035


def documents_of(corpus, rows):
    """The documents that stand in blocks, as text."""
    ids = rows[:, 1:].reshape(-1).tolist()
    stream = corpus.tokenizer.decode(ids, skip_special_tokens=False)
    return [document.replace(" ##", "").strip() for document in stream.split("[SEP]")]


def test_blocks_begin_with_cls_and_hold_the_text_in_its_order(book):
    corpus = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    rows = corpus.rows("train", range(corpus.n))
    assert (rows[:, 0] == corpus.vocabulary.cls).all()
    lines = documents_of(corpus, rows)
    wanted = open(book[0]).read().splitlines()
    assert lines[0] == wanted[0] and len(lines) > 1900
    # In order, and without the held-out ones. The last one is cut.
    assert [line for line in wanted if line in set(lines)] == lines[:-1]


def test_a_text_is_read_where_files_cannot_be_mapped_into_memory(book, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    monkeypatch.setattr(mmap, "mmap", refused)
    corpus = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    stream = np.fromfile(corpus.folder / "train.bin", corpus.info["dtype"])
    rows = corpus.rows("train", [3, 0])
    assert rows[:, 1:].tolist() == [stream[45:60].tolist(), stream[:15].tolist()]


def test_validation_text_is_held_out_by_document(book):
    corpus = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    words = {}
    for part in ("train", "validation"):
        n = corpus.info["tokens"][part] // 15
        documents = documents_of(corpus, corpus.rows(part, range(n)))[:-1]
        words[part] = {document.split(" is ")[0] for document in documents}
    assert len(words["validation"]) >= 5 and not words["train"] & words["validation"]


def test_an_epoch_sees_each_block_once_and_the_next_in_another_order(book):
    corpus = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    B = 10
    steps = corpus.n // B + 1
    seen = np.concatenate([corpus.blocks(step, B) for step in range(2 * steps)])
    rows = [tuple(row) for row in seen]
    first, second = rows[:corpus.n], rows[corpus.n:2 * corpus.n]
    assert len(set(first)) == corpus.n and set(first) >= set(second) and first != second


def test_unique_tokens_repeats_a_subset_that_larger_ones_contain(book):
    def distinct(n):
        corpus = data.open_corpus(data.Text(book, vocab_size=500, unique_tokens=n), 16, 0)
        return {tuple(row) for step in range(60) for row in corpus.blocks(step, 10)}
    small, large = distinct(160), distinct(1600)
    assert len(small) == 10 and len(large) == 100 and small < large


def test_the_order_depends_on_seed_and_step_alone(book):
    first = data.open_corpus(data.Text(book, vocab_size=500), 16, 5)
    late = [first.blocks(step, 8) for step in (40, 3, 40)]
    again = data.open_corpus(data.Text(book, vocab_size=500), 16, 5)
    other = data.open_corpus(data.Text(book, vocab_size=500), 16, 6)
    assert np.array_equal(late[0], late[2]) and np.array_equal(again.blocks(40, 8), late[0])
    assert not np.array_equal(other.blocks(40, 8), late[0])


class NumberedShards:
    """Shards whose tokens are numbered through, instead of stories."""

    def read(self, j):
        return np.arange(j * source.SHARD_TOKENS, (j + 1) * source.SHARD_TOKENS)


def test_a_step_of_stories_finds_its_blocks_in_the_shards(cache):
    stories = source.StorySource(tokens=20_000, validation_tokens=2_000)
    corpus = data.EndlessStories(stories, stories.tokenizer(), seq_len=32, seed=0)
    corpus.shards = NumberedShards()
    per_shard = source.SHARD_TOKENS // 31  # whole blocks; the rest of a shard is not read
    B = 16
    step = per_shard // B  # its batch lies on both sides of the first shard's end
    rows = corpus.blocks(step, B)
    for row, number in zip(rows, range(step * B, (step + 1) * B)):
        j, i = divmod(number, per_shard)
        first = j * source.SHARD_TOKENS + 31 * i
        assert row.tolist() == [corpus.vocabulary.cls, *range(first, first + 31)]
    assert step * B < per_shard < (step + 1) * B


@pytest.mark.slow
def test_stories_are_endless_and_addressable(cache):
    corpus = data.open_corpus(data.Text(), 32, 0)
    late = data.open_corpus(data.Text(), 32, 0, makers=2)
    try:
        step = corpus.per_shard // 16  # its batch lies on both sides of the first shard's end
        jumped = late.blocks(step, 16)
        for s in (0, step - 1, step):
            rows = corpus.blocks(s, 16)
        assert np.array_equal(rows, jumped)  # reading on or jumping there, with one maker or two
        assert corpus.unique is None and (rows[:, 0] == corpus.vocabulary.cls).all()
        assert corpus.vocabulary.unk not in corpus.rows("validation", range(200))
    finally:
        corpus.close()
        late.close()


def test_masks_of_the_validation_set_do_not_depend_on_the_seed(book):
    one, other = (data.open_corpus(data.Text(book, vocab_size=500), 16, seed).validation()
                  for seed in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one[1], other[1]))


@pytest.mark.parametrize("options, message", [
    ({"unique_tokens": 10 ** 9}, "lower it"), ({"vocab_size": 5}, "no room for a word"),
    ({"tokenizer": "no-such/tokenizer"}, "no folder no-such/tokenizer")])
def test_wrong_options_are_said(book, options, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=message):
        data.open_corpus(data.Text(book, **options), 16, 0)


def test_a_block_that_is_too_long_is_said(book):
    with pytest.raises(UserError, match="less than one block"):
        data.open_corpus(data.Text(book), 10 ** 4, 0)


def test_fewer_tokens_than_one_batch_is_an_error(book):
    corpus = data.open_corpus(data.Text(book, vocab_size=500, unique_tokens=160), 16, 0)
    corpus.check(10)
    with pytest.raises(UserError, match="one batch needs 176 tokens"):
        corpus.check(11)


def test_a_held_out_text_without_a_known_word_is_an_error(tmp_path, cache):
    paths = [tmp_path / f"text-{part}.txt" for part in ("train", "val")]
    paths[0].write_text("Tom is here.\n" * 200)
    for held_out, is_known in (("\u4e00 " * 60, False), ("is" + " \u4e00" * 60, True)):
        paths[1].write_text(held_out, encoding="utf-8")
        text = data.Text(list(map(str, paths)), tokenizer=source.StorySource().tokenizer())
        corpus = data.open_corpus(text, 8, 0)
        with contextlib.nullcontext() if is_known else pytest.raises(UserError, match="no word"):
            corpus.check(8)


def test_the_fingerprint_is_of_what_is_validated_on_too(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    folder, fingerprints = tmp_path / "texts", []
    folder.mkdir()
    for word in ("moon", "star"):
        (folder / "text-train.txt").write_text("the sun is warm and red today.\n" * 200)
        (folder / "text-val.txt").write_text(f"the {word} is cold and far away.\n" * 100)
        text = data.Text([str(folder)], vocab_size=60)
        fingerprints.append(data.open_corpus(text, 8, 0).fingerprint)
    assert fingerprints[0] != fingerprints[1]
