"""reporting/preflight.py: what would stop every cell is said before anything is trained."""
from files import wordpiece
from plumbing.cli import UserError

import pytest

from budget import size
from model import Bert, BertConfig
from reporting import cells, preflight
from reporting import options as comparison


def check(*words):
    """The checks of a comparison."""
    args = comparison.compare(["--strategies", "scratch,kd,tinybert", *words])
    teacher, _ = cells.teacher_of(args)
    grid = cells.grid(args, teacher, args.rates)
    preflight.check_pairs(args, grid)
    preflight.check_inputs(args, grid)


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


def test_a_teacher_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="t does not exist, and is no hub id"):
        check("--teacher", str(tmp_path / "t"))


def test_a_text_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file, folder or hub id: .*bokks.txt"):
        check("--data", str(tmp_path / "bokks.txt"))


def test_a_teacher_of_another_size_than_was_said_is_refused(teacher):
    folder = teacher("t", "4x128")
    check("--teacher", folder)
    with pytest.raises(UserError, match="t is a BERT 4x128, and the comparison takes it for one of "
                                        "6x128: give --teacher-model 4x128"):
        check("--teacher", folder, "--teacher-model", "6x128")


def test_a_second_teacher_has_the_size_and_the_words_of_the_first(teacher):
    first = teacher("t", "4x128")
    check("--teacher", first, "--head-teacher", teacher("same", "4x128"))
    with pytest.raises(UserError, match="--head-teacher .*small is a BERT 2x128"):
        check("--teacher", first, "--head-teacher", teacher("small", "2x128"))
    with pytest.raises(UserError, match="have different words"):
        check("--teacher", first, "--head-teacher", teacher("other", "4x128", ("the", "moon")))


def test_an_option_that_a_strategy_does_not_use_is_said_for_all_its_students():
    with pytest.raises(UserError, match="tinybert does not use --temperature"):
        check("--distil-options", "--temperature 2")
    check("--distil-options", "--mlm-finish 0.3")


def test_rates_are_given_or_tried():
    with pytest.raises(UserError, match="--lr gives the learning rates and --lr-grid tries some"):
        check("--lr", "1e-3", "--lr-grid", "2e-3,4e-3")


def finish(out, *words):
    """Leaves the files of a comparison whose students are all trained."""
    args = comparison.compare(["--strategies", "scratch,kd,tinybert", *words])
    cells.claim_folder(args)
    teacher, _ = cells.teacher_of(args)
    for cell in cells.grid(args, teacher, args.rates):
        cell.folder.mkdir(parents=True)
        (cell.folder / "model.safetensors").touch()


def test_a_comparison_whose_students_are_trained_needs_no_text(tmp_path):
    words = ["--data", str(tmp_path / "gone.txt"), "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="no such file"):
        check(*words)
    finish(tmp_path / "out", *words)
    check(*words)


def test_a_comparison_that_was_begun_keeps_what_was_said_of_its_teachers_size(teacher, tmp_path):
    words = ["--teacher", teacher("t", "4x128"), "--teacher-model", "6x128", "--out",
             str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    finish(tmp_path / "out", *words)
    check(*words)


def test_a_budget_below_one_step_is_refused():
    # A step of a 2x128 on stories: 3 F B = 2,557,009,920 FLOPs (TUTORIAL.md, stop 1), and kd's
    # costs 4,248,207,360.
    with pytest.raises(UserError, match="--budgets 4.00e9 is below one step of kd, which costs "
                                        "4.25e9 at least: raise it"):
        check("--budgets", "4e9")
    check("--budgets", "5e9")
