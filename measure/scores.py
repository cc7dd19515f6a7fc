"""From the fine-tunings of a student to its one score.

A cell is one finished fine-tuning of a task, with a setting (learning rate, batch size, epochs) and
a seed:

    {"lr": ..., "batch_size": ..., "epochs": ..., "seed": ..., "seconds": ...,
     "scores": {part: {metric: value}}}

A task is a `files.gluefiles.Task`. Its perfect score is 1.
"""
import math
import statistics

# The tasks over which the paper averages.
PAPER_SEVEN = ("mnli", "qqp", "qnli", "sst2", "mrpc", "rte", "cola")


def scores_of(task, predict, part):
    """{metric: value} of one part of a task. predict(part) gives the predictions. A correlation
    with a constant prediction is undefined, and scores 0."""
    predictions, labels = predict(part), [label for _, _, label in task.parts[part]]
    values = {metric.__name__: metric(predictions, labels) for metric in task.metrics}
    return {name: 0.0 if math.isnan(value) else value for name, value in values.items()}


def mean_score(cell, part):
    """The mean over the metrics of a part, as GLUE takes it: of accuracy and F1, or of two
    correlations."""
    return statistics.mean(cell["scores"][part].values())


def mean_and_deviation(values):
    """[mean, standard deviation, or None of a single value]."""
    return [statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None]


def summary(task, cells):
    """The best setting of a task, and its [mean, standard deviation] over seeds on each part.
    cells: its finished fine-tunings. The best setting has the highest mean score on the first
    scored part, which is a development set."""
    by_setting = {}
    for cell in cells:
        setting = cell["lr"], cell["batch_size"], cell["epochs"]
        by_setting.setdefault(setting, []).append(cell)

    def development_score(setting):
        return statistics.mean(mean_score(cell, task.scored[0]) for cell in by_setting[setting])

    lr, batch_size, epochs = best = max(by_setting, key=development_score)
    chosen = by_setting[best]
    score = {part: mean_and_deviation([mean_score(cell, part) for cell in chosen])
             for part in task.scored}
    metrics = {part: {metric: mean_and_deviation([cell["scores"][part][metric] for cell in chosen])
                      for metric in chosen[0]["scores"][part]} for part in task.scored}
    return {"lr": lr, "batch_size": batch_size, "epochs": epochs, "seeds": len(chosen),
            "settings_tried": len(by_setting), "score": score, "metrics": metrics,
            "majority": task.majority, "seconds": sum(cell["seconds"] for cell in cells)}


def results_of(tasks, cells):
    """{task name: summary} from [(task, cell)]. A cell that is not finished is None; while there is
    one, the result is None."""
    if any(cell is None for _, cell in cells):
        return None
    return {task.name: summary(task, [cell for owner, cell in cells if owner is task])
            for task in tasks}


def headline_part(result):
    """The part of a task that its one score is of, from its summary: the test set if that is
    scored, else the development set (of MNLI the matched one)."""
    return "test" if "test" in result["score"] else next(iter(result["score"]))


def headline(result):
    """The one score of a task, from its summary: that on its headline_part."""
    return result["score"][headline_part(result)][0]


def score_of(results):
    """The one score of a student, from {task name: summary}: the mean of its tasks' headlines."""
    return statistics.mean(map(headline, results.values()))


def average(results):
    """(what is averaged, the average) of a student's results: over the seven tasks of the paper if
    all of them were run, else over the tasks that were run."""
    if set(PAPER_SEVEN) <= results.keys():
        seven = {task: results[task] for task in PAPER_SEVEN}
        return "average of the paper's seven tasks, development sets", score_of(seven)
    has_test = all("test" in result["score"] for result in results.values())
    which = "test" if has_test else "development"
    if len(results) == 1:
        return f"score of this task, {which} set", score_of(results)
    return f"average over these {len(results)} tasks, {which} sets", score_of(results)


def guessing_score(result):
    """What an answer without reading scores on a task's headline_part: the score of the majority
    answer. Only F1 is 0 where that answer is "no"; whoever then says "yes" as often as it is right
    has an F1 of that share."""
    majority = dict(result["majority"][headline_part(result)])
    if majority.get("f1") == 0:
        majority["f1"] = 1 - majority["accuracy"]
    return statistics.mean(majority.values())


# On the embedded tasks scores are switches: a student is right about as often as a coin, or nearly
# always. So beside the mean we count the students that can do a task. Test scores in points above
# the majority answer, by a task's first metric: (untrained, teacher), as the gate measured them
# before any strategy was compared (docs/tasks.md, "The gate").
GATE = {"acceptability": (-1.3, 90.2), "sentiment": (-0.3, 48.1), "paraphrase": (1.7, 49.6),
        "entailment": (0.9, 49.9)}


def points_above_majority(result):
    """A student's test score, the mean over its fine-tunings, in points above the majority answer.
    A task's first metric counts: of F1 the majority answer is no lower bound."""
    metrics, majority = result["metrics"]["test"], result["majority"]["test"]
    name = next(iter(metrics))
    return 100 * (metrics[name][0] - majority[name])


def has_skill(task, result):
    """Whether a student can do a task: it scores beyond half of the way from an untrained network
    to the gate's teacher."""
    untrained, teacher = GATE[task]
    return points_above_majority(result) >= (untrained + teacher) / 2
