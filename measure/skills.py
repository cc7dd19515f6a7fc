"""Skills: a student of the embedded world can do a task, or it cannot.

Scores there are switches. A student is right about as often as a coin, or nearly always, and seldom
in between. So beside the mean score we count the students that have the skill. The threshold lies
half way between what an untrained network and the teacher score, as the gate measured it before any
strategy was compared (docs/tasks.md, "The gate").
"""

# Test scores in points above the majority answer, by a task's first metric: (untrained, teacher).
GATE = {"acceptability": (-1.3, 90.2), "sentiment": (-0.3, 48.1), "paraphrase": (1.7, 49.6),
        "entailment": (0.9, 49.9)}


def threshold(task):
    """Points above the majority answer from which on a student has a skill."""
    untrained, teacher = GATE[task]
    return (untrained + teacher) / 2


def points_above_majority(result):
    """A student's test score, the mean over its fine-tunings, in points above the majority answer.

    result: the summary of a task (measure/scores.py). A task's first metric counts: of F1 the
    majority answer is no lower bound."""
    metrics, majority = result["metrics"]["test"], result["majority"]["test"]
    name = next(iter(metrics))
    return 100 * (metrics[name][0] - majority[name])


def has_skill(task, result):
    """Whether a student can do a task."""
    return points_above_majority(result) >= threshold(task)
