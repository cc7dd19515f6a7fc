"""running/options.py: defaults, and contradictions that are said before anything runs."""
from program.cli import UserError
from running import options

import pytest

import glue
import train


@pytest.mark.parametrize("option", ["--teacher", "--start-from", "--tokenizer", "--out"])
def test_an_empty_name_is_refused_as_an_unset_variable_gives_it(option):
    with pytest.raises(UserError, match='an empty name, ""'):
        train.read_settings(["--flops", "1e9", option, ""])


def test_the_home_folder_is_meant_by_a_tilde_also_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    args = train.read_settings(["--flops", "1e9", "--out=~/run", "--strategy", "kd",
                                "--teacher=~/t"])
    assert (args.out, args.teacher) == ("/home/ann/run", "/home/ann/t")
    assert glue.read_settings(["~/run"]).model == ("/home/ann/run",)
    assert glue.read_settings(["owner/name"]).model == ("owner/name",)


def test_a_folder_called_stories_is_not_the_embedded_world(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options.note_stories("stories")
    assert capsys.readouterr().out == ""
    (tmp_path / "stories").mkdir()
    options.note_stories(("./stories",))
    assert capsys.readouterr().out == ""
    options.note_stories(train.read_settings(["--flops", "1e9"]).data)
    assert "for the folder of that name that is here write ./stories" in capsys.readouterr().out


@pytest.mark.parametrize("flops, data, seq_len, batch_size", [
    ("1e13", "stories", 32, 32), ("1e13", "books/", 32, 64), ("1e15", "stories", 128, 256)])
def test_larger_budgets_get_longer_blocks_and_larger_batches(flops, data, seq_len, batch_size):
    args = train.read_settings(["--flops", flops, "--data", data])
    assert (args.seq_len, args.batch_size) == (seq_len, batch_size)


@pytest.mark.parametrize("argv, message", [
    (["--strategy", "kd"], "--teacher"), (["--text-column", "text"], "is for files of rows"),
    (["--teacher", "bert-base-uncased"], "is for a student that is taught"),
    (["--mlm-finish", "0.1"], "is for a student that is taught"),
    (["--init", "teacher"], "say which with --teacher"),
    (["--strategy", "kd", "--teacher", "T", "--vocab-size", "500"], "takes its teacher's"),
    (["--strategy", "kd", "--teacher", "T", "--out", "T"], "is the teacher's own folder"),
    (["--start-from", "S", "--init", "teacher", "--teacher", "T"], "both say which weights"),
    (["--start-from", "S", "--vocab-size", "500"], "takes the start's"),
    (["--tokenizer", "x", "--vocab-size", "500"], "leave it out"),
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
    ([], "say which model to score"), (["M", "N"], "one model at a time, not 2")])
def test_options_of_glue_that_make_no_sense_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        glue.read_settings(argv)


# Bui et al. 2024: batch 1024, T = 128, dropout 0.1, N(0, 0.02), 6% warmup; in the code that they
# released distilled students have half the learning rate (docs/released.md).


@pytest.mark.parametrize("strategy, lr", [("scratch", 1e-3), ("kd", 5e-4), ("minilm", 5e-4)])
def test_the_papers_setting_is_one_flag(strategy, lr):
    teacher = [] if strategy == "scratch" else ["--teacher", "T"]
    args = train.read_settings(["--flops", "1e13", "--paper", "--strategy", strategy, *teacher])
    assert (args.seq_len, args.batch_size, args.dropout) == (128, 1024, 0.1)
    assert (args.init_range, args.warmup, args.lr) == (0.02, 0.06, lr)
    assert args.betas == (0.9, 0.98) and args.weight_decay == 0.01


def test_what_is_given_goes_before_the_papers_setting():
    args = train.read_settings(["--flops", "1e13", "--paper", "--dropout", "0", "--lr", "2e-3"])
    assert (args.dropout, args.lr, args.batch_size) == (0.0, 2e-3, 1024)
