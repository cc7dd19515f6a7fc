"""Checks the exercises.

    python exercises/check.py 5                           exercise 5: what is wrong with it, or that it is right
    python exercises/check.py all                         all eight; exit status 0 only when all are right
    python exercises/check.py 5 --train                   a minute's training with your function inside, beside the project's own, as a picture
    python exercises/check.py --grade submissions/        for teachers: a folder for each student -> grades.csv
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
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plumbing import cli, disk, runs
from plumbing.cli import UserError

from tqdm import tqdm

from reporting import card

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


TITLES = {"1_block": "What does one block of the encoder cost?", "2_budget": "What does a budget buy?", "3_masking": "Which words does BERT hide?",
          "4_mlm": "How surprised is the model?", "5_kd": "Learning from all the teacher's opinions.", "6_tinybert": "Learning from the teacher's layers.",
          "7_minilm": "Learning which positions belong together.", "8_isoflop": "Was it better, at equal compute?"}
FILES = {int(name[0]): HERE / f"{name}.py" for name in TITLES}
POINTS = 10
TRAIN = ["--flops", "3e11", "--model", "2x64", "--dtype", "fp32", "--seed", "1"]
TEACHER = ["--flops", "1e12", "--model", "4x64", "--dtype", "fp32", "--lr", "1e-3"]


RUNNING = set()  # processes that judge


def judge(number, path, seconds):
    """{"passed", "points", "diagnosis"} of a file. Whatever it does, it does to a process of its own."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return {"passed": False, "points": 0, "diagnosis": "not handed in"}
    except OSError as failure:
        return {"passed": False, "points": 0, "diagnosis": f"it cannot be read: {failure.strerror}"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        # In a session of its own, killed whole; what it prints goes nowhere.
        process = subprocess.Popen([sys.executable, str(HERE / "judge.py"), str(number), str(path.resolve()), str(result)], cwd=folder, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
        RUNNING.add(process)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"passed": False, "points": 0, "diagnosis": f"no answer within {seconds} s: an endless loop?"}
        finally:
            kill(process)
        try:
            found = json.loads(result.read_text())
        except (OSError, ValueError):
            return {"passed": False, "points": 0, "diagnosis": f"it ended the process with status {process.returncode}, without an answer"}
    # Up to 8 of 10 points for the share of the cases that are right
    return {**found, "points": POINTS if found["passed"] else int((POINTS - 2) * found["share"])}


def kill(process):
    """The process and all of its session that is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    RUNNING.discard(process)


def check(numbers, path, seconds):
    right = 0
    for number in numbers:
        found = judge(number, path or FILES[number], seconds)
        right += found["passed"]
        progress = f" ({right} of {len(numbers)} right)" if len(numbers) > 1 else ""
        cli.say(f"{number}. {TITLES[FILES[number].stem]}\n   {'RIGHT' if found['passed'] else 'not yet'}: {found['diagnosis']}{progress}")
    sys.exit(0 if right == len(numbers) else 1)


def train(number, path):
    """The same run twice, with the project's function and with the student's; their losses in a picture."""
    strategy = {3: "scratch", 4: "scratch", 5: "kd", 6: "tinybert", 7: "minilm"}.get(number)
    if strategy is None:
        raise UserError(f"--train: nothing of exercise {number} runs inside the loop: 3 to 7 do")
    out, more = Path("runs/exercises"), ["--strategy", strategy]
    judge_py = [sys.executable, str(HERE / "judge.py"), str(number)]

    def run(file, folder, arguments):
        cli.say(f"training in {folder} ...")
        done = subprocess.run([*judge_py, file, "--train", "--out", str(folder), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].split("\r")[-1]
            raise UserError(f"the run {folder} ended early: {last.removeprefix('error: ')}; first make `check.py {number}` say RIGHT")
    if strategy != "scratch":
        run("-", out / "teacher", TEACHER)
        more += ["--teacher", str(out / "teacher")] + (["--temperature", "2"] if strategy == "kd" else [])  # at 1 half of its mistakes are none
    source = path or FILES[number]
    mine = out / f"{number}-{disk.file_sha256(source)[:8]}"  # another text of the function is another run
    run("-", out / f"{strategy}-reference", [*TRAIN, *more])
    run(str(source), mine, [*TRAIN, *more])
    curves = {}
    for name, folder in (("the project's", out / f"{strategy}-reference"), ("yours", mine)):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        curves[name] = [(row["flops"], row["loss"]) for row in rows if "loss" in row]
    picture = mine.with_suffix(".png")
    draw(curves, f"Exercise {number}: --strategy {' '.join(more[1:])}", picture)
    (_, reference), (_, own) = curves["the project's"][-1], curves["yours"][-1]
    if number == 3:  # other random numbers, other masks
        same = abs(own - reference) < 0.1 * reference
        words = "close, as it should be: your masks are other ones" if same else "far apart, and a lower loss is no better one: words that stay visible are easy"
    else:
        same = abs(own - reference) < 1e-3 * abs(reference)
        words = "the same curve" if same else "not the same curve"
    cli.say(f"last training loss: the project's {reference:.4f}, yours {own:.4f}: {words}\npicture     {picture}" + ("" if same else f"\npython exercises/check.py {number} says what is wrong"))
    sys.exit(0 if same else 1)


def draw(curves, name, path):
    figure, axes = card.pyplot().subplots(figsize=(6, 4), dpi=150, layout="constrained")
    for (label, points), style in zip(curves.items(), (dict(color="#999999", linewidth=5), dict(color="#0072b2", linewidth=1.5))):
        axes.plot(*zip(*points), label=label, **style)
    axes.set(xlabel="FLOPs", ylabel="training loss (all terms of the strategy)")
    axes.set_title(name, fontsize=9)
    axes.legend(frameon=False)
    card.open_axes(axes)
    disk.replace(path, lambda temporary: figure.savefig(temporary, format="png"))
    card.pyplot().close(figure)


def grade(folder, seconds, jobs, out):
    if not folder.is_dir():
        raise UserError(f"--grade {folder}: there is no such folder; wanted is one with a folder for each student")
    students = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not students:
        raise UserError(f"--grade {folder} holds no folders: one for each student is wanted, with files like {FILES[1].name}")
    runs.check_writable(out.parent)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, like grades.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, pool = [["student", "exercise", "points", "diagnosis"]], ThreadPoolExecutor(jobs)
    with tqdm(total=len(students) * len(FILES), unit="file", dynamic_ncols=True) as bar:
        asked = {}
        try:
            asked |= {student: {number: pool.submit(judge, number, student / file.name, seconds) for number, file in FILES.items()} for student in students}
            for student, answers in asked.items():
                found = {}
                for number, answer in answers.items():
                    found[number] = answer.result()
                    bar.update()
                rows += [[student.name, number, result["points"], result["diagnosis"]] for number, result in found.items()]
                # After each student: what is stopped keeps what it has.
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(rows)
                disk.write_file(out, text.getvalue())
                points = sum(result["points"] for result in found.values())
                cli.say(f"{student.name:20} {points:3} of {POINTS * len(FILES)}   " + " ".join(f"{number}:{result['points']}" for number, result in found.items()), bar.write)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(answer.done() for answers in asked.values() for answer in answers.values()):
                for process in list(RUNNING):
                    kill(process)
                time.sleep(0.1)
    cli.say(f"points and diagnoses: {out}")


def main():
    parser = cli.Parser(description="Checks the exercises.", epilog=__doc__.split("\n\n")[1])
    parser.add_argument("exercise", nargs="?", help="1 to 8, or all")
    parser.add_argument("--file", type=Path, metavar="FILE", help="your file, where it is not the one in exercises/")
    parser.add_argument("--train", action="store_true", help="train for a minute with your function, beside the project's own")
    parser.add_argument("--grade", type=Path, metavar="FOLDER", help="grade a folder for each student")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), metavar="CSV", help="of --grade (default: %(default)s)")
    parser.add_argument("--seconds", type=cli.whole(1, 10 ** 5), default=120, metavar="s", help="that a file may take (default: %(default)s)")
    parser.add_argument("--jobs", type=cli.whole(1, 1000), default=os.cpu_count(), metavar="n", help="files at once with --grade (default: a core each)")
    args = parser.parse_args()
    missing = [name for name in ("pytest", "scipy", "sklearn", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the check needs {', '.join(missing)}: pip install -r requirements-dev.txt")
    if args.grade:
        return grade(args.grade, args.seconds, args.jobs, args.out)
    if args.exercise not in (*map(str, FILES), "all"):
        raise UserError(f"{'say which exercise' if args.exercise is None else f'there is no exercise {args.exercise}'}: python exercises/check.py 1 (to 8), or all")
    if args.file and (args.exercise == "all" or not args.file.is_file()):
        raise UserError(f"--file {args.file}: {'give it with one exercise' if args.exercise == 'all' else 'there is no such file'}")
    if args.train:
        if args.exercise == "all":
            raise UserError("--train: one exercise at a time, 3 to 7")
        return train(int(args.exercise), args.file)
    check(list(FILES) if args.exercise == "all" else [int(args.exercise)], args.file, args.seconds)


if __name__ == "__main__":
    cli.program(main)
