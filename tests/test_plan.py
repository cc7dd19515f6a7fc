"""reporting/plan.py: what a comparison would do and cost, in words; what would stop every cell is
said before anything is trained."""
from files import wordpiece
from program.cli import UserError

import pytest

import compare
from budget import size
from model import Bert, BertConfig
from reporting import plan

FEW = ["--strategies", "scratch,kd", "--budgets", "1e12", "--seeds", "2", "--unique-tokens", "inf"]


@pytest.mark.parametrize("words, part", [
    ("--budgets 1e12,3e12 --unique-tokens inf,1e4",
     "16 students: scratch, kd x 2 budgets x 2 data settings x 2 seeds"),
    ("--budgets 1e12,3e12 --unique-tokens inf,1e4",
     "1.00e12 and 3.00e12 FLOPs; unlimited data and 10,000 distinct tokens"),
    ("", "BERT 2x128, trained on stories, then fine-tuned on acceptability,paraphrase"),
    # The paper's grid: 4 rates x 2 batch sizes, here with 3 seeds each.
    ("--glue-grid paper --glue-seeds 3 --tasks all", "on all, 24 times each"),
    # 2 strategies x 2 seeds x 1e12, and 1e14 for the teacher: at 1e11 FLOP/s 1,040 seconds
    ("--teacher-flops 1e14", "1.04e14 FLOPs of pretraining: 17 min 20 s on two laptop cores"),
    ("--teacher a/t --head-teacher a/head", "4.00e12 FLOPs of pretraining: 40 s on two"),
    ("--teacher a/t --head-teacher a/head", "BERT 4x128, a/t, whose own training is not "
     "counted here; for strategies that read predictions a/head")])
def test_the_plan_says_what_is_made_and_what_it_costs(words, part):
    study = compare.read_settings([*FEW, *words.split()])
    text = plan.describe(study, compare.grid(study))
    assert part in text and "fine-tuning, validation and starts come on top" in text


# --------------------------------------------------------------------------------------------------
# Before anything runs


def check(*words):
    """The checks of a comparison of three strategies."""
    study = compare.read_settings(["--strategies", "scratch,kd,tinybert", *words])
    students = compare.grid(study)
    plan.check_pairs(study, students)
    plan.check_inputs(study, students)


@pytest.fixture
def teacher(tmp_path):
    """teacher(name, "4x128", words) -> the folder of a BERT with these words."""
    def save(name, model, words=("the", "sun")):
        vocabulary = {word: i for i, word in enumerate([*wordpiece.SPECIAL, *words])}
        config = BertConfig.of(size(model), vocab_size=len(vocabulary),
                               max_position_embeddings=64)
        Bert(config).save_pretrained(tmp_path / name)
        wordpiece.save_tokenizer(wordpiece.wordpiece(vocabulary), tmp_path / name, 64)
        return str(tmp_path / name)
    return save


@pytest.mark.parametrize("words, message", [
    ("--teacher {}/t", "t is no folder, and is no hub id"),
    ("--data {}/bokks.txt", "no such file, folder or hub id: .*bokks.txt"),
    ("--glue-data {}/none", "none"), ("--out /dev/null/x", "--out /dev/null/x cannot be written"),
    ("--distil-options --temperature=2", "tinybert does not use --temperature"),
    ("--model 3x128", "1, 2, 4 layers")])
def test_what_would_stop_every_cell_is_said_at_once(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        check(*words.format(tmp_path).split())


def test_teachers_have_the_size_that_was_said_and_the_same_words(teacher):
    first = teacher("t", "4x128")
    check("--teacher", first, "--head-teacher", teacher("same", "4x128"))
    for words, message in (
            (["--teacher-model", "6x128"], "t is a BERT 4x128, and the comparison takes it for one "
             "of 6x128: give --teacher-model 4x128"),
            (["--head-teacher", teacher("other", "4x128", ("the", "moon"))],
             "have different words")):
        with pytest.raises(UserError, match=message):
            check("--teacher", first, *words)
