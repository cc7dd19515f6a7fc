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


def plan_of(*words):
    """The plan of a comparison as it is printed: {first word of a line: the line}."""
    study = compare.read_settings([*FEW, *words])
    lines = plan.describe(study, compare.grid(study)).splitlines()
    return {line.split("  ")[0]: line for line in lines}


@pytest.mark.parametrize("words, label, part", [
    ("--budgets 1e12,3e12 --unique-tokens inf,1e4",
     "16 students: scratch, kd x 2 budgets x 2 data settings x 2 seeds", ""),
    ("--budgets 1e12,3e12 --unique-tokens inf,1e4", "grid",
     "1.00e12 and 3.00e12 FLOPs; unlimited data and 10,000 distinct tokens"),
    ("", "student", "BERT 2x128, trained on stories, then fine-tuned on acceptability,paraphrase"),
    # The paper's grid: 4 rates x 2 batch sizes, here with 3 seeds each.
    ("--glue-grid paper --glue-seeds 3 --tasks all", "student", "on all, 24 times each"),
    # 2 strategies x 2 seeds x 1e12, and 1e14 for the teacher: at 1e11 FLOP/s 1,040 seconds
    ("--teacher-flops 1e14", "cost", "1.04e14 FLOPs of pretraining: 17 min 20 s on two laptop cor"),
    ("--teacher-flops 1e14", "teacher", "trained first, with 1.00e14 FLOPs of the cost"),
    ("--teacher a/t", "cost", "4.00e12 FLOPs of pretraining: 40 s on two"),
    ("--teacher a/t --head-teacher a/head", "teacher", "BERT 4x128, a/t, whose own training is not "
     "counted here; for strategies that read predictions a/head"),
    ("--teacher a/t --head-teacher a/head --data books --glue-data tests", "not here",
     "a/t (teacher), a/head (teacher with a head), books (text): a name on the hub"),
    ("--data tests,more", "not here", "tests,more (text)")])
def test_the_plan_says_what_is_made_and_what_it_costs(words, label, part):
    assert part in plan_of(*words.split())[label]


def test_what_is_here_is_not_missing(tmp_path):
    (tmp_path / "a b").mkdir()
    assert "not here" not in plan_of("--data", f"'{tmp_path}/a b' {tmp_path}")
    assert "not here" not in plan_of()


# --------------------------------------------------------------------------------------------------
# Before anything runs


def check(*words):
    """The checks of a comparison of three strategies."""
    study = compare.read_settings(["--strategies", "scratch,kd,tinybert", *words])
    students = compare.grid(study)
    plan.check_pairs(study, students)
    plan.check_inputs(study, students)
    return students


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
    ("--distil-options --temperature=2", "tinybert does not use --temperature"),
    ("--model 3x128", "1, 2, 4 layers"),
    # A step of a 2x128 on stories: 3 F B = 2,557,009,920 FLOPs (TUTORIAL.md, stop 1), and kd's
    # costs 4,248,207,360.
    ("--budgets 4e9", "--budgets 4.00e9 is below one step of kd, which costs 4.25e9 at least")])
def test_what_would_stop_every_cell_is_said_at_once(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        check(*words.format(tmp_path).split())


def test_what_fits_is_not_refused():
    check("--budgets", "5e9", "--distil-options", "--mlm-finish 0.3")


def test_teachers_have_the_size_that_was_said_and_the_same_words(teacher):
    first = teacher("t", "4x128")
    check("--teacher", first, "--head-teacher", teacher("same", "4x128"))
    for words, message in (
            (["--teacher-model", "6x128"], "t is a BERT 4x128, and the comparison takes it for one "
             "of 6x128: give --teacher-model 4x128"),
            (["--head-teacher", teacher("small", "2x128")], "small is a BERT 2x128"),
            (["--head-teacher", teacher("other", "4x128", ("the", "moon"))],
             "have different words")):
        with pytest.raises(UserError, match=message):
            check("--teacher", first, *words)


def test_a_comparison_whose_students_are_trained_needs_no_text(tmp_path):
    words = ["--data", str(tmp_path / "gone.txt"), "--out", str(tmp_path / "out")]
    study = compare.read_settings(["--strategies", "scratch,kd,tinybert", *words])
    for cell in compare.grid(study):
        cell.folder.mkdir(parents=True)
        (cell.folder / "model.safetensors").touch()
    check(*words)
