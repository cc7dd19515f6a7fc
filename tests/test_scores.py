"""measure/scores.py: from predictions to the one score of a student, on a few small numbers."""
from types import SimpleNamespace

import pytest

from measure import metrics, scores

# --------------------------------------------------------------------------------------------------
# The scores of one fine-tuning

def task_of(name="t", labels=(0, 1, 1), *used, scored=("dev", "test")):
    """What scores.py reads of a task. All its parts have the same examples."""
    examples = [(f"text {i}", None, label) for i, label in enumerate(labels)]
    return SimpleNamespace(name=name, parts={"dev": examples, "test": examples}, metrics=used,
                           scored=scored, majority={"dev": 0.5, "test": 0.5})


def test_a_task_is_scored_by_each_of_its_metrics_under_their_names():
    task = task_of("t", (1, 1, 0, 0), metrics.accuracy, metrics.f1)
    # Precision 2/3 and recall 1: F1 is 0.8.
    assert scores.scores_of(task, lambda part: [1, 1, 1, 0], "dev") == {
        "accuracy": 0.75, "f1": pytest.approx(0.8)}


def test_the_predictions_are_those_of_the_part_that_is_scored():
    task = task_of("t", (1, 0), metrics.accuracy)
    predictions = {"dev": [1, 0], "test": [1, 1]}
    assert scores.scores_of(task, predictions.get, "dev") == {"accuracy": 1.0}
    assert scores.scores_of(task, predictions.get, "test") == {"accuracy": 0.5}


def test_a_constant_prediction_scores_0_where_its_correlation_is_undefined():
    task = task_of("t", (1.0, 2.0, 3.0), metrics.pearson, metrics.spearman)
    constant = scores.scores_of(task, lambda part: [2.0, 2.0, 2.0], "dev")
    assert constant == {"pearson": 0.0, "spearman": 0.0}


def test_the_score_of_two_metrics_is_their_mean():
    cell = {"scores": {"dev": {"accuracy": 0.75, "f1": 0.25}}}
    assert scores.mean_score(cell, "dev") == 0.5


# --------------------------------------------------------------------------------------------------
# The best setting of a task

def cell_of(lr, seed, dev, test, seconds=1.0):
    """A finished fine-tuning with these accuracies."""
    return {"lr": lr, "batch_size": 16, "epochs": 2, "seed": seed, "seconds": seconds,
            "scores": {"dev": {"accuracy": dev}, "test": {"accuracy": test}}}


CELLS = [cell_of(1, seed=0, dev=0.9, test=0.9), cell_of(1, seed=1, dev=0.5, test=0.9),
         cell_of(2, seed=0, dev=0.8, test=0.6), cell_of(2, seed=1, dev=0.7, test=0.4)]


def test_the_best_setting_is_chosen_on_the_development_set_whatever_the_test_set_says():
    best = scores.summary(task_of(), CELLS)
    assert best["lr"] == 2  # (0.8 + 0.7) / 2 is more than (0.9 + 0.5) / 2
    assert (best["batch_size"], best["epochs"]) == (16, 2)
    assert (best["settings_tried"], best["seeds"]) == (2, 2)


def test_its_seeds_are_averaged_on_each_part():
    best = scores.summary(task_of(), CELLS)
    # The standard deviation of two values is their distance divided by sqrt 2.
    assert best["score"] == {
        "dev": [pytest.approx(0.75), pytest.approx(0.1 / 2 ** 0.5)],
        "test": [pytest.approx(0.5), pytest.approx(0.2 / 2 ** 0.5)]}
    assert best["metrics"]["test"] == {"accuracy": best["score"]["test"]}


def test_one_seed_has_no_standard_deviation():
    best = scores.summary(task_of(), CELLS[:1])
    assert best["score"] == {"dev": [0.9, None], "test": [0.9, None]}


def test_a_summary_says_the_majoritys_score_and_the_time_of_all_settings():
    best = scores.summary(task_of(), CELLS)
    assert best["majority"] == {"dev": 0.5, "test": 0.5} and best["seconds"] == 4.0


def test_a_task_that_is_scored_on_its_development_set_alone_reports_nothing_else():
    best = scores.summary(task_of(scored=("dev",)), CELLS)
    assert best["score"].keys() == best["metrics"].keys() == {"dev"}


def test_each_task_is_summarised_from_its_own_cells():
    one, other = task_of("one"), task_of("other")
    results = scores.results_of([one, other], [(one, CELLS[0]), (other, CELLS[2])])
    assert {name: result["lr"] for name, result in results.items()} == {"one": 1, "other": 2}


def test_there_are_no_results_while_a_cell_is_not_finished():
    task = task_of()
    assert scores.results_of([task], [(task, CELLS[0]), (task, None)]) is None


# --------------------------------------------------------------------------------------------------
# One number

def result_of(**parts):
    return {"score": {part: [score, None] for part, score in parts.items()}}


def test_the_headline_is_the_test_score_where_there_is_one():
    assert scores.headline(result_of(dev=0.6, test=0.5)) == 0.5
    assert scores.headline(result_of(dev=0.6)) == 0.6
    assert scores.headline(result_of(dev_matched=0.7, dev_mismatched=0.8)) == 0.7


def test_the_headline_on_which_the_setting_was_chosen_is_the_development_score():
    assert scores.headline(result_of(dev=0.6, test=0.5), chosen_on=True) == 0.6


def test_a_students_score_is_the_mean_of_its_tasks_headlines():
    results = {"one": result_of(dev=0.6, test=0.5), "other": result_of(dev=0.8, test=0.9)}
    assert scores.score_of(results) == pytest.approx(0.7)
    assert scores.score_of({"one": result_of(dev=0.6)}, chosen_on=True) == 0.6


def test_the_papers_average_is_over_its_seven_tasks_though_more_were_run():
    results = {task: result_of(dev=i / 10) for i, task in enumerate(scores.PAPER_SEVEN)}
    results["wnli"] = result_of(dev=0.0)
    assert scores.average(results) == (
        "average of the paper's seven tasks, development sets", pytest.approx(0.3))


def test_an_average_over_other_tasks_says_how_many_and_on_which_sets():
    only_dev = {"cola": result_of(dev=0.5), "rte": result_of(dev=0.7)}
    assert scores.average(only_dev) == (
        "average over these 2 tasks, development sets", pytest.approx(0.6))
    with_test = {"sentiment": result_of(dev=0.5, test=0.4)}
    assert scores.average(with_test) == ("score of this task, test set", 0.4)
