"""The fault campaign: disturbs the programs in every way that we could think of, thousands of
times, and prints what was lost.

    python tests/faults.py --minutes 30 --seed 1      all of it
    python tests/faults.py --minutes 2 --only kill    one kind

It prints a table, and ends with status 1 if anything was lost or ended without a clear line.

Each kind of fault is a function of a `Lane`. It disturbs a command, gives the same command again,
and compares what that leaves with what an undisturbed run left, bit for bit. It returns how many
faults it made, and raises Lost or Wrong. Linux only; kinds that mount a small disk need root.
"""
import argparse
import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from files import disk
from running import runfolder

import children
import inputs
import undisturbed
from children import Child, Kill, PowerLoss
from safetensors.torch import load_file
from undisturbed import Lane, Lost, Wrong, must_finish

# --------------------------------------------------------------------------------------------------
# Kills


def must_be_clear(child, what=""):
    """Waits for a child. Raises Wrong where it ends neither clearly nor by SIGKILL."""
    child.wait()
    if child.complaint and not child.killed:
        raise Wrong(f"{what}{child.line}: {child.complaint}")


def kill(lane):
    """SIGKILL at random moments and operations on files. Every third run tokenizes anew."""
    draw, job, out, kills = lane.random, lane.any_job(), lane.new(), 0
    environment = lane.cold_cache() if draw.random() < 0.3 else {}
    for _ in range(draw.randint(1, 8)):
        inside = Kill(lane.operation(job), draw.random() < 0.5) if draw.random() < 0.6 else None
        child = lane.start(job, out, environment=environment, inside=inside)
        if inside is None:
            time.sleep(draw.uniform(0, 0.5))
            child.send(signal.SIGKILL)
        must_be_clear(child)
        kills += child.killed
    lane.must_end_alike(job, out, environment=environment)
    return kills


def kill_compare(lane):
    """SIGKILL of a comparison, whose cells are programs of their own."""
    out = lane.new()
    line = ("compare.py", "--strategies", "scratch,kd", "--budgets", "3e8", "--unique-tokens",
            "inf", "--seeds", "1", "--model", "1x32h2", "--teacher-model", "1x32h2",
            "--teacher", lane.teacher,
            "--data", lane.book, "--glue-data", lane.glue_data, "--tasks", "cola",
            "--glue-seeds", "1", "--jobs", os.cpu_count(),
            "--train-options", "--seq-len 16 --batch-size 8 --dropout 0.1", "--out", out)
    for _ in range(lane.random.randint(1, 2)):
        child = Child(*line)
        time.sleep(lane.random.uniform(0, 15))
        child.send(signal.SIGKILL)
        child.wait()
    must_finish(Child(*line))
    for folder in (out / "cells").iterdir():
        wanted = lane.base / folder.name.split("-")[0]
        if len({(path / "model.safetensors").read_bytes() for path in (folder, wanted)}) > 1:
            raise Lost(f"compare.py: {folder.name} ended with other weights")
    shutil.rmtree(out)
    return 1


def signals(lane):
    """SIGTERM or SIGINT, and another one a moment later."""
    job, out = lane.any_job(), lane.new()
    child = lane.start(job, out)
    for pause in (0.6, 0.05):
        time.sleep(lane.random.uniform(0, pause))
        child.send(lane.random.choice([signal.SIGINT, signal.SIGTERM]))
    clear = (0, 130, 143, -signal.SIGINT, -signal.SIGTERM)  # negative: before it has begun
    if child.wait() not in clear or "Traceback" in child.err:
        raise Wrong(f"{child.line}: status {child.status} {child.err[-1500:]}")
    lane.must_end_alike(job, out)
    return 1


def power(lane):
    """A power cut: what came after the last fsync is cut, zeroed, or not there."""
    draw, job, out, environment = lane.random, lane.any_job(), lane.new(), lane.cold_cache()
    roots, cuts = [out, Path(environment["ISOFLOP_CACHE"])], draw.randint(1, 3)
    for _ in range(cuts):
        inside = PowerLoss(lane.operation(job), draw.random() < 0.5, roots, draw.random())
        must_be_clear(lane.start(job, out, inside=inside, environment=environment))
    lane.must_end_alike(job, out, environment=environment)
    return cuts


# --------------------------------------------------------------------------------------------------
# Damage


def spoil(draw, path):
    """Damages a file at random, and says how. JSON is damaged as disks do it, by whole sectors."""
    data, n = path.read_bytes() or b"\0", draw.randint(1, 64)
    at = draw.randrange(len(data))
    kinds = {"zeros": data[:at] + bytes(n) + data[at + n:], "cut": data[:at],
             "noise": draw.randbytes(100 * n), "grown": data + draw.randbytes(n)}
    if path.suffix != ".json":  # in JSON another digit is a number like any other
        kinds["bit"] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    kind = draw.choice(sorted(kinds))
    path.write_bytes(kinds[kind])
    return f"{kind} at {at} of {path.name}"


DAMAGED = {"cache": ["scratch"], "teacher": ["kd", "minilm", "glue"], "scores": ["glue"],
           "under way": ["scratch", "kd", "minilm"], "finished": ["scratch", "kd", "minilm"]}


def damage(lane):
    """Random bytes in any file of a cache, a teacher, a run under way or finished, or scores."""
    draw, out = lane.random, lane.new()
    kind = draw.choice(list(DAMAGED))
    job = draw.choice(DAMAGED[kind])
    victim = lane.new("victim") if kind in ("cache", "teacher") else out
    if kind == "under way":
        lane.start(job, out, inside=Kill(draw.randint(12, 40))).wait()
        if disk.read_json(out / "run.json").get("finished"):
            kind = "finished"
    else:
        shutil.copytree(lane.base / (kind if victim != out else job), victim)
    file = draw.choice(sorted(path for path in victim.rglob("*") if path.is_file()))
    what = f"{spoil(draw, file)} ({kind})"
    step = undisturbed.saved(job, out) if kind == "under way" else 0
    line = lane.line_with(job, victim) if kind == "teacher" else lane.lines[job]
    environment = {"ISOFLOP_CACHE": str(victim)} if kind == "cache" else {}
    child = Child(*line, "--out", out, environment=environment)
    must_be_clear(child, f"{what}: ")
    if child.status and (kind == "cache" or step):
        raise Lost(f"{what}: {child.line}: {child.err[-300:]}, though all is there (step {step})")
    if child.status == 0:
        lane.must_equal(job, out, f"{what}: {child.line}")
    return 1


# --------------------------------------------------------------------------------------------------
# Disks and folders


@contextlib.contextmanager
def small_disk(folder, kilobytes):
    """A folder on a disk of its own."""
    folder.mkdir()
    mount(folder, f"size={kilobytes}k")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True,
                   capture_output=True)


def full_disk(lane):
    """A disk that is too small, at whichever write; then there is room."""
    job = lane.any_job()
    size = 4 * lane.random.randrange(1, 60 if job == "glue" else 300)
    with small_disk(lane.new("disk"), size) as small:
        in_cache = lane.random.random() < 0.5
        environment = {"ISOFLOP_CACHE": str(small / "cache")} if in_cache else {}
        child = lane.start(job, small / "run", environment=environment)
        must_be_clear(child)
        if child.status and "No space" not in child.err:
            raise Wrong(f"{child.line}: {child.err[-500:]}")
        mount(small, "remount,size=64m")
        lane.must_end_alike(job, small / "run", environment=environment)
    return 1


# What happens to a run's folder, or to the teacher beside it, while the run is interrupted.
ENDS = ("read-only", "a file", "another run")  # no command may go on after these
CHANGES = (*ENDS, "gone", "no teacher", "another teacher")


def change_folder(lane, change, job, out):
    """Makes one of the CHANGES to the folder `out` of an interrupted run of a job."""
    teacher = out.parent / "teacher"
    if change == "read-only":
        mount(out.parent, "remount,ro")
    else:
        shutil.rmtree(teacher if "teacher" in change else out)
    if change == "a file":
        out.write_text("not a folder")
    elif change == "another run":
        shutil.copytree(lane.base / ("kd" if job == "scratch" else "scratch"), out)
    elif change == "another teacher":  # scratch's model is the teacher itself
        shutil.copytree(lane.base / "kd", teacher)


def folders(lane):
    """Between start and resume a folder becomes read-only, goes away, or is another one's."""
    job, change = lane.random.choice(["scratch", "kd"]), lane.random.choice(CHANGES)
    with small_disk(lane.new("disk"), 2 ** 16) as small:
        out = small / "run"
        shutil.copytree(lane.teacher, small / "teacher")
        line = [*lane.line_with(job, small / "teacher"), "--out", out]
        Child(*line, inside=Kill(lane.random.randint(6, 50))).wait()
        begun = (out / "run.json").exists()
        change_folder(lane, change, job, out)
        child = Child(*line)
        must_be_clear(child, f"{change}: ")
        other_student = change == "another teacher" and job == "kd" and begun
        if child.status == 0 and (change in ENDS or other_student):
            raise Wrong(f"{change}: {child.line}: it did not notice")
        if change == "read-only":
            mount(small, "remount,rw")
            child = Child(*line)
            must_finish(child)
        if child.status == 0 and change != "another teacher":
            lane.must_equal(job, out, f"{change}: {child.line}")
    return 1


# --------------------------------------------------------------------------------------------------
# Numbers that are none


def spoiled_backward(n, value, what):
    """What a child does first so that one gradient or one weight becomes `value` at pass n."""
    train, passes = sys.modules["train"], iter(range(10 ** 9))
    real = train.forward_backward

    def backward(learner, *rest):
        terms = real(learner, *rest)
        if next(passes) == n:
            trained = [p for p in learner.model.layers.parameters() if p.grad is not None]
            parameter = random.Random(n).choice(trained)
            tensor = parameter.data if what == "weights" else parameter.grad
            tensor.view(-1)[0] = value
        return terms
    return lambda: setattr(train, "forward_backward", backward)


def not_a_number(lane):
    """NaN and infinity in a gradient or in the weights."""
    draw, out = lane.random, lane.new()
    place, job = draw.choice(["gradient", "weights"]), lane.any_job(but="glue")
    value, n = float(draw.choice(["nan", "inf", "-inf"])), draw.randint(0, 12)
    what = f"{place} {value} {n}"
    child = lane.start(job, out, inside=spoiled_backward(n, value, place))
    if child.wait() != 2 or child.complaint:
        raise Wrong(f"{what}: {child.line}: {child.complaint or 'it did not notice'}")
    for path in runfolder.checkpoints(out):
        weights = runfolder.read_checkpoint(path)["learner"].values()
        if not all(tensor.isfinite().all() for tensor in weights):
            raise Lost(f"{what}: {child.line}: {path.name} holds it")
    lane.must_end_alike(job, out)  # nothing is spoiled now: the last good checkpoint goes on
    return 1


# --------------------------------------------------------------------------------------------------
# Two processes


def two_at_once(lane):
    """Two runs in one folder, or with one cold cache."""
    draw, job, first = lane.random, lane.any_job(), lane.new()
    kind = draw.choice(["folder", "cache"])
    environment = lane.cold_cache()
    outs, pair = [first, lane.new() if kind == "cache" else first], []
    for out in outs:
        pair.append(lane.start(job, out, environment=environment))
        time.sleep(draw.choice([0, draw.uniform(0, 0.3)]))
    for child in pair:
        must_be_clear(child)
        may_be_refused = kind != "cache" and "another process is working" in child.err
        if child.status and not may_be_refused:
            raise Wrong(f"{kind}: {child.line}: {child.err[-500:]}")
    if all(child.status for child in pair):
        raise Wrong(f"{kind}: {pair[0].line}: neither won")
    for out in sorted(set(outs)):
        lane.must_end_alike(job, out, environment=environment)
    return 1


def ranks(lane):
    """One of two processes of a run is killed, or stopped without dying."""
    draw, out, job = lane.random, lane.new(), lane.any_job(but="glue")
    words = ["0" if word == "0.1" else word for word in lane.lines[job]]  # --dropout
    line = [*words, "--dtype", "fp32", "--out"]
    victim, signum = draw.randrange(2), draw.choice([signal.SIGKILL, signal.SIGSTOP])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    pair = [Child(*line, out, environment={
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ISOFLOP_PATIENCE": "5"})
        for rank in ("0", "1")]
    end = time.monotonic() + 30
    while not any(out.glob("checkpoint*")) and pair[0].running() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3))
    pair[victim].send(signum)
    other = pair[1 - victim]
    other.wait()
    pair[victim].send(signal.SIGKILL)
    pair[victim].wait()
    if other.complaint or other.status and "has died or hangs" not in other.err:
        raise Wrong(f"{signum.name}: {other.line}: {other.complaint or other.err[-500:]}")
    plain = lane.new("plain")
    for folder in (out, plain):  # one process goes on, which may be as slow as the machine is
        must_finish(Child(*line, folder))
    weights, wanted = (load_file(folder / "model.safetensors") for folder in (out, plain))
    if not all((weights[name] - wanted[name]).abs().max() < 1e-4 for name in wanted):
        raise Lost(f"{other.line}: two processes ended with other weights than one")
    shutil.rmtree(out)
    return 1


# --------------------------------------------------------------------------------------------------
# The campaign

# {kind: (its function, its name in the table, its share of the time)}
FAULTS = {
    "kill": (kill, "SIGKILL, of train and glue, also inside saves", 38),
    "compare": (kill_compare, "SIGKILL of a comparison", 4),
    "signals": (signals, "SIGTERM, SIGINT, twice", 5),
    "power": (power, "power loss", 3),
    "damage": (damage, "damaged files", 9),
    "disk": (full_disk, "full disk", 2),
    "folders": (folders, "read-only, missing, swapped folders", 2),
    "nan": (not_a_number, "NaN and infinity", 1),
    "two": (two_at_once, "two at once", 4),
    "ranks": (ranks, "a dead or hanging process of two", 4),
    "flags": (inputs.command_lines, "bad command lines", 22),
    "text": (inputs.bad_text, "bad text", 5),
    "hostile": (inputs.hostile_folder, "hostile model folders", 3)}


def run_kinds(lane, seconds, seed, kinds):
    """Goes through the kinds, each for its share of the time, and at least once. Returns
    {kind: {"times": n, "lost": n, "wrong": n}}."""
    rows, shares = {}, sum(FAULTS[kind][2] for kind in kinds)
    for kind in kinds:
        fault, _, share = FAULTS[kind]
        row = rows[kind] = {"times": 0, "lost": 0, "wrong": 0}
        end, turn = time.monotonic() + seconds * share / shares, 0
        while turn == 0 or time.monotonic() < end:
            lane.random.seed(f"{seed} {kind} {turn}")
            turn += 1
            try:
                row["times"] += fault(lane)
            except Exception as failure:  # Lost, Wrong, or a defect of this campaign
                row["times"] += 1
                row["lost" if isinstance(failure, Lost) else "wrong"] += 1
                is_clear = isinstance(failure, (Lost, Wrong))
                words = str(failure) if is_clear else traceback.format_exc()
                print(f"\n{kind}: {words}", file=sys.stderr, flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description="Disturbs the programs, and prints what was lost.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, kinds = Path(folder), args.only
        try:
            with small_disk(base / "disk", 1000):
                pass
        except (OSError, subprocess.CalledProcessError):  # only root may mount
            kinds = [kind for kind in kinds if kind not in ("disk", "folders")]
        os.environ["ISOFLOP_CACHE"] = str(base / "cache")
        children.prepare()
        undisturbed.build(base)
        rows = run_kinds(Lane(base, "lane"), 60 * args.minutes, args.seed, kinds)
    print(f"{time.strftime('%Y-%m-%d')}, python tests/faults.py {shlex.join(sys.argv[1:])}\n")
    print("| fault | times | lost | wrong message |\n|---|---|---|---|")
    for kind, row in rows.items():
        print(f"| {FAULTS[kind][1]} | {row['times']:,} | {row['lost']} | {row['wrong']} |")
    sys.exit(int(any(row["lost"] + row["wrong"] for row in rows.values())))


if __name__ == "__main__":
    main()
