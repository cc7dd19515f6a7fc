"""Checks the exercises.

    python exercises/check.py 5                           exercise 5: what is wrong with it, or that it is right
    python exercises/check.py all                         all eight; exit status 0 only when all are right
    python exercises/check.py 5 --train                   a minute's training with your function inside, beside the project's own, as a picture
    python exercises/check.py --grade submissions/        for teachers: a folder for each student -> grades.csv
"""
import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import cli  # noqa: E402
import runs  # noqa: E402
from cli import UserError  # noqa: E402

FILES = {int(path.name[0]): path for path in sorted(HERE.glob("[1-8]_*.py"))}
POINTS = 10
TRAIN = ["--flops", "1e11", "--model", "2x64", "--dtype", "fp32", "--seed", "1"]
TEACHER = ["--flops", "1e12", "--model", "4x64", "--dtype", "fp32", "--lr", "1e-3"]


def judge(number, path, seconds):
    """{"passed", "points", "diagnosis"} of a file. Whatever it does, it does to a process of its own."""
    if not path.exists():
        return {"passed": False, "points": 0, "diagnosis": "not handed in"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        # In a session of its own, killed whole; what it prints goes nowhere, and no file of it may grow beyond 100 MB.
        process = subprocess.Popen([sys.executable, str(HERE / "judge.py"), str(number), str(path.resolve()), str(result)], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE if os.environ.get("ISOFLOP_DEBUG") else subprocess.DEVNULL, start_new_session=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}, preexec_fn=limit)
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return {"passed": False, "points": 0, "diagnosis": f"no answer within {seconds} s: an endless loop?"}
        try:
            found = json.loads(result.read_text())
        except (OSError, ValueError):
            return {"passed": False, "points": 0, "diagnosis": f"it ended the process with status {process.returncode}, without an answer"}
    # Up to 8 of 10 points for the share of the cases that are right
    return {**found, "points": POINTS if found["passed"] else int((POINTS - 2) * found["share"])}


def limit():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 ** 8, 10 ** 8))


def title(number):
    return re.match(r'"""Exercise \d\. (.*?)(  |\n)', FILES[number].read_text(encoding="utf-8"))[1]


def check(numbers, path, seconds):
    right = 0
    for number in numbers:
        found = judge(number, path or FILES[number], seconds)
        right += found["passed"]
        progress = f" ({right} of {len(numbers)} right)" if len(numbers) > 1 else ""
        cli.say(f"{number}. {title(number)}\n   {'RIGHT' if found['passed'] else 'not yet'}: {found['diagnosis']}{progress}")
    sys.exit(0 if right == len(numbers) else 1)


def train(number, path):
    """The same run twice, with the project's function and with the student's; their losses in a picture."""
    strategy = {3: "scratch", 4: "scratch", 5: "kd", 6: "tinybert", 7: "minilm"}.get(number)
    if strategy is None:
        raise UserError(f"--train: nothing of exercise {number} runs inside the loop: 3 to 7 do")
    out, more = Path("runs/exercises"), ["--strategy", strategy]
    judge_py, environment = [sys.executable, str(HERE / "judge.py"), str(number)], {**os.environ}

    def run(file, folder, arguments):
        cli.say(f"training in {folder} ...")
        done = subprocess.run([*judge_py, file, "--train", "--out", str(folder), *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].split("\r")[-1]
            raise UserError(f"the run {folder} ended early: {last.removeprefix('error: ')}; first make `check.py {number}` say RIGHT")
    if strategy != "scratch":
        run("-", out / "teacher", TEACHER)
        more += ["--teacher", str(out / "teacher")] + (["--model", "2x64"] if strategy == "tinybert" else [])
    source = path or FILES[number]
    mine = out / f"{number}-{runs.file_sha256(source)[:8]}"  # another text of the function is another run
    run("-", out / f"{strategy}-reference", [*TRAIN, *more])
    run(str(source), mine, [*TRAIN, *more])
    curves = {}
    for name, folder in (("the project's", out / f"{strategy}-reference"), ("yours", mine)):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        curves[name] = [(row["flops"], row["loss"]) for row in rows if "loss" in row]
    picture = out / f"exercise-{number}.png"
    draw(curves, f"Exercise {number}: {strategy}", picture)
    (_, reference), (_, own) = curves["the project's"][-1], curves["yours"][-1]
    same = "the same curve" if abs(own - reference) < 1e-3 * abs(reference) else "not the same: python exercises/check.py says why"
    cli.say(f"last training loss: the project's {reference:.4f}, yours {own:.4f}: {same}\npicture: {picture}")


def draw(curves, name, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(6, 4), dpi=150, layout="constrained")
    for (label, points), style in zip(curves.items(), (dict(color="#999999", linewidth=5), dict(color="#0072b2", linewidth=1.5))):
        axes.plot(*zip(*points), label=label, **style)
    axes.set(xlabel="FLOPs", ylabel="training loss", title=name)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def grade(folder, seconds, jobs, out):
    from tqdm import tqdm
    if not folder.is_dir():
        raise UserError(f"--grade {folder}: there is no such folder; wanted is one with a folder for each student")
    students = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not students:
        raise UserError(f"--grade {folder} holds no folders: one for each student is wanted, with files like {FILES[1].name}")
    work = [(student, number) for student in students for number in FILES]
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(work), unit="file", dynamic_ncols=True) as bar:
        def one(item):
            student, number = item
            found = judge(number, student / FILES[number].name, seconds)
            bar.update()
            return found
        found = dict(zip(work, pool.map(one, work)))
    rows = [["student", "exercise", "points", "diagnosis"]]
    for student in students:
        for number in FILES:
            result = found[student, number]
            rows.append([student.name, number, result["points"], result["diagnosis"]])
        points = sum(found[student, number]["points"] for number in FILES)
        cli.say(f"{student.name:20} {points:3} of {POINTS * len(FILES)}   " + " ".join(f"{number}:{found[student, number]['points']}" for number in FILES))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    runs.write_file(out, text.getvalue())
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
    if args.grade:
        return grade(args.grade, args.seconds, args.jobs, args.out)
    if args.exercise not in (*map(str, FILES), "all"):
        raise UserError("say which exercise: python exercises/check.py 1 (to 8), or all")
    if args.file and (args.exercise == "all" or not args.file.is_file()):
        raise UserError(f"--file {args.file}: {'give it with one exercise' if args.exercise == 'all' else 'there is no such file'}")
    if args.train:
        if args.exercise == "all":
            raise UserError("--train: one exercise at a time, 3 to 7")
        return train(int(args.exercise), args.file)
    check(list(FILES) if args.exercise == "all" else [int(args.exercise)], args.file, args.seconds)


if __name__ == "__main__":
    cli.program(main)
