"""gluefiles.py: GLUE's files with their quirks, in the official download's layout and in the hub's;
what is refused, and in which words; and which fine-tunings are finished."""
import json

from files import disk, gluefiles
from files.gluefiles import Missing
from program.cli import UserError

import pyarrow as pa
import pytest
from pyarrow import parquet

from world import tasks as world_tasks

RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
RTE_LINES = RTE_HEADER + "0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n"
STSB_HEADER = "index\tgenre\tsentence1\tsentence2\tscore\n"
MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


def write(folder, name, contents):
    """Writes a text, bytes, or a table as Parquet."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, pa.Table):
        parquet.write_table(contents, path)
    else:
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)


@pytest.fixture
def glue(tmp_path):
    """Small files of the official shape, quirks and all."""
    mrpc, mnli = "\ufeff" + MRPC_HEADER, "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    files = {
        # CoLA has a header in the test set only, and a single quote is text.
        "CoLA/train": 'gj04\t1\t\tIt "works.\ngj04\t0\t*\tWork it does not\n',
        "CoLA/dev": "gj04\t1\t\tFine.\n", "CoLA/test": "index\tsentence\n0\tA test.\n",
        # MRPC begins with a byte-order mark, and has characters that Python takes for line ends.
        "MRPC/train": mrpc + '1\t10\t11\tHe said " no .\tShe said no .\r\n0\t12\t13\ta\tb\r\n',
        "MRPC/dev": mrpc + "0\t12\t13\tc\u2028d\te\x85f\n",
        "RTE/train": RTE_LINES, "RTE/dev": RTE_LINES,
        **dict.fromkeys(("STS-B/train", "STS-B/dev"), STSB_HEADER + "0\tnews\ta\tb\t3.800\n"),
        **dict.fromkeys(("MNLI/train", "MNLI/dev_matched", "MNLI/dev_mismatched"),
                        mnli + "0\t1\ta\tb\tneutral\tcontradiction\n"),
        "diagnostic/diagnostic": "index\tsentence1\tsentence2\n0\tp\tq\n",
        "QNLI/dev": "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment\n"}  # and no train
    for name, lines in files.items():
        write(tmp_path, f"{name}.tsv", lines)
    return tmp_path


def load_tasks(data, names):
    return gluefiles.load_tasks(str(data), names, world_tasks.examples)


def parts(data, name):
    [task], skipped = load_tasks(data, name)
    assert task.name == name and not skipped
    return task.parts


def refused(data, name, message):
    """The task is refused with this message, alone and among all: damaged is not missing."""
    for names in (name, "all"):
        with pytest.raises(UserError, match=message) as failure:
            load_tasks(data, names)
        assert not isinstance(failure.value, Missing) and "\n" not in str(failure.value)


@pytest.mark.parametrize("name, part, examples", [
    ("cola", "train", [('It "works.', None, 1), ("Work it does not", None, 0)]),
    ("mrpc", "train", [('He said " no .', "She said no .", 1), ("a", "b", 0)]),
    ("mrpc", "dev", [("c\u2028d", "e\x85f", 0)]),
    ("rte", "dev", [("a", "b", 1), ("c", "d", 0)]),  # on the hub 0 is entailment
    ("stsb", "dev", [("a", "b", 3.8)]), ("mnli", "dev_mismatched", [("a", "b", 2)])])
def test_the_official_files_are_read_with_their_quirks(glue, name, part, examples):
    assert parts(glue, name)[part] == examples


def test_empty_lines_at_the_end_are_nothing_and_columns_that_nobody_reads_do_not_matter(glue):
    lines = "id\tid\tlabel\tsentence1\tsentence2\n1\t1\tentailment\ta\tb\n1\t1\tentailment\tc \td"
    write(glue, "RTE/train.tsv", lines + "\r\n\r\n\n")
    assert parts(glue, "rte")["train"] == [("a", "b", 0), ("c ", "d", 0)]


@pytest.mark.parametrize("file, text, message", [
    ("RTE/train.tsv", RTE_LINES + "2\tc\tentailment\n", "line 4: 3 columns where 4"),
    ("RTE/train.tsv", RTE_LINES + "2\ta\tb\t0", "line 4: the label '0' is none of entailment, n"),
    ("RTE/train.tsv", RTE_LINES.replace("sentence2", "sentence3"),
     "line 1 should name the columns sentence1, sentence2, label, once each, and names index, se"),
    ("RTE/train.tsv", RTE_LINES.replace("index", "sentence1"), "line 1 should .* once each"),
    ("RTE/dev.tsv", RTE_HEADER, "the part dev is empty"), ("RTE/dev.tsv", "", "and names none"),
    ("RTE/dev.tsv", RTE_LINES.encode() + b"0\ta\xff", "dev.tsv is damaged: it is not UTF-8"),
    ("STS-B/dev.tsv", STSB_HEADER + "0\tnews\ta\tb\t7\n", "line 2: the label '7' is none of the"),
    ("CoLA/train.tsv", "gj04\t2\t\tIt works.\n", "line 1: the label '2' is none of 0, 1")])
def test_a_damaged_file_is_named_with_its_line(glue, file, text, message):
    write(glue, file, text)
    refused(glue, gluefiles.plain(file.split("/")[0]), f"{glue}/{file.split('/')[0]}.*{message}")


def test_cut_lines_of_qqp_are_left_out_and_counted_up_to_one_in_a_hundred(glue, capsys):
    lines = [f"{i}\t2\t3\twhat {i}?\twhich?\t1\n" for i in range(198)]
    cut = ["4\t5\t6\thow\n", "many?\thow?\t0\n"]
    write(glue, "QQP/train.tsv", QQP_HEADER + "".join(lines))
    write(glue, "QQP/dev.tsv", QQP_HEADER + "".join(lines[:9] + cut + lines[9:]))
    assert parts(glue, "qqp")["dev"] == [(f"what {i}?", "which?", 1) for i in range(198)]
    said = f"{glue}/QQP/dev.tsv: 2 of 200 lines are cut off and have too few columns: they are left"
    out = capsys.readouterr().out
    assert said in out and "train.tsv" not in out
    write(glue, "QQP/dev.tsv", QQP_HEADER + "".join(lines[1:] + cut[:1] + cut))
    refused(glue, "qqp", "dev.tsv: 3 of 200 lines are cut off.*: download the file again")


# The hub's rows of two tasks. Labels are numbers, and in a test set they are -1.
TRAIN, DEV = [("a", "b", 1), ("c", "d", 0)], [("a", "b", 1)]
HUB = {"mrpc": {"train": TRAIN, "validation": DEV, "test": [("x", "y", -1)]},
       "stsb": {"train": [("a", "b", 2.5)], "validation": [("e", "f", 3.8)],
                "test": [("x", "y", -1.0)]}}


def table(examples, names=None):
    """An Arrow table with the hub's columns. names: of the labels, as `datasets` writes them into
    the schema."""
    made = pa.Table.from_pylist([{"sentence1": a, "sentence2": b, "label": label, "idx": i}
                                 for i, (a, b, label) in enumerate(examples)])
    info = {"features": {"label": {"names": names, "_type": "ClassLabel"}}}
    described = {"huggingface": json.dumps({"info": info})}
    return made.replace_schema_metadata(described if names else None)


def write_hub(folder, tasks=HUB):
    """A data set of the hub: a folder for each task."""
    for name, splits in tasks.items():
        ending = "-0123456789abcdef" if name == "stsb" else ""  # of older data sets
        for split, examples in splits.items():
            write(folder, f"{name}/{split}-00000-of-00001{ending}.parquet", table(examples))
    return folder


def test_the_hubs_files_are_read_with_their_numbers_as_labels(tmp_path):
    tasks, skipped = load_tasks(write_hub(tmp_path), "mrpc,stsb")
    assert tasks[0].parts == {"train": TRAIN, "dev": DEV}
    assert tasks[1].parts["dev"] == [("e", "f", 3.8)] and not skipped
    # The checksum of these examples in every glue.json since the first version.
    assert [task.fingerprint for task in tasks] == ["80adbab684999acceec55316",
                                                    "c72cf74f24c0adce3f113bb1"]


def write_parts(folder, name, contents):
    """The training set of a task in the hub's layout, and a validation set that is right."""
    write(folder, f"{name}/train-00000-of-00001.parquet", contents)
    write(folder, f"{name}/validation-00000-of-00001.parquet", table(DEV))


YES_NO, NO_YES = ["entailment", "not_entailment"], ["not_entailment", "entailment"]


@pytest.mark.parametrize("name, stored, names, numbers", [
    ("rte", [0, 1], None, [0, 1]), ("rte", [0, 1], ["0", "1"], [0, 1]),
    ("rte", [0, 1], YES_NO, [0, 1]), ("rte", pa.array([0, 1], pa.int8()), NO_YES, [1, 0]),
    ("mrpc", [0, 1], ["equivalent", "not_equivalent"], [1, 0]), ("wnli", [0, 1], YES_NO, [1, 0]),
    ("rte", NO_YES, YES_NO, [1, 0]), ("wnli", NO_YES, None, [0, 1]),  # a name means itself
    ("rte", ["1", "0"], None, [1, 0]), ("rte", [1.0, 0.0], None, [1, 0]),
    ("stsb", [3, 5], None, [3.0, 5.0])])
def test_a_stored_number_means_the_name_that_the_file_gives_it(tmp_path, name, stored, names,
                                                               numbers):
    made = table([("a", "b", 0), ("a", "b", 0)], names)
    made = made.set_column(2, "label", [stored]).replace_schema_metadata(made.schema.metadata)
    write_parts(tmp_path, name, made)
    labels = [label for *_, label in parts(tmp_path, name)["train"]]
    assert labels == numbers and [*map(type, labels)] == [*map(type, numbers)]


@pytest.mark.parametrize("name, contents, message", [
    ("mrpc", table([*TRAIN, ("c", None, 0)]), "row 2 counted from 0: sentence2 is null, no text"),
    ("mrpc", table([(7, "d", 0)]), "sentence1 is 7, no text"),
    *(("mrpc", table([("c", "d", label)]), f"row 0 .*: the label '{label}' is none of 0, 1, not_e")
      for label in (None, -1, 2, True, 0.5, "maybe")),
    *(("stsb", table([("c", "d", score)]), f"the label '{score}' is none of the scores fr")
      for score in (None, 5.1, float("nan"))),
    ("rte", table(TRAIN, ["1", "0"]), "are called 1, 0, and wanted are entailment, not_ent"),
    ("stsb", table([("a", "b", 0)], ["0.0", "0.2"]), "and wanted are scores from 0 to 5"),
    ("mrpc", table(TRAIN).rename_columns(["text1", "sentence2", "label", "idx"]),
     "should name the columns sentence1, sentence2, label, once each, and names text1, sentence2,"),
    ("mrpc", table(TRAIN).append_column("label", [[1, 0]]), "once each, and names sentence1, sent"),
    ("mrpc", b"version https://git-lfs.github.com", "parquet cannot be read .*file is whole")])
def test_a_wrong_file_or_row_of_the_hub_is_named(tmp_path, name, contents, message):
    write_parts(tmp_path, name, contents)
    refused(tmp_path, name, f"{tmp_path}/{name}.*{message}")


def test_shards_are_read_in_order_each_by_its_own_names(tmp_path):
    write(tmp_path, "rte/validation-00000-of-00001.parquet", table(DEV))
    for i, names in enumerate((YES_NO, NO_YES)):
        write(tmp_path, f"rte/train-0000{i}-of-00002.parquet", table([(f"a{i}", "b", 0)], names))
    assert parts(tmp_path, "rte") == {"train": [("a0", "b", 0), ("a1", "b", 1)], "dev": DEV}


def test_a_tasks_folder_is_found_whatever_its_case_and_punctuation(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path, f"R-t_E/{name}", RTE_LINES)
    for name in ("original/train.tsv", "msr_paraphrase_train.txt", ".train.jsonl"):  # as downloaded
        write(tmp_path, f"R-t_E/{name}", "x")
    write(tmp_path, ".rte/train.tsv", "x")
    assert set(parts(tmp_path, "rte")) == {"train", "dev"}


@pytest.mark.parametrize("names", ["all", "RTE"])
def test_a_tasks_own_folder_may_be_named(glue, monkeypatch, names):
    monkeypatch.chdir(glue / "RTE")
    (glue / "linked").mkdir()
    (glue / "linked" / "rte").symlink_to(glue / "RTE")
    for data in (glue / "RTE", ".", glue / "linked" / "rte"):
        tasks, skipped = load_tasks(data, names)
        assert [task.name for task in tasks] == ["rte"] and not skipped
    with pytest.raises(Missing, match="MRPC/train.tsv is missing"):
        load_tasks(glue / "RTE", "mrpc")  # RTE's columns have the same names


@pytest.mark.parametrize("extra", [
    "train.jsonl", "train.parquet", "train.tsv.gz", "val.jsonl", "TRAIN.TSV", "train-1.csv",
    "validation/0000.parquet"])
def test_other_layouts_are_refused_by_one_line_that_says_what_is_read(glue, extra):
    write(glue, f"RTE/{extra}", "x")  # beside the official files, which could be other examples
    refused(glue, "rte", f"/RTE/{extra}: GLUE is read from train.tsv and dev.tsv, or from the")


@pytest.mark.parametrize("part, names", [
    ("dev", ["dev.tsv", "validation-00000-of-00002.parquet"]),
    ("train", ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"]),
    ("train", ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"]),
    ("train", ["train-00001-of-00002.parquet", "train-00002-of-00002.parquet"])])
def test_a_part_that_is_there_twice_or_not_wholly_is_an_error_that_names_it(glue, part, names):
    (glue / "RTE/train.tsv").unlink()
    for name in names:
        write(glue, f"RTE/{name}", RTE_LINES if name.endswith("tsv") else table(TRAIN))
    refused(glue, "rte", f"/RTE: wanted is {part}.tsv, or all .* there are {', '.join(names)}")


def test_two_folders_of_a_task_are_an_error_and_a_link_to_the_same_is_not(glue):
    (glue / "rte").symlink_to(glue / "RTE")
    assert len(parts(glue, "rte")["train"]) == 2
    write_hub(glue, {"mrpc": HUB["mrpc"]})
    refused(glue, "mrpc", "MRPC is there twice: .*/MRPC, .*/mrpc")


def test_a_missing_task_is_an_error_by_name_and_skipped_among_all(glue):
    with pytest.raises(Missing, match="^QNLI: .*/QNLI/train.tsv is missing, and so is train-0"):
        load_tasks(glue, "qnli")
    tasks, skipped = load_tasks(glue, "all")
    assert [task.name for task in tasks] == ["cola", "mrpc", "stsb", "mnli", "rte"]
    assert load_tasks(glue, " RTE, sts-b,STS_B ,CoLA")[0] == [tasks[4], tasks[2], tasks[0]]
    assert [line.split(":")[0] for line in skipped] == ["SST-2", "QQP", "QNLI", "WNLI"]


@pytest.mark.parametrize("data, names, message", [
    (".", "rte,SST3", "--tasks rte,SST3: 'sst3' is no task of .: name some of cola, sst2, mrpc"),
    ("stories", "rte", "'rte' is no task of stories: name some of acceptability"),
    (".", "rte, All", "'all' is no task of .: name some of .*, or say all, alone"),
    ("glue.zip", "all", "glue.zip is no folder, and is no hub id"),
    ("diagnostic", "all", "diagnostic holds no task of GLUE that can be read: CoLA: .* missing")])
def test_what_names_no_task_is_refused(glue, monkeypatch, data, names, message):
    write(glue, "glue.zip", "PK")
    monkeypatch.chdir(glue)
    with pytest.raises(UserError, match=message):
        load_tasks(data, names)


def test_of_the_hub_the_wanted_tasks_are_downloaded_once(tmp_path, monkeypatch):
    asked, folder = [], write_hub(tmp_path / "0123abc", {**HUB, "rte": {"train": TRAIN}})
    monkeypatch.setattr("huggingface_hub.snapshot_download",
                        lambda *name, **options: asked.append((*name, options)) or str(folder))
    tasks, skipped = load_tasks("nyu-mll/glue", "all")
    assert [task.name for task in tasks] == ["mrpc", "stsb"] and len(skipped) == 7
    assert asked == [("nyu-mll/glue", {"repo_type": "dataset", "allow_patterns": [
        f"{name}/*.parquet" for name in gluefiles.GLUE]})]
    monkeypatch.undo()
    with pytest.raises(UserError, match="no folder some/glue, and the hub did not give a dataset"):
        load_tasks("some/glue", "all")


def test_what_a_constant_answer_scores(glue):
    tasks = {task.name: task for task in load_tasks(glue, "all")[0]}
    # Of two labels that are equally frequent it is the first, 1, and the one example of dev has 0.
    assert tasks["mrpc"].majority["dev"] == {"accuracy": 0.0, "f1": 0.0}
    # A constant answer correlates with nothing.
    assert tasks["stsb"].majority["dev"] == {"pearson": 0.0, "spearman": 0.0}


def test_the_fingerprint_is_of_the_training_set_and_of_what_is_scored(glue):
    def fingerprint_with(file, lines):
        write(glue, file, lines)
        return load_tasks(glue, "rte")[0][0].fingerprint
    before = fingerprint_with("RTE/dev.tsv", RTE_LINES)
    assert fingerprint_with("RTE/test.tsv", "index\tsentence1\tsentence2\n0\tp\tq\n") == before
    assert fingerprint_with("RTE/dev.tsv", RTE_HEADER + "0\ta\tb\tentailment\n") != before


def test_a_finished_cell_is_found_by_all_its_entries_in_a_file_that_is_whole(tmp_path):
    path, cell = tmp_path / "glue.json", {"task": "rte", "lr": 1e-4, "batch_size": 16, "seed": 0}
    finished = {**cell, "scores": {"dev": {"accuracy": 0.75}}, "seconds": 3.0}
    assert gluefiles.read_glue_json(path) == {"cells": []}  # without a file nothing is finished
    disk.write_json(path, {"cells": [finished]})
    kept = gluefiles.read_glue_json(path)
    assert gluefiles.finished_cell(kept, cell) == finished
    for other in ({"lr": 2e-4}, {"pool": "mean"}):
        assert gluefiles.finished_cell(kept, {**cell, **other}) is None
    # The same examples at another place are the same fine-tuning.
    assert gluefiles.finished_cell(kept, {**cell, "data": "/home/ann/glue_data/"}) == finished
    for cells in (None, {}, [1], [cell], [{**cell, "scores": 0.75}]):
        path.write_text(json.dumps({"cells": cells}))
        with pytest.raises(UserError, match="glue.json is damaged: remove it, and its cells"):
            gluefiles.read_glue_json(path)
