"""gluefiles.py: GLUE's files with their quirks, in the official download's layout and in the
hub's."""
import json
from pathlib import Path

from plumbing import gluefiles
from plumbing.cli import UserError

import pytest

from world import tasks as world_tasks

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "glue_data"
RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
STSB_HEADER = "index\tgenre\tsentence1\tsentence2\tscore\n"


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def glue(tmp_path):
    """Small files of the official shape, quirks and all."""
    # CoLA has a header in the test set only, and a single quote is text.
    write(tmp_path, "CoLA/train.tsv", 'gj04\t1\t\tIt "works.\ngj04\t0\t*\tWork it does not\n')
    write(tmp_path, "CoLA/dev.tsv", "gj04\t1\t\tFine.\n")
    write(tmp_path, "CoLA/test.tsv", "index\tsentence\n0\tA test.\n1\tAnother.\n")
    # MRPC begins with a byte-order mark, and has characters that Python takes for line ends.
    mrpc = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(tmp_path, "MRPC/train.tsv",
          mrpc + '1\t10\t11\tHe said " no .\tShe said no .\r\n0\t12\t13\ta\tb\r\n')
    write(tmp_path, "MRPC/dev.tsv", mrpc + "0\t12\t13\tc\u2028d\te\x85f\n")
    write(tmp_path, "MRPC/test.tsv",
          "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tx\ty\n")
    for part in ("train", "dev"):
        write(tmp_path, f"RTE/{part}.tsv",
              RTE_HEADER + "0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n")
        write(tmp_path, f"STS-B/{part}.tsv", STSB_HEADER + "0\tnews\ta\tb\t3.800\n")
    # QNLI has no training set.
    write(tmp_path, "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment\n")
    return tmp_path


def load_tasks(data, names):
    return gluefiles.load_tasks(data, names, world_tasks.examples)


def parts(glue, name):
    return gluefiles.glue_from_folder(name, glue).parts


def test_cola_has_no_header_but_in_test_and_quotes_are_text(glue):
    assert parts(glue, "cola") == {
        "train": [('It "works.', None, 1), ("Work it does not", None, 0)],
        "dev": [("Fine.", None, 1)],
        "test": [("A test.", None, None), ("Another.", None, None)]}


def test_mrpc_has_a_byte_order_mark_and_a_line_ends_at_newlines_only(glue):
    train = [('He said " no .', "She said no .", 1), ("a", "b", 0)]
    assert parts(glue, "mrpc")["train"] == train
    assert parts(glue, "mrpc")["dev"] == [("c\u2028d", "e\x85f", 0)]


def test_labels_are_numbers_by_the_hubs_order_and_scores_are_scores(glue):
    # On the hub 0 is entailment.
    assert [label for *_, label in parts(glue, "rte")["train"]] == [1, 0]
    assert parts(glue, "stsb")["dev"] == [("a", "b", 3.8)]


def test_a_missing_task_is_an_error_by_name_and_skipped_among_all(glue):
    with pytest.raises(UserError, match="QNLI.*train.tsv is missing"):
        load_tasks(str(glue), "qnli")
    tasks, skipped = load_tasks(str(glue), "all")
    assert [task.name for task in tasks] == ["cola", "mrpc", "stsb", "rte"]
    assert len(skipped) == 5 and any("QNLI" in line for line in skipped)


@pytest.mark.parametrize("file, text, message", [
    ("RTE/train.tsv", RTE_HEADER + "0\ta\tb\tentailment\n1\tc\tentailment\n",
     "line 3: 3 columns where 4"),
    ("RTE/train.tsv", RTE_HEADER + "0\ta\tb\tmaybe\n", "line 2: the label 'maybe'"),
    ("RTE/train.tsv", "index\tsentence1\tsentence3\tlabel\n0\ta\tb\tentailment\n",
     "line 1 has no column sentence2"),
    ("RTE/dev.tsv", RTE_HEADER, "is empty"),
    ("RTE/dev.tsv", "", "line 1 has no column"),
    ("RTE/dev.tsv", RTE_HEADER.encode() + b"0\ta\xff\tb\tentailment\n", "line 2: no UTF-8 text"),
    ("STS-B/train.tsv", STSB_HEADER + "0\tnews\ta\tb\t7\n", "line 2: the score '7'"),
    ("CoLA/train.tsv", "gj04\t2\t\tIt works.\n", "line 1: the label '2'")])
def test_a_damaged_file_is_named_with_its_line(glue, file, text, message):
    write(glue, file, text)
    name = {"RTE": "rte", "STS-B": "stsb", "CoLA": "cola"}[file.split("/")[0]]
    with pytest.raises(UserError, match=message):
        load_tasks(str(glue), name)
    with pytest.raises(UserError, match=message):
        load_tasks(str(glue), "all")  # damaged is not missing


def test_the_lines_of_qqp_that_were_cut_in_two_are_left_out(glue):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    whole = "1\t2\t3\twhat?\twhich?\t1\n"
    for part in ("train", "dev"):
        write(glue, f"QQP/{part}.tsv", header + whole + "4\t5\t6\thow\n" + "many?\thow?\t0\n")
    assert parts(glue, "qqp")["dev"] == [("what?", "which?", 1)]
    write(glue, "QQP/dev.tsv", header + whole.replace("1\n", "1\tmore\n"))
    with pytest.raises(UserError, match="line 2: 7 columns where 6"):
        parts(glue, "qqp")


def test_the_embedded_worlds_tasks_need_no_files():
    tasks, skipped = load_tasks("stories", "sentiment,acceptability")
    assert [task.name for task in tasks] == ["sentiment", "acceptability"] and not skipped
    sizes = {part: len(examples) for part, examples in tasks[0].parts.items()}
    assert sizes == world_tasks.SIZES and tasks[0].scored == ("dev", "test")
    assert tasks[0].parts["dev"] == world_tasks.examples("sentiment", "dev")


def test_unknown_tasks_and_no_tasks_are_refused(glue, tmp_path_factory):
    with pytest.raises(UserError, match="'sst3' is no task"):
        load_tasks(str(glue), "sst3")
    with pytest.raises(UserError, match="'rte' is no task of stories: acceptability"):
        load_tasks("stories", "rte")
    with pytest.raises(UserError, match="can be read"):
        load_tasks(str(tmp_path_factory.mktemp("empty")), "all")


def test_the_hubs_layout_gives_the_same_examples(tmp_path):
    # A data set of the hub is a folder of files, with one configuration for each task. Labels are
    # numbers, and in a test set they are -1.
    pytest.importorskip("datasets")
    names, splits = ("mrpc", "stsb"), ("train", "validation", "test")
    for name, label in (("mrpc", 1), ("stsb", 2.5)):
        for split in splits:
            example = {"sentence1": "a", "sentence2": "b", "label": label, "idx": 0}
            if split == "test":
                example |= {"sentence1": "x", "sentence2": "y", "label": type(label)(-1)}
            write(tmp_path, f"{name}/{split}.jsonl", json.dumps(example) + "\n")
    files = {name: [{"split": split, "path": f"{name}/{split}.jsonl"} for split in splits]
             for name in names}
    configs = [{"config_name": name, "data_files": files[name]} for name in names]
    # YAML takes JSON.
    write(tmp_path, "README.md", f"---\nconfigs: {json.dumps(configs)}\n---\n")
    tasks, skipped = load_tasks(str(tmp_path), "mrpc,stsb")
    assert tasks[0].parts == {"train": [("a", "b", 1)], "dev": [("a", "b", 1)],
                              "test": [("x", "y", None)]}
    assert tasks[1].parts["dev"] == [("a", "b", 2.5)] and not skipped


def test_the_diagnostic_set_is_answered_by_the_model_of_mnli(glue):
    columns = "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    for part in ("train", "dev_matched", "dev_mismatched"):
        write(glue, f"MNLI/{part}.tsv", columns + "0\t1\ta\tb\tneutral\tcontradiction\n")
    write(glue, "diagnostic/diagnostic.tsv", "index\tsentence1\tsentence2\n0\tp\tq\n")
    task = gluefiles.glue_from_folder("mnli", glue)
    assert task.parts["train"] == [("a", "b", 2)] and task.parts["diagnostic"] == [("p", "q", None)]
    assert task.submissions["diagnostic"] == ("AX.tsv", 1104) and task.spell(1.0) == "neutral"


def test_the_leaderboard_gets_names_numbers_and_scores_from_0_to_5(glue):
    rte, cola, stsb = (gluefiles.glue_from_folder(name, glue) for name in ("rte", "cola", "stsb"))
    assert rte.spell(1.0) == "not_entailment"
    assert cola.spell(1.0) == "1"
    assert [stsb.spell(value) for value in (-0.2, 3.14159, 6)] == ["0.000", "3.142", "5.000"]


@pytest.mark.parametrize("name, train, dev, test", [
    ("cola", 8551, 1043, 1063), ("sst2", 67349, 872, 1821), ("mrpc", 3667, 408, 1725),
    ("stsb", 5749, 1500, 1379), ("rte", 2490, 277, 3000), ("wnli", 635, 71, 146)])
def test_the_real_files_have_their_known_sizes(name, train, dev, test):
    if not REAL.is_dir():
        pytest.skip("GLUE's real files are not here")
    task = gluefiles.glue_from_folder(name, REAL)
    assert [len(task.parts[part]) for part in ("train", "dev", "test")] == [train, dev, test]
    assert [rows for _, rows in task.submissions.values()] == [test]  # what the leaderboard wants


def test_the_majority_answer_is_the_training_sets_most_frequent_label(glue):
    task = gluefiles.glue_from_folder("mrpc", glue)
    # Of two labels that are equally frequent it is the first, 1, and the one example of dev has 0.
    assert task.majority["dev"] == {"accuracy": 0.0, "f1": 0.0}


def test_a_constant_answer_correlates_with_nothing(glue):
    task = gluefiles.glue_from_folder("stsb", glue)
    assert task.majority["dev"] == {"pearson": 0.0, "spearman": 0.0}


def test_the_fingerprint_is_of_the_training_set_and_of_what_is_scored(glue):
    before = gluefiles.glue_from_folder("rte", glue).fingerprint
    write(glue, "RTE/test.tsv", "index\tsentence1\tsentence2\n0\tp\tq\n")
    assert gluefiles.glue_from_folder("rte", glue).fingerprint == before
    write(glue, "RTE/dev.tsv", RTE_HEADER + "0\ta\tb\tentailment\n")
    assert gluefiles.glue_from_folder("rte", glue).fingerprint != before
