"""The answer, which is the first page of report.md: a sentence for each data setting, one on what
they mean for somebody who has a budget, and a figure.

The sentences follow from the verdicts of reporting/findings.py.
"""
from program import cli

from measure.statistics import MARGIN, is_resolved
from reporting import findings
from reporting.words import data_setting, difference_words, listed, plus_minus

FEW = 6  # pairs, below which a difference is a demonstration

# --------------------------------------------------------------------------------------------------
# What was found


def answer(args, rows, pooled, beside):
    """The answer in a sentence for each data setting, and one on what it means. rows, pooled,
    beside: of findings.rows_of, pooled_of and controls_of."""
    sentences = []
    for unique in args.unique_tokens:
        own = of_setting(pooled, unique)
        if own:
            sentences.append(finding(unique, own, args))
    return [*sentences, conclusion(args, rows, pooled, beside)]


def of_setting(rows, unique_tokens):
    """The rows of one data setting."""
    return [row for row in rows if row["unique_tokens"] == unique_tokens]


def finding(unique_tokens, rows, args):
    """The sentence on a data setting. rows: its pooled differences."""
    changing = [row for row in rows if row["depends"]]
    others = [row for row in rows if not row["depends"]]
    budgets = [which_budgets(row, args) for row in others]
    shared = ""
    if not changing and len(set(budgets)) == 1:  # said once for all
        shared, budgets = budgets[0], [""] * len(others)
    parts = dependences(changing)
    if others:
        parts.append(listed(clauses(others, budgets)))
    return f"With {data_setting(unique_tokens)}{shared}, {'; '.join(parts)}."


def dependences(rows):
    """What differences say that depend on the budget: a part of a sentence for all that were
    measured at the same budgets."""
    parts = []
    for budgets in dict.fromkeys(tuple(row["budgets"]) for row in rows):
        gains = [f"**{row['strategy']}'s is "
                 f"{listed([difference_words(part) for part in row['parts']])} points**"
                 for row in rows if tuple(row["budgets"]) == budgets]
        at = listed([cli.flops(C) for C in budgets])
        parts.append(f"the gain over scratch depends on the budget: at {at} FLOPs {listed(gains)}")
    return parts


def clauses(rows, budgets):
    """What pooled differences say, as parts of a sentence: one for each that is resolved, and one
    for all others. budgets: for each the words that name its budgets."""
    parts, unresolved = [], []
    for row, at_budgets in zip(rows, budgets):
        if part := clause(row):
            parts.append(part + at_budgets)
        else:
            unresolved.append(f"{row['strategy']} ({difference_words(row)}){at_budgets}")
    if unresolved:
        verb = "is" if len(unresolved) == 1 else "are"
        parts.append(f"{listed(unresolved)} {verb} not told apart from scratch")
    return parts


def clause(row):
    """What one pooled difference says. None where it is not resolved."""
    points = plus_minus(abs(row["difference"]), row["difference_half"])
    if row["verdict"].startswith("ahead"):
        return f"**{row['strategy']} scores {points} points more than scratch**"
    if row["verdict"].startswith("behind"):
        return f"**{row['strategy']} scores {points} points less than scratch**"
    if row["verdict"].startswith("equal"):
        return (f"**{row['strategy']} and scratch are equal within {MARGIN:g} points** "
                f"({difference_words(row)})")
    return None


def which_budgets(row, args):
    """The budgets that a pooled difference is of, where it lacks some of the comparison's."""
    if row["depends"] or len(row["budgets"]) == len(args.budgets):
        return ""
    return f" at {listed([cli.flops(C) for C in row['budgets']])} FLOPs"


# --------------------------------------------------------------------------------------------------
# What it means


def conclusion(args, rows, pooled, beside):
    """What the verdicts mean for somebody who has a budget. What has the same advice shares it."""
    if not pooled:
        return nothing_to_compare(rows)
    found = list(verdicts_of(args, pooled))
    cases = {}  # {advice: {data setting: the budgets that it is for}}
    for unique, budgets, own in found:
        controls = [row for row in of_setting(beside, unique) if row["flops"] in budgets]
        cases.setdefault(advice(own, controls), {}).setdefault(unique, []).extend(budgets)
    words = "; ".join(f"with {listed([place(*item, args) for item in places.items()])}, {words}"
                      for words, places in cases.items())
    [(only, places), *others] = cases.items()
    if not others and all(budgets == args.budgets for budgets in places.values()):
        words = only
    is_any_ahead = any(row["verdict"].startswith("ahead") for _, _, own in found for row in own)
    return f"So, {words}.{price_of_teacher(args) if is_any_ahead else ''}"


def verdicts_of(args, pooled):
    """(data setting, budgets, rows with the verdicts that advice for these follows from), one by
    one. They are the pooled rows, for all budgets at once. But where a difference depends on the
    budget, or was not measured at each, every budget is by itself. Then of what depends on it the
    verdict at this budget counts, and of all else the pooled one, which rests on more students."""
    for unique in args.unique_tokens:
        own = of_setting(pooled, unique)
        if not any(row["depends"] or row["budgets"] != args.budgets for row in own):
            if own:
                yield unique, args.budgets, own
            continue
        for C in args.budgets:
            at_budget = [part_at(row, C) if row["depends"] else row for row in own
                         if C in row["budgets"]]
            if at_budget:
                yield unique, [C], at_budget


def part_at(row, flops):
    """The row of one budget among those of a pooled difference."""
    return next(part for part in row["parts"] if part["flops"] == flops)


def place(unique_tokens, budgets, args):
    """A data setting, and in brackets the budgets in it that are meant where these are not all."""
    if budgets == args.budgets:
        return data_setting(unique_tokens)
    return f"{data_setting(unique_tokens)} ({listed([cli.flops(C) for C in budgets])} FLOPs)"


def nothing_to_compare(rows):
    """Why no strategy has a difference to scratch."""
    if any(row["pairs"] for row in rows):
        return "No seed has all budgets: there is a difference for each budget, and none for all."
    if all(row["strategy"] == "scratch" for row in rows):
        return "Only scratch was run: there is nothing to compare it with."
    return ("No student has a partner from scratch with the same seed, data and budget: there is "
            "nothing to compare.")


def advice(rows, beside):
    """What to do in one data setting. rows: its differences with their verdicts; beside: its rows
    of controls."""
    ahead = [row["strategy"] for row in rows if row["verdict"].startswith("ahead")]
    if ahead:
        return f"if you have a teacher, {what_to_distil(ahead, beside)}"
    still_open = [row["strategy"] for row in rows if not is_resolved(row["verdict"])]
    if not still_open:
        return "pretrain from scratch, and save yourself the teacher"
    if len(still_open) == len(rows):
        return "more seeds are needed before this says what to do"
    others = [row["strategy"] for row in rows if row["strategy"] not in still_open]
    return (f"nothing here speaks for {listed(others, 'or')}, and {listed(still_open)} "
            f"{'is' if len(still_open) == 1 else 'are'} still open")


def what_to_distil(ahead, beside):
    """What to do with a teacher, where these strategies are ahead of scratch. Where copied layers
    alone are, too, distilling is advised only where it is ahead of them."""
    if findings.ONLY_COPIED not in ahead:
        return f"distil with {listed(ahead, 'or')}"
    better = [strategy for strategy in ahead if beats(strategy, beside)]
    copy = f"begin with layers copied from it ({findings.ONLY_COPIED})"
    if better:
        return (f"distil with {listed(better, 'or')}, or {copy}: no other is seen to give more "
                "than those")
    return f"{copy}: no distillation is seen to give more than those"


def beats(strategy, beside):
    """Whether a strategy is ahead of copied layers alone at every budget at which both were run."""
    verdicts = [row["verdict"] for row in beside
                if (row["strategy"], row["control"]) == (strategy, findings.ONLY_COPIED)]
    return bool(verdicts) and all(words.startswith("ahead") for words in verdicts)


def price_of_teacher(args):
    """A sentence on the teacher's price, or nothing where it is not known."""
    if not args.teacher_flops:
        return ""
    prices = [in_students(args.teacher_flops / C) for C in args.budgets]
    if len(args.budgets) > 1:
        prices = [f"{price} of {cli.flops(C)}" for price, C in zip(prices, args.budgets)]
    return f" To train the teacher first costs as much as {listed(prices, 'or')}."


def in_students(ratio):
    """A number of students in words: "33 students", "1.4 students", "0.3 of a student"."""
    if ratio < 0.01:
        return "less than a hundredth of a student"
    if ratio < 1:
        return f"{ratio:.2g} of a student"
    return f"{ratio:.2g} students" if ratio < 10 else f"{ratio:,.0f} students"


# --------------------------------------------------------------------------------------------------
# The first page


def section(args, sentences, pooled):
    """The sentences of `answer`, and the figure that shows them."""
    if not pooled:
        return [" ".join(sentences), ""]
    return [" ".join(sentences), "", "![differences to scratch](forest.png)", "",
            f"Points of the score, {where(args)}, with 95% intervals (Student's t, paired by seed; "
            f"n is the number of pairs).{few(pooled)} A verdict is given where it holds after "
            f"correction for {cli.counted(len(pooled), 'row')} (Holm), and its row is bold in the "
            f"figure, its mark filled. *Equal* means that the whole interval lies within "
            f"{MARGIN:g} points of zero, and is corrected alike.{about_changes(pooled)}", "",
            *[pooled_line(row, args) for row in pooled], ""]


def where(args):
    """At which budgets the students are compared."""
    budgets = f"{listed([cli.flops(C) for C in args.budgets])} FLOPs"
    return f"as means over the budgets ({budgets})" if len(args.budgets) > 1 else f"at {budgets}"


def about_changes(pooled):
    """What the lines call a change, and where the advice for single budgets comes from."""
    n = sum(row["change"]["pairs"] > 1 for row in pooled)
    words = ""
    if n:
        words = " *Change* is the difference at the row's largest budget less that at its smallest."
    if n > 1:
        words += f" The {n} changes are corrected together, apart from the verdicts."
    if any(row["depends"] for row in pooled):
        words += (" A row that depends on the budget has no verdict here. *Budget by budget* has "
                  "one for each, all of them corrected together.")
    return words


def few(pooled):
    """A warning where differences rest on few pairs."""
    pairs = [row["pairs"] for row in pooled]
    if min(pairs) >= FEW:
        return ""
    if max(pairs) < FEW:
        return " **These are few: take it as a demonstration.**"
    return f" **Fewer than {FEW} pairs are a demonstration.**"


def pooled_line(row, args):
    """One row of the figure in words."""
    name = f"{row['strategy']}, {data_setting(row['unique_tokens'])}{which_budgets(row, args)}"
    if row["depends"]:
        found = f"depends on the budget (mean {difference_words(row)} points; n = {row['pairs']})"
    else:
        found = (f"{row['verdict']} ({difference_words(row)} points; n = {row['pairs']}"
                 f"{p_words(row)})")
    return f"- **{name}**: {found}{change_words(row)}"


def change_words(row):
    """The change with the budget, in words. Nothing where there is one budget."""
    change = row["change"]
    if not change["pairs"]:
        return ""
    return f"; change {difference_words(change)} (n = {change['pairs']}{p_words(change)})"


def p_words(row):
    """The corrected p-value, in words."""
    p = row["corrected_p"]
    if p is None:
        return ""
    return "; p < 0.001" if p < 0.001 else f"; p = {p:.2g}"
