"""The command lines of train.py, glue.py and compare.py: flags, defaults, contradictions.

Each function takes a list of words (None: those of the running program) and returns the options.
What is wrong with them raises UserError. Nothing here imports torch, so that --help is quick.
"""
import os
import shlex
from pathlib import Path

from plumbing import cli, disk
from plumbing.cli import UserError

import budget
import distill

# --------------------------------------------------------------------------------------------------
# train.py

TRAIN_EXAMPLES = """examples:
  python train.py --strategy scratch --flops 1e13                 stories, a minute or two
  python train.py --strategy kd --teacher runs/... --flops 1e13   the same budget, distilled
  python train.py --strategy scratch --flops 1e14 --data my-books/
                          your text: .txt .jsonl .csv .parquet, or a hub id"""


def train(argv=None):
    """The options of train.py."""
    parser = cli.Parser(description="Pretrain a BERT within a budget of FLOPs.",
                        epilog=TRAIN_EXAMPLES)
    add_learning(parser)
    add_text(parser)
    add_optimizer(parser)
    add_distillation(parser)
    add_machine(parser)
    add = parser.add_argument
    add("--out", type=place, metavar="FOLDER",
        help="default: runs/ and a name made of the settings")
    add("--dry-run", action="store_true", help="print the plan and stop")
    args = parser.parse_args(argv)
    if args.paper:
        rate = PAPER_LR["scratch" if args.strategy == "scratch" else "distilled"]
        take(args, {**PAPER, "lr": rate})
    take(args, {"dropout": 0.0, "warmup": 0.06})
    # Short blocks and small batches decide whether a small model leaves the unigram plateau. At
    # T = 128 it can spend a laptop's whole budget there (docs/LOG.md); larger budgets pay for more.
    small = args.flops < 10 ** 15
    small_batch = 32 if args.data == ["stories"] else 64
    args.seq_len = args.seq_len or (32 if small else 128)
    args.batch_size = args.batch_size or (small_batch if small else 256)
    check_text(args)
    check_distillation(args)
    check_start(args)
    return args


def place(text):
    """The name of a file or folder, with the home folder for `~`, or a hub id. Raises UserError
    where it is empty, as the variable in --teacher "$TEACHER" may be."""
    return str(disk.path_of(text))


# The setting of Bui et al. 2024, where it differs from the defaults. Their distilled students have
# half the learning rate of those from scratch.
PAPER = {"seq_len": 128, "batch_size": 1024, "dropout": 0.1, "init_range": 0.02, "warmup": 0.06}
PAPER_LR = {"scratch": 1e-3, "distilled": 5e-4}


def take(args, values):
    """Sets the options that are not given."""
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def add_learning(parser):
    """What is trained: strategy, teacher, budget, size."""
    add = parser.add_argument
    add("--strategy", default="scratch", choices=list(distill.STRATEGIES), metavar="NAME",
        help=f"how the student learns: {', '.join(distill.STRATEGIES)} (default: %(default)s)")
    add("--teacher", type=place, metavar="NAME",
        help="a run's folder, a BERT's folder or a hub id; the student takes its tokenizer")
    add("--flops", type=cli.number, required=True, metavar="C",
        help="the budget, like 1e13 or 2.5e15; never exceeded")
    add("--model", type=budget.size, metavar="LxH",
        help="the student: 2x128, 6x768, 4x312h12f1200 (default: by the budget)")


def add_text(parser):
    """What is read."""
    add, whole = parser.add_argument, cli.whole
    add("--data", nargs="+", default=["stories"], metavar="TEXT",
        help="stories (default), files or folders, or a hub id with optional configuration and "
        "split: wikimedia/wikipedia:20231101.en")
    add("--text-column", metavar="NAME",
        help="the column that holds the text, where it is not 'text' or the only one")
    add("--tokenizer", type=place, metavar="NAME",
        help="a tokenizer.json or vocab.txt, a folder or a hub id (default: made from the text)")
    add("--vocab-size", type=whole(6, 10 ** 6), metavar="V",
        help="word pieces of a tokenizer made from the text (default: 8192)")
    add("--unique-tokens", type=cli.number, metavar="N",
        help="train on N distinct tokens, repeated (default: all there are)")
    add("--seq-len", type=whole(4, 2 ** 16), metavar="T",
        help="tokens in a block (default: 32, from 1e15 FLOPs on 128)")
    add("--batch-size", type=whole(1, 2 ** 24), metavar="B",
        help="blocks in a step (default: stories 32, text 64, from 1e15 FLOPs on 256)")


def add_optimizer(parser):
    """How the weights begin, and how they are trained."""
    add, real = parser.add_argument, cli.real
    add("--lr", type=real(1e-9, 10), metavar="R",
        help="peak learning rate (default: 2e-3 sqrt(128 / h))")
    add("--betas", type=real(0, 1 - 1e-9), nargs=2, default=[0.9, 0.98], metavar="b",
        help="AdamW's betas (default: the paper's 0.9 0.98)")
    add("--weight-decay", type=real(0, 10), default=0.01, metavar="w",
        help="of all weights but biases and LayerNorm (default: %(default)s)")
    add("--warmup", type=real(0, 1), metavar="w",
        help="share of the steps in which the rate rises (default: 0.06)")
    add("--dropout", type=real(0, 0.9), metavar="p", help="default: 0")
    add("--start-from", type=place, metavar="NAME",
        help="begin with the weights of a finished run, a BERT's folder or a hub id; the student "
        "takes its size and its tokenizer, and the schedule begins anew")
    add("--init-range", type=real(1e-9, 10), metavar="s",
        help="standard deviation of the first weights (default: 0.02 sqrt(768 / h))")
    add("--paper", action="store_true",
        help="the paper's setting where nothing else is given: --seq-len 128 --batch-size 1024 "
        "--dropout 0.1 --init-range 0.02 --warmup 0.06, and --lr 1e-3 for scratch, 5e-4 for a "
        "distilled student")
    add("--seed", type=cli.whole(0, 2 ** 31 - 1), default=0, metavar="n",
        help="decides weights, order, masks, stories (default: %(default)s)")


def add_distillation(parser):
    """What only some strategies use."""
    add, whole, real = parser.add_argument, cli.whole, cli.real
    add("--init", default="random", choices=["random", "teacher"],
        help="teacher: begin with every n-th of its layers, also from scratch: the control that "
        "tells distillation from the copied layers (default: random)")
    add("--mlm-finish", type=real(0, 0.9), default=0.0, metavar="s",
        help="the last share of the budget that goes to plain masked language modelling "
        "(default: 0)")
    add("--temperature", type=real(0.01, 1000), default=1.0, metavar="t",
        help="kd's temperature (default: %(default)s)")
    add("--relation-heads", type=whole(1, 10 ** 4), metavar="R",
        help="minilm's relation heads (default: 16 wide in the teacher, where the widths allow)")
    add("--teacher-layer", type=whole(1, 1000), metavar="l",
        help="that minilm learns from (default: the last; above 12 layers 7/8 of the way up)")


def add_machine(parser):
    """Where it computes."""
    add = parser.add_argument
    add("--dtype", default="auto", choices=["auto", "fp32", "bf16"],
        help="auto: bf16 autocast where the hardware has it")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--micro-batch", type=cli.whole(1, 2 ** 24), metavar="n",
        help="blocks that a pass computes at once (default: what fits into memory)")
    add("--compile", default="auto", choices=["auto", "on", "off"],
        help="torch.compile of the layers; auto: on a GPU, for runs beyond ten minutes")


def check_text(args):
    """Raises UserError where stories have a column."""
    if args.data == ["stories"] and args.text_column:
        raise UserError("--text-column is for files of rows, and --data is stories: leave it out")


def note_stories(data):
    """Says that stories is the embedded world, where a folder of that name is here. data: of
    --data, a name or a list of names."""
    if data in ("stories", ["stories"]) and Path("stories").exists():
        cli.say_once("--data stories is the embedded world; for the folder of that name that is "
                     "here write ./stories")


def check_distillation(args):
    """Raises UserError where a strategy lacks its teacher, or scratch has what only a distilled
    student can use."""
    copies = args.init == "teacher"
    if copies and args.teacher is None:
        raise UserError("--init teacher copies a teacher's layers: say which with --teacher")
    if args.strategy == "scratch":
        unused = {"--teacher": args.teacher and not copies, "--mlm-finish": args.mlm_finish}
        for flag, is_given in unused.items():
            if is_given:
                raise UserError(f"{flag} is for a student that is taught, and --strategy scratch "
                                "learns from the text alone: leave it out, choose a strategy like "
                                "kd, or copy the teacher's layers with --init teacher")
    elif args.teacher is None:
        distill.lesson(args.strategy, None, None)  # raises, and says what is missing
    if args.teacher and args.vocab_size:
        raise UserError("--vocab-size is for a tokenizer that is made from the text, and a student "
                        "takes its teacher's: leave it out")
    if args.teacher and args.out and os.path.realpath(args.out) == os.path.realpath(args.teacher):
        raise UserError(f"--out {args.out} is the teacher's own folder: choose another")


def check_start(args):
    """Raises UserError where --start-from stands beside an option that it contradicts."""
    if args.start_from is None:
        return
    if args.init == "teacher":
        raise UserError("--start-from and --init teacher both say which weights the student begins "
                        "with: leave one out")
    if args.vocab_size:
        raise UserError("--vocab-size is for a tokenizer that is made from the text, and with "
                        "--start-from a student takes the start's: leave it out")
    if args.out and os.path.realpath(args.out) == os.path.realpath(args.start_from):
        raise UserError(f"--out {args.out} is the folder that --start-from names: choose another")


# --------------------------------------------------------------------------------------------------
# glue.py

GLUE_EXAMPLES = """examples:
  python glue.py runs/student                                             the embedded tasks
  python glue.py runs/student --data glue_data/ --tasks rte,mrpc --seeds 3"""

# The cells of a grid are its learning rates times its batch sizes. `by_width`: the rates are those
# for h = 768, and go up as models get narrower, like pretraining's.
GRIDS = {
    "paper": {"lr": (1e-5, 3e-5, 5e-5, 8e-5), "batch_size": (16, 32), "epochs": 5},
    "quick": {"lr": (8e-5,), "batch_size": (16,), "epochs": 2, "by_width": True},
    "stories": {"lr": (6e-5,), "batch_size": (16,), "epochs": 10, "by_width": True},
    # for a comparison of many students
    "stories-short": {"lr": (8e-5,), "batch_size": (16,), "epochs": 8, "by_width": True},
}
EMBEDDED_TASKS = ("acceptability", "sentiment", "paraphrase", "entailment")
GLUE_TASKS = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")


def glue(argv=None):
    """The options of glue.py."""
    parser = cli.Parser(
        description="Fine-tune a BERT on GLUE or on the embedded world's tasks, and score it.",
        epilog=GLUE_EXAMPLES)
    add, whole = parser.add_argument, cli.whole
    add("model", nargs="*", type=place, help="a run's folder, a BERT's folder or a hub id")
    add("--data", default="stories", metavar="DATA",
        help="stories (default), a folder with GLUE's files (the official download's, the hub's or "
        "save_to_disk's), the folder of one task, or a hub id: nyu-mll/glue")
    add("--tasks", default="all", metavar="A,B",
        help=f"all (default), or some of {', '.join(EMBEDDED_TASKS)}; {', '.join(GLUE_TASKS)}; "
        "case and punctuation do not count")
    add("--grid", choices=list(GRIDS),
        help="paper: 4 rates x 2 batch sizes, 5 epochs; quick: one cell, 2 epochs; stories: one "
        "cell, 10 epochs; stories-short: 8 (default: stories for the embedded tasks, else quick)")
    add("--pool", choices=["cls", "mean"],
        help="what is classified: [CLS], or the mean over tokens (default: mean for the embedded "
        "tasks, else cls)")
    add("--seeds", type=whole(1, 1000), default=3, metavar="n",
        help="fine-tunings of each cell (default: %(default)s)")
    add("--seq-len", type=whole(8, 4096), default=128, metavar="T",
        help="longer texts are cut (default: %(default)s)")
    add("--dtype", default="auto", choices=["auto", "fp32", "bf16"],
        help="auto: bf16 autocast where the hardware has it")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--out", type=place, metavar="FOLDER",
        help="where glue.json goes (default: the model's folder)")
    add("--predict", action="store_true",
        help="also write the leaderboard's submission, glue-submission.zip")
    add("--gate", action="store_true", help="is a program of its own: python -m tools.gate")
    args = parser.parse_args(argv)
    if args.gate:
        raise UserError("--gate is a program of its own now: python -m tools.gate")
    if len(args.model) != 1:
        raise UserError(f"one model at a time, not {len(args.model)}" if args.model else
                        "say which model to score: python glue.py runs/student")
    is_embedded = args.data == "stories"
    if args.predict and is_embedded:
        raise UserError("--predict writes the leaderboard's files, and the embedded tasks have no "
                        "leaderboard: give GLUE's files with --data")
    args.grid = args.grid or ("stories" if is_embedded else "quick")
    args.pool = args.pool or ("mean" if is_embedded else "cls")
    return args


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
# Students of a comparison that begin with layers copied from the teacher (--init teacher):
# "scratch-copied" shows what the copied layers alone give.
COPIED = "-copied"
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
    glue(["student", *more])  # raises what is wrong with their values


def words_of(text, flag):
    """What a shell would make of an option's text."""
    try:
        return shlex.split(text)
    except ValueError as failure:
        raise UserError(f"{flag} {text}: {failure}") from None


def numbers(text, flag):
    """'1e12,3e12' -> [1000000000000, 3000000000000]."""
    try:
        return [cli.number(word) for word in text.split(",")]
    except UserError:
        raise UserError(f"{flag} {text}: write numbers like 1e12,3e12") from None
