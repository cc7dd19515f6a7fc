"""files/tokens.py: a text is tokenized once, whole, and again where its tokens are damaged."""
import os
import subprocess
import sys
import unicodedata

from files import disk, tokens, wordpiece
from program.cli import UserError

import numpy as np
import pytest
from conftest import ROOT

WORDS = ["the", "sun", "moon", "is", "warm"]
TOKENIZER = wordpiece.wordpiece({piece: i for i, piece in enumerate([*wordpiece.SPECIAL, *WORDS])})
SEP = wordpiece.SPECIAL.index("[SEP]")


class Source:
    """Documents from a list: what tokens.py needs of a source."""
    name = "a list"

    def __init__(self, *documents):
        self.key, self.documents = ["list", documents], lambda: iter(documents)


SUN, WARM, MOON = ("train", "the sun"), ("validation", "is warm"), ("train", "the moon")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ids_of(*documents):
    """{part: all its token ids}"""
    ids = {"train": [], "validation": []}
    for part, array in tokens.tokenized(documents, TOKENIZER, "uint16"):
        assert array.dtype == np.uint16
        ids[part] += array.tolist()
    return ids


def test_a_sep_follows_each_document_and_a_batch_changes_nothing(monkeypatch):
    the, sun, moon, is_, warm = range(5, 10)
    for batch in (512, 1, 2):
        monkeypatch.setattr(tokens, "BATCH", batch)
        assert ids_of(SUN, WARM, MOON) == {"train": [the, sun, SEP, the, moon, SEP],
                                           "validation": [is_, warm, SEP]}


@pytest.mark.parametrize("space", [chr(i) for i in range(0x110000) if chr(i).isspace()], ids=ascii)
def test_a_long_document_is_cut_inside_no_word_whatever_its_white_space(monkeypatch, space):
    document = f"the{space}sun{space}" * 40
    if unicodedata.category(space) == "Cc" and space not in "\t\n\r":
        # BERT drops other control characters, such as a form feed: the words beside it are one.
        document = f"the{space}sun " * 40
    whole = ids_of(("train", document))
    for piece in range(50, 58):  # each place in "the sun "
        monkeypatch.setattr(tokens, "PIECE", piece)
        assert ids_of(("train", document)) == whole and whole["train"].count(SEP) == 1


def test_the_cache_holds_the_tokens_their_numbers_and_their_checksums(cache):
    pieces = [*wordpiece.SPECIAL, *WORDS, "##s"]
    tokenizer = wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})
    documents = [("train", "the suns [SEP] zork"), ("train", "moons"), ("validation", "the [SEP]")]
    folder = tokens.cached(Source(*documents), tokenizer)
    info = disk.read_json(folder / "info.json")
    validation = np.fromfile(folder / "validation.bin", dtype=info["dtype"])
    assert validation.tolist() == [5, SEP, SEP] and info["tokens"] == {"train": 9, "validation": 3}
    assert info["sha256"]["train"] == disk.file_sha256(folder / "train.bin")
    assert info["documents"] == {"train": 2, "validation": 1}  # a [SEP] in a text ends none
    assert (info["words"], info["unknown"]) == (7, 1)


def test_another_text_or_another_tokenizer_gets_a_folder_of_its_own(cache):
    other = wordpiece.wordpiece({**TOKENIZER.get_vocab(), "red": 10})
    folders = [tokens.cached(Source(text, WARM), tokenizer) for text, tokenizer in (
        (SUN, TOKENIZER), (MOON, TOKENIZER), (SUN, other), (SUN, TOKENIZER))]
    assert len(set(folders)) == 3 and folders[0] == folders[3]


def edit(path, byte=None):
    """Gives a file a later time, and with a byte another content of the same size."""
    if byte:
        path.write_bytes(byte * path.stat().st_size)
    os.utime(path, (2 ** 32, 2 ** 32))


def test_a_later_copy_of_the_same_tokens_is_used(cache, capsys):
    folder = tokens.cached(Source(SUN, WARM), TOKENIZER)
    edit(folder / "train.bin")
    assert tokens.cached(Source(SUN, WARM), TOKENIZER) == folder
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", [
    lambda folder: os.truncate(folder / "train.bin", 4),
    lambda folder: edit(folder / "train.bin", b"\0"),
    lambda folder: (folder / "validation.bin").unlink(),
    lambda folder: (folder / "info.json").write_text("{}")])
def test_a_damaged_cache_is_made_again(cache, capsys, damage):
    folder = tokens.cached(Source(SUN, WARM), TOKENIZER)
    before = (folder / "train.bin").read_bytes()
    damage(folder)
    assert tokens.cached(Source(SUN, WARM), TOKENIZER) == folder
    assert (folder / "train.bin").read_bytes() == before
    assert capsys.readouterr().out.count("damaged: making them again") == 1


@pytest.mark.parametrize("failure", [KeyboardInterrupt, PermissionError(1, "refused", "a.bin")])
def test_a_process_that_ends_while_it_tokenizes_leaves_no_half_cache(cache, monkeypatch, failure):
    def ends(*_):
        raise failure
    monkeypatch.setattr(disk, "write_json", ends)
    with pytest.raises((KeyboardInterrupt, UserError), match="set ISOFLOP_CACHE|^$"):
        tokens.cached(Source(SUN, WARM), TOKENIZER)  # where it is another user's, a line says so
    assert not list(cache.glob("tokens-*/"))


def test_two_processes_tokenize_a_text_once(tmp_path, cache):
    (tmp_path / "a.txt").write_text("".join(f"page {i} is line of the book\n" for i in range(300)))
    program = (f"import data\ntext = data.Text([{str(tmp_path / 'a.txt')!r}], vocab_size=500)\n"
               "print(data.open_corpus(text, 16, 0).blocks(0, 4).sum())")
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                             cwd=ROOT) for _ in range(2)]
    sums = [process.communicate()[0].split()[-1] for process in both]
    assert sums[0] == sums[1] and len(list(cache.glob("tokens-*/"))) == 1
    assert not list(cache.glob("*.tmp"))


@pytest.mark.parametrize("documents, message", [
    ([], "has no text"), ([SUN], "has a single document"),
    # The two [SEP] are no words.
    ([("train", "quark gluon the"), ("validation", "boson")], "75% of the words"),
    ([("train", "the sun"), ("validation", "moon" * 30 + " sun" + " gluon" * 3)], "57% of the")])
def test_too_little_text_or_unknown_words_are_refused_and_leave_no_cache(cache, documents, message):
    with pytest.raises(UserError, match=message):
        tokens.cached(Source(*documents), TOKENIZER)
    assert not list(cache.glob("tokens-*/"))
