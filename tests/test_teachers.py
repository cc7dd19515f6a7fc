"""files/teachers.py: who may teach. Any BERT with the student's words may. What cannot teach is
refused before anything is trained."""
import functools
import hashlib
import json
import os
from contextlib import nullcontext

from files import checkpoints, disk, teachers, wordpiece
from files.teachers import check_pair, shared_tokenizer, tokenizer_of
from program.cli import UserError

import pytest
import torch
from conftest import run_main
from peers import peer, rewrite
from safetensors.torch import load_file

import train
from budget import size
from distill import lesson
from model import Bert, BertConfig

V = 40  # words of the vocabulary


def save_bert(folder, model="4x64", letter="w", rows=V):
    """Saves a BERT of the size that `model` spells, with 16 positions and so many word embeddings,
    and a tokenizer of 40 words: the special ones, w0, w1, w2, ..."""
    torch.manual_seed(0)
    config = BertConfig.of(size(model), vocab_size=rows, max_position_embeddings=16)
    Bert(config).save_pretrained(folder)
    words = [*wordpiece.SPECIAL, *(f"{letter}{i}" for i in range(V - len(wordpiece.SPECIAL)))]
    tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(words)})
    wordpiece.save_tokenizer(tokenizer, folder, 16)
    return folder


def load_teacher(folder, seq_len=16):
    return teachers.load_teacher(folder, seq_len, Bert)


@pytest.fixture
def folder(tmp_path):
    """A teacher's folder: BERT 4x64, 16 positions, and a tokenizer of its 40 words."""
    return save_bert(tmp_path)


@pytest.fixture
def another(tmp_path_factory):
    """another(letter, rows) -> the folder of a BERT 1x64"""
    return lambda *which: save_bert(tmp_path_factory.mktemp("another"), "1x64", *which)


@pytest.fixture
def theirs(tmp_path_factory):
    """A folder of transformers' BertForMaskedLM, without a tokenizer."""
    path = tmp_path_factory.mktemp("theirs")
    peer().save_pretrained(path)
    return path


def test_a_teacher_is_a_run_or_any_hugging_face_folder(folder, theirs):
    teacher = load_teacher(folder)
    assert str(teacher.model.config.size) == "4x64" and teacher.folder == folder
    contents = (folder / "model.safetensors").read_bytes()
    assert teacher.sha256 == hashlib.sha256(contents).hexdigest()
    assert load_teacher(theirs, 16).model.mlm_head is not None


def test_a_teachers_weights_are_hashed_once(folder, monkeypatch):
    disk.write_json(folder / "run.json", {"files": {
        name: disk.file_sha256(folder / name) for name in ("config.json", "model.safetensors")}})
    for name in ("config.json", "model.safetensors", "run.json"):
        os.utime(folder / name, (0, 0))  # what was written just now is not yet believed
    read, contents_sha256 = [], disk.contents_sha256.__wrapped__

    def counted(*files):
        read.extend(path.name for path, *_ in files)
        return contents_sha256(*files)
    monkeypatch.setattr(disk, "contents_sha256", functools.cache(counted))
    load_teacher(folder)
    Bert.from_pretrained(folder)
    assert checkpoints.weights_sha256(folder) == contents_sha256([folder / "model.safetensors"])
    assert read.count("model.safetensors") == 1


def test_what_is_no_teacher_is_refused(folder):
    with pytest.raises(UserError, match="16 positions, and --seq-len is 32"):
        load_teacher(folder, 32)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no model.safetensors and no pytorch_model.bin"):
        load_teacher(folder)
    (folder / "run.json").write_text(json.dumps({"finished": False, "settings": {}}))
    with pytest.raises(UserError, match="not finished"):
        load_teacher(folder)


def test_the_student_takes_the_teachers_tokenizer_or_one_of_the_same_words(folder, theirs, another):
    assert tokenizer_of(folder, V).token_to_id("w7") == 12
    with pytest.raises(UserError, match="no tokenizer.json and no vocab.txt: say with"):
        tokenizer_of(theirs, V)
    assert tokenizer_of(theirs, V, str(folder)).token_to_id("w7") == 12
    assert tokenizer_of(folder, V, str(another())).token_to_id("w7") == 12
    with pytest.raises(UserError, match="other words than --teacher's"):
        tokenizer_of(folder, V, str(another("v")))


@pytest.mark.parametrize("rows", [V, V + 1, V + 1023, V - 1, V + 1024])
def test_the_last_word_embeddings_may_be_padding_and_that_is_said(folder, rows, capsys):
    fits, message = V <= rows <= V + 1023, f"40 words, and --teacher .* has {rows:,} .*another"
    with nullcontext() if fits else pytest.raises(UserError, match=message):
        assert tokenizer_of(folder, rows).get_vocab_size() == V
    said = f"{rows - V:,} of its {rows:,} word embeddings are padding"
    assert (said in capsys.readouterr().out) == (fits and rows > V)


@pytest.mark.parametrize("student, copies, message", [
    ("2x128", True, "--model 2x64"), ("2x64h2", True, "the student, a BERT 2x64h2, has others"),
    ("5x64", True, "--model 4x64"), ("5x128", False, None), ("4x64", True, None)])
def test_init_teacher_refuses_other_sizes_and_without_it_they_may_differ(student, copies, message):
    pair = size(student), size("4x64")
    with pytest.raises(UserError, match=message) if message else nullcontext():
        check_pair(lesson("kd", *pair), *pair, True, copies)


@pytest.mark.parametrize("strategy, needs_head", [("kd", True), ("tinybert", False)])
def test_kd_needs_a_teacher_that_predicts_words_and_tinybert_does_not(strategy, needs_head):
    sizes, message = (size("1x64"), size("2x64")), "no masked-language-model head"
    with pytest.raises(UserError, match=message) if needs_head else nullcontext():
        check_pair(lesson(strategy, *sizes), *sizes, has_head=False, copies=False)


@pytest.mark.parametrize("words, reads_head", [
    ("--strategy kd --teacher", True), ("--strategy tinybert --teacher", False),
    ("--strategy scratch --start-from", True),
    ("--strategy scratch --init teacher --teacher", True),
    ("--strategy minilm --init teacher --teacher", False),
    ("--strategy minilm --init teacher --mlm-finish 0.2 --teacher", True)])
def test_a_head_that_does_not_fit_is_refused_where_it_is_read_or_copied(folder, words, reads_head):
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, {**tensors, "cls.predictions.bias": tensors["cls.predictions.bias"][1:]})
    line = [*words.split(), folder, "--flops", "1e9", "--model", "4x64", "--batch-size", "8",
            "--seq-len", "16", "--out", folder / "run", "--dry-run"]
    err = run_main(train.main, "train.py", line)[2]
    # Where the head is not read, the next thing that is wrong is told: w0 is no word of a story.
    assert ("mlm_head.bias" if reads_head else "unknown to this tokenizer") in err


def loaded(*words):
    """(the teacher, the start) of a run with these options."""
    words = ["--flops", "1e9", "--seq-len", "16", *map(str, words)]
    return teachers.load_models(train.read_settings(words), Bert)


def test_a_student_begins_with_its_start_or_its_teacher_or_with_nobody(folder):
    for words in ([], ["--model", "4x64"]):
        no_teacher, start = loaded("--start-from", folder, *words)
        assert no_teacher is None and start.model.config.size == size("4x64")
    for other in ("2x64", "4x64h2"):  # heads and the feed-forward size count, too
        with pytest.raises(UserError, match=f"is a BERT 4x64, and --model asks for {other}"):
            loaded("--start-from", folder, "--model", other)
    first, start = loaded("--teacher", folder, "--init", "teacher", "--model", "2x64")
    assert start is first and loaded() == (None, None)
    assert loaded("--teacher", folder, "--strategy", "kd", "--model", "2x64")[1] is None
    with pytest.raises(UserError, match="--start-from .* knows 16 positions, and --seq-len is 32"):
        loaded("--start-from", folder, "--seq-len", "32")


def test_the_student_of_a_teacher_and_a_start_takes_the_words_of_both(folder, another):
    start, same = load_teacher(folder), load_teacher(another())
    for models in ((None, start), (same, start), (start, start), (same, None)):
        assert shared_tokenizer(*models).token_to_id("w7") == 12
    assert shared_tokenizer(None, None, "a name") == "a name"
    for which, rows in (("v", V), ("w", V + 3)):
        with pytest.raises(UserError, match=f"different vocabularies, of {rows} and 40 word"):
            shared_tokenizer(load_teacher(another(which, rows)), start)
    with pytest.raises(UserError, match="other words than --start-from's"):
        shared_tokenizer(None, start, str(another("v")))


@pytest.mark.parametrize("record, flops", [
    ({"flops_spent": 5}, 5), ({"flops_spent": 5, "flops_before": 7}, 12), ({}, None)])
def test_what_weights_have_cost_is_their_runs_flops_and_those_before(tmp_path, record, flops):
    assert teachers.flops_of(tmp_path) is None  # a BERT of others
    disk.write_json(tmp_path / "run.json", record)
    assert teachers.flops_of(tmp_path) == flops


def test_a_start_gives_all_its_positions_and_a_teacher_as_many_as_a_student_has(theirs):
    start = load_teacher(theirs)
    longest = start.model.config.max_position_embeddings
    assert [teachers.inherited(start, longest)["max_position_embeddings"]
            for longest in (None, 8, 512)] == [longest, 8, longest]
