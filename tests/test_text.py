"""plumbing/text.py: every kind of file reads the same; what cannot be read is said in one line."""
import bz2
import gzip
import json
import lzma
from pathlib import Path
from types import SimpleNamespace

from files.wordpiece import SPECIAL
from plumbing import files, text
from plumbing.cli import UserError

import pytest
import zstandard
from huggingface_hub.errors import HfHubHTTPError

DOCUMENTS = [f"Document number {i}: the quick brown fox jumps over lazy dog {i % 7}."
             for i in range(50)]
OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))


def write(path, rows=DOCUMENTS):
    """A file of the kind that its name says, one document a row."""
    kind = files.kind_of(path.name)
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet
        parquet.write_table(pyarrow.table({"text": rows, "number": list(range(len(rows)))}), path)
        return
    if kind == "text":
        lines = rows
    elif kind == "json":
        lines = [json.dumps({"text": row, "number": i}) for i, row in enumerate(rows)]
    else:
        separator = "\t" if kind == "tsv" else ","
        lines = [f"text{separator}number",
                 *(f'"{row}"{separator}{i}' for i, row in enumerate(rows))]
    content = "".join(line + "\n" for line in lines)
    if path.suffix == ".zst":
        path.write_bytes(zstandard.compress(content.encode()))
        return
    with OPEN.get(path.suffix, open)(path, "wt") as file:
        file.write(content)


def read(*data, column=None):
    """[(part, document)]"""
    return list(text.open_source([str(entry) for entry in data], column).documents())


# --------------------------------------------------------------------------------------------------
# Files

@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv", "a.md", "a.parquet",
                                  "a.txt.gz", "a.jsonl.gz", "a.csv.bz2", "a.txt.xz", "a.txt.zst"])
def test_every_kind_of_file_gives_the_same_documents(tmp_path, name):
    write(tmp_path / name)
    assert [document for _, document in read(tmp_path / name)] == DOCUMENTS


def test_a_folder_is_its_files_and_their_names_say_what_is_validation(tmp_path):
    write(tmp_path / "train-0.jsonl", DOCUMENTS[:20])
    write(tmp_path / "train-1.jsonl", DOCUMENTS[20:40])
    write(tmp_path / "validation.jsonl", DOCUMENTS[40:])
    train = [("train", document) for document in DOCUMENTS[:40]]
    validation = [("validation", document) for document in DOCUMENTS[40:]]
    assert read(tmp_path) == train + validation


def test_where_all_files_are_called_validation_the_name_says_nothing(tmp_path):
    write(tmp_path / "validation.jsonl")
    assert {part for part, _ in read(tmp_path)} == {"train", "validation"}


def test_text_files_are_cut_at_empty_lines_where_there_are_some_else_at_each_line(tmp_path):
    (tmp_path / "prose.txt").write_text("a paragraph\nof two lines\n\nanother one\n")
    documents = [document.strip() for _, document in read(tmp_path / "prose.txt")]
    assert documents == ["a paragraph\nof two lines", "another one"]


def test_empty_documents_are_passed_over(tmp_path):
    rows = ["one", "", "  ", None, "two"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    assert [document for _, document in read(tmp_path / "a.jsonl")] == ["one", "two"]


# --------------------------------------------------------------------------------------------------
# What is held out

def test_without_a_validation_split_a_copy_of_a_held_out_document_is_held_out_too(tmp_path):
    rows = [f"line {i % 500} of a text" for i in range(2000)]  # each document four times
    write(tmp_path / "a.txt", rows)
    parts = {"train": set(), "validation": set()}
    for part, document in read(tmp_path / "a.txt"):
        parts[part].add(document)
    assert not parts["train"] & parts["validation"]
    assert len(parts["train"]) + len(parts["validation"]) == 500
    assert 1 <= len(parts["validation"]) <= 15  # one in a hundred, give or take


def test_two_documents_are_enough_for_both_parts_however_their_checksums_fall(tmp_path):
    for i in range(20):
        path = tmp_path / f"{i}.txt"
        write(path, [f"first {i}", f"second {i}"])
        assert read(path) == [("train", f"first {i}"), ("validation", f"second {i}")]


@pytest.mark.parametrize("names", [
    ("train.jsonl", "valid.jsonl", "test.jsonl"), ("train/0.txt", "validation/0.txt", "test/0.txt"),
    ("a.txt", "dev/0.txt", "test/0.txt"),
    ("train-00000-of-00001.parquet", "val.parquet", "test-00000-of-00001.parquet")])
def test_a_test_split_is_in_neither_part_and_one_line_says_so(tmp_path, capsys, names):
    train, validation, test = DOCUMENTS[:20], DOCUMENTS[20:30], DOCUMENTS[30:]
    for name, documents in zip(names, (train, validation, test)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, documents)
    assert read(tmp_path) == ([("train", document) for document in train]
                              + [("validation", document) for document in validation])
    assert capsys.readouterr().out.count("1 called test") == 1


def test_a_test_file_alone_is_what_the_user_wants_to_train_on(tmp_path):
    write(tmp_path / "test.txt")
    assert {part for part, _ in read(tmp_path / "test.txt")} == {"train", "validation"}


def test_validation_and_test_without_training_are_refused(tmp_path):
    write(tmp_path / "test.txt")
    write(tmp_path / "valid.txt")
    with pytest.raises(UserError, match="none is left to train on"):
        read(tmp_path)


# --------------------------------------------------------------------------------------------------
# What cannot be read

@pytest.mark.parametrize("name, content, message", [
    ("missing.txt", None, "no such file, folder or hub id"),
    ("a.txt", b"", "is empty"),
    ("a.docx", b"PK", "should end in"),
    ("a.txt", b"\x7fELF\0\0\1\2" * 99, "NUL bytes"),
    ("a.txt", "caf\u00e9 au lait\n".encode("latin-1") * 9, "not UTF-8|codec"),
    ("a.jsonl", b'{"text": "fine"}\n{"text": "no end\n', "line 2 is not JSON"),
    ("a.parquet", b"this is not parquet" * 9, "cannot be"),
    ("a.txt.gz", b"this is not gzip" * 9, "cannot be read"),
    ("a.csv", b"first,second\nx,y\n", "--text-column"),
    ("a.jsonl", b'{"text": 3}\n', "line 1: the column text holds a number"),
])
def test_what_cannot_be_read_is_said_in_one_line_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as failure:
        read(path)
    assert name in str(failure.value)


def test_a_wrong_column_is_answered_with_the_columns_that_there_are(tmp_path):
    write(tmp_path / "a.csv")
    with pytest.raises(UserError, match="text, number"):
        read(tmp_path / "a.csv", column="body")


def test_a_column_of_files_without_columns_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="--text-column body: .* holds text and no rows"):
        text.open_source([str(tmp_path)], "body")


def test_a_folder_of_text_and_rows_is_read_whole(tmp_path):
    write(tmp_path / "a.csv", DOCUMENTS[:10])
    write(tmp_path / "b.jsonl", DOCUMENTS[10:20])
    write(tmp_path / "c.txt", DOCUMENTS[20:30])
    write(tmp_path / "d.parquet", DOCUMENTS[30:40])
    write(tmp_path / "e.tsv", DOCUMENTS[40:])
    assert [document for _, document in read(tmp_path)] == DOCUMENTS


def test_beside_files_of_text_a_file_about_them_is_not_read_in_silence(tmp_path):
    write(tmp_path / "a.txt")
    (tmp_path / "catalogue.jsonl").write_text('{"title": "A Tale of Two Cities", "year": 1859}')
    with pytest.raises(UserError, match="catalogue.jsonl has the columns title, year"):
        read(tmp_path)


def test_a_row_that_holds_no_text_is_named(tmp_path):
    rows = [*DOCUMENTS[:20], 7, *DOCUMENTS[20:]]
    write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match="a.jsonl, line 21: the column text holds a number"):
        read(tmp_path)


def test_only_the_column_of_text_matters(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "n": 1, "tags": ["x"]}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two", "n": "many"}\n{"n": null, "text": null}\n')
    (tmp_path / "c.csv").write_text('id,text\n7,three\n')
    assert [document for _, document in read(tmp_path)] == ["one", "two", "three"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_column_is_chosen_once_for_all_files(tmp_path, names):
    (tmp_path / f"{names[0]}.jsonl").write_text('{"text": "one", "title": "x"}\n')
    (tmp_path / f"{names[1]}.jsonl").write_text('{"body": "two"}\n')
    with pytest.raises(UserError, match=f"{names[1]}.jsonl has the columns body"):
        read(tmp_path)


def test_rows_that_lack_the_column_are_counted(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n{"text": "three"}\n')
    assert [document for _, document in read(tmp_path)] == ["one", "three"]
    assert "a.jsonl: 1 of 3 rows have no text, and are left out" in capsys.readouterr().out


def test_half_a_character_is_named_with_its_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "\\ud83d"}\n')
    with pytest.raises(UserError, match="a.jsonl, line 2: the column text holds half a character"):
        read(tmp_path)


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path / "a.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="an empty name"):
        read("")


def test_each_text_file_is_cut_in_its_own_way(tmp_path):
    (tmp_path / "a.txt").write_text("a line\nanother line\n")
    (tmp_path / "b.txt").write_text("a paragraph\nof two lines\n\nanother one\n")
    documents = [document.strip() for _, document in read(tmp_path)]
    assert documents == ["a line", "another line", "a paragraph\nof two lines", "another one"]
    (tmp_path / "c.txt").write_bytes(b"\0\0\0\0")
    with pytest.raises(UserError, match="c.txt is not text"):
        read(tmp_path)


# --------------------------------------------------------------------------------------------------
# The hub

def test_a_hub_id_goes_to_load_dataset_with_its_configuration(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        return datasets.Dataset.from_dict({"text": DOCUMENTS}).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = [document for _, document in read("wikimedia/wikipedia:20231101.en")]
    assert documents == DOCUMENTS
    [(arguments, options)] = calls
    assert arguments == ("wikimedia/wikipedia", "20231101.en")
    assert options["streaming"] and options["cache_dir"].startswith(str(tmp_path))


def test_a_data_set_of_the_hub_with_splits_trains_on_train_and_validates_on_validation(monkeypatch):
    datasets = pytest.importorskip("datasets")
    splits = {"train": DOCUMENTS[:20], "test": DOCUMENTS[20:30], "validation": DOCUMENTS[30:]}
    loaded = datasets.IterableDatasetDict(
        {split: datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
         for split, texts in splits.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    assert read("some/data") == ([("train", document) for document in splits["train"]]
                                 + [("validation", document) for document in splits["validation"]])


@pytest.mark.parametrize("name", ["text", "csv", "json", "parquet", "arrow", "imagefolder"])
def test_a_reader_of_files_is_no_data_set_of_the_hub(tmp_path, monkeypatch, name):
    write(tmp_path / "a.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no such file, folder or hub id: {name}"):
        read(name)


def test_a_hub_that_is_busy_says_so_before_and_while_a_text_is_read(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    response = SimpleNamespace(status_code=429, headers={}, request=None)

    def busy(*_, **__):
        raise HfHubHTTPError("Too Many Requests", response=response)
        yield
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: next(busy()))
    with pytest.raises(UserError, match="some/data cannot .*: the hub is busy: try again later"):
        read("some/data")
    stream = datasets.IterableDataset.from_generator(busy, features=None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    with pytest.raises(UserError, match="some/data cannot .*: the hub is busy: try again later"):
        read("some/data")


def test_an_id_that_the_hub_does_not_give_is_one_line():
    with pytest.raises(UserError, match="no-such/data-set cannot be loaded from the hub"):
        read("no-such/data-set")


# --------------------------------------------------------------------------------------------------
# A vocabulary of the text's own

def test_a_vocabulary_is_made_once_and_then_read_from_the_cache(tmp_path, capsys):
    write(tmp_path / "a.txt")
    made, read_again = (text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)
                        for _ in range(2))
    assert made.to_str() == read_again.to_str() and made.get_vocab_size() <= 120
    assert capsys.readouterr().out.count("making a vocabulary") == 1


def test_a_vocabulary_of_older_rules_is_not_read(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.txt")
    for version in (text.MAKER - 1, text.MAKER):
        monkeypatch.setattr(text, "MAKER", version)
        text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)
    assert capsys.readouterr().out.count("making a vocabulary") == 2


def test_a_vocabulary_begins_with_the_special_tokens_and_can_spell_its_text(tmp_path):
    write(tmp_path / "a.txt")
    tokenizer = text.open_source([str(tmp_path / "a.txt")]).tokenizer(500)
    assert [tokenizer.id_to_token(i) for i in range(5)] == SPECIAL
    assert "[UNK]" not in tokenizer.encode(" ".join(DOCUMENTS)).tokens


def test_a_damaged_vocabulary_is_made_again(tmp_path, capsys):
    write(tmp_path / "a.txt")
    before = text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)
    [path] = (tmp_path / "cache").glob("tokenizer-*.json")
    path.write_text(path.read_text()[:-100])
    again = text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)
    assert again.get_vocab_size() == before.get_vocab_size()
    assert capsys.readouterr().out.count("making a vocabulary") == 2


def test_a_damaged_vocabulary_of_another_user_is_told_at_once(tmp_path, monkeypatch):
    write(tmp_path / "a.txt")
    text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)
    [path] = (tmp_path / "cache").glob("tokenizer-*.json")
    path.write_text("{")

    def refused(self, missing_ok=False):
        raise PermissionError(1, "Operation not permitted", str(self))
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(text, "train_wordpiece", None)  # none is made first
    with pytest.raises(UserError, match=f"not permitted: {path}.*: set ISOFLOP_CACHE"):
        text.open_source([str(tmp_path / "a.txt")]).tokenizer(120)


def test_a_file_that_changed_gets_another_vocabulary_and_other_tokens(tmp_path):
    path = tmp_path / "a.txt"
    write(path)
    before = text.open_source([str(path)]).key
    write(path, DOCUMENTS[:-1])
    assert text.open_source([str(path)]).key != before
