"""gluerows.py: the examples in GLUE's files, and what is said of a line or row that is wrong."""
import gzip
import json

from plumbing import gluefiles, gluerows
from plumbing.files import File, kind_of
from program.cli import UserError

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

RTE, MRPC, STSB, QQP = (gluefiles.GLUE[name] for name in ("rte", "mrpc", "stsb", "qqp"))
RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


@pytest.fixture
def file(tmp_path):
    """file(name, contents) -> a File with these contents: bytes, a text, or rows."""
    def make(name, contents):
        path = tmp_path / name
        if name.endswith(".parquet"):
            parquet.write_table(pa.Table.from_pylist(contents), path)
        else:
            if isinstance(contents, list):
                contents = "".join(json.dumps(row) + "\n" for row in contents)
            path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return File(path, kind_of(name), None)
    return make


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n", "\r\n\r\n\n", "\n\n\n\n"])
def test_empty_lines_at_the_end_of_a_tsv_are_nothing(file, end):
    tsv = file("train.tsv", RTE_HEADER + "0\ta\tb\tentailment\n1\tc \td\tnot_entailment" + end)
    assert gluerows.read_tsv(tsv, RTE, True) == [("a", "b", 0), ("c ", "d", 1)]


@pytest.mark.parametrize("middle", ["\n", "\r\n", "\n\n"])
def test_an_empty_line_within_a_tsv_is_an_error(file, middle):
    line = "0\ta\tb\tentailment\n"
    with pytest.raises(UserError, match="train.tsv, line 3: 1 columns where 4"):
        gluerows.read_tsv(file("train.tsv", RTE_HEADER + line + middle + line), RTE, True)


def test_a_compressed_tsv_is_read(file):
    contents = gzip.compress((RTE_HEADER + "0\ta\tb\tentailment\n").encode())
    assert gluerows.read_tsv(file("train.tsv.gz", contents), RTE, True) == [("a", "b", 0)]
    with pytest.raises(UserError, match="train.tsv.gz cannot be read"):
        gluerows.read_tsv(file("train.tsv.gz", contents[:20]), RTE, True)


def test_a_column_of_a_tsv_that_is_there_twice_is_an_error_that_names_it(file):
    tsv = file("train.tsv", "label\tsentence1\tsentence1\tsentence2\nentailment\ta\tb\tc\n")
    with pytest.raises(UserError, match="train.tsv, line 1: the column 'sentence1' is there twice"):
        gluerows.read_tsv(tsv, RTE, True)
    others = file("dev.tsv", "id\tid\tlabel\tsentence1\tsentence2\n1\t1\tentailment\ta\tb\n")
    assert gluerows.read_tsv(others, RTE, True) == [("a", "b", 0)]  # nobody reads these


def qqp_with(cut, whole):
    lines = [f"{i}\t2\t3\twhat {i}?\twhich?\t1\n" for i in range(whole)]
    return QQP_HEADER + "".join(lines[:1] + ["4\t5\t6\thow\n"] * cut + lines[1:])


def test_cut_lines_of_qqp_are_left_out_and_counted_up_to_one_in_a_hundred(file, capsys):
    examples = gluerows.read_tsv(file("train.tsv", qqp_with(2, 198)), QQP, True)
    assert examples == [(f"what {i}?", "which?", 1) for i in range(198)]
    out = capsys.readouterr().out
    assert "train.tsv: 2 of 200 lines are cut off" in out and "left out" in out
    with pytest.raises(UserError, match="train.tsv: 3 of 200 lines are cut off.*more than 1%"):
        gluerows.read_tsv(file("train.tsv", qqp_with(3, 197)), QQP, True)
    assert gluerows.read_tsv(file("train.tsv", qqp_with(0, 2)), QQP, True)[1][0] == "what 1?"
    assert capsys.readouterr().out == ""


def rows_of_mrpc(**changes):
    """Three rows with the hub's columns, of which the third is changed."""
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": i % 2, "idx": i}
            for i in range(3)]
    rows[2] |= changes
    return rows


def read(file, form=MRPC, is_labelled=True):
    return gluerows.read_files("mrpc train", [file], form, is_labelled)


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.json"])
def test_rows_have_the_hubs_columns_and_others_do_not_matter(file, name):
    rows = rows_of_mrpc()
    contents = json.dumps(rows) if name == "t.json" else rows
    assert read(file(name, contents)) == [("a0", "b0", 0), ("a1", "b1", 1), ("a2", "b2", 0)]


def test_a_csv_may_have_commas_quotes_and_lines_in_a_text(file):
    csv = file("t.csv", 'idx,sentence2,label,sentence1\n0,"b, ""b""",1,null\n1,"c\nd",0,12\n')
    assert read(csv) == [("null", 'b, "b"', 1), ("12", "c\nd", 0)]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
@pytest.mark.parametrize("form, label, number", [
    (RTE, "not_entailment", 1), (RTE, "entailment", 0), (RTE, "1", 1), (RTE, 1, 1), (RTE, 1.0, 1),
    (MRPC, "equivalent", 1), (MRPC, "0", 0), (gluefiles.GLUE["wnli"], "not_entailment", 0)])
def test_a_label_may_be_the_hubs_number_or_name(file, name, form, label, number):
    row = {"sentence1": "a", "sentence2": "b", "label": label}
    assert read(file(name, [row]), form) == [("a", "b", number)]


def test_a_score_is_a_number_of_the_same_value(file):
    table = pa.table({"sentence1": ["a", "a"], "sentence2": ["b", "b"],
                      "label": pa.array([3.8, 5], pa.float32())})
    path = file("t.parquet", rows_of_mrpc()).path
    parquet.write_table(table, path)
    scores = [label for *_, label in read(File(path, "parquet", None), STSB)]
    assert scores == table["label"].to_pylist() and all(type(score) is float for score in scores)
    row = {"sentence1": "a", "sentence2": "b", "label": 3}
    [(*_, score)] = read(file("t.jsonl", [row]), STSB)
    assert score == 3.0 and type(score) is float


def test_the_labels_of_a_test_set_do_not_matter(file):
    rows = [{"sentence1": "x", "sentence2": "y", "label": -1}]
    assert read(file("t.parquet", rows), is_labelled=False) == [("x", "y", None)]
    del rows[0]["label"]
    assert read(file("t.jsonl", rows), is_labelled=False) == [("x", "y", None)]


@pytest.mark.parametrize("changes, message", [
    ({"sentence1": None}, "row 2: sentence1 is null, no text"),
    ({"sentence2": None}, "row 2: sentence2 is null, no text"),
    ({"label": None}, "row 2: label is null, no label"),
    ({"label": -1}, r"row 2: label is -1, none of 0 \(not_equivalent\), 1 \(equivalent\)"),
    ({"label": 2}, "row 2: label is 2, none of 0")])
@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_a_wrong_row_is_named_with_task_part_and_row(file, name, changes, message):
    place = f"{name}, (row 2 counted from 0|line 3)"
    with pytest.raises(UserError, match=f"^mrpc train, {message}.*{place}"):
        read(file(name, rows_of_mrpc(**changes)))


@pytest.mark.parametrize("changes, message", [
    ({"sentence1": float("nan")}, "sentence1 is a number, no text"),
    ({"sentence1": 7}, "sentence1 is a number, no text"),
    ({"sentence1": ["a"]}, "sentence1 is a list, no text"),
    ({"sentence1": "a \ud83d"}, "sentence1 holds half a character"),
    ({"label": float("nan")}, "label is nan, none of"),
    ({"label": True}, "label is True, none of"),
    ({"label": "maybe"}, "label is maybe, none of"), ({"label": 0.5}, "label is 0.5, none of"),
    ({"label": [1]}, "none of"), ({"label": ""}, "none of")])
def test_a_value_of_another_type_is_named(file, changes, message):
    with pytest.raises(UserError, match=f"mrpc train, row 2: .*{message}"):
        read(file("t.jsonl", rows_of_mrpc(**changes)))


@pytest.mark.parametrize("label, message", [
    (None, "label is null"), (-1.0, "score '-1.0' is not a number from 0 to 5"),
    (float("nan"), "score 'nan'"), (5.1, "score '5.1'")])
def test_a_score_out_of_range_is_named(file, label, message):
    with pytest.raises(UserError, match=f"mrpc train, row 2.*{message}"):
        read(file("t.jsonl", rows_of_mrpc(label=label)), STSB)


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.csv"])
def test_a_missing_column_is_named_with_those_that_are_there(file, name):
    rows = [{"text1": "a", "sentence2": "b", "label": 0}]
    contents = "text1,sentence2,label\na,b,0\n" if name == "t.csv" else rows
    with pytest.raises(UserError, match="no column sentence1, but text1, sentence2, label"):
        read(file(name, contents))


def test_a_row_of_json_may_lack_a_column_and_is_named(file):
    rows = rows_of_mrpc()
    del rows[1]["sentence2"]
    with pytest.raises(UserError, match="mrpc train, row 1: there is no sentence2"):
        read(file("t.jsonl", rows))


def test_a_part_without_rows_is_an_error(file):
    empty = file("t.jsonl", "")
    with pytest.raises(UserError, match="mrpc train is empty"):
        read(empty)
    rows = file("u.jsonl", rows_of_mrpc())
    assert len(gluerows.read_files("mrpc train", [empty, rows, rows], MRPC, True)) == 6
    schema = pa.schema({"sentence1": pa.string(), "sentence2": pa.string(), "label": pa.int64()})
    parquet.write_table(schema.empty_table(), empty.path)
    with pytest.raises(UserError, match="mrpc train is empty"):
        read(File(empty.path, "parquet", None))


def test_a_file_that_is_not_what_its_name_says_is_named(file):
    with pytest.raises(UserError, match="t.parquet cannot be read"):
        read(File(file("t.bin", "version https://git-lfs.github.com").path.rename(
            file("t.parquet", rows_of_mrpc()).path), "parquet", None))


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.jsonl", "t.csv"])
def test_a_column_that_is_there_twice_is_an_error(file, name):
    contents = {"t.csv": "sentence1,sentence2,label,label\na,b,0,1\n",
                "t.jsonl": '{"sentence1": "a", "sentence2": "b", "label": 0, "label": 1}\n'}
    doubled = file(name, contents.get(name, []))
    table = pa.table([["a"], ["b"], [0], [1]], ["sentence1", "sentence2", "label", "label"])
    if name == "t.parquet":
        parquet.write_table(table, doubled.path)
    if name == "t.arrow":
        write_arrow(table, doubled.path)
    with pytest.raises(UserError, match=f"{name}.* is there twice"):
        read(doubled)


# --------------------------------------------------------------------------------------------------
# The order of the labels


def write_arrow(table, path):
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


def described(names):
    """How the library `datasets` says that a column has these labels."""
    label = {"names": names, "_type": "ClassLabel"}
    return {"features": {"sentence1": {"dtype": "string", "_type": "Value"}, "label": label}}


def file_with_names(folder, kind, labels, names, beside=None):
    """A File with one example for each label. names: those of the labels in its schema."""
    table = pa.table({"sentence1": ["a"] * len(labels), "sentence2": ["b"] * len(labels),
                      "label": labels})
    if names:
        info = json.dumps({"info": described(names)})
        table = table.replace_schema_metadata({"huggingface": info})
    path = folder / f"t.{kind}"
    {"parquet": parquet.write_table, "arrow": write_arrow}[kind](table, path)
    if beside:
        (folder / "dataset_info.json").write_text(json.dumps(described(beside)))
    return File(path, kind, None)


MNLI = gluefiles.GLUE["mnli"]._replace(hub_columns=("sentence1", "sentence2", "label"))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("form, names, numbers", [
    (RTE, ["not_entailment", "entailment"], [1, 0]),
    (RTE, ["entailment", "not_entailment"], [0, 1]),
    (RTE, ["0", "1"], [0, 1]), (RTE, None, [0, 1]),
    (MNLI, ["contradiction", "entailment", "neutral"], [2, 0, 1]),
    (MRPC, ["equivalent", "not_equivalent"], [1, 0]), (MRPC, ["1", "0"], [1, 0]),
    (gluefiles.GLUE["wnli"], ["entailment", "not_entailment"], [1, 0])])
def test_a_stored_number_means_the_name_that_the_file_gives_it(tmp_path, kind, form, names,
                                                               numbers):
    stored = file_with_names(tmp_path, kind, list(range(len(numbers))), names)
    assert [label for *_, label in read(stored, form)] == numbers


def test_the_names_may_stand_beside_the_file(tmp_path):
    order = ["not_entailment", "entailment"]
    stored = file_with_names(tmp_path, "arrow", [0, 1], None, beside=order)
    assert [label for *_, label in read(stored, RTE)] == [1, 0]
    (tmp_path / "t.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 0}\n')
    assert read(File(tmp_path / "t.jsonl", "json", None), RTE) == [("a", "b", 1)]
    stored = file_with_names(tmp_path, "arrow", [0, 1], order[::-1])
    with pytest.raises(UserError, match="t.arrow calls the labels entailment, not_entailment, and "
                                        ".*dataset_info.json calls them not_entailment, entail"):
        read(stored, RTE)
    (tmp_path / "dataset_info.json").write_text('{"features": null}')
    assert [label for *_, label in read(stored, RTE)] == [0, 1]


def test_a_name_means_itself_whatever_the_order(tmp_path):
    stored = file_with_names(tmp_path, "parquet", ["entailment", "not_entailment"],
                             ["not_entailment", "entailment"])
    assert [label for *_, label in read(stored, RTE)] == [0, 1]


@pytest.mark.parametrize("form, names, message", [
    (RTE, ["no", "yes"], "are called no, yes, and wanted are entailment, not_entailment"),
    (RTE, ["entailment"], "are called entailment, and wanted are"),
    (RTE, ["1", "0"], "are called 1, 0, and wanted are"),
    (MRPC, ["entailment", "not_entailment"], "wanted are not_equivalent, equivalent"),
    (STSB, ["0.0", "0.2"], "are called 0.0, 0.2, and wanted are scores from 0 to 5")])
def test_other_names_are_refused_in_one_line(tmp_path, form, names, message):
    stored = file_with_names(tmp_path, "parquet", [0, 0], names)
    with pytest.raises(UserError, match=f"mrpc train .*t.parquet.*{message}") as failure:
        read(stored, form)
    assert "\n" not in str(failure.value)
    examples = read(stored, form, is_labelled=False)  # a test set's labels do not matter
    assert examples == [("a", "b", None)] * 2


def test_a_number_that_no_label_has_is_named_with_the_stored_order(tmp_path):
    stored = file_with_names(tmp_path, "parquet", [0, 2], ["not_entailment", "entailment"])
    with pytest.raises(UserError, match=r"none of 0 \(not_entailment\), 1 \(entailment\)"):
        read(stored, RTE)


def test_the_library_writes_the_names_where_they_are_looked_for(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["not_entailment", "entailment"])
    text = datasets.Value("string")
    features = datasets.Features({"sentence1": text, "sentence2": text, "label": names})
    columns = {"sentence1": ["a", "c"], "sentence2": ["b", "d"],
               "label": ["not_entailment", "entailment"]}
    split = datasets.Dataset.from_dict(columns, features=features)
    split.save_to_disk(tmp_path / "saved")
    split.to_parquet(tmp_path / "t.parquet")
    wanted = [("a", "b", 1), ("c", "d", 0)]  # 1 is not_entailment
    saved = tmp_path / "saved" / "data-00000-of-00001.arrow"
    assert read(File(saved, "arrow", None), RTE) == wanted
    assert read(File(tmp_path / "t.parquet", "parquet", None), RTE) == wanted
    assert gluerows.read_hub("rte train", split, RTE, True) == wanted
    with pytest.raises(UserError, match="rte train: the labels are called not_entailment, enta"):
        gluerows.read_hub("rte train", split, MRPC, True)
