"""The fault campaign: disturbs the programs in every way that we could think of, thousands of times, and prints what was lost.

    python tests/faults.py --minutes 30 --seed 1      all of it: a table, and exit status 1 if anything was lost or ended without a clear line
    python tests/faults.py --minutes 2 --only kill    one kind

Each kind of fault is a function of a `World`: it disturbs once or some times, gives the same command again, and compares what that leaves with what an
undisturbed run left, bit for bit. It returns how many faults that were, and raises Lost or Wrong. Linux only (fork, /proc); the rows that
mount a small disk need root, and say so where they cannot.
"""
import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from plumbing import disk, parallel
from plumbing.cli import UserError

import children
from children import Child, Kill, PowerLoss

sys.path.insert(0, str(children.ROOT))

TINY = ("--flops", "3e8", "--model", "1x32h2", "--seq-len", "16", "--batch-size", "8", "--dropout", "0.1")


class Lost(Exception):
    """What was computed is gone, torn, or another number."""


class Wrong(Exception):
    """An end without a clear line: a traceback, a hang, another status, something written that should not be."""


class World:
    """What a lane of the campaign works in: a folder, random numbers, and what undisturbed runs left."""

    def __init__(self, base, lane, seed):
        self.base, self.random, self.number = base, random.Random(f"{seed} {lane}"), 0
        self.folder = base / f"lane{lane}"
        self.folder.mkdir()
        self.book, self.teacher, self.glue_data = base / "book.txt", base / "teacher", base / "glue"
        self.lines = {"scratch": ("train.py", *TINY, "--data", self.book, "--tokenizer", self.teacher),
                      "kd": ("train.py", *TINY, "--data", self.book, "--strategy", "kd", "--teacher", self.teacher),
                      "minilm": ("train.py", *TINY, "--data", self.book, "--strategy", "minilm", "--teacher", self.teacher, "--mlm-finish", "0.3"),
                      "glue": ("glue.py", self.teacher, "--data", self.glue_data, "--tasks", "cola", "--seeds", "2", "--pool", "mean")}

    def new(self, name="run"):
        self.number += 1
        return self.folder / f"{name}{self.number}"

    def start(self, job, out, **options):
        return Child(*self.lines[job], "--out", out, **options)

    def ends_alike(self, job, out, **options):
        """The same command once more, undisturbed, must end like the run that never was disturbed, and do nothing again that was saved."""
        before = saved(job, out)
        child = self.start(job, out, **options)
        child.wait()
        if child.complaint or child.status:
            raise Lost(f"{child.line}: {child.complaint or child.err[-500:]}")
        if (found := left_by(job, out)) != left_by(job, self.base / job):
            raise Lost(f"{child.line}: ended with other {' and '.join(key for key, value in left_by(job, self.base / job).items() if found[key] != value)}")
        if job == "glue":
            kept = [cell["seconds"] for cell in json.loads((out / "glue.json").read_text())["cells"]][:len(before)]
            if kept != before:
                raise Lost(f"{child.line}: fine-tuned again what was finished")
        elif before and (not (found := re.search(r"continuing at step ([\d,]+)", child.out)) or int(found[1].replace(",", "")) < before):
            raise Lost(f"{child.line}: step {before} was saved, and it began {f'at {found[1]}' if found else 'anew'}")
        shutil.rmtree(out)


def saved(job, out):
    """What a folder holds of unfinished work: the seconds of each finished fine-tuning, or the step of the newest whole checkpoint."""
    if job == "glue":
        try:
            return [cell["seconds"] for cell in disk.read_json(out / "glue.json")["cells"]]
        except (OSError, UserError):
            return []
    try:
        if disk.read_json(out / "run.json").get("finished"):
            return 0
    except (OSError, UserError):
        pass
    steps = [0]
    for path in out.glob("checkpoint-*.safetensors") if out.is_dir() else ():
        try:
            steps.append(int(disk.load_tensors(path)[1]["step"]))
        except UserError:
            pass
    return max(steps)


def left_by(job, folder):
    """What must be equal in two folders of the same command: all but times, and where a teacher lies."""
    if job == "glue":
        return {"cells": [{key: value for key, value in cell.items() if key != "seconds"} for cell in json.loads((folder / "glue.json").read_text())["cells"]]}
    record = json.loads((folder / "run.json").read_text())
    record["settings"].pop("tokenizer")
    record.get("files", {}).pop("log.jsonl", None)  # which holds times
    try:
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(errors="replace").splitlines()]
    except ValueError:
        raise Lost(f"{folder}/log.jsonl is torn") from None
    return {"weights": (folder / "model.safetensors").read_bytes(), "tokenizer": (folder / "tokenizer.json").read_bytes(),
            "log": [{key: row.get(key) for key in ("step", "loss", "val_loss", "lr", "flops")} for row in rows],
            "record": {key: value for key, value in record.items() if key not in ("seconds", "teacher", "checksum", "peak_flops_per_second")}}


def build(base):
    """The text, the tasks, and the undisturbed runs."""
    draw = random.Random(0)
    lines = [" ".join(f"{draw.choice(['the cat', 'a dog', 'one boy'])} {draw.choice(['sees', 'likes', 'takes'])} "
                      f"{draw.choice(['the ball', 'a fish', 'red bread'])}." for _ in range(4)) for _ in range(600)]
    (base / "book.txt").write_text("\n".join(lines) + "\n")
    (base / "glue" / "CoLA").mkdir(parents=True)
    for part, n in (("train", 64), ("dev", 32), ("test", 8)):
        rows = [["x", i % 2, "", draw.choice(lines)] for i in range(n)] if part != "test" else [["index", "sentence"], *([i, draw.choice(lines)] for i in range(n))]
        (base / "glue" / "CoLA" / f"{part}.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    world = World(base, "", 0)
    teacher = Child("train.py", *TINY, "--vocab-size", 60, "--data", base / "book.txt", "--out", base / "teacher")
    for child in [teacher] if teacher.wait() else [world.start(job, base / job) for job in world.lines]:
        if child.wait() or child.complaint:
            sys.exit(f"undisturbed, and yet: {child.line}\n{child.err[-3000:]}")


# ---------------------------------------------------------------------------------------------------------------------
# Faults: each returns how many it made

def kill(world):
    """SIGKILL at random moments and at random file operations; every third run tokenizes anew."""
    job, out, kills = world.random.choice(list(world.lines)), world.new(), 0
    environment = {"ISOFLOP_CACHE": str(world.new("cache"))} if world.random.random() < 0.3 else {}
    for _ in range(world.random.randint(1, 8)):
        if world.random.random() < 0.6:
            child = world.start(job, out, environment=environment, inside=Kill(world.random.randint(1, 12 if job == "glue" else 60), world.random.random() < 0.5))
        else:
            child = world.start(job, out, environment=environment)
            time.sleep(world.random.uniform(0, 0.5))
            child.signal(signal.SIGKILL)
        child.wait()
        if child.status != -signal.SIGKILL and child.complaint:
            raise Wrong(f"{child.line}: {child.complaint}")
        kills += child.status == -signal.SIGKILL
    world.ends_alike(job, out, environment=environment)
    return kills


def kill_compare(world):
    """SIGKILL of a comparison: its cells are programs of their own."""
    out, line = world.new(), ("compare.py", "--strategies", "scratch,kd", "--budgets", "3e8", "--unique-tokens", "inf", "--seeds", "1", "--model", "1x32h2", "--teacher",
                              world.teacher, "--data", world.book, "--glue-data", world.glue_data, "--tasks", "cola", "--glue-seeds", "1", "--jobs", os.cpu_count(),
                              "--train-options", "--seq-len 16 --batch-size 8 --dropout 0.1")
    for _ in range(world.random.randint(1, 2)):
        child = Child(*line, "--out", out)
        time.sleep(world.random.uniform(0, 15))
        child.signal(signal.SIGKILL)
        child.wait()
    child = Child(*line, "--out", out)
    if child.wait(240) or child.complaint:
        raise Lost(f"{child.line}: {child.complaint or child.err[-500:]}{child.out[-500:]}")
    for folder in (out / "cells").iterdir():
        job = folder.name.split("-")[0]
        if left_by(job, folder)["weights"] != left_by(job, world.base / job)["weights"]:
            raise Lost(f"{child.line}: {folder.name} ended with other weights")
    shutil.rmtree(out)
    return 1


def signals(world):
    """SIGTERM or SIGINT, and another one a moment later."""
    job, out = world.random.choice(list(world.lines)), world.new()
    child = world.start(job, out)
    for pause in (0.6, 0.05):
        time.sleep(world.random.uniform(0, pause))
        child.signal(world.random.choice([signal.SIGINT, signal.SIGTERM]))
    # Before a program has begun, the signal itself ends it: the same number for a shell.
    if child.wait() not in (0, 130, 143, -signal.SIGINT, -signal.SIGTERM) or "Traceback" in child.err:
        raise Wrong(f"{child.line}: status {child.status} {child.err[-1500:]}")
    world.ends_alike(job, out)
    return 1


def power(world):
    """A power cut: what came after the last fsync is cut, zeroed, or not there."""
    job, out, cuts, cache = world.random.choice(list(world.lines)), world.new(), world.random.randint(1, 3), world.new("cache")
    for _ in range(cuts):
        inside = PowerLoss(world.random.randint(1, 12 if job == "glue" else 60), world.random.random() < 0.5, [out, cache], world.random.random())
        child = world.start(job, out, inside=inside, environment={"ISOFLOP_CACHE": str(cache)})
        if child.wait() != -signal.SIGKILL and child.complaint:
            raise Wrong(f"{child.line}: {child.complaint}")
    world.ends_alike(job, out, environment={"ISOFLOP_CACHE": str(cache)})
    return cuts


def spoil(world, path):
    """Random damage of a file -> what it was."""
    data, draw = bytearray(path.read_bytes()), world.random
    at = draw.randrange(len(data)) if data else 0
    how = draw.choice(["bit", "bytes", "zeros", "cut", "grown", "empty", "noise"])
    if how == "bit" and data:
        data[at] ^= 1 << draw.randrange(8)
    elif how in ("bytes", "zeros"):
        n = min(draw.randint(1, 64), len(data) - at)
        data[at:at + n] = bytes(n) if how == "zeros" else draw.randbytes(n)
    elif how in ("cut", "empty"):
        del data[at if how == "cut" else 0:]
    else:
        data = bytearray(draw.randbytes(draw.randint(1, 5000))) if how == "noise" else data + draw.randbytes(draw.randint(1, 100))
    path.write_bytes(data)
    return f"{how} at {at} of {path.name}"


def damage(world):
    """Random bytes in any file of a cache, a teacher, a run that is under way, a finished run, or scores."""
    kind, out, environment = world.random.choice(["cache", "teacher", "under way", "finished", "scores"]), world.new(), {}
    job = {"cache": "scratch", "teacher": world.random.choice(["kd", "minilm", "glue"]), "scores": "glue"}.get(kind) or world.random.choice(["scratch", "kd", "minilm"])
    if kind == "cache":
        victim = world.new("cache")
        shutil.copytree(world.base / "cache", victim)
        environment = {"ISOFLOP_CACHE": str(victim)}
    elif kind == "teacher":
        victim = world.new("teacher")
        shutil.copytree(world.teacher, victim)
    else:
        victim = out
        if kind == "under way":
            world.start(job, out, inside=Kill(world.random.randint(12, 40))).wait()
        else:
            shutil.copytree(world.base / job, out)
    if kind == "under way" and json.loads((out / "run.json").read_text())["finished"]:
        kind = "finished"
    file = world.random.choice(sorted(path for path in victim.rglob("*") if path.is_file()))
    what = f"{spoil(world, file)} ({kind})"
    line = [victim if argument == world.teacher and kind == "teacher" else argument for argument in world.lines[job]]
    whole = saved(job, out) if kind == "under way" else 0
    child = Child(*line, "--out", out, environment=environment)
    child.wait()
    if child.complaint:
        raise Wrong(f"{what}: {child.line}: {child.complaint}")
    if child.status and (kind == "cache" or whole):  # made again, and continued
        raise Lost(f"{what}: {child.line}: {child.err[-300:]}, though {f'step {whole} is saved' if whole else 'the text is there'}")
    if child.status == 0 and kind != "finished" and (found := left_by(job, out)) != left_by(job, world.base / job):
        raise Lost(f"{what}: {child.line}: other {' and '.join(key for key, value in left_by(job, world.base / job).items() if found[key] != value)}: a wrong result, and nothing said")
    if kind == "finished":  # whose files are read by those who use it
        undisturbed = world.start(job, world.base / job)
        undisturbed.wait()
        said = [re.sub(r"in [\d.]+ s|folder .*|waiting for .*\n", "", text) for text in (child.out, undisturbed.out)]
        if child.status == 0 and said[0] != said[1]:
            raise Lost(f"{what}: prints {said[0]}\ninstead of {said[1]}")
        user = Child("glue.py", out, *world.lines["glue"][2:], "--out", world.new())
        if user.wait() not in (0, 2) or user.complaint:
            raise Wrong(f"{what}: {user.line}: {user.complaint}")
        if user.status == 0 and file.name in ("model.safetensors", "config.json", "tokenizer.json"):
            raise Lost(f"{what}: {user.line}: scored a damaged model")
    return 1


def full_disk(world):
    """A disk that is too small, at whichever write; then there is room."""
    job, disk = world.random.choice(list(world.lines)), world.new("disk")
    disk.mkdir()
    size = world.random.randrange(1, 60 if job == "glue" else 300)
    mount(disk, f"size={4 * size}k")
    try:
        environment = {"ISOFLOP_CACHE": str(disk / "cache")} if world.random.random() < 0.5 else {}
        child = world.start(job, disk / "run", environment=environment)
        if child.wait() is None or child.complaint or child.status and "No space" not in child.err:
            raise Wrong(f"{4 * size} KB: {child.line}: {child.complaint or child.err[-500:]}")
        mount(disk, "remount,size=64m")
        world.ends_alike(job, disk / "run", environment=environment)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    return 1


def mount(disk, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True)


def folders(world):
    """Between start and resume a folder becomes read-only, goes away, or is another one's."""
    job, disk, kind = world.random.choice(["scratch", "kd"]), world.new("disk"), world.random.choice(
        ["read-only", "gone", "emptied", "a file", "another run's", "another teacher", "no teacher", "a loop", "folder for a file"])
    disk.mkdir()
    mount(disk, "size=64m")
    try:
        out, teacher = disk / "run", disk / "teacher"
        shutil.copytree(world.teacher, teacher)
        line = [teacher if argument == world.teacher else argument for argument in world.lines[job]]
        Child(*line, "--out", out, inside=Kill(world.random.randint(6, 50))).wait()
        begun = (out / "run.json").exists()
        if kind == "read-only":
            mount(disk, "remount,ro")
        elif kind in ("gone", "emptied"):
            shutil.rmtree(out)
            if kind == "emptied":
                out.mkdir()
        elif kind == "a file":
            shutil.rmtree(out)
            out.write_text("not a folder")
        elif kind == "another run's":
            shutil.rmtree(out)
            shutil.copytree(world.base / ("kd" if job == "scratch" else "scratch"), out)
        elif kind in ("another teacher", "no teacher"):
            shutil.rmtree(teacher)
            if kind == "another teacher":
                shutil.copytree(world.base / "kd", teacher)  # scratch's is the teacher itself: the same command
        elif kind == "a loop":
            shutil.rmtree(out)
            out.symlink_to(out)
        else:
            victim = world.random.choice(sorted(out.iterdir()))
            victim.unlink()
            victim.mkdir()
        child = Child(*line, "--out", out)
        child.wait()
        if child.complaint or (kind in ("read-only", "a file", "another run's", "a loop") or kind == "another teacher" and job == "kd" and begun) and child.status == 0:
            raise Wrong(f"{kind}: {child.line}: {child.complaint or 'it did not notice'}")
        if child.status == 0 and kind != "another teacher" and left_by(job, out) != left_by(job, world.base / job):
            raise Lost(f"{kind}: {child.line}: another result")
        if kind == "read-only":
            mount(disk, "remount,rw")
            again = Child(*line, "--out", out)
            if again.wait() or left_by(job, out) != left_by(job, world.base / job):
                raise Lost(f"{kind}: {again.line}: {again.err[-500:]}")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    return 1


def not_a_number(world):
    """NaN and infinity in a gradient, in the weights, in the teacher."""
    import torch
    kind, job, out = world.random.choice(["gradient", "weights", "teacher"]), world.random.choice(["scratch", "kd", "minilm"]), world.new()
    value, number = world.random.choice([float("nan"), float("inf"), -float("inf")]), world.random.randint(0, 12)
    line, inside = world.lines[job], None
    if kind == "teacher" and job != "scratch":
        teacher = world.new("teacher")
        shutil.copytree(world.teacher, teacher)
        (teacher / "run.json").unlink()
        tensors, metadata = disk.load_tensors(teacher / "model.safetensors")
        tensors[world.random.choice([name for name in tensors if "encoder" in name])].view(-1)[0] = value
        disk.save_tensors(teacher / "model.safetensors", tensors)
        line = [teacher if argument == world.teacher else argument for argument in line]
    else:
        def spoil_once():
            real, calls = parallel.backward, []

            def backward(learner, *rest):
                terms = real(learner, *rest)
                calls.append(1)
                if len(calls) == number + 1:
                    with torch.no_grad():
                        some = [p for p in learner.model.layers.parameters() if p.grad is not None]
                        victim = random.Random(number).choice(some)
                        (victim if kind == "weights" else victim.grad).view(-1)[0] = value
                return terms
            parallel.backward = backward
        inside = spoil_once
    child = Child(*line, "--out", out, inside=inside)
    if child.wait() != 2 or child.complaint:
        raise Wrong(f"{kind} {value} {number}: {child.line}: {child.complaint or 'it did not notice'}")
    for path in out.glob("checkpoint*"):
        if not all(tensor.isfinite().all() for tensor in disk.load_tensors(path)[0].values()):
            raise Lost(f"{kind} {value} {number}: {child.line}: {path.name} holds it")
    if inside:  # whatever it was, it is over: the last good checkpoint goes on
        world.ends_alike(job, out)
    return 1


def two_at_once(world):
    """Two runs in one folder, or on one cold cache; on the lock of a dead process, of another machine."""
    job, kind, cache = world.random.choice(list(world.lines)), world.random.choice(["folder", "cache", "stale lock"]), world.new("cache")
    outs, environment = [world.new()] * 2 if kind != "cache" else [world.new(), world.new()], {"ISOFLOP_CACHE": str(cache)}
    if kind == "stale lock":
        world.start(job, outs[0], inside=Kill(world.random.randint(5, 50))).wait()
        for lock in outs[0].glob("*lock"):
            lock.write_text("another-host 4711\n")
    pair = []
    for out in outs:
        pair.append(world.start(job, out, environment=environment))
        time.sleep(world.random.choice([0, world.random.uniform(0, 0.3)]))
    for child in pair:
        child.wait()
        if child.complaint or child.status == 2 and ("another process is working" not in child.err or kind == "cache"):
            raise Wrong(f"{kind}: {child.line}: {child.complaint or child.err[-500:]}")
    if all(child.status for child in pair):
        raise Wrong(f"{kind}: {pair[0].line}: neither won")
    for out in set(outs):
        world.ends_alike(job, out, environment=environment)
    return 1


def ranks(world):
    """One of two processes of a run is killed, or stopped without dying."""
    import socket
    out, job = world.new(), world.random.choice(["scratch", "kd", "minilm"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [argument if argument != "0.1" else "0" for argument in world.lines[job]] + ["--dtype", "fp32", "--out", out]

    def start():
        return [Child(*line, environment={"ISOFLOP_PATIENCE": "5", "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                                                           "MASTER_PORT": str(port)}) for rank in range(2)]
    pair, victim, signum = start(), world.random.randrange(2), world.random.choice([signal.SIGKILL, signal.SIGSTOP])
    end = time.monotonic() + 30
    while not any(out.glob("checkpoint*")) and pair[0].running() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(world.random.uniform(0, 0.3))
    pair[victim].signal(signum)
    other = pair[1 - victim]
    other.wait(60)
    pair[victim].signal(signal.SIGKILL)
    pair[victim].wait()
    if other.complaint or other.status == 2 and "has died or hangs" not in other.err:
        raise Wrong(f"{signal.Signals(signum).name}: {other.line}: {other.complaint or other.err[-500:]}")
    again = start() if world.random.random() < 0.5 else [Child(*line)]
    for child in again:
        if child.wait() or child.complaint:
            raise Lost(f"{child.line}: {child.complaint or child.err[-500:]}")
    plain = world.folder / f"{job}-plain"
    if not (plain / "README.md").exists():
        Child(*line[:-1], plain).wait()
    found, wanted = (disk.load_tensors(folder / "model.safetensors")[0] for folder in (out, plain))
    if not all((found[name] - wanted[name]).abs().max() < 1e-4 for name in wanted):
        raise Lost(f"{again[0].line}: ended with other weights than one process")
    shutil.rmtree(out)
    return 1


# ---------------------------------------------------------------------------------------------------------------------
# The campaign

import inputs  # noqa: E402: its functions take this file's exceptions

# Kind of fault, what it is called in the table, and its share of the time
FAULTS = {"kill": (kill, "SIGKILL, of train and glue, also inside saves", 38), "compare": (kill_compare, "SIGKILL of a comparison", 4), "signals": (signals, "SIGTERM, SIGINT, twice", 5),
          "power": (power, "power loss", 3), "damage": (damage, "damaged files", 9), "disk": (full_disk, "full disk", 2), "folders": (folders, "read-only, missing, swapped folders", 2),
          "nan": (not_a_number, "NaN and infinity", 1), "two": (two_at_once, "two at once", 4), "ranks": (ranks, "a dead or hanging process of two", 4),
          "flags": (inputs.command_lines, "bad command lines", 22), "text": (inputs.bad_text, "bad text", 5), "hostile": (inputs.hostile_folder, "hostile model folders", 3)}
MOUNTS = ("disk", "folders")


def can_mount():
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount(folder, "size=1m")
            return subprocess.run(["umount", folder]).returncode == 0
        except (OSError, subprocess.CalledProcessError):
            return False


def lane(base, number, seconds, seed, names):
    """Goes through the kinds, each for its share of the time (and once at least); writes what it found as JSON."""
    world, found, shares = World(base, number, seed), {}, sum(FAULTS[name][2] for name in names)
    for name in names:
        row = found[name] = {"times": 0, "lost": 0, "wrong": 0, "what": []}
        end = time.monotonic() + seconds * FAULTS[name][2] / shares
        while row["times"] == 0 or time.monotonic() < end:
            try:
                row["times"] += FAULTS[name][0](world)
            except Exception as failure:  # Lost, Wrong, or a defect of this campaign
                row["times"] += 1
                row["lost" if isinstance(failure, Lost) else "wrong"] += 1
                row["what"].append(str(failure) if isinstance(failure, (Lost, Wrong)) else traceback.format_exc())
                print(f"\n{name}: {row['what'][-1]}", file=sys.stderr, flush=True)
            (base / f"lane{number}.json").write_text(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--lanes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    names = [name for name in args.only if name not in MOUNTS or can_mount()]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        os.environ |= {"ISOFLOP_CACHE": str(base / "cache")}
        children.prepare()
        build(base)
        lanes = []
        for number in range(args.lanes):
            lanes.append(os.fork())
            if lanes[-1] == 0:
                status = 1
                try:
                    lane(base, number, args.minutes * 60, args.seed, names)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
        statuses = [os.waitpid(pid, 0)[1] for pid in lanes]
        found = [json.loads((base / f"lane{number}.json").read_text()) for number in range(args.lanes)]
    print(f"{time.strftime('%Y-%m-%d')}, python tests/faults.py {shlex.join(sys.argv[1:])}\n\n| fault | times | lost | wrong message |\n|---|---|---|---|")
    bad = any(statuses)
    for name in args.only:
        total = [sum(rows[name][key] for rows in found) if name in names else 0 for key in ("times", "lost", "wrong")]
        print(f"| {FAULTS[name][1]} | {f'{total[0]:,} | {total[1]} | {total[2]}' if name in names else 'not possible here: it needs to mount a disk | |'} |")
        bad |= total[1] + total[2] > 0
    sys.exit(int(bad))


if __name__ == "__main__":
    sys.modules["faults"] = sys.modules["__main__"]  # inputs.py takes its exceptions from here
    main()
