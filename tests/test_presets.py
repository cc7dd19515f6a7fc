"""reporting/presets.py: presets, lists, and contradictions that are said before anything runs."""
from files import disk, gluefiles
from program.cli import UserError

import pytest

import compare
import distill
import glue
import train
from reporting import presets


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_preset_names_only_what_there_is(preset):
    study = compare.read_settings(["--preset", preset])
    assert set(study.strategies) <= set(distill.STRATEGIES) and study.strategies[0] == "scratch"
    assert set(study.tasks.split(",")) <= {*gluefiles.EMBEDDED, *gluefiles.GLUE}
    assert study.glue_grid in glue.GRIDS
    assert {name for name, value in vars(study).items() if value is None} <= {
        "lr", "teacher", "head_teacher", "collect"}


@pytest.mark.parametrize("words, name, value", [
    ("--preset stories --seeds 5", "seed_numbers", (0, 1, 2, 3, 4)),
    ("--preset stories --seeds 2 --first-seed 10", "seed_numbers", (10, 11)),
    # What is given counts more than the preset, and nothing is there twice.
    ("--preset stories --budgets 3e12,1e12,3e12", "budgets", (10 ** 12, 3 * 10 ** 12)),
    ("--unique-tokens 1e4,inf,10000", "unique_tokens", (10_000, None)),
    ("--strategies kd,scratch,kd", "strategies", ("kd", "scratch")),
    ("--train-options --paper", "train_options", "--paper"),
    ("--glue-data books", "glue_grid", "quick"), ("", "glue_grid", "stories-short"),
    # Of the preset's first teacher its second one was made.
    ("--preset books", "head_teacher", "runs/books-teacher"),
    ("--preset books --teacher T", "head_teacher", None),
    # One rate, or one for each strategy. A preset may have more of them.
    ("--strategies scratch,kd", "rates", {"scratch": None, "kd": None}),
    ("--strategies scratch,kd --lr 1e-3", "rates", {"scratch": 1e-3, "kd": 1e-3}),
    ("--strategies scratch,kd --lr scratch=2e-3,kd=4e-3,minilm=1", "rates",
     {"scratch": 2e-3, "kd": 4e-3}),
    ("--strategies scratch,kd --lr kd=4e-3", "rates", {"scratch": None, "kd": 4e-3}),
    ("--lr scratch=2e-3,kd=0.0040", "lr", "scratch=0.002,kd=0.004")])
def test_what_follows_from_the_words(words, name, value):
    assert getattr(compare.read_settings(words.split()), name) == value


@pytest.mark.parametrize("option, value, message", [
    ("--strategies", "scratch,magic", "--strategies: 'magic' is none of"),
    ("--strategies", "kd,minilm", "there is no scratch"),
    ("--budgets", "lots", "--budgets: 'lots' should be a whole number"),
    ("--head-teacher", "H", "give that one, too"), ("--teacher", "", 'an empty name, ""'),
    ("--train-options", "my books'", "--train-options my books': No closing quotation"),
    ("--lr", "scratch=1e-3,2e-3", "2e-3: write STRATEGY=RATE"),
    ("--lr", "scratch=x", "'x' should be a number"), ("--lr", "20", "'20' should be a number"),
    *(("--train-options", words, f"--train-options {words.split('=')[0].split()[0]}: each student "
       "has its own, by an option of compare.py") for words in ("--seed 7", "--flops=1e11")),
    ("--distil-options", "--lr 0.1", "--lr is none of --mlm-finish"),
    ("--glue-options", "--tasks rte", "--tasks is none of --pool"),
    ("--glue-options", "--dtype fp64", "--dtype"), ("--glue-options", "x", "one model")])
def test_a_comparison_of_nothing_or_of_more_than_strategies_is_refused(option, value, message):
    with pytest.raises(UserError) as refusal:
        compare.read_settings([option, value])
    assert message in str(refusal.value)


def test_every_line_of_the_papers_preset_has_the_papers_setting():
    # Bui et al. 2024: batch 1024, T = 128, dropout 0.1, N(0, 0.02), 6% warmup; in the code that
    # they released distilled students have half the learning rate (docs/released.md).
    for cell in compare.grid(compare.read_settings(["--preset", "paper"])):
        asked = train.read_settings(cell.commands[0][1:])
        assert (asked.seq_len, asked.batch_size, asked.dropout) == (128, 1024, 0.1)
        assert (asked.init_range, asked.warmup) == (0.02, 0.06)
        assert asked.lr == (1e-3 if cell.strategy == "scratch" else 5e-4)


@pytest.mark.parametrize("before, total", [({}, 5), ({"flops_before": 7}, 12),
                                           ({"flops_before": None}, 5)])
def test_the_bill_of_a_teacher_holds_the_flops_before_its_own(tmp_path, before, total):
    # 5 of its own, and 7 of the run whose weights it began with (--start-from); of others nothing.
    disk.write_json(tmp_path / "run.json", {"finished": True, "flops_spent": 5, **before})
    words = ["--teacher", str(tmp_path), "--teacher-model", "4x128"]
    assert compare.read_settings(words).teacher_flops == total


def test_settings_come_back_from_compare_json(tmp_path):
    words = ["--preset", "books", "--lr", "kd=1e-3,scratch=0.00123456789"]
    study, path = compare.read_settings(words), tmp_path / "compare.json"
    disk.write_json(path, presets.texts(study))
    assert presets.read_texts(path, compare.Settings) == {
        name: getattr(study, name) for name in presets.FIXED}
    disk.write_json(path, {**presets.texts(study), "tasks": 5})
    with pytest.raises(UserError, match="compare.json does not say tasks"):
        presets.read_texts(path, compare.Settings)
