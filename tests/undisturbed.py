"""What the fault campaign (faults.py) compares with: `build` lets each of its commands run once in
peace. A `Lane` gives the same commands again, and what they leave must be the same."""
import json
import random
import re
import shutil

from files import disk
from program.cli import UserError
from running import runfolder

from children import Child

TINY = ("--flops", "3e8", "--model", "1x32h2", "--seq-len", "16", "--batch-size", "8",
        "--dropout", "0.1")


class Lost(Exception):
    """What was computed is gone, torn, or another number."""


class Wrong(Exception):
    """An end that is not clear: a traceback, a hang, another status, or odd files."""


class Lane:
    """The campaign's folder. base: where the text lies, the teacher, and what each job, a command
    in `lines`, leaves undisturbed."""

    def __init__(self, base, name):
        self.base, self.folder, self.names = base, base / name, 0
        self.folder.mkdir()
        self.random = random.Random(0)  # seeded again before each fault
        self.book, self.teacher, self.glue_data = base / "book.txt", base / "teacher", base / "glue"
        train = ("train.py", *TINY, "--data", self.book)
        self.lines = {
            "scratch": (*train, "--tokenizer", self.teacher),
            "kd": (*train, "--strategy", "kd", "--teacher", self.teacher),
            "minilm": (*train, "--strategy", "minilm", "--teacher", self.teacher,
                       "--mlm-finish", "0.3"),
            "glue": ("glue.py", self.teacher, "--data", self.glue_data, "--tasks", "cola",
                     "--seeds", "2", "--pool", "mean")}

    def new(self, name="run"):
        """A path that nothing has used yet."""
        self.names += 1
        return self.folder / f"{name}{self.names}"

    def cold_cache(self):
        """The environment of a program that finds nothing in its cache."""
        return {"ISOFLOP_CACHE": str(self.new("cache"))}

    def operation(self, job):
        """The number of one of a job's operations on files: glue.py makes fewer than train.py."""
        return self.random.randint(1, 12 if job == "glue" else 60)

    def any_job(self, but=None):
        return self.random.choice([job for job in self.lines if job != but])

    def line_with(self, job, teacher):
        """The job's command, with another folder in the place of the teacher's."""
        return [teacher if word == self.teacher else word for word in self.lines[job]]

    def start(self, job, out, **options):
        """A Child that runs the job's command."""
        return Child(*self.lines[job], "--out", out, **options)

    def must_end_alike(self, job, out, **options):
        """Gives the command once more, undisturbed. It must end like the run that nobody disturbed,
        and do nothing again that was saved. Then its folder is removed."""
        before = saved(job, out)
        child = self.start(job, out, **options)
        must_finish(child)
        self.must_equal(job, out, child.line)
        if job == "glue":
            if seconds_of_cells(out)[:len(before)] != before:
                raise Lost(f"{child.line}: fine-tuned again what was finished")
        elif before:
            continued = re.search(r"continuing at step ([\d,]+)", child.out)
            step = int(continued[1].replace(",", "")) if continued else 0
            if step < before:
                raise Lost(f"{child.line}: step {before} was saved, and it began at step {step}")
        shutil.rmtree(out)

    def must_equal(self, job, out, line):
        """Raises Lost unless a finished run is equal to the undisturbed one."""
        wanted, left = left_by(job, self.base / job), left_by(job, out)
        different = " and ".join(key for key in wanted if left[key] != wanted[key])
        if different:
            raise Lost(f"{line}: ended with other {different}")


def must_finish(child):
    """Waits for a child that nothing disturbs. Raises Lost where it does not do its work."""
    if child.wait(900) or child.complaint:
        raise Lost(f"{child.line}: {child.complaint or child.err[-500:]}{child.out[-500:]}")


def seconds_of_cells(folder):
    """The seconds of each finished fine-tuning, which tell whether it was done again."""
    return [cell["seconds"] for cell in disk.read_json(folder / "glue.json")["cells"]]


def saved(job, out):
    """What a folder holds of unfinished work: the seconds of each finished fine-tuning, or the step
    of the newest whole checkpoint."""
    try:
        if job == "glue":
            return seconds_of_cells(out)
        if disk.read_json(out / "run.json").get("finished"):
            return 0
    except (OSError, UserError):
        if job == "glue":
            return []
    states = map(runfolder.read_checkpoint, runfolder.checkpoints(out))
    return max((state["step"] for state in states if state), default=0)


def left_by(job, folder):
    """{part: its value} of what must be equal in two folders of the same command: no times."""
    if job == "glue":
        cells = disk.read_json(folder / "glue.json")["cells"]
        return {"cells": [without(cell, "seconds") for cell in cells]}
    record = disk.read_json(folder / "run.json")
    record["settings"].pop("tokenizer")
    record["files"].pop("log.jsonl")  # which holds times
    lines = (folder / "log.jsonl").read_text(errors="replace").splitlines()
    try:
        rows = [without(json.loads(line), "seconds", "flops_per_second") for line in lines]
    except ValueError:
        raise Lost(f"{folder}/log.jsonl is torn") from None
    return {"weights": (folder / "model.safetensors").read_bytes(),
            "tokenizer": (folder / "tokenizer.json").read_bytes(), "log": rows,
            "record": without(record, "seconds", "teacher", "peak_flops_per_second")}


def without(dictionary, *keys):
    return {key: value for key, value in dictionary.items() if key not in keys}


def build(base):
    """Makes the text, the tasks and the teacher, and runs each job undisturbed."""
    draw = random.Random(0)
    words = ("the cat", "a dog", "one boy"), ("sees", "likes"), ("the ball", "a fish", "red bread")
    lines = [" ".join(" ".join(map(draw.choice, words)) + "." for _ in range(4))
             for _ in range(600)]
    (base / "book.txt").write_text("\n".join(lines) + "\n")
    folder = base / "glue" / "CoLA"
    folder.mkdir(parents=True)
    for part, rows in (("train", 64), ("dev", 32)):
        table = [f"x\t{i % 2}\t\t{draw.choice(lines)}\n" for i in range(rows)]
        (folder / f"{part}.tsv").write_text("".join(table))
    table = [f"{i}\t{draw.choice(lines)}\n" for i in range(8)]
    (folder / "test.tsv").write_text("index\tsentence\n" + "".join(table))
    must_finish(Child("train.py", *TINY, "--vocab-size", 60, "--data", base / "book.txt",
                      "--out", base / "teacher"))
    lane = Lane(base, "undisturbed")
    for child in [lane.start(job, base / job) for job in lane.lines]:
        must_finish(child)
