"""From fine-tunings to the one number of a student."""
import math
import statistics

PAPER_SEVEN = ("mnli", "qqp", "qnli", "sst2", "mrpc", "rte", "cola")


def scores_of(task, predict, part):
    """{metric: value} of a task's part. A constant prediction correlates with nothing, which scores
    0. predict(part) gives the predictions."""
    predictions, labels = predict(part), [label for _, _, label in task.parts[part]]
    values = {metric.__name__: metric(predictions, labels) for metric in task.metrics}
    return {name: 0.0 if math.isnan(value) else value for name, value in values.items()}


def mean_score(cell, part):
    """The mean over a part's metrics, as GLUE takes it of accuracy and F1, and of two
    correlations."""
    return statistics.mean(cell["scores"][part].values())


def spread(values):
    """[mean, standard deviation, or None of a single value]."""
    return [statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None]


def summary(task, cells):
    """The setting with the best mean development score over seeds, with its [mean, standard
    deviation] for every part. cells: finished fine-tunings of the task."""
    by_setting = {}
    for cell in cells:
        setting = (cell["lr"], cell["batch_size"], cell["epochs"])
        by_setting.setdefault(setting, []).append(cell)
    chosen_on = task.scored[0]

    def development_score(setting):
        return statistics.mean(mean_score(cell, chosen_on) for cell in by_setting[setting])

    setting = max(by_setting, key=development_score)
    best = by_setting[setting]
    score = {part: spread([mean_score(cell, part) for cell in best]) for part in task.scored}
    metrics = {part: {name: spread([cell["scores"][part][name] for cell in best])
                      for name in best[0]["scores"][part]} for part in task.scored}
    return {"lr": setting[0], "batch_size": setting[1], "epochs": setting[2], "seeds": len(best),
            "settings_tried": len(by_setting), "score": score, "metrics": metrics,
            "majority": task.majority, "seconds": sum(cell["seconds"] for cell in cells)}


def results_of(tasks, cells):
    """{task: summary} from [(task, finished cell)], or None while one of the cells is None."""
    if any(cell is None for _, cell in cells):
        return None
    return {task.name: summary(task, [cell for of, cell in cells if of is task]) for task in tasks}


def headline(result, chosen_on=False):
    """A task's one score: on the test set where there is one, else on the development set (MNLI:
    matched), by which the setting was chosen. chosen_on: on the development set in any case."""
    scores = result["score"]
    part = "test" if "test" in scores and not chosen_on else next(iter(scores))
    return scores[part][0]


def average(results):
    """(name, mean of the tasks' scores): of the paper's seven, where all are there, else of what
    was run."""
    if set(PAPER_SEVEN) <= results.keys():
        scores = [headline(results[task]) for task in PAPER_SEVEN]
        return "average of the paper's seven tasks, development sets", statistics.mean(scores)
    has_test = all("test" in result["score"] for result in results.values())
    which = "test" if has_test else "development"
    return f"average over these {len(results)} tasks, {which} sets", score_of(results)


def score_of(results, chosen_on=False):
    """A student's score: the mean over tasks of each one's `headline`."""
    return statistics.mean(headline(result, chosen_on) for result in results.values())
