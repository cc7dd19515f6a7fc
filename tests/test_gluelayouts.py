"""gluelayouts.py: which files in a folder are a task's, in the layouts that people have."""
from pathlib import Path

from plumbing import gluelayouts
from plumbing.gluelayouts import Missing
from program.cli import UserError

import pytest


@pytest.fixture
def touch(tmp_path):
    """touch("RTE/train.tsv", ...) makes such files in a folder, which it returns."""
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        return tmp_path
    return make


def find(root, name="rte", official="RTE", is_only=False):
    """{part: names of its files in order, below root}"""
    _, parts = gluelayouts.find(root, name, official, is_only)
    return {part: [str(file.path.relative_to(root)) for file in files]
            for part, files in parts.items()}


@pytest.mark.parametrize("folder", ["RTE", "rte", "Rte", "R-T_E"])
def test_a_tasks_folder_is_found_whatever_its_case_and_punctuation(touch, folder):
    root = touch(f"{folder}/train.tsv", f"{folder}/dev.tsv", "MRPC/train.tsv")
    assert find(root) == {"train": [f"{folder}/train.tsv"], "dev": [f"{folder}/dev.tsv"]}


@pytest.mark.parametrize("train, dev", [
    ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"),
    ("train-00000-of-00001-0123456789abcdef.parquet", "validation.parquet"),
    ("train.jsonl", "validation.jsonl"), ("train.jsonl.gz", "val.jsonl"), ("train.csv", "dev.csv"),
    ("TRAIN.TSV", "Dev.tsv.xz"), ("train/0000.parquet", "validation/0000.parquet"),
    ("train/data-00000-of-00001.arrow", "validation/data-00000-of-00001.arrow"),
    ("train/dataset.arrow", "valid/dataset.arrow")])
def test_a_part_is_found_by_its_names_in_the_layouts_that_people_have(touch, train, dev):
    assert find(touch(f"rte/{train}", f"rte/{dev}")) == {"train": [f"rte/{train}"],
                                                         "dev": [f"rte/{dev}"]}


def test_mnli_has_two_parts_for_dev_and_for_test(touch):
    root = touch("mnli/train.jsonl", "mnli/validation_matched.jsonl", "mnli/dev_mismatched.jsonl",
                 "mnli/test_matched/0.parquet", "mnli_matched/validation.jsonl")
    assert set(find(root, "mnli", "MNLI")) == {"train", "dev_matched", "dev_mismatched",
                                               "test_matched"}


def test_hidden_files_and_files_of_other_names_are_ignored(touch):
    # What the official download has beside, and what save_to_disk writes.
    others = ("dev_ids.tsv", "original/train.tsv", "readme.txt", "msr_paraphrase_train.txt",
              "dataset_dict.json", "train/state.json", "train/dataset_info.json",
              "train/cache-0123.arrow", ".train.tsv", ".cache/train.tsv", "train/.0.parquet.swp",
              "train.txt", "train.pkl")
    root = touch("rte/train/data-00000-of-00001.arrow", ".rte/train.tsv",
                 *(f"rte/{name}" for name in others))
    assert find(root) == {"train": ["rte/train/data-00000-of-00001.arrow"]}


def test_shards_are_read_in_the_order_of_their_numbers(touch):
    root = touch(*(f"rte/train-{i}.jsonl" for i in (10, 9, *range(1, 9))),
                 *(f"rte/validation-0000{i}-of-00003.parquet" for i in (2, 0, 1)),
                 "rte/test/part-1.csv.gz", "rte/test/part-0.csv")
    found = find(root)
    assert found["train"] == [f"rte/train-{i}.jsonl" for i in range(1, 11)]
    assert found["dev"] == [f"rte/validation-0000{i}-of-00003.parquet" for i in (0, 1, 2)]
    assert found["test"] == ["rte/test/part-0.csv", "rte/test/part-1.csv.gz"]


@pytest.mark.parametrize("names, message", [
    (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], "2 of 3 files"),
    (["train-00000-of-00001.parquet", "train-00001-of-00001.parquet"], "2 of 1 files"),
    (["train-00000-of-00002.parquet", "train-00005-of-00002.parquet"], "number 1 is missing"),
    (["train-00001-of-00002.parquet", "train-00002-of-00002.parquet"], "number 0 is missing"),
    (["train-0.csv", "train-2.csv"], "number 1 is missing"),
    (["train-1.csv", "train-2.csv", "train-4.csv"], "number 3 is missing"),
    (["train-2.csv", "train-3.csv"], "number 1 is missing"),
    (["train/data-00001.jsonl.gz", "train/data-00003.jsonl.gz"], "number 2 is missing"),
    (["train-7.csv"], "number 1 is missing"), (["train/0005.parquet"], "number 1 is missing")])
def test_a_shard_that_is_missing_is_an_error(touch, names, message):
    root = touch(*(f"rte/{name}" for name in names))
    with pytest.raises(UserError, match=message) as failure:
        find(root)
    assert all(str(root / "rte" / name) in str(failure.value) for name in names)
    assert not isinstance(failure.value, Missing)


@pytest.mark.parametrize("names", [
    ["train-0.csv", "train-1.csv"], ["train-1.csv", "train-2.csv"], ["train-0.csv"],
    ["train-1.csv"], ["train/0000.parquet", "train/0001.parquet"]])
def test_the_numbers_of_shards_begin_at_0_or_at_1(touch, names):
    assert find(touch(*(f"rte/{name}" for name in names))) == {
        "train": [f"rte/{name}" for name in names]}


@pytest.mark.parametrize("name, part", [
    ("training", "train"), ("val", "dev"), ("Validation_Matched", "dev_matched"),
    ("testing-mismatched", "test_mismatched"), ("evaluation", "test"), ("trained", None),
    ("test_set", None)])
def test_a_part_is_called_by_the_words_of_every_data_set(name, part):
    assert gluelayouts.part_called(name) == part


@pytest.mark.parametrize("one, other", [
    ("RTE/train.tsv", "RTE/train.jsonl"), ("RTE/train.tsv", "RTE/train.tsv.gz"),
    ("RTE/dev.tsv", "RTE/validation.tsv"), ("RTE/train.tsv", "RTE/train/0000.parquet"),
    ("RTE/train-00000-of-00001.parquet", "RTE/train.parquet"),
    ("RTE/train-00000-of-00001.parquet", "RTE/train-00000-of-00002.parquet"),
    ("RTE/train/a.jsonl", "RTE/train/b.jsonl"), ("RTE/train.tsv", "rte/train.tsv"),
    ("RTE/train.tsv", "rte/validation.jsonl")])
def test_two_layouts_of_one_part_are_an_error_that_names_both(touch, one, other):
    root = touch(one, other)
    with pytest.raises(UserError, match="there (twice|more than once)") as failure:
        find(root)
    assert not isinstance(failure.value, Missing)
    in_words = str(failure.value)
    parts = [one, other] if one[:3] == other[:3] else ["RTE", "rte"]
    assert all(str(root / part) in in_words for part in parts)


def test_a_link_to_the_same_folder_is_no_second_layout(touch):
    root = touch("RTE/train.tsv")
    (root / "rte").symlink_to(root / "RTE")
    (root / "R-T-E").mkdir()
    assert list(find(root).values()) in ([["RTE/train.tsv"]], [["rte/train.tsv"]])


def test_a_tasks_own_folder_may_be_named(touch, monkeypatch):
    root = touch("RTE/train.tsv", "RTE/original/train.tsv", "copy/train.tsv", "MRPC/LICENSE.txt")
    assert find(root / "RTE") == {"train": ["train.tsv"]}
    assert gluelayouts.own_task(root / "RTE", ("mrpc", "rte")) == "rte"
    assert gluelayouts.own_task(root / "MRPC", ("mrpc", "rte")) is None  # it holds no part
    # A folder of another name is a task's own only where no other task was asked for.
    assert find(root / "copy", is_only=True) == {"train": ["train.tsv"]}
    with pytest.raises(Missing):
        find(root / "copy")
    monkeypatch.chdir(root / "RTE")
    assert gluelayouts.own_task(Path("."), ("mrpc", "rte")) == "rte"


def test_what_is_missing_is_said_with_what_was_looked_for_and_where(touch):
    root = touch("SST-2/train.tsv")
    with pytest.raises(Missing) as failure:
        find(root)
    assert str(failure.value) == (
        f"RTE: {root}/RTE/train.tsv is missing; looked for a folder RTE or rte with train.tsv, "
        "train.jsonl, train.json, train.csv, train-*.parquet or train/*.arrow")
