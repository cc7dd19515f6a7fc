"""gluefiles.py: GLUE's files with their quirks, from the official download and from the hub's layout."""
import json
from pathlib import Path

from plumbing import gluefiles
from plumbing.cli import UserError

import pytest

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "glue_data"


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def glue(tmp_path):
    """Small files of the official shape, quirks and all."""
    write(tmp_path, "CoLA/train.tsv", 'gj04\t1\t\tIt "works.\ngj04\t0\t*\tWork it does not\n')     # no header; one quote is text
    write(tmp_path, "CoLA/dev.tsv", "gj04\t1\t\tFine.\n")
    write(tmp_path, "CoLA/test.tsv", "index\tsentence\n0\tA test.\n1\tAnother.\n")                     # test has a header
    mrpc = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"                                       # byte-order mark
    write(tmp_path, "MRPC/train.tsv", mrpc + '1\t10\t11\tHe said " no .\tShe said no .\r\n0\t12\t13\ta\tb\r\n')
    write(tmp_path, "MRPC/dev.tsv", mrpc + "0\t12\t13\tc\u2028d\te\x85f\n")                            # signs that Python takes for line ends
    write(tmp_path, "MRPC/test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tx\ty\n")
    for part in ("train", "dev"):
        write(tmp_path, f"RTE/{part}.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n")
        write(tmp_path, f"STS-B/{part}.tsv", "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t3.800\n")
    write(tmp_path, "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment\n")        # and no train
    return tmp_path


def parts(glue, name):
    return gluefiles.glue_from_folder(name, glue).parts


def test_cola_has_no_header_but_in_test_and_quotes_are_text(glue):
    assert parts(glue, "cola") == {"train": [('It "works.', None, 1), ("Work it does not", None, 0)], "dev": [("Fine.", None, 1)],
                                   "test": [("A test.", None, None), ("Another.", None, None)]}


def test_mrpc_has_a_byte_order_mark_and_a_line_ends_at_newlines_only(glue):
    assert parts(glue, "mrpc")["train"] == [('He said " no .', "She said no .", 1), ("a", "b", 0)]
    assert parts(glue, "mrpc")["dev"] == [("c\u2028d", "e\x85f", 0)]


def test_labels_are_numbers_by_the_hubs_order_and_scores_are_scores(glue):
    assert [label for *_, label in parts(glue, "rte")["train"]] == [1, 0]  # the hub: 0 is entailment
    assert parts(glue, "stsb")["dev"] == [("a", "b", 3.8)]


def test_a_missing_task_is_an_error_by_name_and_skipped_among_all(glue):
    with pytest.raises(UserError, match="QNLI.*train.tsv is missing"):
        glue.load(str(glue), "qnli")
    found, skipped = glue.load(str(glue), "all")
    assert [task.name for task in found] == ["cola", "mrpc", "stsb", "rte"]
    assert len(skipped) == 5 and any("QNLI" in line for line in skipped)


@pytest.mark.parametrize("file, text, message", [
    ("RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\tentailment\n", "line 3: 3 columns where 4"),
    ("RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n", "line 2: the label 'maybe'"),
    ("RTE/train.tsv", "index\tsentence1\tsentence3\tlabel\n0\ta\tb\tentailment\n", "line 1 has no column sentence2"),
    ("RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n", "is empty"), ("RTE/dev.tsv", "", "line 1 has no column"),
    ("RTE/dev.tsv", b"index\tsentence1\tsentence2\tlabel\n0\ta\xff\tb\tentailment\n", "line 2: no UTF-8 text"),
    ("STS-B/train.tsv", "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t7\n", "line 2: the score '7'"),
    ("CoLA/train.tsv", "gj04\t2\t\tIt works.\n", "line 1: the label '2'")])
def test_a_damaged_file_is_named_with_its_line(glue, file, text, message):
    write(glue, file, text)
    name = {"RTE": "rte", "STS-B": "stsb", "CoLA": "cola"}[file.split("/")[0]]
    with pytest.raises(UserError, match=message):
        glue.load(str(glue), name)
    with pytest.raises(UserError, match=message):
        glue.load(str(glue), "all")  # damaged is not missing


def test_unknown_tasks_and_no_tasks_are_refused(glue, tmp_path_factory):
    with pytest.raises(UserError, match="'sst3' is no task"):
        glue.load(str(glue), "sst3")
    with pytest.raises(UserError, match="'rte' is no task of stories: acceptability"):
        glue.load("stories", "rte")
    with pytest.raises(UserError, match="can be read"):
        glue.load(str(tmp_path_factory.mktemp("empty")), "all")


def test_the_hubs_layout_gives_the_same_examples(tmp_path):
    # A data set of the hub is a folder of files, one configuration a task; numbers for labels, -1 in test.
    pytest.importorskip("datasets")
    def rows(name, split, records):
        write(tmp_path, f"{name}/{split}.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    for split in ("train", "validation"):
        rows("mrpc", split, [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}])
        rows("stsb", split, [{"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}])
    rows("mrpc", "test", [{"sentence1": "x", "sentence2": "y", "label": -1, "idx": 0}])
    rows("stsb", "test", [{"sentence1": "x", "sentence2": "y", "label": -1.0, "idx": 0}])
    write(tmp_path, "README.md", "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n" + "".join(f"  - split: {split}\n    path: {name}/{split}.jsonl\n" for split in ("train", "validation", "test"))
        for name in ("mrpc", "stsb")) + "---\n")
    found, skipped = glue.load(str(tmp_path), "mrpc,stsb")
    assert found[0].parts == {"train": [("a", "b", 1)], "dev": [("a", "b", 1)], "test": [("x", "y", None)]}
    assert found[1].parts["dev"] == [("a", "b", 2.5)] and not skipped


def test_the_diagnostic_set_is_answered_by_the_model_of_mnli(glue):
    columns = "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    for part in ("train", "dev_matched", "dev_mismatched"):
        write(glue, f"MNLI/{part}.tsv", columns + "0\t1\ta\tb\tneutral\tcontradiction\n")
    write(glue, "diagnostic/diagnostic.tsv", "index\tsentence1\tsentence2\n0\tp\tq\n")
    task = gluefiles.glue_from_folder("mnli", glue)
    assert task.parts["train"] == [("a", "b", 2)] and task.parts["diagnostic"] == [("p", "q", None)]
    assert task.submissions["diagnostic"] == ("AX.tsv", 1104) and task.spell(1.0) == "neutral"


def test_the_leaderboard_gets_names_numbers_and_scores_from_0_to_5(glue):
    assert gluefiles.glue_from_folder("rte", glue).spell(1.0) == "not_entailment"
    assert gluefiles.glue_from_folder("cola", glue).spell(1.0) == "1"
    assert [gluefiles.glue_from_folder("stsb", glue).spell(value) for value in (-0.2, 3.14159, 6)] == ["0.000", "3.142", "5.000"]


@pytest.mark.parametrize("name, train, dev, test", [("cola", 8551, 1043, 1063), ("sst2", 67349, 872, 1821), ("mrpc", 3667, 408, 1725),
                                                    ("stsb", 5749, 1500, 1379), ("rte", 2490, 277, 3000), ("wnli", 635, 71, 146)])
def test_the_real_files_have_their_known_sizes(name, train, dev, test):
    if not REAL.is_dir():
        pytest.skip("GLUE's real files are not here")
    task = gluefiles.glue_from_folder(name, REAL)
    assert [len(task.parts[part]) for part in ("train", "dev", "test")] == [train, dev, test]
    assert [rows for _, rows in task.submissions.values()] == [test]  # what the leaderboard wants


def test_the_majority_answer_is_the_training_sets_most_frequent_label(glue):
    task = gluefiles.glue_from_folder("mrpc", glue)
    assert task.majority["dev"] == {"accuracy": 0.0, "f1": 0.0}  # always 1 (the first of two equally frequent), and dev has a 0
