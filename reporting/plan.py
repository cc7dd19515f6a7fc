"""What a comparison would do and cost, in words: what `compare.py --dry-run` prints.

    plan.describe(args, grid)    # lines; the last one names what is not on this disk
"""
from files import disk
from plumbing import cli
from program.options import words_of

from reporting import cells, price
from reporting.price import FINE_TUNING_SPEED, LAPTOP_CORES, LAPTOP_RATE, START
from reporting.words import data_setting, listed, spell

H100_RATE = 3e14  # FLOP/s in pretraining


def describe(args, grid):
    """The comparison, its cost in FLOPs and in time, and what it needs that is not here: text."""
    tasks, why_not = cells.tasks_here(args)
    prices, phases = price.Prices(args, tasks), cells.phases_of(args, grid)
    work = prices.total(cell for cells_of_phase in phases for cell in cells_of_phase)
    seconds = prices.seconds_on_cores(phases, LAPTOP_RATE, LAPTOP_CORES)
    return "\n".join([
        *what_is_made(args, grid), *what_it_costs(args, work, why_not),
        *how_long(work, seconds, why_not), *what_is_missing(args)])


def what_is_made(args, grid):
    """Lines on the students, their tasks and their teacher."""
    kinds = ((args.strategies, "strategy", "strategies"), (args.budgets, "budget", "budgets"),
             (args.unique_tokens, "data setting", "data settings"),
             (args.seed_numbers, "seed", "seeds"))
    product = " x ".join(f"{len(values)} {one if len(values) == 1 else many}"
                         for values, one, many in kinds)
    settings = listed([data_setting(tokens) for tokens in args.unique_tokens])
    budgets = listed([spell(C) for C in args.budgets])
    size, times = args.model, price.fine_tunings(args)
    tasks = "all its tasks" if args.tasks == "all" else listed(args.tasks.split(","))
    often = "once each" if times == 1 else f"{times} times each"
    yield f"{cli.counted(len(grid), 'student')}: {product}"
    yield f"grid        {', '.join(args.strategies)}; {budgets} FLOPs; {settings}"
    yield (f"student     BERT {size} ({size.L} layers, {size.h} wide), trained on {args.data}, "
           f"then fine-tuned on {tasks}, {often}")
    yield f"teacher     {teachers(args)}"


def teachers(args):
    """Which teacher serves which strategy, and who trains it."""
    size = args.teacher_model
    described = f"BERT {size} ({size.L} layers, {size.h} wide)"
    if not args.teacher:
        return (f"{described}, which is trained first, with "
                f"{cli.flops(args.teacher_flops)} FLOPs")
    readers = [name for name in args.strategies if cells.reads_predictions(args, name)]
    if not (args.head_teacher and readers):
        return f"{args.teacher}, a {described}, whose own training is not counted here"
    return (f"{args.teacher}, a {described}, and for predictions ({', '.join(readers)}) "
            f"{args.head_teacher}; their own training is not counted here")


def what_it_costs(args, work, why_not):
    """Lines on the FLOPs. why_not: why fine-tuning cannot be counted, or ""."""
    share = "the teacher's passes included"
    if not args.teacher:
        share = f"{cli.flops(args.teacher_flops)} of them the teacher's training"
    fine_tuning = (f"{cli.flops(work.fine_tuning)} of fine-tuning, at {FINE_TUNING_SPEED:.0%} of "
                   "the speed")
    if why_not:
        fine_tuning = f"fine-tuning is not counted: {why_not}"
    yield f"cost        {cli.flops(work.pretraining)} FLOPs of pretraining, {share}"
    yield f"            {cli.flops(work.validation)} of validation; {fine_tuning}"


def how_long(work, seconds, why_not):
    """Lines on the time. seconds: of the whole comparison on a laptop."""
    uncounted = ", fine-tuning not included" if why_not else ""
    yield (f"time        about {cli.duration(seconds)} on {LAPTOP_CORES} laptop cores that reach "
           f"{cli.flops(LAPTOP_RATE)} FLOP/s together{uncounted}")
    yield (f"            (each of {work.starts:,} programs takes {START} s of a core to start "
           "and to end)")
    yield (f"            on an H100 at {cli.flops(H100_RATE)} FLOP/s, pretraining alone: "
           f"{cli.duration(work.pretraining / H100_RATE)}; the rest was not measured there")


def what_is_missing(args):
    """Lines on the teachers, the text and the tasks that are no file and no folder here, or none.
    Their names may be on the hub: no network is asked."""
    names = [(args.teacher, "teacher"), (args.head_teacher, "teacher with a head"),
             *((text, "text") for text in words_of(args.data, "--data")),
             (args.glue_data, "tasks")]
    absent = [f"{name} ({what})" for name, what in names
              if name and name != "stories" and not disk.path_of(name).exists()]
    if absent:
        yield f"not here    {', '.join(absent)}"
        yield "            A name on the hub, like owner/name, is downloaded when the study begins."
    if args.head_teacher and not disk.path_of(args.head_teacher).exists():
        yield ('            docs/clusters.md says under "Real text" how a teacher gets a head, and '
               "which folders are needed.")
