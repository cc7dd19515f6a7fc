"""plumbing/files.py: a name means one file, each real file is read once, and what is left out is
said."""
import bz2
import gzip
import lzma
import os
import random
import zipfile
from pathlib import Path

from plumbing import files
from program.cli import UserError

import pytest
import zstandard


def touch(root, *names):
    """Files that hold their own names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def chosen(*paths):
    """{the file's name, or its path in a .zip: its part}"""
    return {file.member or file.path.name: file.part for file in files.choose(list(paths)).files}


# --------------------------------------------------------------------------------------------------
# One text in two files

@pytest.mark.parametrize("names", [("a.txt", "a.txt.gz"), ("a.txt.gz", "a.txt.zst"),
                                   ("a.txt", "a.zip"), ("a/a.txt", "a.zip"), ("a.txt.xz", "a.zip")])
def test_a_text_that_is_there_twice_is_refused(tmp_path, names):
    touch(tmp_path, *names)
    if "a.zip" in names:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="look like one text in two files") as refusal:
        files.choose([tmp_path])
    assert all(str(tmp_path / name) in str(refusal.value) for name in names)


def test_texts_of_equal_names_in_different_places_are_different_texts(tmp_path):
    touch(tmp_path, "one/a.txt", "two/a.txt.gz")
    for name in ("b.zip", "c.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a.txt", name)
    assert len(files.choose([tmp_path]).files) == 4


# --------------------------------------------------------------------------------------------------
# Names

@pytest.mark.parametrize("name", ["book [1].txt", "what?.txt", "all*.txt", "a::b.txt", "{a,b}.txt",
                                  "100%.txt", "zip:__x.txt", "~a.txt", " .txt", "a\nb.txt"])
def test_a_name_means_that_file_and_no_other(tmp_path, name):
    touch(tmp_path, name, "book 1.txt", "whatx.txt", "all of it.txt", "a", "b.txt")
    [file] = files.choose([tmp_path / name]).files
    assert file.path == tmp_path / name
    with file.open() as stream:
        assert stream.read().decode() == name


def test_a_folder_whose_name_holds_brackets_is_read(tmp_path):
    touch(tmp_path, "Books [2024]/a.txt", "Books 2/b.txt")
    assert chosen(tmp_path / "Books [2024]") == {"a.txt": None}


def test_endings_are_read_whatever_their_case(tmp_path):
    touch(tmp_path, "A.TXT", "b.Jsonl", "c.CSV.GZ")
    kinds = {file.path.name: file.kind for file in files.choose([tmp_path]).files}
    assert kinds == {"A.TXT": "text", "b.Jsonl": "json", "c.CSV.GZ": "csv"}


@pytest.mark.parametrize("name, part", [
    ("train-00000-of-00001.parquet", "train"), ("test.txt", "test"),
    ("wiki.test.tokens.txt", "test"),
    ("books_valid.txt", "validation"), ("dev.tsv", "validation"), ("val1.jsonl", "validation"),
    ("evaluation.csv", "test"), ("latest.txt", None), ("validity.txt", None),
    ("testament.txt", None), ("TEST.TXT", "test"), ("my test file.txt", "test"),
])
def test_a_word_in_a_name_says_the_part(tmp_path, name, part):
    touch(tmp_path, name)
    assert chosen(tmp_path) == {name: part}


def test_a_files_own_name_counts_before_its_folders(tmp_path):
    touch(tmp_path, "train/a.txt", "valid/b.txt", "test/deep/c.txt", "dev/train.txt", "d.txt")
    assert chosen(tmp_path) == {"a.txt": "train", "b.txt": "validation", "c.txt": "test",
                                "train.txt": "train", "d.txt": None}


def test_the_name_of_the_folder_that_the_user_gives_says_nothing(tmp_path):
    touch(tmp_path, "test/a.txt", "test/b.txt")
    assert chosen(tmp_path / "test") == {"a.txt": None, "b.txt": None}
    assert chosen(tmp_path / "test" / "a.txt", tmp_path / "test" / "b.txt") == {"a.txt": None,
                                                                                "b.txt": None}


def test_of_several_names_those_below_their_common_folder_say_the_part(tmp_path):
    touch(tmp_path, "train/a.txt", "test/b.txt", "valid/c.txt")
    parts = {"a.txt": "train", "b.txt": "test", "c.txt": "validation"}
    assert chosen(tmp_path) == parts
    assert chosen(*(tmp_path / name for name in ("train", "test", "valid"))) == parts
    assert chosen(*(tmp_path / name for name in ("train/a.txt", "test/b.txt", "valid"))) == parts


# --------------------------------------------------------------------------------------------------
# Numbered files

def test_a_folder_that_lacks_one_of_its_numbered_files_is_refused(tmp_path):
    touch(tmp_path, "train-00000-of-00003.txt", "train-00002-of-00003.txt", "other.txt")
    with pytest.raises(UserError, match="2 of the 3 files train-...: the others are missing"):
        files.choose([tmp_path])
    # Named one by one, they are what the user means.
    assert len(chosen(*tmp_path.glob("train*"))) == 2
    touch(tmp_path, "train-00001-of-00003.txt")
    assert len(chosen(tmp_path)) == 4


def test_a_folder_with_the_numbered_files_of_two_saves_is_refused(tmp_path):
    touch(tmp_path, "data-00000-of-00001.txt", "data-00000-of-00002.txt", "data-00001-of-00002.txt")
    with pytest.raises(UserError, match="data-... of 1 and 2 files, from two saves"):
        files.choose([tmp_path])


# --------------------------------------------------------------------------------------------------
# Folders

def test_hidden_files_and_folders_are_never_read(tmp_path):
    touch(tmp_path, "a.txt", ".b.txt", ".git/c.txt", "._a.txt", "sub/.cache/d.txt", "sub/e.txt")
    assert set(chosen(tmp_path)) == {"a.txt", "e.txt"}
    assert files.choose([tmp_path]).left_out == ["4 hidden"]


def test_a_hidden_folder_that_the_user_names_is_read(tmp_path):
    touch(tmp_path, ".hidden/a.txt")
    assert set(chosen(tmp_path / ".hidden")) == {"a.txt"}


def test_linked_folders_and_files_are_read_and_each_real_file_once(tmp_path):
    touch(tmp_path, "elsewhere/a.txt", "elsewhere/b.txt", "books/c.txt")
    os.symlink(tmp_path / "elsewhere", tmp_path / "books" / "linked")
    os.symlink(tmp_path / "books", tmp_path / "books" / "around")  # a circle
    os.symlink(tmp_path / "books" / "c.txt", tmp_path / "books" / "d.txt")
    os.link(tmp_path / "books" / "c.txt", tmp_path / "books" / "e.txt")
    names = [file.path.name for file in files.choose([tmp_path / "books"]).files]
    assert sorted(names) == ["a.txt", "b.txt", "c.txt"]
    assert files.choose([tmp_path / "books"]).left_out == ["2 given twice"]


def test_a_file_that_is_given_twice_is_read_once(tmp_path, monkeypatch):
    touch(tmp_path, "a.txt", "b.txt")
    monkeypatch.chdir(tmp_path)
    given = [Path("a.txt"), Path("./a.txt"), tmp_path / "a.txt", tmp_path]
    assert [file.path.name for file in files.choose(given).files] == ["a.txt", "b.txt"]


def test_what_is_left_out_is_named(tmp_path):
    touch(tmp_path, "a.txt", "cover.png", "README.md")
    (tmp_path / "nothing.txt").touch()
    assert set(chosen(tmp_path)) == {"a.txt"}
    assert files.choose([tmp_path]).left_out == ["1 empty (nothing.txt)",
                                                 "2 of other kinds (README.md, cover.png)"]


def test_what_the_library_writes_beside_its_data_is_neither_read_nor_missed(tmp_path):
    touch(tmp_path, "data-00000-of-00001.arrow", "state.json", "dataset_info.json",
          "cache-12ab.arrow")
    assert set(chosen(tmp_path)) == {"data-00000-of-00001.arrow"}
    assert files.choose([tmp_path]).left_out == []


def test_a_description_that_the_user_names_is_read(tmp_path):
    touch(tmp_path, "README.md")
    assert chosen(tmp_path / "README.md") == {"README.md": None}


def test_a_broken_link_is_left_out(tmp_path):
    touch(tmp_path, "a.txt")
    os.symlink(tmp_path / "gone.txt", tmp_path / "b.txt")
    assert set(chosen(tmp_path)) == {"a.txt"}


@pytest.mark.parametrize("name, message", [("a.docx", "should end in"), ("a.gz", "should end in")])
def test_a_named_file_of_another_kind_is_refused(tmp_path, name, message):
    touch(tmp_path, name)
    with pytest.raises(UserError, match=message):
        files.choose([tmp_path / name])


def test_a_folder_without_text_is_refused(tmp_path):
    touch(tmp_path, "books/cover.png")
    with pytest.raises(UserError, match="books holds no text, but cover.png"):
        files.choose([tmp_path / "books"])


# --------------------------------------------------------------------------------------------------
# Opening

@pytest.mark.parametrize("ending, compress", [
    ("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress),
    (".zst", zstandard.compress)])
def test_a_compressed_file_gives_its_bytes(tmp_path, ending, compress):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(compress(b"the text"))
    [file] = files.choose([path]).files
    with file.open() as stream:
        assert stream.read() == b"the text"


def test_two_compressed_parts_in_one_file_are_both_read(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    for file in files.choose([tmp_path]).files:
        with file.open() as stream:
            assert stream.read() == b"one two"


def test_a_zip_is_the_files_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        for name in ("train/a.txt", "test/b.txt", "c [1].txt", "__MACOSX/._a.txt", "cover.png"):
            archive.writestr(name, name)
        archive.writestr("d.txt.gz", gzip.compress(b"d.txt.gz"))
    assert chosen(tmp_path / "books.zip") == {"c [1].txt": None, "d.txt.gz": None,
                                              "test/b.txt": "test", "train/a.txt": "train"}
    for file in files.choose([tmp_path]).files:
        with file.open() as stream:
            assert stream.read().decode() == file.member


@pytest.mark.parametrize("name, content", [
    ("a.txt.gz", b"no gzip" * 9), ("a.txt.gz", gzip.compress(b"x" * 9999)[:-9]),
    ("a.txt.zst", b"no zstandard"), ("a.txt.zst", zstandard.compress(bytes(9999))[:-9]),
    ("a.txt.bz2", bz2.compress(b"x" * 9999)[:-9]), ("a.txt.xz", lzma.compress(b"x" * 999)[:-9]),
    ("a.txt.xz", b"no xz"), ("a.zip", b"no zip")])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        for file in files.choose([tmp_path]).files:
            with file.open() as stream:
                stream.read()


@pytest.mark.parametrize("n", [0, 1, 10, 2 ** 17, 10 ** 6])
def test_a_zst_file_of_any_size_is_read_whole_and_never_read_short(tmp_path, n):
    content = random.Random(n).randbytes(n)
    path, whole = tmp_path / "a.txt.zst", zstandard.compress(content)
    path.write_bytes(whole)
    file = files.File(path, "text", None)
    with file.open() as stream:
        assert stream.read() == content
    path.write_bytes(whole[:-1 - len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"), file.open() as stream:
        stream.read()


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning):
        for content in ("first", "second"):
            archive.writestr("a.txt", content)
    with pytest.raises(UserError, match="two files of one name"):
        files.choose([tmp_path / "a.zip"])


def test_a_files_key_changes_when_the_file_does(tmp_path):
    touch(tmp_path, "a.txt")
    before = files.choose([tmp_path]).files[0].key
    assert files.choose([tmp_path]).files[0].key == before
    (tmp_path / "a.txt").write_text("other")
    assert files.choose([tmp_path]).files[0].key != before
