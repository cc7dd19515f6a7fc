"""measure/scores.py: from predictions to the one score of a student, on a few small numbers."""
import re
from types import SimpleNamespace

import pytest
from conftest import ROOT

from measure import metrics, scores


def task_of(name="t", labels=(0, 1, 1), *used, scored=("dev", "test")):
    """What scores.py reads of a task. All its parts have the same examples."""
    examples = [(f"text {i}", None, label) for i, label in enumerate(labels)]
    return SimpleNamespace(name=name, parts={"dev": examples, "test": examples}, metrics=used,
                           scored=scored, majority={"dev": 0.5, "test": 0.5})


@pytest.mark.parametrize("labels, used, predictions, found", [
    # Precision 2/3 and recall 1: F1 is 0.8.
    ((1, 1, 0, 0), (metrics.accuracy, metrics.f1), [1, 1, 1, 0], {"accuracy": 0.75, "f1": 0.8}),
    # A correlation with a constant is undefined.
    ((1.0, 2.0, 3.0), (metrics.pearson, metrics.spearman), [2.0, 2.0, 2.0],
     {"pearson": 0.0, "spearman": 0.0})])
def test_a_task_is_scored_by_each_of_its_metrics_on_one_part(labels, used, predictions, found):
    task = task_of("t", labels, *used)
    assert scores.scores_of(task, {"dev": predictions}.get, "dev") == pytest.approx(found)


def cell_of(lr, seed, dev, test, seconds=1.0):
    """A finished fine-tuning with these accuracies."""
    return {"lr": lr, "batch_size": 16, "epochs": 2, "seed": seed, "seconds": seconds,
            "scores": {"dev": {"accuracy": dev}, "test": {"accuracy": test}}}


CELLS = [cell_of(1, seed=0, dev=0.9, test=0.9), cell_of(1, seed=1, dev=0.5, test=0.9),
         cell_of(2, seed=0, dev=0.8, test=0.6), cell_of(2, seed=1, dev=0.7, test=0.4)]


def test_the_best_setting_is_chosen_on_the_development_set_and_its_seeds_are_averaged():
    best = scores.summary(task_of(), CELLS)
    # (0.8 + 0.7) / 2 is more than (0.9 + 0.5) / 2, whatever the test set says.
    assert (best["lr"], best["batch_size"], best["epochs"]) == (2, 16, 2)
    assert (best["settings_tried"], best["seeds"], best["seconds"]) == (2, 2, 4.0)
    # The standard deviation of two values is their distance divided by sqrt 2.
    assert best["score"] == {
        "dev": [pytest.approx(0.75), pytest.approx(0.1 / 2 ** 0.5)],
        "test": [pytest.approx(0.5), pytest.approx(0.2 / 2 ** 0.5)]}
    assert best["metrics"]["test"] == {"accuracy": best["score"]["test"]}
    assert best["majority"] == {"dev": 0.5, "test": 0.5}


@pytest.mark.parametrize("scored, score", [
    (("dev", "test"), {"dev": [0.9, None], "test": [0.9, None]}), (("dev",), {"dev": [0.9, None]})])
def test_one_seed_has_no_deviation_and_a_part_that_is_not_scored_no_score(scored, score):
    best = scores.summary(task_of(scored=scored), CELLS[:1])
    assert best["score"] == score and best["metrics"].keys() == score.keys()


def test_each_task_is_summarised_from_its_own_cells_once_all_are_finished():
    one, other = task_of("one"), task_of("other")
    results = scores.results_of([one, other], [(one, CELLS[0]), (other, CELLS[2])])
    assert {name: result["lr"] for name, result in results.items()} == {"one": 1, "other": 2}
    assert scores.results_of([one], [(one, CELLS[0]), (one, None)]) is None


def result_of(**parts):
    return {"score": {part: [score, None] for part, score in parts.items()}}


@pytest.mark.parametrize("parts, score", [
    ({"dev": 0.6, "test": 0.5}, 0.5), ({"dev": 0.6}, 0.6),
    ({"dev_matched": 0.7, "dev_mismatched": 0.8}, 0.7)])
def test_the_headline_is_the_test_score_where_there_is_one(parts, score):
    result = result_of(**parts)
    assert scores.headline(result) == score
    both = {"one": result, "other": result_of(dev=0.8, test=0.8)}
    assert scores.score_of(both) == pytest.approx((score + 0.8) / 2)


SEVEN = {task: {"dev": i / 10} for i, task in enumerate(scores.PAPER_SEVEN)}


@pytest.mark.parametrize("parts, what, mean", [
    (SEVEN | {"wnli": {"dev": 0.0}}, "average of the paper's seven tasks, development sets", 0.3),
    ({"cola": {"dev": 5}, "rte": {"dev": 7}}, "average over these 2 tasks, development sets", 6),
    ({"sentiment": {"dev": 0.5, "test": 0.4}}, "score of this task, test set", 0.4)])
def test_an_average_says_over_which_tasks_and_sets(parts, what, mean):
    results = {task: result_of(**own) for task, own in parts.items()}
    assert scores.average(results) == (what, pytest.approx(mean))


@pytest.mark.parametrize("majority, score", [
    ({"accuracy": 0.6}, 0.6), ({"accuracy": 0.684, "f1": 0.812}, 0.748),  # MRPC: most are "yes"
    ({"accuracy": 0.5, "f1": 0.0}, 0.5), ({"matthews": 0.0}, 0.0)])
def test_guessing_scores_as_the_majority_answer_but_for_an_f1_of_zero(majority, score):
    result = {"score": {"dev": [0.9, None]}, "majority": {"dev": majority}}
    assert scores.guessing_score(result) == pytest.approx(score)


def test_the_gates_scores_are_those_of_its_table():
    """docs/tasks.md holds what `python -m tools.gate` printed."""
    lines = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines()
    heads = next(line for line in lines if line.startswith("| | acceptability"))
    tasks = re.findall(r"\| (\w+)", heads)
    untrained, teacher = (
        [float(number) for number in re.findall(r"(-?[\d.]+) \u00b1", line)]
        for line in lines if line.startswith(("| untrained", "| teacher")))
    assert scores.GATE == dict(zip(tasks, zip(untrained, teacher)))


@pytest.mark.parametrize("score, has_it", [(0.753, False), (0.755, True)])
def test_a_student_has_a_skill_half_way_from_the_untrained_network_to_the_teacher(score, has_it):
    # Entailment: 0.9 and 49.9 points above a majority answer of 50. The first metric counts.
    result = {"metrics": {"test": {"accuracy": [score, None], "f1": [0.1, None]}},
              "majority": {"test": {"accuracy": 0.5, "f1": 0.66}}}
    assert scores.has_skill("entailment", result) == has_it
