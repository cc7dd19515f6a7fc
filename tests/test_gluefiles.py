"""gluefiles.py: GLUE's files with their quirks, in the official download's layout and in the
hub's."""
import json
import sys
from pathlib import Path

from plumbing import gluefiles, gluelayouts
from plumbing.cli import UserError

import pyarrow as pa
import pytest
from pyarrow import parquet

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


def test_the_lines_of_qqp_that_were_cut_in_two_are_left_out(glue, capsys):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    whole = "1\t2\t3\twhat?\twhich?\t1\n"
    for part in ("train", "dev"):
        write(glue, f"QQP/{part}.tsv",
              header + 198 * whole + "4\t5\t6\thow\n" + "many?\thow?\t0\n")
    assert parts(glue, "qqp")["dev"] == [("what?", "which?", 1)] * 198
    assert f"{glue}/QQP/dev.tsv: 2 of 200 lines are cut off" in capsys.readouterr().out
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


# --------------------------------------------------------------------------------------------------
# Layouts

# The hub's rows of two tasks. Labels are numbers, and in a test set they are -1.
HUB = {"mrpc": {"train": [("a", "b", 1), ("c", "d", 0)], "validation": [("a", "b", 1)],
                "test": [("x", "y", -1)]},
       "stsb": {"train": [("a", "b", 2.5)], "validation": [("e", "f", 3.8)],
                "test": [("x", "y", -1.0)]}}
TRAIN, DEV = HUB["mrpc"]["train"], HUB["mrpc"]["validation"]


def rows_of(examples):
    return [{"sentence1": a, "sentence2": b, "label": label, "idx": i}
            for i, (a, b, label) in enumerate(examples)]


def write_hub(folder, tasks=HUB, ending="-00000-of-00001.parquet", with_readme=True):
    """A data set of the hub: a folder of files, with one configuration for each task, which its
    README.md lists."""
    configs = []
    for name, splits in tasks.items():
        entry = {"config_name": name, "data_files": []}
        for split, examples in splits.items():
            path = folder / name / f"{split}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending.endswith("parquet"):
                parquet.write_table(pa.Table.from_pylist(rows_of(examples)), path)
            else:
                path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(examples)))
            entry["data_files"].append({"split": split, "path": f"{name}/{path.name}"})
        configs.append(entry)
    if with_readme:  # YAML takes JSON
        write(folder, "README.md", f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


def write_saved(folder):
    """What save_to_disk of `datasets` writes, task by task."""
    datasets = pytest.importorskip("datasets")
    for name, splits in HUB.items():
        splits = {split: datasets.Dataset.from_list(rows_of(examples))
                  for split, examples in splits.items()}
        datasets.DatasetDict(splits).save_to_disk(folder / name)
    loaded = datasets.load_from_disk(folder / "mrpc")
    assert loaded["train"].to_list() == rows_of(TRAIN)
    return folder


def write_official(folder):
    """The same examples as the download script writes them."""
    for name, header, line in (
            ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", "{2}\t1\t2\t{0}\t{1}\n"),
            ("STS-B", STSB_HEADER, "0\tnews\t{0}\t{1}\t{2}\n")):
        splits = HUB[gluelayouts.plain(name)]
        for part, split in (("train", "train"), ("dev", "validation"), ("test", "test")):
            lines = [line.format(*example) for example in splits[split]]
            write(folder, f"{name}/{part}.tsv", "\ufeff" + header + "".join(lines))
    return folder


@pytest.mark.parametrize("make", [
    write_hub, lambda folder: write_hub(folder, with_readme=False),
    lambda folder: write_hub(folder, ending=".jsonl"), write_saved, write_official])
def test_the_hubs_layout_gives_the_same_examples(tmp_path, make):
    tasks, skipped = load_tasks(str(make(tmp_path / "glue")), "mrpc,stsb")
    assert tasks[0].parts == {"train": TRAIN, "dev": DEV, "test": [("x", "y", None)]}
    assert tasks[1].parts["dev"] == [("e", "f", 3.8)] and not skipped
    # The checksum of these examples in every glue.json since the first version.
    assert [task.fingerprint for task in tasks] == ["80adbab684999acceec55316",
                                                    "c72cf74f24c0adce3f113bb1"]


def test_a_folder_is_read_as_it_is_now_whatever_was_read_before(tmp_path):
    """The library `datasets` keeps what it loaded under the folder's last name. It is not asked."""
    def examples():
        return [load_tasks(str(tmp_path / who / "glue"), "mrpc")[0][0].parts["train"]
                for who in ("ann", "ben")]
    apple, banana, cherry = ([(word, "b", 1)] for word in ("apple", "banana", "cherry"))
    for who, train in (("ann", apple), ("ben", banana)):
        write_hub(tmp_path / who / "glue", {"mrpc": {"train": train, "validation": train}})
    assert examples() == [apple, banana]
    write_hub(tmp_path / "ann" / "glue", {"mrpc": {"train": cherry, "validation": cherry}})
    assert examples() == [cherry, banana]


def test_a_local_folder_needs_no_library_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # its import fails
    tasks, _ = load_tasks(str(write_hub(tmp_path)), "all")
    assert [task.name for task in tasks] == ["mrpc", "stsb"]


def test_a_tasks_own_folder_may_be_named(glue):
    for names in ("rte", "all", "RTE"):
        tasks, skipped = load_tasks(str(glue / "RTE"), names)
        assert [task.name for task in tasks] == ["rte"] and not skipped
    assert tasks[0].parts == parts(glue, "rte")
    with pytest.raises(UserError, match="MRPC/train.tsv is missing"):
        load_tasks(str(glue / "RTE"), "mrpc")  # RTE's columns have the same names
    (glue / "RTE").rename(glue / "a copy")
    assert load_tasks(str(glue / "a copy"), "rte")[0] == tasks
    with pytest.raises(UserError, match="holds no task of GLUE"):
        load_tasks(str(glue / "a copy"), "all")


def test_two_layouts_of_a_task_are_an_error_among_all_tasks_too(glue):
    write_hub(glue, {"mrpc": HUB["mrpc"]})
    with pytest.raises(UserError, match="MRPC is there twice, in .*/MRPC and in .*/mrpc"):
        load_tasks(str(glue), "all")


def test_a_task_is_called_by_any_case_and_punctuation(glue):
    tasks, _ = load_tasks(str(glue), " CoLA, sts-b,STS_B ,rte")
    assert [task.name for task in tasks] == ["cola", "stsb", "rte"]
    assert len(load_tasks("stories", " All ")[0]) == 4
    with pytest.raises(UserError, match="'CoLA2' is no task of .*: cola, sst2, mrpc"):
        load_tasks(str(glue), "rte, CoLA2")


@pytest.mark.parametrize("names", ["all,rte", "rte, All"])
@pytest.mark.parametrize("data", ["stories", None])
def test_all_stands_alone(glue, names, data):
    with pytest.raises(UserError, match=f"--tasks {names}: all stands alone"):
        load_tasks(data or str(glue), names)


@pytest.mark.parametrize("names", ["all", "rte"])
def test_an_empty_name_is_not_the_working_directory(glue, monkeypatch, names):
    monkeypatch.chdir(glue)
    with pytest.raises(UserError, match='--data "" is empty: give a folder'):
        load_tasks("", names)
    assert load_tasks(".", "rte")[0][0].parts == parts(glue, "rte")


def test_a_null_text_is_named_with_task_part_and_row(tmp_path):
    bad = [("a", "b", 1), ("c", "d", 0), (None, "d", 0)]
    write_hub(tmp_path, {"mrpc": {"train": bad, "validation": DEV}})
    with pytest.raises(UserError, match="^mrpc train, row 2: sentence1 is null, no text"):
        load_tasks(str(tmp_path), "all")  # damaged is not missing
    write_hub(tmp_path, {"mrpc": {"train": TRAIN, "validation": bad}})
    with pytest.raises(UserError, match="^mrpc validation, row 2"):
        load_tasks(str(tmp_path), "mrpc")


def test_a_file_is_no_folder_of_tasks(tmp_path):
    write(tmp_path, "glue.zip", "PK")
    with pytest.raises(UserError, match="glue.zip is a file; wanted is a folder"):
        load_tasks(str(tmp_path / "glue.zip"), "all")


# --------------------------------------------------------------------------------------------------
# The hub


def test_what_the_hub_gives_is_read_and_kept_in_a_folder_of_our_own(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    asked = []

    def load_dataset(data, name, cache_dir):
        asked.append((data, name, cache_dir))
        if name not in HUB:
            raise ValueError(f"BuilderConfig '{name}' not found")
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows_of(examples))
                                     for split, examples in HUB[name].items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tasks, skipped = load_tasks("nyu-mll/glue", "all")
    assert [task.name for task in tasks] == ["mrpc", "stsb"] and len(skipped) == 7
    assert tasks[0].parts == {"train": TRAIN, "dev": DEV, "test": [("x", "y", None)]}
    assert tasks == load_tasks(str(write_hub(tmp_path / "glue")), "mrpc,stsb")[0]
    assert set(asked) == {("nyu-mll/glue", name, str(tmp_path / "cache" / "hub"))
                          for name in gluefiles.GLUE}
    monkeypatch.setitem(HUB, "mrpc", {**HUB["mrpc"], "validation": [("a", None, 1)]})
    with pytest.raises(UserError, match="mrpc validation, row 0: sentence2 is null"):
        load_tasks("nyu-mll/glue", "mrpc")


def test_a_gated_data_set_is_asked_for_once_and_told_so(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(data, name, cache_dir):
        asked.append(name)
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{data}' is a gated dataset on "
                                                       "the Hub.")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="it is gated: accept its conditions"):
        load_tasks("some/glue", "all")
    assert asked == ["cola"]


def test_a_hub_id_is_never_answered_by_a_folder_that_the_library_once_loaded(tmp_path, monkeypatch,
                                                                             capfd):
    datasets = pytest.importorskip("datasets")
    # Another program has loaded a local folder `glue`, and the library keeps that under its name.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "their-cache"))
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    folder = write_hub(tmp_path / "glue")
    assert datasets.load_dataset(str(folder), "mrpc")["train"].num_rows == len(TRAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capfd.readouterr()
    with pytest.raises(UserError, match="no folder glue, and the hub.*check the name"):
        load_tasks("glue", "mrpc")
    assert capfd.readouterr() == ("", "")  # the library's own lines do not stand before ours
    monkeypatch.chdir(tmp_path)
    assert load_tasks("glue", "mrpc")[0][0].parts["train"] == TRAIN


@pytest.mark.parametrize("name", ["text", "csv", "parquet", "imagefolder"])
def test_the_librarys_readers_of_files_are_no_data_sets(tmp_path, monkeypatch, name):
    pytest.importorskip("datasets")
    write_hub(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--data {name}: there is no such folder"):
        load_tasks(name, "mrpc")


# --------------------------------------------------------------------------------------------------
# Tasks


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
