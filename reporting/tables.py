"""The scores of a model as text, in points of 100."""
from program.cli import counted

from measure.scores import average


def scores_table(results):
    """One line for each task, part and metric, and the average. results: {task: summary}, from
    measure/scores.py."""
    lines = [f"{'task':14} {'part':15} {'metric':10} {'score':>14}   {'majority':>8}  best setting "
             "(by development score)"]
    for task, result in results.items():
        setting = (f"lr {result['lr']:.2g}, batch {result['batch_size']}, {result['epochs']} "
                   f"epochs: {result['settings_tried']} tried, {counted(result['seeds'], 'seed')}")
        for part, metrics in result["metrics"].items():
            for metric, score in metrics.items():
                majority = 100 * result["majority"][part][metric]
                lines.append(f"{task:14} {part:15} {metric:10} {points(score):>14}   "
                             f"{majority:8.1f}  {setting}")
    name, value = average(results)
    seconds = sum(result["seconds"] for result in results.values())
    lines.append(f"{name}: {100 * value:.1f}   ({seconds:,.0f} s of fine-tuning)")
    return "\n".join(lines)


def points(score):
    """[mean, standard deviation or None] -> '71.3 +- 0.8'."""
    mean, spread = score
    return f"{100 * mean:6.1f}" + ("" if spread is None else f" +- {100 * spread:4.1f}")
