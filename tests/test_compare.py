"""compare.py: a killed comparison continues, a failed cell does not stop the others, and bad input
ends in one line. Differences, intervals and p-values are SciPy's."""
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT
from studies import make_study, without

import compare


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder, options) of a comparison of seconds: four students and a teacher on stories, scored
    on a made-up RTE."""
    folder = tmp_path_factory.mktemp("tiny")
    rte = folder / "glue" / "RTE"
    rte.mkdir(parents=True)
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for i in range(32):
        thing, label = (("coat", "not_entailment"), ("hat", "entailment"))[i % 2]
        lines.append(f"{i}\tmia had a {thing}.\tmia had a hat.\t{label}")
    for part in ("train", "dev"):
        (rte / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    os.environ["ISOFLOP_CACHE"] = str(folder / "cache")
    yield folder, {"--strategies": "scratch,kd", "--budgets": "1e9", "--unique-tokens": "inf",
                   "--seeds": "2", "--model": "1x64", "--teacher-model": "1x64",
                   "--teacher-flops": "2e10", "--glue-data": str(folder / "glue"),
                   "--tasks": "rte", "--jobs": "2"}
    del os.environ["ISOFLOP_CACHE"]


@pytest.fixture(scope="module")
def whole(tiny):
    """(folder, options, what was printed) of the tiny comparison, after nobody disturbed it."""
    folder, options = tiny
    status, out, err = run(options, folder / "whole")
    assert status == 0, err
    return folder / "whole", options, out


def start(options, out, *more):
    words = [word for option in options.items() for word in option]
    return subprocess.Popen([sys.executable, "compare.py", *words, "--out", str(out),
                             *map(str, more)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def run(options, out, *more):
    """(exit status, stdout, stderr). The limit is for a program that hangs, and far beyond what a
    busy machine needs."""
    process = start(options, out, *more)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


# --------------------------------------------------------------------------------------------------
# Whole comparisons, of minutes

@pytest.mark.slow
def test_a_killed_comparison_continues_to_the_same_results(whole):
    folder, options, printed = whole
    assert "report.md" in printed
    assert "python compare.py --strategies scratch,kd" in (folder / "report.md").read_text()
    killed = folder.parent / "killed"
    process = start(options, killed)
    while process.poll() is None and not list((killed / "cells").glob("*/glue.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 130 and "the same command continues" in out
    assert "Traceback" not in err
    status, out, err = run(options, killed)
    assert status == 0, err
    results = [(path / "results.csv").read_bytes() for path in (killed, folder)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others(whole):
    folder, options, _ = whole
    # One batch needs 1,024 tokens, so the students on 100 fail. Those on all tokens are finished
    # already, and stay.
    status, out, err = run({**options, "--unique-tokens": "inf,100"}, folder)
    assert status == 1 and out.count("failed: ") == 4 and "error: one batch needs 1,024" in out
    assert "Traceback" not in err and "cells that failed: 4;" in err
    assert "Failed cell: " in (folder / "report.md").read_text()


@pytest.mark.slow
def test_an_edited_student_is_refused(whole):
    folder, options, _ = whole
    weights = folder / "cells" / "kd-1.00e9-all-seed0" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\0\0\0\1")
    status, out, err = run(options, folder)
    assert status == 2 and "not the one that was scored" in err
    weights.write_bytes(kept)


# --------------------------------------------------------------------------------------------------
# What is said before anything runs

def test_cells_are_lines_of_shell_teachers_first(tiny):
    status, out, err = run(tiny[1], "runs/x", "--list")
    first, *students = out.splitlines()
    assert status == 0 and len(students) == 4
    assert first.startswith("python train.py --strategy scratch --flops 2.00e10 --model 1x64")
    assert all(" && python glue.py runs/x/cells/" in line and "FLOPs, about" in line
               for line in students)
    assert not (ROOT / "runs" / "x").exists()


def test_the_papers_study_has_a_price(tmp_path):
    status, out, err = run({"--preset": "paper"}, tmp_path / "out", "--dry-run")
    # 4 strategies at 1.5e18 and 9e18 FLOPs, with unlimited and with repeated data
    assert status == 0 and "16 students" in out and "8.40e19 FLOPs" in out and "H100" in out
    assert "BERT 12x768, bert-base-uncased, whose own training is not counted" in out


# --------------------------------------------------------------------------------------------------
# What came out

def row_of(rows, **values):
    """The first row with these values, of unlimited data where they do not say."""
    return next(row for row in rows
                if all(row[key] == value for key, value in {"data": math.inf, **values}.items()))


def holms(p_values):
    """Holm 1979: the smallest p-value times m, the next one times m - 1, and none falls."""
    order = np.argsort(p_values)
    corrected = np.empty(len(order))
    steps = np.sort(p_values) * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected


@pytest.mark.parametrize("what", ["kinds", "pooled", "change", "controls"])
def test_every_difference_interval_and_p_value_is_scipys(tmp_path, what):
    rng, seeds = np.random.default_rng(0), 7
    gains = {name: tuple(tuple(rng.normal(mean, 4, seeds)) for mean in means) for name, means in
             {"kd": (1, -5), "tinybert": (9, 2), "scratch-copied": (3, 3)}.items()}
    # Both data settings have the same scores, so each p-value is there twice.
    found = compare.findings(*make_study(tmp_path, gains, seeds))
    points = {name: np.array(by_budget) for name, by_budget in gains.items()}  # (budget, seed)
    expected = {
        "kinds": [points[name][i] for i in (0, 1) for name in gains],
        "pooled": [points[name].mean(0) for name in gains],
        "change": [points[name][1] - points[name][0] for name in gains],
        "controls": [points[name][i] - points["scratch-copied"][i] for i in (0, 1)
                     for name in ("kd", "tinybert")]}[what]
    rows = found.pooled if what == "change" else getattr(found, what)
    differences = [row["change" if what == "change" else "difference"] for row in rows]
    differences = [difference for difference in differences if difference]
    tests = 2 * [scipy.stats.ttest_1samp(sample, 0) for sample in expected]
    p_values = holms([test.pvalue for test in tests])
    assert len(differences) == len(tests)
    for difference, test, p in zip(differences, tests, p_values):
        low, high = test.confidence_interval(0.95)
        assert (difference.mean - difference.half, difference.mean + difference.half) == (
            pytest.approx((low, high), rel=1e-9))
        assert difference.p == pytest.approx(p, rel=1e-9) and difference.pairs == seeds
        words = ("ahead",) if low > 0 else ("behind",)
        assert difference.verdict in (words if p < 0.05 else ("open", "equal"))


@pytest.mark.parametrize("mean, p, equal_p, word", [
    (3.0, None, None, ""), (-3.0, 0.001, 1.0, "behind"), (3.0, 0.001, 1.0, "ahead"),
    (1.0, 0.001, 0.001, "ahead"),  # by little, and surely
    (3.0, 0.08, 1.0, "open"), (1.0, 0.3, 0.04, "equal"), (1.0, 0.3, 0.06, "open")])
def test_a_verdict_follows_from_the_two_p_values(mean, p, equal_p, word):
    assert compare.verdict(mean, p, equal_p) == word


def test_equal_differences_are_certain_a_single_pair_has_no_verdict_and_equality_is_corrected():
    found = compare.judge({"a": [2.0, 2.0], "b": [0.0, 0.0], "c": [5.0], "d": []})
    assert {what: (one.half, one.p, one.verdict) for what, one in found.items()} == {
        "a": (0.0, 0.0, "ahead"), "b": (0.0, 1.0, "equal"), "c": (None, None, "")}
    sample = [-1.6, 3.9] * 6  # by SciPy's two one-sided tests 2 p = 0.047
    assert compare.judge({1: sample})[1].verdict == "equal"
    assert compare.judge({1: sample, 2: sample})[1].verdict == "open"


def test_a_seed_without_a_partner_has_no_pair(tmp_path):
    study, outcomes = make_study(tmp_path)
    found = compare.findings(study, without(outcomes, strategy="scratch", seed=1))
    row = row_of(found.kinds, strategy="kd", flops=10 ** 12)
    assert (row["n"], row["difference"].pairs) == (3, 2)
    assert row["difference"].mean == pytest.approx(10.1)  # the mean of 10.0 and 10.2


@pytest.mark.parametrize("missing, pairs, mean, budgets", [
    ({}, 3, 5.05, 2),
    # Seeds 0 and 1 have 10.0 and 10.1 points at the smaller budget. Seed 2 has 10.2 there alone.
    ({"strategy": "kd", "seed": 2, "flops": 10 ** 13}, 2, 5.025, 2),
    ({"strategy": "scratch", "flops": 10 ** 13}, 3, 10.1, 1)])
def test_a_pooled_difference_is_of_the_budgets_that_have_pairs_and_the_seeds_that_have_them_all(
        tmp_path, missing, pairs, mean, budgets):
    study, outcomes = make_study(tmp_path)
    row = compare.findings(study, without(outcomes, **missing) if missing else outcomes).pooled[0]
    assert (row["difference"].pairs, len(row["parts"])) == (pairs, budgets)
    assert row["difference"].mean == pytest.approx(mean) and bool(row["change"]) == (budgets > 1)


@pytest.mark.parametrize("gains, depends", [
    (((20, 21, 22, 20), (2, 3, 5, 1)), True),         # -18, sure
    (((20, 21, 22, 20), (19, 20, 21, 18)), False),    # ahead at both, and -1.25 is not much
    (((20, 21, 22, 20), (2, 40, 12, -14)), False)])   # -10.75, which may be chance
def test_a_difference_depends_on_the_budget_where_its_change_is_sure_and_large(tmp_path, gains,
                                                                               depends):
    rows = compare.findings(*make_study(tmp_path, {"kd": gains}, seeds=4)).pooled
    assert [row["depends"] for row in rows] == [depends, depends]


@pytest.mark.parametrize("missing, flops, kappa", [
    # Scratch has 43 points at 1e12 and 63 at 1e13, in the mean; kd has 10.1 more at 1e12.
    ({}, 10 ** 12, ("=", pytest.approx(10 ** (10.1 / 20)))),
    # The one student of kd has 50 points: 10 more than its partner, 7 more than scratch's mean.
    ({"seed": 0}, 10 ** 12, ("=", pytest.approx(10 ** (10 / 20)))),
    ({"budget": 10 ** 12}, 10 ** 12, None)])
def test_the_multiplier_is_read_off_scratchs_curve(tmp_path, missing, flops, kappa):
    study, outcomes = make_study(tmp_path)
    outcomes = {cell: outcome for cell, outcome in outcomes.items()
                if cell.strategy == "scratch" or cell.seed == missing.get("seed", cell.seed)
                if cell.flops == missing.get("budget", cell.flops)}
    rows = compare.findings(study, outcomes).kinds
    assert row_of(rows, strategy="kd", flops=flops)["multiplier"] == kappa
    assert row_of(rows, strategy="scratch", flops=flops)["multiplier"] is None


def test_a_row_says_the_means_of_its_students_and_how_many_have_a_skill(tmp_path):
    study, outcomes = make_study(tmp_path, {"kd": ((40, 10, 10), 0)})
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd":
            outcome["record"]["val_loss"] = None
        elif cell.seed == 0:
            outcome["record"]["val_loss"] = 3.9  # of 4.0, the unigram loss: on the plateau
    rows = compare.findings(study, outcomes).kinds
    kd, scratch = (row_of(rows, strategy=name, flops=10 ** 12) for name in ("kd", "scratch"))
    # Scores of 80, 53 and 56; the skill begins at 25.4 points above a majority answer of 50.
    assert (kd["n"], kd["score"], kd["skill entailment"]) == (3, pytest.approx(63), 1)
    assert math.isnan(kd["val_loss"]) and not kd["plateau"] and scratch["plateau"]
    assert scratch["val_loss"] == pytest.approx((3.9 + 1.57 + 1.54) / 3)


def test_rows_stand_in_the_order_of_the_grid_whatever_that_of_the_outcomes(tmp_path):
    study, outcomes = make_study(tmp_path, {"tinybert": (1, 2), "kd": (3, 4)})
    backwards = dict(reversed(outcomes.items()))
    kinds = [(row["data"], row["flops"], row["strategy"])
             for row in compare.findings(study, backwards).kinds]
    assert kinds == [(data, C, name) for data in (math.inf, 20000) for C in (10 ** 12, 10 ** 13)
                     for name in ("scratch", "tinybert", "kd")]


def test_kd_and_copied_layers_have_controls_and_scratch_has_none(tmp_path):
    gains = dict.fromkeys(("kd", "kd-released", "scratch-copied", "kd-copied"), (5, 5))
    found = compare.findings(*make_study(tmp_path, gains, amounts=(None,), budgets=(10 ** 12,)))
    assert [(row["strategy"], row["control"]) for row in found.controls] == [
        ("kd", "kd-released"), ("kd", "scratch-copied"), ("kd-released", "scratch-copied"),
        ("kd-copied", "scratch-copied")]
    assert compare.findings(*make_study(tmp_path)).controls == []
