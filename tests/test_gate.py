"""gate.py: what a task must show before strategies are compared by it."""
import gate


def rows(*pairs):
    return dict(zip(("untrained", "weak", "better", "teacher"), pairs))


def failed(pairs):
    return [words for words, holds in gate.passes(pairs).items() if not holds]


def test_a_task_that_tells_models_apart_passes():
    assert failed(rows((1.0, 2.0), (10.0, 8.0), (30.0, 9.0), (45.0, 1.0))) == []


def test_each_condition_can_fail_alone():
    assert failed(rows((9.0, 1.0), (20.0, 1.0), (30.0, 1.0), (45.0, 1.0)))[0].startswith("untrained at the majority")
    assert failed(rows((0.0, 1.0), (5.0, 1.0), (10.0, 1.0), (15.0, 1.0)))[0].startswith("teacher at least 20")
    assert failed(rows((0.0, 1.0), (30.0, 1.0), (20.0, 1.0), (45.0, 1.0)))[0].startswith("students in between")
    assert failed(rows((0.0, 1.0), (10.0, 1.0), (20.0, 1.0), (45.0, 9.0)))[0].startswith("seeds agree")


def test_the_table_gives_points_above_the_majority_answer():
    def result(score):
        return {"entailment": {"metrics": {"test": {"accuracy": [score, 0.01]}}, "majority": {"test": {"accuracy": 0.5}}}}
    text = gate.table({"runs/untrained": result(0.51), "runs/a": result(0.6), "runs/b": result(0.7), "runs/teacher": result(0.9)})
    assert "1.0 +-  1.0" in text and "40.0 +-  1.0" in text and "entailment                   passes" in text
