"""plumbing/rows.py: a value keeps its type, and what is wrong is said with its file and line."""
import gzip
import json

from plumbing import files, rows
from program.cli import UserError

import pytest
import zstandard

pyarrow = pytest.importorskip("pyarrow")


def file_of(path, content=None):
    """The files.File at a path, after its content was written."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.choose([path]).files[0]


def values(file, columns=None):
    return [row for _, row in rows.rows(file, columns)]


# --------------------------------------------------------------------------------------------------
# JSON

def test_a_value_keeps_its_type(tmp_path):
    written = [{"text": "caf\u00e9\n\u2028"}, {"text": 3}, {"text": None}, {"text": ["a"]}, {}]
    lines = "".join(json.dumps(row) + "\n" for row in written)
    assert values(file_of(tmp_path / "a.jsonl", lines)) == written
    assert values(file_of(tmp_path / "b.json", json.dumps(written, indent=2))) == written


def test_a_place_names_the_file_and_the_line(tmp_path):
    file = file_of(tmp_path / "a.jsonl", '{"a": 1}\n\n  \n{"a": 2}')
    assert [place for place, _ in rows.rows(file)] == [f"{file}, line 1", f"{file}, line 4"]


@pytest.mark.parametrize("content, message", [
    ('{"a": 1}\n{"a": 2\n', "line 2 is not JSON"),
    ('{\n "a": 1\n}\n', "line 1 is not JSON"),
    ('{"a": 1}\n3\n', "line 2 is a number"),
    ('{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 is not JSON .a key of an object is there twice"),
    ('[{"a": 1}, "b"]', "row 2 is a text"),
    ('[{"a": 1}', "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
])
def test_what_is_no_row_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        values(file_of(tmp_path / "a.json", content))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    assert values(file_of(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}')) == [{"a": 1}]
    assert values(file_of(tmp_path / "a.csv", b"\xef\xbb\xbftext,n\na,1\n")) == [
        {"text": "a", "n": "1"}]


# --------------------------------------------------------------------------------------------------
# CSV and TSV

def test_a_quoted_field_may_hold_separators_quotes_and_line_ends(tmp_path):
    content = 'text,n\n"a, ""b""\nc",1\r\n\nd e,2\n'
    assert values(file_of(tmp_path / "a.csv", content)) == [
        {"text": 'a, "b"\nc', "n": "1"}, {"text": "d e", "n": "2"}]


def test_a_tsv_is_separated_by_tabs(tmp_path):
    content = 'text\tn\na, b\t1\nhe said "c"\t2\n'
    assert values(file_of(tmp_path / "a.tsv", content)) == [
        {"text": "a, b", "n": "1"}, {"text": 'he said "c"', "n": "2"}]


def test_a_separator_at_each_lines_end_is_no_field(tmp_path):
    assert values(file_of(tmp_path / "a.csv", "text,n\na,1,\nb,2,\n")) == [
        {"text": "a", "n": "1"}, {"text": "b", "n": "2"}]


@pytest.mark.parametrize("content, message", [
    ("text\na cat, a dog\n", "line 2: 2 fields, where the header has 1"),
    ("text,n\n0,a,1\n", "line 2: 3 fields, where the header has 2"),
    ("text,n,m\na,1,2\nb\n", "line 3: 1 fields, where the header has 3"),
    ("id;text\n1;a, b\n", "line 1: the header 'id;text' is one column, and it holds ';'"),
    ("id\ttext\n1\ta\n", "it holds '.t'"),
    ("The cat sat on the mat.\nThe dog ran.\n", "line 1: the header should name the columns"),
    ("Hello friend\nfine\n", "line 1: the header should name the columns"),
    ("text,text\na,b\n", "the column 'text' is there twice"),
    ('text,n\n"a" b,1\n', "line 2: .*quote"),
    ('text,n\n"a,1\nb,2\n', "line 3: .*quote"),
])
def test_lines_that_do_not_fit_their_header_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        values(file_of(tmp_path / "a.csv", content))


# --------------------------------------------------------------------------------------------------
# Parquet and Arrow

def test_parquet_and_arrow_give_the_rows_that_were_written(tmp_path):
    from pyarrow import ipc, parquet
    written = [{"text": f"text {i}", "n": i} for i in range(2500)]
    table = pyarrow.Table.from_pylist(written)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    for name, new in (("stream.arrow", ipc.new_stream), ("file.arrow", ipc.new_file)):
        with open(tmp_path / name, "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table)
    for name in ("a.parquet", "stream.arrow", "file.arrow"):
        file = file_of(tmp_path / name)
        assert values(file) == written
        assert values(file, ["text"]) == [{"text": row["text"]} for row in written]
        assert [place for place, _ in rows.rows(file)][-1] == f"{file}, row 2499 counted from 0"


def test_a_column_of_two_words_is_read_where_it_is_asked_for(tmp_path):
    file = file_of(tmp_path / "a.csv", "the words\na b\n")
    assert values(file, ["the words"]) == [{"the words": "a b"}]


def test_two_columns_of_one_name_are_refused(tmp_path):
    from pyarrow import parquet
    table = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: the column 'text' is there twice"):
        values(file_of(tmp_path / "a.parquet"))


def test_an_arrow_stream_that_was_cut_short_is_refused(tmp_path):
    from pyarrow import ipc
    table = pyarrow.table({"text": ["a"] * 10})
    with open(tmp_path / "a.arrow", "wb") as sink, ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[:-8])  # without its end the reader would not notice
    with pytest.raises(UserError, match="a.arrow cannot be read .*cut short"):
        values(file_of(tmp_path / "a.arrow"))


def test_an_empty_parquet_shard_has_no_rows(tmp_path):
    from pyarrow import parquet
    nothing = pyarrow.table({"text": pyarrow.array([], "string")})
    parquet.write_table(nothing, tmp_path / "a.parquet")
    assert values(file_of(tmp_path / "a.parquet")) == []


def test_what_save_to_disk_wrote_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    texts = [f"text {i}" for i in range(50)]
    datasets.Dataset.from_dict({"text": texts}).select(range(0, 50, 2)).save_to_disk(tmp_path / "a")
    read = [row["text"] for file in files.choose([tmp_path / "a"]).files for row in values(file)]
    assert read == texts[::2]


# --------------------------------------------------------------------------------------------------
# Columns

def test_the_columns_of_every_format_and_whether_they_hold_text(tmp_path):
    from pyarrow import parquet
    table = pyarrow.table({"a": ["x"], "n": [1], "d": pyarrow.array(["y"]).dictionary_encode()})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert rows.columns_of(file_of(tmp_path / "a.parquet")) == {"a": True, "n": False, "d": True}
    lines = '{"a": null, "n": 1}\n{"a": "x", "n": null, "m": "y"}\n'
    assert rows.columns_of(file_of(tmp_path / "a.jsonl", lines)) == {"a": True, "n": False,
                                                                     "m": True}


@pytest.mark.parametrize("compress, ending", [(zstandard.compress, ".zst"),
                                              (gzip.compress, ".gz")])
def test_a_compressed_parquet_file_is_read_although_it_is_read_from_its_end(tmp_path, compress,
                                                                            ending):
    from pyarrow import parquet
    parquet.write_table(pyarrow.table({"text": ["a", "b"]}), tmp_path / "whole.parquet")
    path = tmp_path / f"a.parquet{ending}"
    path.write_bytes(compress((tmp_path / "whole.parquet").read_bytes()))
    assert [row for _, row in rows.rows(file_of(path), ["text"])] == [{"text": "a"}, {"text": "b"}]


# --------------------------------------------------------------------------------------------------
# Text

@pytest.mark.parametrize("content, documents", [
    ("a\nb\nc", ["a", "b", "c"]), ("a\r\nb\r\n", ["a", "b"]),
    ("a\nb\n\nc\n", ["a\nb", "c\n"]), ("a\r\n\r\nb", ["a", "b"]),
])
def test_text_is_cut_at_empty_lines_where_it_has_some_else_at_each_line(tmp_path, content,
                                                                        documents):
    assert list(rows.documents(file_of(tmp_path / "a.txt", content))) == documents


LINES = [f"document {i}" for i in range(400)]


@pytest.mark.parametrize("content", [
    "\n".join(LINES), "\n".join(LINES) + "\n\n", "\n\n" + "\n".join(LINES),
    "\n".join([*LINES[:50], "", *LINES[50:]]), "\r".join([*LINES[:50], " ", *LINES[50:]])])
def test_an_empty_line_somewhere_does_not_make_one_document_of_many_lines(tmp_path, content):
    documents = rows.documents(file_of(tmp_path / "a.txt", content))
    assert [text for text in documents if text.strip()] == LINES


@pytest.mark.parametrize("end", ["\n\n", "\n \t\n", "\r\n\r\n", "\r\r", "\n\u00a0\n"])
def test_a_line_of_white_space_is_empty_whatever_ends_it(tmp_path, end):
    content = end.join(f"paragraph {i}\nof two lines" for i in range(40))
    documents = list(rows.documents(file_of(tmp_path / "a.txt", content)))
    assert documents == [f"paragraph {i}\nof two lines" for i in range(40)]


def test_a_paragraph_is_whole_wherever_the_reader_pauses(tmp_path, monkeypatch):
    content = "\n\n".join(f"paragraph {i}\nof two lines" for i in range(40))
    for characters in (1, 2, 3, 7, 1000):
        monkeypatch.setattr(rows, "CHARACTERS", characters)
        assert list(rows.documents(file_of(tmp_path / "a.txt", content))) == content.split("\n\n")


def test_what_is_not_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.txt is not text: it holds NUL"):
        list(rows.documents(file_of(tmp_path / "a.txt", b"\x7fELF\0\0\1\2")))
    with pytest.raises(UserError, match="b.txt is not UTF-8"):
        list(rows.documents(file_of(tmp_path / "b.txt", "caf\u00e9".encode("latin-1"))))
