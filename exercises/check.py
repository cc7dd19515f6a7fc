"""Checks the exercises.

    python exercises/check.py 5                     exercise 5: right, or what is wrong
    python exercises/check.py all                   exit status 0 only when all eight are right
    python exercises/check.py 5 --train             train for half a minute with your function
    python exercises/check.py --grade submissions/  grade a class, a folder for each student

--train also trains with the project's own function, and draws both validation losses in one
picture. --grade is for teachers, and writes grades.csv.
"""
import contextlib
import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from files import disk
from program import cli, progress
from program.cli import UserError

from reporting import figures

HERE = Path(__file__).resolve().parent
TITLES = {"1_block": "What does one block of the encoder cost?",
          "2_budget": "What does a budget buy?",
          "3_masking": "Which words does BERT hide?",
          "4_mlm": "How surprised is the model?",
          "5_kd": "Learning from all the teacher's opinions.",
          "6_tinybert": "Learning from the teacher's layers.",
          "7_minilm": "Learning which positions belong together.",
          "8_isoflop": "Was it better, at equal compute?"}
FILES = {int(name[0]): HERE / f"{name}.py" for name in TITLES}
POINTS = 10  # for each exercise

# --------------------------------------------------------------------------------------------------
# One file


def judge_file(number, path, seconds):
    """{"passed", "points", "diagnosis"} of a student's file.

    A process of its own judges it, so that whatever the file does ends with that process."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return failed("not handed in")
    except OSError as failure:
        return failed(f"it cannot be read: {failure.strerror}")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = start_judge(number, path, result, folder)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return failed(f"no answer within {seconds} s: an endless loop?")
        finally:
            kill(process)
        try:
            judgement = json.loads(result.read_text())
        except (OSError, ValueError):
            return failed(f"it ended the process with status {process.returncode}, without an "
                          "answer")
    # What is not right gets up to 8 of 10 points, for the share of the cases that are.
    points = POINTS if judgement["passed"] else int((POINTS - 2) * judgement["share"])
    return {"passed": judgement["passed"], "points": points, "diagnosis": judgement["diagnosis"]}


def failed(diagnosis):
    return {"passed": False, "points": 0, "diagnosis": diagnosis}


def start_judge(number, path, result, folder):
    """Starts judge.py in `folder`. What the student's file prints is dropped."""
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, str(HERE / "judge.py"), str(number), str(path.resolve()), str(result)],
        cwd=folder, stdin=nowhere, stdout=nowhere, stderr=nowhere,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True)  # so that it can be killed with all that it started


def kill(process):
    """Kills a process with all that is left of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check(numbers, path, seconds):
    """Says of each exercise whether it is right. The exit status is 0 when all are."""
    right = 0
    for number in numbers:
        result = judge_file(number, path or FILES[number], seconds)
        right += result["passed"]
        word = "RIGHT" if result["passed"] else "not yet"
        progress = f" ({right} of {len(numbers)} right)" if len(numbers) > 1 else ""
        cli.say(f"{number}. {TITLES[FILES[number].stem]}\n"
                f"   {word}: {result['diagnosis']}{progress}")
    sys.exit(0 if right == len(numbers) else 1)


# --------------------------------------------------------------------------------------------------
# --train

STRATEGY = {3: "scratch", 4: "scratch", 5: "kd", 6: "tinybert", 7: "minilm"}
# A student of one layer leaves the unigram plateau soonest, and a teacher of two gives it a choice.
TRAIN = ["--model", "1x64", "--dtype", "fp32", "--seed", "1"]
TEACHER = ["--flops", "6e11", "--model", "2x64", "--dtype", "fp32"]
OPTIONS = {"scratch": ["--flops", "3e11"],
           # At a temperature of 1 half of the known mistakes change nothing.
           "kd": ["--flops", "3.5e11", "--temperature", "2"],
           # At a lower rate AdamW's epsilon holds TinyBERT's small gradients back.
           "tinybert": ["--flops", "1.5e11", "--lr", "2e-2"], "minilm": ["--flops", "1.5e11"]}
# What is measured on held-out text. TinyBERT and MiniLM train no head that predicts words.
MEASURE = {"scratch": "mlm", "kd": "mlm", "tinybert": "tinybert", "minilm": "minilm"}
# The share by which two losses may differ in the end and still count as alike. Those of TinyBERT
# and MiniLM fall to a twentieth and less, and a few percent of that are nothing.
SPREAD = {"mlm": 0.05, "tinybert": 0.2, "minilm": 0.2}
NAMES = {"mlm": "MLM", "tinybert": "TinyBERT", "minilm": "MiniLM"}


def train(number, path):
    """Trains with the project's function and with the student's, both at once, and compares.

    The exit status is 0 when both trainings agree."""
    if number not in STRATEGY:
        raise UserError(f"--train: nothing of exercise {number} runs inside the loop: 3 to 7 do")
    strategy, out, source = STRATEGY[number], Path("runs/exercises"), path or FILES[number]
    options = ["--strategy", strategy, *OPTIONS[strategy]]
    if strategy != "scratch":
        run_trainings(number, {"-": out / "teacher-2x64"}, TEACHER)
        options += ["--teacher", str(out / "teacher-2x64")]
    # Another text of the function is another run.
    own_folder = out / f"{number}-1x64-{disk.file_sha256(source)[:8]}"
    reference_folder = out / f"{strategy}-1x64"
    run_trainings(number, {"-": reference_folder, str(source): own_folder}, [*TRAIN, *options])
    measure = MEASURE[strategy]
    reference, own = log_of(reference_folder, measure), log_of(own_folder, measure)
    picture = own_folder.with_suffix(".png")
    title = f"Exercise {number}: {' '.join(['--strategy', strategy, *OPTIONS[strategy]])}"
    draw(reference, own, title, picture)
    say_which(number, reference, own, picture)


def run_trainings(number, folders, arguments):
    """Trains with the functions of some files at once, {file: the run's folder}. The project's own
    function is the file "-"."""
    cli.say(f"training in {' and '.join(map(str, folders.values()))} ...")
    from running.machine import cores  # only here: it imports torch, which takes seconds
    threads = str(max(1, cores() // len(folders)))
    processes = {
        folder: subprocess.Popen(
            [sys.executable, str(HERE / "judge.py"), str(number), file, "--train", "--out",
             str(folder), *arguments], text=True,
            env=cli.environment_of_one(OMP_NUM_THREADS=threads),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for file, folder in folders.items()}
    try:
        errors = {folder: process.communicate()[1] for folder, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()  # saves and ends what still runs, where this program is stopped
    for folder, process in processes.items():
        if process.returncode:
            lines = errors[folder].strip().splitlines() or [f"exit status {process.returncode}"]
            reason = lines[-1].split("\r")[-1].removeprefix("error: ")
            raise UserError(f"the run {folder} ended early: {reason}; first make "
                            f"`check.py {number}` say RIGHT")


class Log(NamedTuple):
    """What is compared of a run."""
    measure: str      # the term of the loss that is measured on held-out text
    first: float      # the training loss of the first step
    validation: list  # [(FLOPs, the held-out loss by the project's function)]
    unigram: Optional[float] = None  # the MLM loss of knowing word frequencies alone


def log_of(folder, measure):
    """The Log of a run."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    first = next(row["loss"] for row in rows if "loss" in row)
    validated = [row for row in rows if "val_terms" in row]
    return Log(measure, first, [(row["flops"], row["val_terms"][measure]) for row in validated],
               validated[-1].get("unigram_loss"))


def say_which(number, reference, own, picture):
    """Says what the two trainings have in common. Ends with status 0 when they agree."""
    (_, loss), (_, own_loss) = reference.validation[-1], own.validation[-1]
    agree, words = compare(number, reference, own)
    unigram = f", unigram {reference.unigram:.3f}" if reference.unigram else ""
    lines = [f"validation  {NAMES[own.measure]} loss {own_loss:#.4g} with your function, "
             f"{loss:#.4g} with the project's{unigram}"]
    if number != 3:
        lines += [f"step 1      training loss {own.first:#.5g} with your function, "
                  f"{reference.first:#.5g} with the project's, from the same weights and words"]
    cli.say("\n".join([*lines, f"so          {words}", f"picture     {picture}"]))
    if not agree:
        cli.say(f"python exercises/check.py {number} says what is wrong")
    sys.exit(0 if agree else 1)


def compare(number, reference, own):
    """(whether two trainings agree, what that means).

    From the same weights and words the same function gives the same number in the first step.
    After that roundings add up, and the two losses part a little."""
    (_, loss), (_, own_loss) = reference.validation[-1], own.validation[-1]
    is_same = number == 3 or abs(own.first - reference.first) < 1e-4 * abs(reference.first)
    close = abs(own_loss - loss) < SPREAD[own.measure] * loss
    if number == 3 and close:  # the student draws other random numbers
        return True, "close, as it should be: your masks are other ones"
    if is_same and close:
        return True, "the same number, and the same curve"
    if close:
        return False, ("another number, and a student that learned as much here: AdamW hardly "
                       "notices a factor in a loss, and no constant")
    if own_loss > loss:
        return False, "your student learned less"
    return False, "lower, and yet not what the exercise asks for"


def draw(reference, own, title, path):
    """Draws both validation losses, the project's as a wide grey line behind the student's."""
    pyplot = figures.pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=150, layout="constrained")
    top = 1.1 * max(loss for _, loss in reference.validation)
    for log, label, color, width in ((reference, "the project's", "#999999", 5),
                                     (own, "yours", "#0072b2", 1.5)):
        points = [(flops, min(loss, top)) for flops, loss in log.validation]
        axes.plot(*zip(*points), label=label, color=color, linewidth=width)
    if reference.unigram:
        axes.axhline(reference.unigram, color="#999999", linewidth=1, linestyle=":",
                     label="word frequencies alone (unigram)")
        axes.set_ylim(0, top)
    else:  # it falls by a factor of ten and more
        axes.set_yscale("log")
    name = NAMES[own.measure]
    axes.set(xlabel="FLOPs", ylabel=f"validation {name} loss, by the project's function")
    axes.set_title(title, fontsize=9)
    axes.legend(frameon=False)
    figures.open_axes(axes)
    disk.replace(path, lambda temporary: figure.savefig(temporary, format="png"))
    pyplot.close(figure)


# --------------------------------------------------------------------------------------------------
# --grade


def grade(folder, seconds, out):
    """Judges the files of a class, and writes a table with a row for each. The table is written
    after each student, so that a grading that is stopped keeps what it has."""
    students = students_in(folder)
    disk.check_writable(out.parent)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, like grades.csv")
    disk.make_folder(out.parent)
    rows = [["student", "exercise", "points", "diagnosis"]]
    with progress.bar(len(students) * len(FILES), "file") as bar:
        for student in students:
            points = {}
            for number, file in FILES.items():
                result = judge_file(number, student / file.name, seconds)
                bar.update()
                points[number] = result["points"]
                rows.append([student.name, number, result["points"], result["diagnosis"]])
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            disk.write_file(out, text.getvalue())
            each = " ".join(f"{number}:{value}" for number, value in points.items())
            cli.say(f"{student.name:20} {sum(points.values()):3} of {POINTS * len(FILES)}   {each}",
                    bar.write)
    cli.say(f"points and diagnoses: {out}")


def students_in(folder):
    """The students' folders, by name. Raises UserError where there are none."""
    if not folder.is_dir():
        raise UserError(f"--grade {folder}: there is no such folder; wanted is one with a folder "
                        "for each student")
    folders = [path for path in folder.iterdir() if path.is_dir()]
    students = sorted(path for path in folders if not path.name.startswith("."))
    if not students:
        raise UserError(f"--grade {folder} holds no folders: one for each student is wanted, with "
                        f"files like {FILES[1].name}")
    return students


# --------------------------------------------------------------------------------------------------
# The command line


def arguments():
    parser = cli.Parser(description="Checks the exercises.", epilog=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("exercise", nargs="?", help="1 to 8, or all")
    add("--file", type=Path, metavar="FILE",
        help="your file, where it is not the one in exercises/")
    add("--train", action="store_true",
        help="train for half a minute with your function, and with the project's own beside it")
    add("--grade", type=Path, metavar="FOLDER",
        help="grade a class: the folder holds a folder for each student")
    add("--out", type=Path, default=Path("grades.csv"), metavar="CSV",
        help="where --grade writes its table (default: %(default)s)")
    add("--seconds", type=cli.whole(1, 10 ** 5), default=120, metavar="s",
        help="how long a file may take (default: %(default)s)")
    return parser.parse_args()


def check_needs():
    """Raises UserError where a package that the project's own tests need is not installed."""
    needed = ("pytest", "scipy", "sklearn", "transformers")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the check needs {', '.join(missing)}: "
                        "pip install -r requirements-dev.txt")


def main():
    args = arguments()
    check_needs()
    if args.grade:
        grade(args.grade, args.seconds, args.out)
        return
    example = "python exercises/check.py 1 (to 8), or all"
    if args.exercise is None:
        raise UserError(f"say which exercise: {example}")
    if args.exercise != "all" and args.exercise not in map(str, FILES):
        raise UserError(f"there is no exercise {args.exercise}: {example}")
    if args.file and args.exercise == "all":
        raise UserError(f"--file {args.file}: give it with one exercise")
    if args.file and not args.file.is_file():
        raise UserError(f"--file {args.file}: there is no such file")
    if args.train and args.exercise == "all":
        raise UserError("--train: one exercise at a time, 3 to 7")
    if args.train:
        train(int(args.exercise), args.file)
    numbers = list(FILES) if args.exercise == "all" else [int(args.exercise)]
    check(numbers, args.file, args.seconds)


if __name__ == "__main__":
    cli.program(main)
