"""text.py: every kind of file reads the same, BERT's tokenizer cuts it, and what cannot be read is said in one line."""
import bz2
import gzip
import json
import lzma

from plumbing import text, wordpiece
from plumbing.cli import UserError

import pytest
import zstandard

DOCUMENTS = [f"Document number {i}: the quick brown fox jumps over lazy dog {i % 7}." for i in range(50)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))


def write(path, rows=DOCUMENTS):
    """A file of the kind that its name says, one document a row."""
    kind = text.loader_of(path)
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet
        parquet.write_table(pyarrow.table({"text": rows, "number": list(range(len(rows)))}), path)
        return
    if kind == "text":
        content = "\n".join(rows) + "\n"
    elif kind == "json":
        content = "".join(json.dumps({"text": row, "number": i}) + "\n" for i, row in enumerate(rows))
    else:
        content = "text,number\n" + "".join(f'"{row}",{i}\n' for i, row in enumerate(rows))
    if path.suffix == ".zst":
        path.write_bytes(zstandard.compress(content.encode()))
        return
    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "wt") as file:
        file.write(content)


def read(*data, column=None):
    return list(text.open_source([str(entry) for entry in data], column).documents())


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.txt.gz", "a.jsonl.gz", "a.csv.bz2", "a.txt.xz", "a.txt.zst"])
def test_every_kind_of_file_gives_the_same_documents(tmp_path, name):
    write(tmp_path / name)
    assert [document for _, document in read(tmp_path / name)] == DOCUMENTS


def test_a_folder_is_its_files_and_their_names_say_what_is_validation(tmp_path):
    write(tmp_path / "train-0.jsonl", DOCUMENTS[:20])
    write(tmp_path / "train-1.jsonl", DOCUMENTS[20:40])
    write(tmp_path / "validation.jsonl", DOCUMENTS[40:])
    assert read(tmp_path) == [("train", d) for d in DOCUMENTS[:40]] + [("validation", d) for d in DOCUMENTS[40:]]


def test_without_a_validation_split_a_copy_of_a_held_out_document_is_held_out_too(tmp_path):
    rows = [f"line {i % 500} of a text" for i in range(2000)]  # each document stands there four times
    write(tmp_path / "a.txt", rows)
    sides = {"train": set(), "validation": set()}
    for part, document in read(tmp_path / "a.txt"):
        sides[part].add(document)
    assert not sides["train"] & sides["validation"] and len(sides["train"]) + len(sides["validation"]) == 500
    assert 1 <= len(sides["validation"]) <= 15  # one in a hundred, give or take


def test_two_documents_are_enough_for_both_parts_however_their_checksums_fall(tmp_path):
    for i in range(20):
        write(tmp_path / f"{i}.txt", [f"first {i}", f"second {i}"])
        assert read(tmp_path / f"{i}.txt") == [("train", f"first {i}"), ("validation", f"second {i}")]


def test_text_files_are_cut_at_empty_lines_where_there_are_some_else_at_each_line(tmp_path):
    (tmp_path / "prose.txt").write_text("a paragraph\nof two lines\n\nanother one\n")
    assert [document.strip() for _, document in read(tmp_path / "prose.txt")] == ["a paragraph\nof two lines", "another one"]


def test_empty_documents_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in ["one", "", "  ", None, "two"]))
    assert [document for _, document in read(tmp_path / "a.jsonl")] == ["one", "two"]


@pytest.mark.parametrize("name, content, message", [
    ("missing.txt", None, "no such file or folder"),
    ("a.txt", b"", "is empty"),
    ("a.docx", b"PK", "should end in"),
    ("a.txt", b"\x7fELF\0\0\1\2" * 99, "NUL bytes"),
    ("a.txt", "caf\u00e9 au lait\n".encode("latin-1") * 9, "not UTF-8|codec"),
    ("a.jsonl", b'{"text": "fine"}\n{"text": "no end\n', "cannot be|loaded"),
    ("a.parquet", b"this is not parquet" * 9, "cannot be"),
    ("a.txt.gz", b"this is not gzip" * 9, "cannot be read"),
    ("a.csv", b"first,second\nx,y\n", "--text-column"),
    ("a.jsonl", b'{"text": 3}\n', "--text-column"),
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


def test_a_hub_id_goes_to_load_dataset_with_its_configuration_and_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.Dataset.from_dict({"text": DOCUMENTS}).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [document for _, document in read("wikimedia/wikipedia:20231101.en")] == DOCUMENTS
    assert asked[0] == (("wikimedia/wikipedia", "20231101.en"), {"streaming": True, "split": "train"})


def test_an_id_that_the_hub_does_not_give_is_one_line():
    with pytest.raises(UserError, match="no-such/data-set cannot be loaded from the hub"):
        read("no-such/data-set")


def test_transformers_bert_cuts_text_as_our_wordpiece_does(tmp_path):
    transformers = pytest.importorskip("transformers")
    write(tmp_path / "a.txt")
    tokenizer = text.open_source([str(tmp_path / "a.txt")]).tokenizer(vocab_size=120)
    wordpiece.save_tokenizer(tokenizer, tmp_path, longest=128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for one, two in [("The quick FOX!", "caf\u00e9, 42 unheard-of w\u00f6rds"), ("[MASK] jumps", "a\tb\u00a0c"), ("", "dog")]:
        ours, both = tokenizer.encode(one, two), theirs(one, two)
        assert ours.ids == both["input_ids"] and ours.type_ids == both["token_type_ids"]
    assert (theirs.cls_token, theirs.sep_token, theirs.mask_token, theirs.pad_token, theirs.unk_token) == \
        ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]")
    assert theirs.model_max_length == 128 and theirs("x" * 1000)["input_ids"][0] == theirs.cls_token_id


def test_words_of_the_stories_are_one_token_each():
    source = text.open_source(["stories"])
    tokenizer = source.tokenizer()
    story = next(source.stream(0, 0, "train"))
    assert "[UNK]" not in tokenizer.encode(story).tokens
    assert all(not token.startswith("##") for token in tokenizer.encode(story).tokens)


@pytest.mark.parametrize("content, message", [(b"not json", "not a tokenizer.json"), (b"\xff\xfe", "not UTF-8"), (b"{}", "not a tokenizer.json")])
def test_a_file_that_is_no_tokenizer_is_said(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        wordpiece.load_tokenizer(str(tmp_path))


def test_a_tokenizer_whose_numbers_have_no_end_is_refused():
    vocab = {word: 10 ** 7 * i for i, word in enumerate([*wordpiece.SPECIAL, "cat"])}
    with pytest.raises(UserError, match="numbers its 6 words up to 50,000,001"):
        wordpiece.tokenizer_from(wordpiece.wordpiece(vocab).to_str())


def test_a_tokenizer_without_mask_is_not_berts(tmp_path):
    from tokenizers import Tokenizer, models
    Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no \[PAD\] \[SEP\] \[MASK\]"):
        wordpiece.load_tokenizer(str(tmp_path / "tokenizer.json"))
