"""report.py: intervals against SciPy, the multiplier against a curve made by hand, verdicts that follow from them."""
import csv
import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from budget import size
from measure import statistics
from reporting import report
from reporting.cells import Cell


@pytest.mark.parametrize("df", [*range(1, 31), 31, 40, 60, 100, 1000])
def test_the_quantiles_are_scipys(df):
    assert statistics.t_975(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=5e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_is_scipys(seed):
    values = np.random.default_rng(seed).normal(3, 2, size=2 + seed * 5).tolist()
    mean, half = statistics.interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference(seed):
    draw = np.random.default_rng(seed)
    scratch = draw.normal(50, 5, size=4)
    student = scratch + draw.normal(2.0, 1.5, size=4)
    words = statistics.verdict(*statistics.interval((student - scratch).tolist()), 4)
    p = scipy.stats.ttest_rel(student, scratch).pvalue
    assert (words == "ahead of scratch") == (p < 0.05 and student.mean() > scratch.mean()) and ("not told apart" in words) == (p >= 0.05)


def test_one_seed_gets_no_verdict():
    assert statistics.interval([3.0]) == (3.0, None) and statistics.verdict(3.0, None, 1) == "one seed: no verdict"
    assert statistics.verdict(-3.0, 1.0, 5) == "behind scratch"


CURVE = [(1e12, 40.0), (1e13, 60.0), (1e14, 70.0)]


@pytest.mark.parametrize("C, score, expected", [
    (1e12, 60.0, ("=", 10.0)),                  # scratch has 60 at 1e13: ten times 1e12
    (1e12, 50.0, ("=", math.sqrt(10))),         # half way between 40 and 60, on the log axis
    (1e13, 65.0, ("=", math.sqrt(10))), (1e13, 50.0, ("=", 1 / math.sqrt(10))), (1e12, 40.0, ("=", 1.0)),
    (1e13, 75.0, (">", 10.0)),                  # never reached within 1e14
    (1e13, 30.0, ("<", 0.1))])                  # below all that was measured
def test_the_compute_multiplier_is_read_off_scratchs_own_curve(C, score, expected):
    sign, kappa = statistics.compute_multiplier(CURVE, C, score)
    assert (sign, kappa) == (expected[0], pytest.approx(expected[1]))


def test_a_dent_in_the_curve_takes_the_first_crossing():
    assert statistics.compute_multiplier([(1e12, 40.0), (1e13, 60.0), (1e14, 50.0), (1e15, 80.0)], 1e12, 55.0)[1] == pytest.approx(10 ** 0.75)


def test_a_teacher_pays_from_so_many_students_on():
    # Each student saves (3 - 1) 1e13 FLOPs: a teacher of 1e14 is paid by five of them, one of 1.1e14 by six.
    assert statistics.break_even(1e14, 3.0, 1e13) == 5 and statistics.break_even(1.1e14, 3.0, 1e13) == 6
    assert statistics.break_even(1e14, 0.9, 1e13) is None and statistics.break_even(0, 3.0, 1e13) is None


@pytest.fixture
def study(tmp_path):
    """A comparison of two strategies, two budgets, three seeds, with scores made up so that kd is 10 points ahead at 1e12, level at 1e13."""
    args = SimpleNamespace(strategies=["scratch", "kd"], budgets=[10 ** 12, 10 ** 13], unique_tokens=[None, 20000], seeds=3, seed_numbers=range(3), first_seed=0, out=tmp_path, preset="demo",
                           model=size("2x128"), teacher=None, teacher_model=size("4x128"), teacher_flops=10 ** 14, data="stories", lr=None, lr_grid=None,
                           train_options="", distil_options="", glue_data="stories", glue_grid="stories", tasks="entailment", glue_seeds=1)
    outcomes = {}
    for unique in args.unique_tokens:
        for C in args.budgets:
            for seed in range(3):
                for strategy in args.strategies:
                    score = (0.4 if C == 10 ** 12 else 0.6) + 0.03 * seed + (0.1 + 0.001 * seed if strategy == "kd" and C == 10 ** 12 else 0)
                    cell = Cell(strategy, C, unique, seed, None, Path(f"{strategy}-{C}-{unique}-{seed}"), (("train.py", "--seed", str(seed)), ("glue.py",)))
                    record = {"val_loss": 2.0 - score, "unigram_loss": 4.0, "neighbour_loss": 1.3, "tokens": 10 ** 6, "epochs": 0.0, "seconds": 9.0,
                              "flops_spent": C - 5, "settings": {"lr": 1e-3, "seq_len": 32, "batch_size": 32, "betas": [0.9, 0.98], "dtype": "fp32"},
                              "bill": {"student_forward": 1, "student_backward": 2, "teacher_forward": 0 if strategy == "scratch" else 2, "loss": 0},
                              "machine": "m", "threads": 1}
                    outcomes[cell] = {"record": record, "results": {"entailment": {"score": {"dev": [0.0, None], "test": [score, None]},
                                                                                  "metrics": {"test": {"accuracy": [score, None]}}, "seconds": 2.0}}}
    return args, outcomes


def test_differences_are_paired_by_seed(study):
    row = next(row for row in report.rows_of(*study) if row["strategy"] == "kd" and row["flops"] == 10 ** 12)
    # Seeds differ by 3 points, the pairs by 0.1: 10.0, 10.1, 10.2. The interval is that of the pairs.
    assert row["difference"] == pytest.approx(10.1) and row["difference_half"] == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)
    assert row["verdict"] == "ahead of scratch" and row["half"] > 5
    assert row["multiplier"] == ("=", pytest.approx(10 ** (10.1 / 20)))
    level = next(row for row in report.rows_of(*study) if row["strategy"] == "kd" and row["flops"] == 10 ** 13)
    assert level["difference"] == 0 and "not told apart" in level["verdict"]


def test_the_report_holds_table_verdicts_commands_and_figures(study):
    args, outcomes = study
    report.write(args, "t", None, list(outcomes), outcomes, [], {"x": "error: it failed"})
    text = (args.out / "report.md").read_text()
    assert "**kd, unlimited data, 1.00e12 FLOPs**: ahead of scratch (10.1 +- 0.2 points)" in text and "error: it failed" in text
    assert "it pays from 46 students on" in text  # 1e14 / ((3.2 - 1) 1e12) = 45.5
    assert text.count("python train.py --seed") == 24
    for name in ("scores.png", "scores.svg", "bill.png", "bill.svg"):
        assert (args.out / name).stat().st_size > 2000
    rows = list(csv.DictReader(io.StringIO((args.out / "results.csv").read_text())))
    assert len(rows) == 24 and rows[0].keys() >= {"strategy", "flops", "unique_tokens", "seed", "task", "metric", "score", "val_loss"}
    assert rows[0]["score"] == "0.400000" and rows[0]["unique_tokens"] == "inf"


def test_the_same_results_make_the_same_files(study):
    args, outcomes = study
    contents = []
    for _ in range(2):
        report.write(args, "t", None, list(outcomes), outcomes, [], {})
        contents.append({path.name: path.read_bytes() for path in args.out.iterdir() if path.suffix in (".md", ".csv", ".svg")})
    assert contents[0] == contents[1]
