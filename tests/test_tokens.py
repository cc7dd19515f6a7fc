"""files/tokens.py: a text is tokenized once, whole, and again where its tokens are damaged."""
import os
import subprocess
import sys
import unicodedata

from files import disk, text, tokens, wordpiece
from program.cli import UserError

import numpy as np
import pytest
from conftest import ROOT

import data

WORDS = ["the", "sun", "moon", "is", "warm"]
TOKENIZER = wordpiece.wordpiece({piece: i for i, piece in enumerate([*wordpiece.SPECIAL, *WORDS])})
SEP = wordpiece.SPECIAL.index("[SEP]")


class Source:
    """Documents from a list: what tokens.py needs of a source."""
    name = "a list"

    def __init__(self, documents):
        self.pairs, self.key = documents, ["list", documents]

    def documents(self):
        return iter(self.pairs)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def book(tmp_path, cache):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"page {i} is line of the book\n" for i in range(300)))
    return [str(path)]


def ids_of(documents):
    """{part: all its token ids}"""
    ids = {"train": [], "validation": []}
    for part, array in tokens.tokenized(documents, TOKENIZER, "uint16"):
        assert array.dtype == np.uint16
        ids[part] += array.tolist()
    return ids


# --------------------------------------------------------------------------------------------------
# From documents to tokens

def test_a_sep_follows_each_document():
    ids = ids_of([("train", "the sun"), ("validation", "the moon"), ("train", "is warm")])
    the, sun, moon, is_, warm = range(5, 10)
    assert ids == {"train": [the, sun, SEP, is_, warm, SEP], "validation": [the, moon, SEP]}


def test_a_long_document_gives_the_tokens_that_it_gives_in_one_piece(monkeypatch):
    document = " ".join(WORDS * 40)
    whole = ids_of([("train", document)])
    monkeypatch.setattr(tokens, "PIECE", 50)
    assert ids_of([("train", document)]) == whole and whole["train"].count(SEP) == 1


WHITE = [chr(i) for i in range(0x110000) if chr(i).isspace()]


@pytest.mark.parametrize("space", WHITE, ids=ascii)
def test_a_long_document_is_cut_inside_no_word_whatever_its_white_space(monkeypatch, space):
    document = f"the{space}sun{space}" * 40
    if unicodedata.category(space) == "Cc" and space not in "\t\n\r":
        # BERT drops other control characters, such as a form feed: the words beside it are one.
        document = f"the{space}sun " * 40
    whole = ids_of([("train", document)])
    for piece in range(50, 58):  # each place in "the sun "
        monkeypatch.setattr(tokens, "PIECE", piece)
        assert ids_of([("train", document)]) == whole


def test_the_pieces_of_a_document_are_the_document(monkeypatch):
    monkeypatch.setattr(tokens, "PIECE", 50)
    for document in ("", "one", "the sun is warm " * 30, "\nthe\nsun" * 30, "x" * 1234):
        pieces = list(tokens.pieces([("train", document)]))
        assert "".join(piece for _, piece, _ in pieces) == document
        assert [is_end for _, _, is_end in pieces] == [False] * (len(pieces) - 1) + [True]


def test_more_documents_than_a_batch_keep_their_order(monkeypatch):
    documents = [("train", WORDS[i % 5]) for i in range(20)]
    whole = ids_of(documents)
    monkeypatch.setattr(tokens, "BATCH", 3)
    assert ids_of(documents) == whole


# --------------------------------------------------------------------------------------------------
# The cache

def test_the_cache_holds_the_tokens_their_number_and_their_checksums(cache):
    folder = tokens.cached(Source([("train", "the sun"), ("validation", "is warm")]), TOKENIZER)
    info = disk.read_json(folder / "info.json")
    train = np.fromfile(folder / "train.bin", dtype=info["dtype"])
    assert train.tolist() == [5, 6, SEP] and info["tokens"] == {"train": 3, "validation": 3}
    assert info["sha256"]["train"] == disk.file_sha256(folder / "train.bin")


def test_documents_words_and_unknown_words_are_counted_as_such(cache):
    pieces = [*wordpiece.SPECIAL, *WORDS, "##s"]
    tokenizer = wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})
    documents = [("train", "the suns [SEP] zork"), ("train", "moons"), ("validation", "the [SEP]")]
    info = disk.read_json(tokens.cached(Source(documents), tokenizer) / "info.json")
    assert info["documents"] == {"train": 2, "validation": 1}
    assert (info["words"], info["unknown"]) == (7, 1)


def test_another_text_or_another_tokenizer_gets_a_folder_of_its_own(cache):
    one = Source([("train", "the sun"), ("validation", "is warm")])
    other = Source([("train", "the moon"), ("validation", "is warm")])
    vocabulary = {**TOKENIZER.get_vocab(), "red": 10}
    folders = {tokens.cached(one, TOKENIZER), tokens.cached(other, TOKENIZER),
               tokens.cached(one, wordpiece.wordpiece(vocabulary))}
    assert len(folders) == 3 and tokens.cached(one, TOKENIZER) in folders


def flip_a_bit(path):
    contents = bytearray(path.read_bytes())
    contents[50] ^= 1
    path.write_bytes(contents)
    os.utime(path, (2 ** 32, 2 ** 32))  # a time after that of info.json


@pytest.mark.parametrize("damage", [
    lambda folder: os.truncate(folder / "train.bin", 1000), lambda folder: flip_a_bit(
        folder / "train.bin"), lambda folder: (folder / "validation.bin").unlink(),
    lambda folder: (folder / "info.json").write_text("{}")])
def test_a_damaged_cache_is_made_again(book, cache, capsys, damage):
    corpus = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    before = corpus.blocks(0, 4)
    damage(corpus.folder)
    again = data.open_corpus(data.Text(book, vocab_size=500), 16, 0)
    assert np.array_equal(again.blocks(0, 4), before)
    assert "damaged: making them again" in capsys.readouterr().out


def test_tokens_that_nobody_touched_are_neither_read_nor_locked_at_a_start(cache, monkeypatch):
    source = Source([("train", "the sun"), ("validation", "is warm")])
    folder = tokens.cached(source, TOKENIZER)
    for name in ("file_sha256", "locked"):
        monkeypatch.setattr(disk, name, None)
    assert tokens.cached(source, TOKENIZER) == folder


def test_a_process_killed_while_it_tokenizes_leaves_no_half_cache(book, cache, monkeypatch):
    source = text.open_source(book)
    tokenizer = source.tokenizer(500)

    def killed(*args):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            tokens.cached(source, tokenizer)
    assert not list(cache.glob("tokens-*/"))
    assert tokens.cached(source, tokenizer).exists()


@pytest.mark.parametrize("module, function", [("disk", "read_json"), ("shutil", "rmtree")])
def test_tokens_of_another_user_that_cannot_be_used_are_told_at_once(book, cache, monkeypatch,
                                                                     module, function):
    folder = data.open_corpus(data.Text(book, vocab_size=500), 16, 0).folder
    if module == "shutil":  # damaged, and not to be removed
        (folder / "train.bin").write_bytes(b"")

    def refused(path):
        raise PermissionError(13, "Permission denied", "train.bin")
    monkeypatch.setattr(getattr(tokens, module), function, refused)
    monkeypatch.setattr(tokens, "build", None)  # nothing is tokenized first
    with pytest.raises(UserError, match="Permission denied: train.bin.*: set ISOFLOP_CACHE"):
        data.open_corpus(data.Text(book, vocab_size=500), 16, 0)


def test_two_processes_tokenize_a_text_once(book, cache):
    program = (f"import data\ntext = data.Text({book!r}, vocab_size=500)\n"
               "print(data.open_corpus(text, 16, 0).blocks(0, 4).sum())")
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                             cwd=ROOT) for _ in range(2)]
    sums = [process.communicate()[0].split()[-1] for process in both]
    assert sums[0] == sums[1] and len(list(cache.glob("tokens-*/"))) == 1
    assert not list(cache.glob("*.tmp"))


# --------------------------------------------------------------------------------------------------
# What is refused

@pytest.mark.parametrize("documents, message", [
    ([], "has no text"), ([("train", "the sun")], "has a single document"),
    # The two [SEP] are no words.
    ([("train", "quark gluon the"), ("validation", "boson")], "75% of the words"),
    ([("train", "the sun"), ("validation", "moon" * 30 + " sun" + " gluon" * 3)], "57% of the")])
def test_too_little_text_or_unknown_words_are_refused_and_leave_no_cache(cache, documents, message):
    with pytest.raises(UserError, match=message):
        tokens.cached(Source(documents), TOKENIZER)
    assert not list(cache.glob("tokens-*/"))
