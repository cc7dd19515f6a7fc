"""measure/skills.py: a student has a skill that scores half way to the gate's teacher."""
import re
from pathlib import Path

import pytest

from measure import skills

ROOT = Path(__file__).resolve().parent.parent


def result(score, majority=0.5):
    return {"metrics": {"test": {"accuracy": [score, None], "f1": [0.1, None]}},
            "majority": {"test": {"accuracy": majority, "f1": 0.66}}}


def test_the_gates_scores_are_those_of_its_table():
    """docs/tasks.md holds what `python -m tools.gate` printed."""
    lines = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines()
    heads = next(line for line in lines if line.startswith("| | acceptability"))
    tasks = re.findall(r"\| (\w+)", heads)
    untrained, teacher = (
        [float(number) for number in re.findall(r"(-?[\d.]+) \u00b1", line)]
        for line in lines if line.startswith(("| untrained", "| teacher")))
    assert skills.GATE == dict(zip(tasks, zip(untrained, teacher)))


def test_the_threshold_is_half_way_from_the_untrained_network_to_the_teacher():
    # Entailment: 0.9 and 49.9 points above a majority answer of 50.
    assert skills.threshold("entailment") == pytest.approx(25.4)
    assert not skills.has_skill("entailment", result(0.753))
    assert skills.has_skill("entailment", result(0.755))


def test_the_first_metric_counts():
    assert skills.points_above_majority(result(0.9, 0.4)) == pytest.approx(50)
