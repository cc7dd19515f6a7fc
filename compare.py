"""The paper's experiment in one command: at equal compute, from scratch or distilled, with unlimited and with repeated data?

    python compare.py                       five to ten minutes on two cores: a teacher, 16 students, their scores, a report
    python compare.py --preset stories      the full study on the embedded world: two hours
    python compare.py --preset stories --list | tail -n +2 | parallel -j 8        after the teacher's line; or a Slurm array

A cell is one line of shell: a `train.py` and a `glue.py`. This program makes the lines, runs those that are not finished, some at a
time, and collects what the cells left behind (report.py). What is finished is skipped: a killed comparison continues. The first line
of --list trains the teacher: the others wait for it.
"""
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple, Optional

import budget
import cli
import disk
import distill
import machine
import runs
from cli import UserError

EXAMPLES = """examples:
  python compare.py                                             the demonstration, five to ten minutes
  python compare.py --strategies scratch,kd,kd-released --budgets 1e12,3e12 --seeds 5 --out runs/kd
  python compare.py --preset stories --list                     the cells as lines of shell, teachers first
  python compare.py --collect runs/class/* --out runs/class-report   one report from many people's comparisons
  python compare.py --preset paper --dry-run                    what the paper's study costs"""

PRESETS = {
    "demo": {"strategies": "scratch,kd,tinybert,minilm", "budgets": "1e12", "unique_tokens": "inf,1e4", "seeds": 2, "model": "2x128",
             "teacher_model": "4x128", "teacher_flops": "1e13", "tasks": "acceptability,paraphrase", "glue_seeds": 1},
    "stories": {"strategies": "scratch,kd,kd-released,tinybert,minilm", "budgets": "1e12,3e12,1e13", "unique_tokens": "inf,1e4", "seeds": 3,
                "model": "2x128", "teacher_model": "4x128", "teacher_flops": "1e14", "tasks": "acceptability,paraphrase,entailment", "glue_seeds": 1},
    # On a folder of real text and real GLUE files: --data books/ --glue-data glue_data/
    "books": {"strategies": "scratch,kd,tinybert,minilm", "budgets": "1e13,3e13,1e14", "unique_tokens": "inf,5e5", "seeds": 3, "model": "2x128",
              "teacher_model": "4x128", "teacher_flops": "3e14", "tasks": "cola,mrpc,stsb,rte", "glue_seeds": 3, "glue_grid": "quick"},
    "paper": {"strategies": "scratch,kd,tinybert,minilm", "budgets": "1.5e18,9e18", "unique_tokens": "inf,2.6e9", "seeds": 1, "model": "6x768",
              "teacher": "bert-base-uncased", "teacher_model": "12x768", "data": "wikimedia/wikipedia:20231101.en", "glue_data": "nyu-mll/glue",
              "tasks": "mnli,qqp,qnli,sst2,mrpc,rte,cola", "glue_seeds": 3, "glue_grid": "paper"},
}


def arguments(argv=None):
    parser = cli.Parser(description="From scratch or distilled, at equal compute: grid, table, figure, report.", epilog=EXAMPLES)
    add, whole, real = parser.add_argument, cli.whole, cli.real
    add("--preset", default="demo", choices=list(PRESETS), help="what the options below are, where they are not given (default: demo)")
    add("--strategies", metavar="A,B", help=f"scratch must be among them; {', '.join(distill.STRATEGIES)}")
    add("--budgets", metavar="C,C", help="FLOPs of a student, like 1e12,3e12,1e13")
    add("--unique-tokens", metavar="N,N", help="distinct tokens of the text, like inf,1e4: inf is all there are")
    add("--seeds", type=whole(1, 1000), metavar="n", help="students of each kind; differences are paired by seed")
    add("--first-seed", type=whole(0, 2 ** 30), default=0, metavar="n", help="their seeds count from here (default: 0): a class takes 0, 10, 20, ...")
    add("--model", type=budget.size, metavar="LxH", help="the student")
    add("--teacher", metavar="NAME", help="a teacher that exists: a run's folder, a BERT's folder or a hub id (default: one is trained)")
    add("--teacher-model", type=budget.size, metavar="LxH", help="size of a teacher to train")
    add("--teacher-flops", metavar="C", help="its budget; of a teacher that exists: what its training cost, for the break-even")
    add("--data", metavar="TEXT", help="to train on, as in train.py (default: stories)")
    add("--glue-data", metavar="DATA", help="to score on, as in glue.py (default: stories)")
    add("--tasks", metavar="A,B", help="as in glue.py")
    add("--glue-grid", choices=["paper", "quick", "stories", "stories-short"], help="as in glue.py")
    add("--glue-seeds", type=whole(1, 100), metavar="n", help="fine-tunings of a student on each task")
    add("--lr", type=real(1e-9, 10), metavar="R", help="of every student (default: train.py's)")
    add("--lr-grid", metavar="R,R", help="choose each strategy's rate among these, by development score at the smallest budget, seed 0")
    add("--train-options", default="", metavar="'...'", help="more options of train.py, for the teacher and every student: '--seq-len 64'")
    add("--distil-options", default="", metavar="'...'", help="more options of train.py for the distilled ones: '--mlm-finish 0.3'")
    add("--jobs", type=whole(1, 1000), metavar="N", help="cells at once (default: one a core, each with one thread; one where there is a GPU)")
    add("--out", metavar="FOLDER", help="default: runs/compare-PRESET")
    add("--collect", nargs="+", metavar="FOLDER", help="run nothing: one report from many comparisons' folders, each with seeds of its own")
    add("--list", action="store_true", help="print the cells as lines of shell, and stop")
    add("--dry-run", action="store_true", help="print the grid and its price, and stop")
    args = parser.parse_args(argv)
    if args.teacher and args.teacher_flops is None:  # a run knows what it cost; of another teacher nothing is charged
        record = Path(args.teacher) / "run.json"
        args.teacher_flops = str(disk.read_json(record).get("flops_spent", 0)) if record.exists() else "0"
    if args.teacher and args.teacher_model is None and (Path(args.teacher) / "config.json").exists():
        from huggingface import read_config
        from model import BertConfig
        args.teacher_model = read_config(Path(args.teacher), BertConfig).size
    for key, value in {"data": "stories", "glue_data": "stories", "teacher": None, "teacher_flops": "0", "glue_grid": None, **PRESETS[args.preset]}.items():
        if getattr(args, key) is None:
            setattr(args, key, budget.size(value) if key in ("model", "teacher_model") else value)
    args.strategies = list(dict.fromkeys(args.strategies.split(",")))
    for name in args.strategies:
        if name not in distill.STRATEGIES:
            raise UserError(f"--strategies: {name!r} is none of {', '.join(distill.STRATEGIES)}")
    if "scratch" not in args.strategies:
        raise UserError("--strategies has no scratch, and there is nothing to compare with: add it")
    args.seed_numbers = range(args.first_seed, args.first_seed + args.seeds)
    args.budgets = sorted(set(numbers(args.budgets, "--budgets")))
    args.unique_tokens = [None if word == "inf" else numbers(word, "--unique-tokens")[0] for word in dict.fromkeys(args.unique_tokens.split(","))]
    args.teacher_flops = cli.number(args.teacher_flops) if args.teacher_flops != "0" else 0
    args.lr_grid = [real(1e-9, 10)(word) for word in args.lr_grid.split(",")] if args.lr_grid else None
    wrong = [word for word in words_of(args.distil_options, "--distil-options") if word.startswith("--") and word not in
             ("--mlm-finish", "--init", "--temperature", "--relation-heads", "--teacher-layer")]
    if wrong:
        raise UserError(f"--distil-options {wrong[0]}: that would make more than the strategy differ; put it into --train-options, for all")
    args.glue_grid = args.glue_grid or ("stories-short" if args.glue_data == "stories" else "quick")
    args.out = Path(args.out or ("runs/collected" if args.collect else f"runs/compare-{args.preset}"))
    if args.teacher is None:
        cheapest = budget.step_flops(args.teacher_model, 200, 32, 1)
        if args.teacher_flops < 1000 * cheapest:
            raise UserError(f"--teacher-flops {budget.flops(args.teacher_flops)} is no training for a teacher of {args.teacher_model}: raise it, or name "
                            "one with --teacher")
    return args


def words_of(text, flag):
    """What a shell would make of an option's text."""
    try:
        return shlex.split(text)
    except ValueError as failure:
        raise UserError(f"{flag} {text}: {failure}") from None


def spell(n):
    """'1.00e12' where that is the number, else all its digits: names and commands must be exact."""
    return budget.flops(n) if float(budget.flops(n)) == n else str(n)


def numbers(text, flag):
    try:
        return [cli.number(word) for word in text.split(",")]
    except Exception:
        raise UserError(f"{flag} {text}: write numbers like 1e12,3e12") from None


# ---------------------------------------------------------------------------------------------------------------------
# Cells

class Cell(NamedTuple):
    strategy: str
    flops: int
    unique_tokens: Optional[int]
    seed: int
    lr: Optional[float]
    folder: Path
    commands: tuple  # argument lists, one after the other

    @property
    def line(self):
        return " && ".join("python " + shlex.join(command) for command in self.commands)


def teacher_of(args):
    """(name of the teacher, the Cell that trains it or None)."""
    if args.teacher:
        return args.teacher, None
    folder = args.out / "teacher"
    # A deeper model wants a smaller rate than the default of its width: 4x128 on stories ends at 0.49 with 1e-3, at 0.81 with 2e-3 (LOG.md).
    lr = float(f"{2e-3 * (128 / args.teacher_model.h) ** 0.5 * (2 / max(2, args.teacher_model.L)):.6g}") if args.data == "stories" else None
    command = ["train.py", "--strategy", "scratch", "--flops", spell(args.teacher_flops), "--model", str(args.teacher_model), *data_options(args),
               *words_of(args.train_options, "--train-options"), *(["--lr", f"{lr:g}"] if lr else []), "--out", str(folder)]
    return str(folder), Cell("teacher", args.teacher_flops, None, 0, lr, folder, (command,))


def data_options(args):
    return [] if args.data == "stories" else ["--data", *words_of(args.data, "--data")]


def cell_of(args, teacher, strategy, flops, unique_tokens, seed, lr):
    name = f"{strategy}-{spell(flops)}-{'all' if unique_tokens is None else spell(unique_tokens)}-seed{seed}" + (f"-lr{lr:g}" if lr else "")
    folder = args.out / "cells" / name
    train = ["train.py", "--strategy", strategy, "--flops", spell(flops), "--model", str(args.model), *data_options(args), "--seed", str(seed),
             *words_of(args.train_options, "--train-options")]
    train += ["--unique-tokens", str(unique_tokens)] if unique_tokens is not None else []
    train += ["--lr", f"{lr:g}"] if lr else []
    # The same tokenizer for all: a student from scratch takes the teacher's, too.
    train += ["--teacher", teacher, *words_of(args.distil_options, "--distil-options")] if strategy != "scratch" else ["--tokenizer", teacher]
    score = ["glue.py", str(folder), "--tasks", args.tasks, "--seeds", str(args.glue_seeds)]
    score += ["--grid", args.glue_grid, *([] if args.glue_data == "stories" else ["--data", args.glue_data])]
    return Cell(strategy, flops, unique_tokens, seed, lr, folder, ((*train, "--out", str(folder)), tuple(score)))


def grid(args, teacher, rates):
    """All cells; rates: {strategy: learning rate or None}."""
    return [cell_of(args, teacher, strategy, flops, unique, seed, rates[strategy]) for flops in args.budgets for unique in args.unique_tokens
            for seed in args.seed_numbers for strategy in args.strategies]


def outcome(cell, args):
    """What a finished cell left: {"record": run.json, "results": {task: summary}}, or None while it is not finished.
    Raises UserError where the folder is not what the cell made: it was edited, or it is the student of another teacher."""
    import glue
    path = cell.folder / "run.json"
    if not path.exists():
        return None
    try:
        record = disk.read_json(path)
    except disk.Damaged:
        if runs.checkpoints(cell.folder):
            return None  # its own command takes run.json from the checkpoint
        raise
    settings = record.get("settings", {})
    expected = {"flops_budget": cell.flops, "seed": cell.seed, "unique_tokens": cell.unique_tokens,
                "strategy": "scratch" if cell.strategy == "teacher" else cell.strategy,
                "model": str(args.teacher_model if cell.strategy == "teacher" else args.model), **({"lr": cell.lr} if cell.lr else {}),
                **({"teacher_sha256": args.teacher_sha256} if cell.strategy not in ("scratch", "teacher") else {})}
    wrong = [key for key, value in expected.items() if settings.get(key) != value]
    if wrong:
        raise UserError(f"{cell.folder} is not what its name says ({', '.join(wrong)}): it was edited; remove it, and it is made again")
    if not record.get("finished"):
        return None
    if cell.strategy == "teacher":
        return {"record": record, "results": {}}
    kept, sha256 = glue.kept_cells(cell.folder / "glue.json"), disk.file_sha256(*(cell.folder / file for file in glue.FILES))
    if any(scored.get("model_sha256") != sha256[:16] for scored in kept["cells"]):
        raise UserError(f"{cell.folder}: the model is not the one that was scored: it was edited, or was scored by an earlier version; "
                        "remove its glue.json, and it is scored again")
    device, dtype = machine.hardware("auto", "auto")
    todo = glue.cells_of(glue.arguments(cell.commands[1][1:]), tasks_of(args), args.model.h, sha256, dtype, device.type)
    results = glue.results_of(tasks_of(args), todo, kept)
    return results and {"record": record, "results": results}


@cache
def cached_tasks(data, names):
    import taskdata
    return taskdata.load(data, names)[0]


def tasks_of(args):
    """The tasks that students are scored on. Raises UserError where one is not there: before anything runs."""
    return cached_tasks(args.glue_data, args.tasks)


# ---------------------------------------------------------------------------------------------------------------------
# Running

def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def stopping(running):
    """Whatever ends the work here ends the cells, too: each saves where it is, and the next comparison continues it."""
    try:
        yield
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGINT)
        for process in running:
            process.wait()


def run(cells, args, what):
    """Runs the cells that are not finished, args.jobs at a time. Returns {cell's folder: last line} of those that failed."""
    from tqdm import tqdm
    waiting = [cell for cell in cells if outcome(cell, args) is None]
    if not waiting:
        return {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores() // args.jobs))}
    here, running, failed, finished = Path(__file__).parent, {}, {}, 0
    log = args.out / "logs"
    log.mkdir(parents=True, exist_ok=True)
    total = sum(cell.flops for cell in waiting)
    with cli.Signals() as signals, stopping(running), tqdm(total=total, unit="FLOP", unit_scale=True, dynamic_ncols=True, desc=what) as bar:
        queue = list(waiting)
        while (queue or running) and not signals.stopped:
            while queue and len(running) < args.jobs:
                cell = queue.pop(0)
                # In a session of its own: Ctrl-C comes to this program, which hands it on.
                output = open(log / f"{cell.folder.name}.txt", "w")
                line = " && ".join(shlex.join([sys.executable, str(here / command[0]), *command[1:]]) for command in cell.commands)
                running[subprocess.Popen(line, shell=True, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
                                         pass_fds=[args.lock.fileno()])] = cell, output
            time.sleep(0.2)
            done = finished + sum(spent(cell) for cell, _ in running.values())
            bar.update(max(0, done - bar.n))  # a damaged log is not the bar's affair: it never goes back
            for process in [process for process in running if process.poll() is not None]:
                cell, output = running.pop(process)
                output.close()
                finished += cell.flops
                if process.returncode:
                    lines = [line for line in (log / f"{cell.folder.name}.txt").read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
                    failed[cell.folder.name] = lines[-1] if lines else f"exit status {process.returncode}"
                    cli.say(f"failed: {cell.folder.name}: {failed[cell.folder.name]}", bar.write)
        bar.update(max(0, finished - bar.n))
        if signals.stopped:
            cli.say("stopped: the same command continues", bar.write)
            raise signals.stopped
    return failed


def spent(cell):
    """FLOPs of a running cell, from the last line of its log."""
    try:
        with open(cell.folder / "log.jsonl", "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            return min(cell.flops, json.loads(log.read().splitlines()[-1])["flops"])
    except (OSError, ValueError, LookupError, TypeError):  # no line yet, or half of one
        return 0


def chosen_rates(args, teacher, failed):
    """{strategy: learning rate}, and the table of --lr-grid: [(strategy, rate, development score)]."""
    if not args.lr_grid:
        return {strategy: args.lr for strategy in args.strategies}, []
    import report
    cells = [cell_of(args, teacher, strategy, args.budgets[0], args.unique_tokens[0], 0, lr) for strategy in args.strategies for lr in args.lr_grid]
    failed |= run(cells, args, "learning rates")
    tried = [(cell.strategy, cell.lr, report.score_of(found["results"], chosen_on=True)) for cell in cells if (found := outcome(cell, args))]
    lost = [strategy for strategy in args.strategies if not any(row[0] == strategy for row in tried)]
    if lost:
        raise UserError(f"no learning rate of --lr-grid worked for {', '.join(lost)}: see {args.out}/logs")
    return {strategy: max((row for row in tried if row[0] == strategy), key=lambda row: row[2])[1] for strategy in args.strategies}, tried


def price(args, cells):
    """The grid's cost in FLOPs and in time on this machine, as text."""
    total = sum(cell.flops for cell in cells) + (args.teacher_flops if not args.teacher else 0)
    lines = [f"{len(cells)} students: {len(args.strategies)} strategies x {len(args.budgets)} budgets x {len(args.unique_tokens)} data settings x "
             f"{args.seeds} seeds",
             f"{budget.flops(total)} FLOPs of pretraining, {budget.flops(args.teacher_flops)} of them the teacher's" if not args.teacher else
             f"{budget.flops(total)} FLOPs of pretraining; the teacher {args.teacher} exists"]
    for rate, where in ((1e11, "two laptop cores"), (3e14, "one H100")):
        lines += [f"at {budget.flops(rate)} FLOP/s ({where}): {budget.duration(total / rate)}, and fine-tuning"]
    return "\n".join(lines)


def main():
    args = arguments()
    if args.collect:
        import collect
        return collect.write(args)
    if args.jobs is None:
        import torch
        args.jobs = 1 if torch.cuda.is_available() else cores()
    teacher, teacher_cell = teacher_of(args)
    rates = {strategy: args.lr for strategy in args.strategies}
    cells = grid(args, teacher, rates)
    import train
    for cell in cells[:len(args.strategies)]:  # a pair that does not fit is said now, not after an hour; so is a budget below one step
        options = train.arguments(cell.commands[0][1:])
        lesson = distill.lesson(cell.strategy, args.model, args.teacher_model)
        step = budget.step_flops(args.model, 200, options.seq_len, options.batch_size, lesson, args.teacher_model)
        if cell.flops < step:
            raise UserError(f"--budgets {spell(cell.flops)} is below one step of {cell.strategy}, which costs {budget.flops(step)} at least: raise it")
    if args.list:
        if args.lr_grid:
            raise UserError("--list and --lr-grid: which cells there are depends on the rates that are chosen; run the choice first, and give --lr")
        for cell in ([teacher_cell] if teacher_cell else []) + cells:
            cli.say(f"{cell.line}  # {budget.flops(cell.flops)} FLOPs, about {budget.duration(cell.flops / 1e11)} on two cores")
        return
    cli.say(price(args, cells))
    if args.dry_run:
        return
    fixed = {key: str(getattr(args, key)) for key in ("model", "teacher", "teacher_model", "teacher_flops", "data", "glue_data", "glue_grid", "tasks",
                                                      "glue_seeds", "lr", "lr_grid", "train_options", "distil_options")}
    tasks_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "compare.json"
    # Cells of --list that ran elsewhere come without compare.json; each is compared with its name before it counts.
    leftover = disk.leftovers(r"compare\.json")
    if not path.exists() and not all(entry.name in ("teacher", "cells", "logs", "lock") or leftover.fullmatch(entry.name) for entry in args.out.iterdir()):
        raise UserError(f"{args.out} holds other files, and no comparison: choose another --out")
    import report
    with disk.locked(args.out / "lock", "compares in the same folder") as args.lock:  # its cells hold it, too: should this be killed, the next waits for them
        if path.exists() and (old := disk.read_json(path)) != fixed:
            different = [f"{key} was {old.get(key)} and is now {value}" for key, value in fixed.items() if old.get(key) != value]
            raise UserError(f"{args.out} holds another comparison ({'; '.join(different)}): choose another --out")
        disk.write_json(path, fixed)
        failed = {}
        if teacher_cell:
            jobs, args.jobs = args.jobs, 1  # one process with all threads: everything waits for it
            failed = run([teacher_cell], args, "teacher")
            args.jobs = jobs
            if failed:
                raise UserError(f"the teacher failed, and there is nothing to learn from: {failed['teacher']}")
        args.teacher_sha256 = disk.file_sha256(disk.fetch(teacher, ["model.safetensors"]) / "model.safetensors")
        rates, tried = chosen_rates(args, teacher, failed)
        cells = grid(args, teacher, rates)
        failed |= run(cells, args, "students")
        outcomes = {cell: found for cell in cells if (found := outcome(cell, args))}
        report.write(args, teacher, teacher_cell, cells, outcomes, tried, failed)
    if failed:
        cli.say(f"{len(failed)} of {len(cells)} cells failed; the same command tries them again", lambda words: print(words, file=sys.stderr))
        sys.exit(1)


if __name__ == "__main__":
    cli.program(main)
