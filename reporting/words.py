"""How numbers are written in reports and in the names of cells, and a model's scores as a table."""
import math

from program import cli

from measure.scores import average


def spell(n):
    """'1.00e12' where that is exactly the number, else all its digits: for names and commands."""
    return cli.flops(n) if float(cli.flops(n)) == n else str(n)


def data_setting(unique_tokens):
    """How many distinct tokens there are to train on, in words. Unlimited ones are None in
    settings, and infinitely many in a table."""
    if unique_tokens in (None, math.inf):
        return "unlimited data"
    return f"{unique_tokens:,.0f} distinct tokens"


def plus_minus(value, half):
    """'9.6 ± 6.7', or '9.6' without a half width of the interval."""
    value = round(value, 1) + 0.0  # -0.04 is no "-0.0"
    return f"{value:.1f}" + ("" if half is None else f" ± {half:.1f}")


def listed(words, conjunction="and"):
    """'a', 'a and b', or 'a, b and c'."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def power_of_ten(n):
    """A number as a figure writes it: 10¹², or 3·10¹²."""
    digits, exponent = f"{n:.2e}".split("e")
    digits = f"{float(digits):g}"
    raised = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def scores_table(results):
    """One line for each task, part and metric, and the average. results: {task: summary}."""
    lines = [f"{'task':14} {'part':15} {'metric':10} {'score':>14}   {'majority':>8}  best setting "
             "(by development score)"]
    for task, result in results.items():
        seeds = cli.counted(result["seeds"], "seed")
        setting = (f"lr {result['lr']:.2g}, batch {result['batch_size']}, {result['epochs']} "
                   f"epochs: {result['settings_tried']} tried, {seeds}")
        for part, metrics in result["metrics"].items():
            for metric, (mean, spread) in metrics.items():
                score = f"{100 * mean:6.1f}"
                if spread is not None:
                    score += f" +- {100 * spread:4.1f}"
                majority = 100 * result["majority"][part][metric]
                lines.append(f"{task:14} {part:15} {metric:10} {score:>14}   {majority:8.1f}  "
                             f"{setting}")
    name, value = average(results)
    seconds = sum(result["seconds"] for result in results.values())
    lines.append(f"{name}: {100 * value:.1f}   ({seconds:,.0f} s of fine-tuning)")
    return "\n".join(lines)
