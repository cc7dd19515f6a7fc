"""files/text.py: every kind of file reads the same, and what cannot be read is one line."""
import gzip
import itertools
import json
import os
from pathlib import Path

from files import text
from files.wordpiece import SPECIAL, tokenizer_from
from program.cli import UserError

import datasets
import pyarrow
import pytest
from pyarrow import parquet

DOCUMENTS = [f"Document number {i}: the quick brown fox jumps over lazy dog {i % 7}."
             for i in range(50)]
ROW = '{"text": "one"}\n'
COMPRESS = {"": bytes, ".gz": gzip.compress,
            ".zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / ".cache"))
    monkeypatch.chdir(tmp_path)


def parquet_of(**columns):
    """The bytes of a Parquet file."""
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


def contents_of(name, documents=DOCUMENTS):
    """The bytes of a file of the kind that its name says, one document a row."""
    plain, ending = os.path.splitext(name) if name.endswith((".gz", ".zst")) else (name, "")
    kind, lines = plain.rpartition(".")[2], documents
    if kind.startswith("json"):
        rows = [{"text": document, "n": 1} for document in documents]
        lines = map(json.dumps, rows if kind == "jsonl" else [rows])
    elif kind in ("csv", "tsv"):
        separator = "\t" if kind == "tsv" else ","
        lines = [f'"{document}"{separator}n' for document in ["text", *documents]]
    content = "".join(f"{line}\n" for line in lines).encode()
    if kind == "parquet":
        content = parquet_of(text=documents, number=list(range(len(documents))))
    return COMPRESS[ending](content)


def write(*names, **contents):
    """Files below the working directory: of DOCUMENTS, or {name: content}."""
    for name, content in {**{name: contents_of(name) for name in names}, **contents}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def read(data, column=None):
    """[(part, document)]"""
    return list(text.open_source([str(data)], column).documents())


def texts(data, column=None):
    """The documents, without blanks at their ends."""
    return [document.strip() for _, document in read(data, column)]


def parts(*paths):
    """{name of a file below the working directory: its part}"""
    found, _ = text.files_at([Path(path) for path in paths])
    return {str(path): part for path, part in found.items()}


# ---- Kinds of files
@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("kind", ["txt", "md", "jsonl", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_documents_whole_or_none(kind, ending):
    name = f"a.{kind}{ending}"
    write(name)
    assert [document for _, document in read(name)] == DOCUMENTS
    os.rename(name, name.upper())
    assert [document for _, document in read(".")] == DOCUMENTS
    whole = contents_of(name)
    for content in (whole[:-1], whole[:len(whole) // 2]) if ending else ():
        write(**{name: content})
        with pytest.raises(UserError, match=rf"a\.{kind}\{ending} cannot be read"):
            read(name)


LINES = [f"document {i}" for i in range(400)]
PARAGRAPHS = [f"paragraph {i}\nof two lines" for i in range(40)]


@pytest.mark.parametrize("content, documents", [
    ("a\nb\nc", ["a", "b", "c"]), ("a\r\nb\r\n", ["a", "b"]), ("a\nb\n\nc\n", ["a\nb", "c"]),
    ("\ufeffa\nb", ["a", "b"]), ("a\u2028b\nc\x85d", ["a\u2028b", "c\x85d"]),
    # An empty line somewhere does not make one document of many lines.
    *((end.join([*LINES[:50], "", *LINES[50:]]), LINES) for end in ("\n", "\r")),
    # A line of white space is empty, whatever ends it.
    *([end.join(PARAGRAPHS), PARAGRAPHS]
      for end in ("\n\n", "\n \t\n", "\r\n\r\n", "\n\u00a0\n\n"))])
def test_text_is_cut_at_empty_lines_or_else_at_each_line(monkeypatch, content, documents):
    write(**{"a.txt": content})
    for characters in (1, 2, 3, 7, 2 ** 20):  # a paragraph is whole wherever the reader pauses
        monkeypatch.setattr(text, "CHARACTERS", characters)
        assert texts("a.txt") == documents


@pytest.mark.parametrize("name, content, documents", [
    ("a.txt.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"), ["one", "two"]),  # in two parts
    ("a.jsonl", ROW + '\n  \n{"text": "caf\\u00e9\\n\\u2028"}', ["one", "caf\u00e9"]),
    ("a.jsonl", '\ufeff{"text": "", "n": 1}\n{"text": " ", "n": "x"}\n' + ROW, ["one"]),
    ("a.json", '\n [{"text": "a"}, {"text": "b", "n": [1]}]', ["a", "b"]),
    ("a.csv", '\ufefftext,n\n"a, ""b""\nc",1\r\n\nNA,2\n', ['a, "b"\nc', "NA"]),
    ("a.csv", "text,n\na,1,\nb,2,\n", ["a", "b"]),  # many programs end a line with a separator
    ("a.tsv", 'text\tn\na, b\t1\nhe said "c"\t2\n', ["a, b", 'he said "c"']),
    ("a.parquet", parquet_of(text=pyarrow.array(["x", None]).dictionary_encode()), ["x"])])
def test_the_rows_of_a_file(name, content, documents):
    write(**{name: content})
    assert texts(name) == documents


# ---- What cannot be read
@pytest.mark.parametrize("name, content, message", [
    ("a.txt", b"", "a.txt holds no text: wanted are files, not empty, that end in .txt .md"),
    ("a.zip", b"PK", "a.zip holds no text"),
    ("a.txt", b"\x7fELF\0\0\1\2" * 99, "a.txt is not text: it holds NUL bytes"),
    ("a.csv", "text\ncaf\u00e9\n".encode("latin-1"), "a.csv cannot be read .*UnicodeDecodeError"),
    *((name, b"not this" * 9, f"{name} cannot be read") for name in ("a.parquet", "a.txt.gz")),
    ("a.jsonl", ROW + '{"text": "no end\n', r"\(ValueError: line 2: .*lines like"),
    *(("a.jsonl", ROW + row, "line 2: a row is no object") for row in ("3", "null", '["b"]')),
    ("a.jsonl", ROW + '{"text": "a", "text": "b"}', "line 2: an object has a key twice"),
    ("a.json", '[{"a": 1}', "line 1"), ("a.json", "[" * 100_000, "RecursionError"),
    ("a.jsonl", ROW + '{"text": 7}\n', "row 2: the column text holds 7, no text: mend it"),
    ("a.jsonl", ROW + '{"text": "\\ud83d"}', r"row 2: the column text holds .*ud83d', no text"),
    ("a.parquet", parquet_of(text=[b"x"]), "row 1: the column text holds b'x', no text"),
    *(("a.csv", content, message) for content, message in (
        ("text\na cat, a dog\n", "line 2: 2 fields for the columns text"),
        ("text,n,n\na,b,c\n", "line 2: 3 fields for the columns text, n, n"),
        ('text,n\n"a" b,1\n', "expected after"), ('text,n\n"a,1\nb,2\n', "unexpected end of data"),
        ("id;text\n1;a\n", "row 1 has the columns id;text: say which"))),
    ("a.jsonl", ROW + '{"n": 1}', "a.jsonl, row 2 has the columns n: say which holds"),
    ("a.parquet", parquet_of(a=["x"], b=["y"]), "row 1 has the columns a, b: say which")])
def test_what_cannot_be_read_is_said_in_one_line_that_names_it(name, content, message):
    write(**{name: content})
    with pytest.raises(UserError, match=message) as refusal:
        read(name)
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("names, given, message", [
    (["cover.png", ".a.txt"], ".", "holds no text"),
    # The name `text` is a reader of files in `datasets`, and no data set of the hub.
    *(([], name, f"no such file, folder or hub id: {name}") for name in ("missing.txt", "text")),
    ([], "", "an empty name"), (["a.txt", "a.txt.gz"], ".", "a.txt and a.txt.gz seem one text"),
    (["train-00000-of-00002.txt"], ".", r"train-\*.txt are 1 files, and their names say 00002"),
    (["test.txt", "valid.txt"], ".", "called validation or test, and none is left to train on")])
def test_a_path_without_a_whole_text_is_refused(names, given, message):
    write(*names)
    with pytest.raises(UserError, match=message):
        read(given)


# ---- Names
@pytest.mark.parametrize("name", [
    "book [1].txt", "what?.txt", "a::b.txt", "{a,b}.txt", "~a.txt", " .txt", "a\nb.txt",
    "Books [2024]/a.txt", os.fsdecode(b"caf\xe9.txt"), ".hidden/a.txt", "README.md"])
def test_a_name_means_that_file_and_no_other(name):
    others = ["book 1.txt", "whatx.txt", "a", "b.txt", "Books 2/b.txt"]
    write(**dict.fromkeys(others, "others\n"), **{name: "this\n"})
    assert texts(Path.cwd() / (Path(name).parent if "/" in name else name)) == ["this"]


@pytest.mark.parametrize("part, names", [
    ("train", ["train-00000-of-00001.parquet", "training set.txt", "wiki.train.tokens.txt"]),
    ("validation", ["books_valid.txt", "val1.jsonl", "dev-v2.0.json", "x/dev/a.txt.gz",
                    "validation-00000-of-00001-0123456789abcdef.parquet"]),
    ("test", ["TEST.TXT", "test_data.csv", "evaluation.csv", "test/deep/a.txt"]),
    (None, ["A Test of Wills.txt", "Volume 1-of-3.txt", "latest.txt", "A Test/b.txt"])])  # titles
def test_a_whole_name_says_the_part(part, names):
    write("a.txt", *names)
    assert parts(".") == {"a.txt": None, **dict.fromkeys(names, part)}


def test_the_folder_that_the_user_names_says_nothing_and_those_below_it_do():
    write("test/a.txt", "test/b.txt", "train/c.txt", "dev/train.txt")
    for given in (["test"], ["test/a.txt", "test/b.txt"]):
        assert parts(*given) == {"test/a.txt": None, "test/b.txt": None}
    for given in (["."], ["dev", "test", "train"]):
        assert parts(*given) == {"dev/train.txt": "train",  # its own name counts first
                                 "test/a.txt": "test", "test/b.txt": "test", "train/c.txt": "train"}


def test_each_real_file_is_read_once_and_what_is_left_out_is_said(capsys):
    write("elsewhere/a.txt", "elsewhere/b.txt", "books/c.txt", "books/.b.txt", "books/.git/c.txt",
          "books/README.md", "books/b.zip", "books/dataset_info.json", **{"books/nothing.txt": ""})
    os.symlink("../elsewhere", "books/linked")
    os.symlink("../books", "books/around")  # a circle
    os.symlink("c.txt", "books/d.txt")
    os.symlink("gone.txt", "books/b.txt")
    os.link("books/c.txt", "books/e.txt")
    assert list(parts("books")) == ["books/c.txt", "books/linked/a.txt", "books/linked/b.txt"]
    assert len(parts("books/c.txt", "./books/c.txt", Path("books/e.txt").absolute(), "books")) == 3
    read("books")
    assert "2 left out: b.txt, b.zip" in capsys.readouterr().out


# ---- Columns
def test_a_folder_of_all_kinds_is_read_whole():
    names = ["a.csv", "b.jsonl", "c.txt", "d.parquet"]
    write(**{name: contents_of(name, DOCUMENTS[10 * i:][:10]) for i, name in enumerate(names)},
          **{"f.parquet": parquet_of(text=pyarrow.array([], "string"))})
    datasets.Dataset.from_dict({"text": DOCUMENTS[40:]}).save_to_disk("e")
    assert [document for _, document in read(".")] == DOCUMENTS


def test_the_column_may_be_named_for_all_files_and_what_lacks_it_is_told_before_reading():
    write(**{"a.csv": "the words\na b\n", "b.jsonl": ROW})
    assert texts("a.csv", column="the words") == ["a b"]
    with pytest.raises(UserError, match="a.csv, row 1 has the columns the words: say which"):
        text.open_source(["b.jsonl", "a.csv"])


# ---- What is held out
def test_a_test_split_is_in_neither_part_and_one_line_says_so(capsys):
    split = {"train": DOCUMENTS[:20], "validation": DOCUMENTS[20:30], "test": DOCUMENTS[30:]}
    write(**{f"{part}.jsonl": contents_of("a.jsonl", split[part]) for part in split})
    assert read(".") == [(part, document) for part in ("train", "validation")
                         for document in split[part]]
    assert capsys.readouterr().out.count("1 left out: test.jsonl (called test)") == 1


def test_a_copy_of_a_held_out_document_is_held_out_too():
    write(**{"a.txt": "".join(f"line {i % 500} of a text\n" for i in range(2000))})
    train, validation = ({document for part, document in read("a.txt") if part == name}
                         for name in ("train", "validation"))
    assert not train & validation
    assert 1 <= len(validation) <= 15  # one in a hundred of 500, give or take


def test_two_documents_are_enough_for_both_parts_however_their_checksums_fall():
    for i in range(20):
        write(**{"test.txt": f"first {i}\nsecond {i}"})  # alone, a name says no part
        assert read("test.txt") == [("train", f"first {i}"), ("validation", f"second {i}")]


# ---- The hub
STREAMED = datasets.Dataset.from_dict({"text": DOCUMENTS}).to_iterable_dataset()


class Hub:
    """What stands in for the hub. `sha` is its commit, or None where there is no network."""

    def __init__(self, monkeypatch, loaded):
        self.sha, self.options, self.loaded = "c0ffee0", None, loaded
        monkeypatch.setattr(datasets, "load_dataset", self.load_dataset)
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", self.dataset_info)

    def dataset_info(self, *_, **__):
        if self.sha is None:
            raise ConnectionError("no network")
        return self

    def load_dataset(self, *arguments, **options):
        self.options = self.dataset_info() and (arguments, options)
        return self.loaded


def test_a_hub_id_goes_to_load_dataset_and_without_a_network_the_last_commit_is_meant(
        tmp_path, monkeypatch, capsys):
    hub, name = Hub(monkeypatch, STREAMED), "wikimedia/wikipedia:20231101.en"
    assert texts(name) == DOCUMENTS
    assert hub.options == (("wikimedia/wikipedia", "20231101.en"), {
        "streaming": True, "split": None, "revision": "c0ffee0",
        "cache_dir": str(tmp_path / ".cache/hub")})
    online, hub.sha = text.open_source([name]), None
    offline = text.open_source([name])
    assert offline.key == online.key and "the hub does not answer" in capsys.readouterr().out
    for missing in (offline.documents, lambda: text.open_source(["other/data"])):
        with pytest.raises(UserError, match="cannot be read"):
            list(missing())
    hub.sha = "decade0"
    assert text.open_source([name]).key != online.key


def test_a_data_set_of_the_hub_trains_on_train_and_validates_on_validation(monkeypatch):
    splits = {"train": DOCUMENTS[:20], "test": DOCUMENTS[20:30], "validation": DOCUMENTS[30:]}
    hub = Hub(monkeypatch, {part: datasets.Dataset.from_dict({"text": documents})
                            for part, documents in splits.items()})
    assert read("some/data") == [(part, document) for part in ("train", "validation")
                                 for document in splits[part]]
    with pytest.raises(UserError, match="some/data has the columns text: say which"):
        read("some/data", column="body")
    del hub.loaded["train"]
    with pytest.raises(UserError, match="has the splits test, validation: say which is for"):
        read("some/data")


# ---- A vocabulary of the text's own
def test_a_vocabulary_is_made_once_and_again_where_it_or_its_text_changed(monkeypatch, capsys):
    paths = itertools.cycle(["a.txt", Path.cwd() / "a.txt"])  # the text is the same for both

    def made():
        tokenizer = text.open_source([str(next(paths))]).tokenizer(500)
        return tokenizer.to_str(), capsys.readouterr().out.count("making a vocabulary")
    write("a.txt")
    first, n = made()
    assert n == 1 and made() == (first, 0)
    tokenizer = tokenizer_from(first)
    assert [tokenizer.id_to_token(i) for i in range(5)] == SPECIAL
    assert "[UNK]" not in tokenizer.encode(" ".join(DOCUMENTS)).tokens  # it can spell its text
    [path] = Path(".cache").glob("tokenizer-*.json")
    path.write_text(path.read_text()[:-100])  # damaged
    assert made() == (first, 1)
    monkeypatch.setattr(text, "MAKER", 0)  # other rules
    assert made() == (first, 1)
    write(**{"a.txt": contents_of("a.txt", DOCUMENTS[:-1])})
    assert made()[1] == 1
    with pytest.raises(UserError, match="--vocab-size 5 leaves no room for a word"):
        text.open_source(["a.txt"]).tokenizer(5)
