"""The command line of compare.py: flags, defaults, contradictions.

`compare` takes a list of words (None: those of the running program) and returns the options.
What is wrong with them raises UserError.
"""
from pathlib import Path

from files import disk
from plumbing import cli
from plumbing.cli import UserError
from program.options import COPIED, place, words_of

import budget
import distill
from glue import GRIDS, read_settings

# --------------------------------------------------------------------------------------------------
# compare.py

COMPARE_EXAMPLES = """examples:
  python compare.py                                  the demonstration, about ten minutes
  python compare.py --strategies scratch,kd,kd-released --budgets 1e12,3e12 --seeds 5 --out runs/kd
  python compare.py --preset stories --list          the cells as lines of shell, teachers first
  python compare.py --collect runs/class/* --out runs/class-report     one report from many people
  python compare.py --preset paper --dry-run         what the paper's study costs"""

PRESETS = {
    "demo": {
        "strategies": "scratch,kd,tinybert,minilm", "budgets": "1e12", "unique_tokens": "inf",
        "seeds": 3, "model": "2x128", "teacher_model": "4x128", "teacher_flops": "1e13",
        "tasks": "acceptability,paraphrase", "glue_seeds": 1},
    # The rates are those of the best development score at 3e12 FLOPs (docs/LOG.md).
    "stories": {
        "strategies": "scratch,kd,tinybert,minilm", "budgets": "1e12,3e12,1e13",
        "unique_tokens": "inf,1e4", "seeds": 12, "model": "2x128", "teacher_model": "4x128",
        "teacher_flops": "1e14", "tasks": "acceptability,paraphrase,entailment", "glue_seeds": 2,
        "lr": "scratch=2e-3,kd=2e-3,tinybert=4e-3,minilm=4e-3"},
    # On folders of real text and of GLUE's files. The second teacher is the first one with a head
    # that masked language modelling gave back to it (docs/clusters.md says how).
    "books": {
        "strategies": "scratch,kd,tinybert,minilm", "budgets": "1e13,3e13,1e14",
        "unique_tokens": "inf,3e5", "seeds": 4, "model": "2x192h12",
        "teacher": "sentence-transformers/all-MiniLM-L6-v2", "teacher_model": "6x384h12",
        "head_teacher": "runs/books-teacher", "data": "books", "glue_data": "glue_data",
        "tasks": "cola,mrpc,stsb,rte", "glue_seeds": 2, "glue_grid": "quick",
        "train_options": "--seq-len 64 --batch-size 32"},
    "paper": {
        "strategies": "scratch,kd,tinybert,minilm", "budgets": "1.5e18,9e18",
        "unique_tokens": "inf,2.6e9", "seeds": 1, "model": "6x768",
        "teacher": "bert-base-uncased", "teacher_model": "12x768",
        "data": "wikimedia/wikipedia:20231101.en", "glue_data": "nyu-mll/glue",
        "tasks": "mnli,qqp,qnli,sst2,mrpc,rte,cola", "glue_seeds": 3, "glue_grid": "paper",
        "train_options": "--paper"},
}
NO_PRESET = {"data": "stories", "glue_data": "stories", "teacher": None, "teacher_flops": "0",
             "glue_grid": None, "train_options": ""}
STUDENTS = [*distill.STRATEGIES, *(name + COPIED for name in distill.STRATEGIES)]
# The options of train.py that make one strategy, and may differ from that of scratch.
ONLY_DISTILLED = ("--mlm-finish", "--init", "--temperature", "--relation-heads", "--teacher-layer")
# The options of train.py that make one student, and have an option of compare.py's own.
OF_A_CELL = ("--strategy", "--flops", "--model", "--data", "--seed", "--unique-tokens", "--teacher",
             "--init", "--out", "--dry-run")
# The options of glue.py that compare.py has no option of its own for.
MORE_OF_GLUE = ("--pool", "--seq-len", "--dtype", "--device")


def compare(argv=None):
    """The options of compare.py, with those of the preset where none are given."""
    parser = cli.Parser(
        description="From scratch or distilled, at equal compute: grid, table, figure, report.",
        epilog=COMPARE_EXAMPLES,
        verbatim=("--train-options", "--distil-options", "--glue-options"))
    add_grid(parser)
    add_scoring(parser)
    add_running(parser)
    args = parser.parse_args(argv)
    take_from_teacher(args)
    preset = {**NO_PRESET, **PRESETS[args.preset]}
    if args.lr_grid:  # it chooses the rates
        preset.pop("lr", None)
    if args.teacher:  # another one than the preset's, of which its second teacher was made
        preset.pop("head_teacher", None)
    for name, value in preset.items():
        if getattr(args, name) is None:
            is_size = name in ("model", "teacher_model")
            setattr(args, name, budget.size(value) if is_size else value)
    read_lists(args)
    check_comparison(args)
    check_more_options(args)
    args.glue_grid = args.glue_grid or ("stories-short" if args.glue_data == "stories" else "quick")
    args.out = Path(args.out or ("runs/collected" if args.collect else
                                 f"runs/compare-{args.preset}"))
    return args


def add_grid(parser):
    """Which students there are."""
    add, whole = parser.add_argument, cli.whole
    add("--preset", default="demo", choices=list(PRESETS),
        help="what the options below are, where they are not given (default: demo)")
    add("--strategies", metavar="A,B",
        help=f"scratch must be among them; {', '.join(distill.STRATEGIES)}; with {COPIED} behind "
        "it, as in scratch-copied, the student begins with layers copied from the teacher")
    add("--budgets", metavar="C,C", help="FLOPs of a student, like 1e12,3e12,1e13")
    add("--unique-tokens", metavar="N,N",
        help="distinct tokens of the text, like inf,1e4: inf is all there are")
    add("--seeds", type=whole(1, 1000), metavar="n",
        help="students of each kind; differences are paired by seed")
    add("--first-seed", type=whole(0, 2 ** 30), default=0, metavar="n",
        help="their seeds count from here (default: 0): a class takes 0, 10, 20, ...")
    add("--model", type=budget.size, metavar="LxH",
        help="the student: layers x width, and heads where they are not 64 wide: 2x192h12")
    add("--teacher", type=place, metavar="NAME",
        help="a teacher that exists: a run's folder, a BERT's folder or a hub id (default: one is "
        "trained)")
    add("--head-teacher", type=place, metavar="NAME",
        help="another teacher, of the same size, for the strategies that read predictions (kd): "
        "where --teacher is an encoder without a head for masked words")
    add("--teacher-model", type=budget.size, metavar="LxH", help="size of a teacher to train")
    add("--teacher-flops", metavar="C",
        help="its budget; of a teacher that exists: what its training cost, for the break-even")
    add("--data", metavar="TEXT", help="to train on, as in train.py (default: stories)")
    add("--lr", metavar="R",
        help="of every student, or one for each strategy: scratch=2e-3,kd=2e-3 (default: "
        "train.py's)")
    add("--lr-grid", metavar="R,R",
        help="choose each strategy's rate among these, by development score at the smallest "
        "budget, seed 0")
    add("--train-options", metavar="'...'",
        help="more options of train.py, for the teacher and every student: '--seq-len 64'")
    add("--distil-options", default="", metavar="'...'",
        help="more options of train.py for the distilled ones: '--mlm-finish 0.3'")


def add_scoring(parser):
    """How students are scored, as in glue.py."""
    add = parser.add_argument
    add("--glue-data", metavar="DATA", help="to score on, as in glue.py (default: stories)")
    add("--tasks", metavar="A,B", help="as in glue.py")
    add("--glue-grid", choices=list(GRIDS), help="as in glue.py")
    add("--glue-seeds", type=cli.whole(1, 100), metavar="n",
        help="fine-tunings of a student on each task")
    add("--glue-options", default="", metavar="'...'",
        help=f"more options of glue.py: {', '.join(MORE_OF_GLUE)}")


def add_running(parser):
    """What is done."""
    add = parser.add_argument
    add("--jobs", type=cli.whole(1, 1000), metavar="N",
        help="cells at once (default: one a core, each with one thread; one where there is a GPU)")
    add("--out", type=place, metavar="FOLDER", help="default: runs/compare-PRESET")
    add("--collect", nargs="+", type=place, metavar="FOLDER",
        help="run nothing: one report from many comparisons' folders, each with seeds of its own")
    add("--list", action="store_true", help="print the cells as lines of shell, and stop")
    add("--dry-run", action="store_true", help="print the grid and its price, and stop")


def take_from_teacher(args):
    """What the folder of a teacher that exists says of it: its training's FLOPs, and its size."""
    if not args.teacher:
        return
    folder = Path(args.teacher)
    record, config = folder / "run.json", folder / "config.json"
    if args.teacher_flops is None:  # of a teacher that is no run nothing is charged
        spent = disk.optional_json(record)
        before = spent.get("flops_before") or 0  # of the run that it began with (--start-from)
        args.teacher_flops = str(spent.get("flops_spent", 0) + before)
    if args.teacher_model is None and config.exists():
        # These import torch, which --help does without.
        from plumbing.huggingface import read_config

        from model import BertConfig
        args.teacher_model = read_config(folder, BertConfig).size


def read_lists(args):
    """The options that are lists, from text: strategies, budgets, distinct tokens, rates."""
    args.strategies = list(dict.fromkeys(args.strategies.split(",")))
    args.seed_numbers = range(args.first_seed, args.first_seed + args.seeds)
    args.budgets = sorted(set(numbers(args.budgets, "--budgets")))
    args.unique_tokens = [None if word == "inf" else numbers(word, "--unique-tokens")[0]
                          for word in dict.fromkeys(args.unique_tokens.split(","))]
    args.teacher_flops = cli.number(args.teacher_flops) if args.teacher_flops != "0" else 0
    args.rates = rates_of(args)
    if args.lr is not None and "=" not in args.lr:
        args.lr = learning_rate(args.lr)
    if args.lr_grid:
        args.lr_grid = [cli.real(1e-9, 10)(word) for word in args.lr_grid.split(",")]
    else:
        args.lr_grid = None


def rates_of(args):
    """{strategy: its learning rate, or None} by --lr."""
    if args.lr is None or "=" not in args.lr:
        rate = args.lr and learning_rate(args.lr)
        return dict.fromkeys(args.strategies, rate)
    rates = dict.fromkeys(args.strategies)
    for word in args.lr.split(","):
        strategy, _, rate = word.partition("=")
        if strategy not in STUDENTS:
            raise UserError(f"--lr {word}: write STRATEGY=RATE, as in scratch=2e-3,kd=2e-3")
        if strategy in rates:  # a preset has rates for strategies that are not asked for
            rates[strategy] = learning_rate(rate)
    return rates


def learning_rate(text):
    """A rate from the text of --lr."""
    try:
        return cli.real(1e-9, 10)(text)
    except UserError as failure:
        raise UserError(f"--lr: {failure}") from None


def check_comparison(args):
    """Raises UserError where the grid would compare nothing, or more than the strategies."""
    for name in args.strategies:
        if name not in STUDENTS:
            raise UserError(f"--strategies: {name!r} is none of {', '.join(distill.STRATEGIES)}, "
                            f"alone or with {COPIED} behind it")
    if args.head_teacher and not args.teacher:
        raise UserError("--head-teacher is for a --teacher that has no head: give that one, too")
    if "scratch" not in args.strategies:
        raise UserError("--strategies has no scratch, and there is nothing to compare with: add it")
    if args.teacher is None:
        cheapest_step = budget.step_flops(args.teacher_model, 200, 32, 1)
        if args.teacher_flops < 1000 * cheapest_step:
            raise UserError(f"--teacher-flops {cli.flops(args.teacher_flops)} is no training for a "
                            f"teacher of {args.teacher_model}: raise it, or name one with "
                            "--teacher")


def check_more_options(args):
    """Raises UserError where --train-options, --distil-options or --glue-options hold what is not
    theirs."""
    for word in words_of(args.train_options, "--train-options"):
        if word.split("=")[0] in OF_A_CELL:
            raise UserError(f"--train-options {word}: each student has its own, by an option of "
                            "compare.py (--help); layers are copied by --strategies "
                            "scratch-copied")
    for word in words_of(args.distil_options, "--distil-options"):
        if word.startswith("--") and word.split("=")[0] not in ONLY_DISTILLED:
            raise UserError(f"--distil-options {word}: that would make more than the strategy "
                            "differ; put it into --train-options, for all")
    more = words_of(args.glue_options, "--glue-options")
    for word in more:
        if word.startswith("--") and word.split("=")[0] not in MORE_OF_GLUE:
            raise UserError(f"--glue-options {word} is none of {', '.join(MORE_OF_GLUE)}")
    read_settings(["student", *more])  # raises what is wrong with their values


def numbers(text, flag):
    """'1e12,3e12' -> [1000000000000, 3000000000000]."""
    try:
        return [cli.number(word) for word in text.split(",")]
    except UserError:
        raise UserError(f"{flag} {text}: write numbers like 1e12,3e12") from None
