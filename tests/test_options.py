"""plumbing/options.py: defaults, presets, and contradictions that are said before anything runs."""
from files import disk
from plumbing import gluefiles
from plumbing.cli import UserError
from program import options

import pytest

import distill
import glue
import train
from reporting import cells
from reporting import options as comparison


def test_the_names_of_tasks_are_those_of_the_files():
    assert options.EMBEDDED_TASKS == tuple(gluefiles.EMBEDDED)
    assert options.GLUE_TASKS == tuple(gluefiles.GLUE)


@pytest.mark.parametrize("preset", comparison.PRESETS)
def test_a_preset_names_only_what_there_is(preset):
    args = comparison.compare(["--preset", preset])
    assert set(args.strategies) <= set(distill.STRATEGIES) and args.strategies[0] == "scratch"
    assert set(args.tasks.split(",")) <= {*options.EMBEDDED_TASKS, *options.GLUE_TASKS}
    assert args.glue_grid in glue.GRIDS


@pytest.mark.parametrize("option", ["--teacher", "--start-from", "--tokenizer", "--out"])
def test_an_empty_name_is_refused_as_an_unset_variable_gives_it(option):
    with pytest.raises(UserError, match='an empty name, ""'):
        train.read_settings(["--flops", "1e9", option, ""])


def test_the_home_folder_is_meant_by_a_tilde_also_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    args = train.read_settings(["--flops", "1e9", "--out=~/run", "--strategy", "kd", "--teacher=~/t"])
    assert (args.out, args.teacher) == ("/home/ann/run", "/home/ann/t")
    assert glue.read_settings(["~/run"]).model == ["/home/ann/run"]
    assert glue.read_settings(["owner/name"]).model == ["owner/name"]


def test_a_column_of_stories_is_refused():
    with pytest.raises(UserError, match="--text-column is for files of rows"):
        train.read_settings(["--flops", "1e9", "--text-column", "text"])


def test_a_folder_called_stories_is_not_the_embedded_world(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options.note_stories("stories")
    assert capsys.readouterr().out == ""
    (tmp_path / "stories").mkdir()
    options.note_stories(["./stories"])
    assert capsys.readouterr().out == ""
    options.note_stories(train.read_settings(["--flops", "1e9"]).data)
    assert "for the folder of that name that is here write ./stories" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--train-options", "--paper"], ["--train-options=--paper"]])
def test_an_options_text_may_begin_with_an_option(words):
    assert comparison.compare(words).train_options == "--paper"


@pytest.mark.parametrize("word", ["--seed 7", "--flops=1e11", "--unique-tokens 1e5", "--out x"])
def test_what_makes_one_student_is_no_option_of_all(word):
    with pytest.raises(UserError, match="each student has its own"):
        comparison.compare(["--train-options", word])


def test_what_is_given_counts_more_than_the_preset():
    args = comparison.compare(["--preset", "stories", "--seeds", "5", "--budgets", "3e12,1e12,3e12"])
    assert args.seeds == 5 and args.budgets == [10 ** 12, 3 * 10 ** 12]
    assert args.unique_tokens == [None, 10_000] and list(args.seed_numbers) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("flops, data, seq_len, batch_size", [
    ("1e13", "stories", 32, 32), ("1e13", "books/", 32, 64), ("1e15", "stories", 128, 256)])
def test_larger_budgets_get_longer_blocks_and_larger_batches(flops, data, seq_len, batch_size):
    args = train.read_settings(["--flops", flops, "--data", data])
    assert (args.seq_len, args.batch_size) == (seq_len, batch_size)


@pytest.mark.parametrize("argv, message", [
    (["--strategy", "kd"], "--teacher"),
    (["--teacher", "bert-base-uncased"], "is for a student that is taught"),
    (["--mlm-finish", "0.1"], "is for a student that is taught"),
    (["--init", "teacher"], "say which with --teacher"),
    (["--strategy", "kd", "--teacher", "T", "--vocab-size", "500"], "takes its teacher's"),
    (["--strategy", "kd", "--teacher", "T", "--out", "T"], "is the teacher's own folder"),
    (["--start-from", "S", "--init", "teacher", "--teacher", "T"], "both say which weights"),
    (["--start-from", "S", "--vocab-size", "500"], "takes the start's"),
    (["--start-from", "S", "--out", "./S"], "is the folder that --start-from names")])
def test_options_of_train_that_contradict_each_other_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        train.read_settings(["--flops", "1e13", *argv])


@pytest.mark.parametrize("argv, grid, pool", [
    (["M"], "stories", "mean"), (["M", "--data", "glue_data/"], "quick", "cls"),
    (["M", "--data", "glue_data/", "--grid", "paper", "--pool", "mean"], "paper", "mean")])
def test_glues_grid_and_pool_depend_on_the_tasks(argv, grid, pool):
    args = glue.read_settings(argv)
    assert (args.grid, args.pool) == (grid, pool)


@pytest.mark.parametrize("argv, message", [
    ([], "say which model to score"), (["M", "N"], "one model at a time, not 2"),
    (["M", "--predict"], "have no leaderboard"), (["--gate"], "python -m tools.gate")])
def test_options_of_glue_that_make_no_sense_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        glue.read_settings(argv)


@pytest.mark.parametrize("argv, message", [
    (["--strategies", "scratch,magic"], "'magic' is none of"),
    (["--strategies", "kd,minilm"], "has no scratch"),
    (["--budgets", "lots"], "write numbers like 1e12,3e12"),
    (["--teacher-flops", "1000"], "is no training for a teacher"),
    (["--distil-options", "--lr 0.1"], "put it into --train-options"),
    (["--distil-options", "--start-from S"], "put it into --train-options"),
    (["--distil-options=--start-from=S"], "put it into --train-options"),
    (["--glue-options", "--tasks rte"], "--tasks is none of --pool"),
    (["--glue-options=--out=elsewhere"], "--out=elsewhere is none of --pool"),
    (["--glue-options", "--dtype fp64"], "--dtype"), (["--glue-options", "x"], "one model"),
    (["--glue-options", "--pool 'cls"], "No closing quotation")])
def test_a_comparison_of_nothing_or_of_more_than_strategies_is_refused(argv, message):
    with pytest.raises(UserError, match=message):
        comparison.compare(argv)


# Bui et al. 2024: batch 1024, T = 128, dropout 0.1, N(0, 0.02), 6% warmup; in the code that they
# released distilled students have half the learning rate (docs/released.md).


@pytest.mark.parametrize("strategy, lr", [("scratch", 1e-3), ("kd", 5e-4), ("minilm", 5e-4)])
def test_the_papers_setting_is_one_flag(strategy, lr):
    teacher = [] if strategy == "scratch" else ["--teacher", "T"]
    args = train.read_settings(["--flops", "1e13", "--paper", "--strategy", strategy, *teacher])
    assert (args.seq_len, args.batch_size, args.dropout) == (128, 1024, 0.1)
    assert (args.init_range, args.warmup, args.lr) == (0.02, 0.06, lr)
    assert args.betas == [0.9, 0.98] and args.weight_decay == 0.01


def test_what_is_given_goes_before_the_papers_setting():
    args = train.read_settings(["--flops", "1e13", "--paper", "--dropout", "0", "--lr", "2e-3"])
    assert (args.dropout, args.lr, args.batch_size) == (0.0, 2e-3, 1024)


def test_every_line_of_the_papers_preset_has_the_papers_setting():
    args = comparison.compare(["--preset", "paper"])
    grid = cells.grid(args, args.teacher, args.rates)
    for cell in grid:
        training = train.read_settings(cell.commands[0][1:])
        assert (training.seq_len, training.batch_size, training.dropout) == (128, 1024, 0.1)
        assert (training.init_range, training.warmup) == (0.02, 0.06)
        assert training.lr == (1e-3 if cell.strategy == "scratch" else 5e-4)


def test_scratch_may_begin_with_a_teachers_layers():
    args = train.read_settings(["--flops", "1e13", "--init", "teacher", "--teacher", "T"])
    assert args.strategy == "scratch" and args.init == "teacher"


# --------------------------------------------------------------------------------------------------
# Learning rates of a comparison

@pytest.mark.parametrize("words, rates", [
    ([], {"scratch": None, "kd": None}), (["--lr", "1e-3"], {"scratch": 1e-3, "kd": 1e-3}),
    (["--lr", "scratch=2e-3,kd=4e-3,minilm=1"], {"scratch": 2e-3, "kd": 4e-3}),
    (["--lr", "kd=4e-3"], {"scratch": None, "kd": 4e-3})])
def test_a_comparison_has_one_rate_or_one_for_each_strategy(words, rates):
    assert comparison.compare(["--strategies", "scratch,kd", *words]).rates == rates


@pytest.mark.parametrize("rate, message", [
    ("kdd=1e-3", "write STRATEGY=RATE"), ("scratch=x", "'x' should be a number"),
    ("20", "'20' should be a number"), ("scratch=1e-3,2e-3", "write STRATEGY=RATE")])
def test_a_rate_that_cannot_be_meant_is_refused(rate, message):
    with pytest.raises(UserError, match=f"--lr.*{message}"):
        comparison.compare(["--lr", rate])


def test_a_grid_of_rates_chooses_whatever_the_preset_says():
    args = comparison.compare(["--preset", "stories", "--lr-grid", "1e-3,2e-3"])
    assert args.lr is None and set(args.rates.values()) == {None}


def test_a_preset_with_two_teachers_gives_way_to_a_teacher_of_the_users_own():
    assert comparison.compare(["--preset", "books"]).head_teacher == "runs/books-teacher"
    args = comparison.compare(["--preset", "books", "--teacher", "T"])
    assert args.teacher == "T" and args.head_teacher is None


def test_the_bill_of_a_teacher_holds_the_flops_before_its_own(tmp_path):
    # 5 of its own, and 7 of the run whose weights it began with (--start-from); of others nothing.
    for before, total in (({}, 5), ({"flops_before": 7}, 12), ({"flops_before": None}, 5)):
        record = {"finished": True, "flops_spent": 5 * 10 ** 12}
        record |= {key: value and value * 10 ** 12 for key, value in before.items()}
        disk.write_json(tmp_path / "run.json", record)
        args = comparison.compare(["--teacher", str(tmp_path), "--teacher-model", "4x128"])
        assert args.teacher_flops == total * 10 ** 12
