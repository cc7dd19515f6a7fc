"""The programs of this project as forked children, and disturbances that act inside them.

A process that has imported everything forks a child, which runs a program's main(). It starts in
milliseconds, so that a campaign can disturb thousands of them. Linux only.
"""
import ctypes
import importlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from program import cli

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("budget.py", "train.py", "glue.py", "compare.py", "tools/bench.py", "tools/gate.py",
            "tools/glance.py", "tools/predict.py")


def module_of(program):
    """The module of a program: "tools/bench.py" -> "tools.bench"."""
    return program.removesuffix(".py").replace("/", ".")


def prepare():
    """Imports what the children need. No thread may run here before a fork: torch and tokenizers
    start theirs when they first compute."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                   "TOKENIZERS_PARALLELISM": "false"}
    for name in ("torch._dynamo", "matplotlib.pyplot", *map(module_of, PROGRAMS)):
        importlib.import_module(name)
    sys.modules["matplotlib"].use("Agg")
    sys.modules["torch"].set_num_threads(1)


def fork(work, files=()):
    """The number of a process that does some work, and ends when this one does. files: what becomes
    its stdin, stdout and stderr."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        for descriptor, file in enumerate(files):
            os.dup2(file.fileno(), descriptor)
        if files:
            sys.stdout, sys.stderr = (open(descriptor, "w", errors="replace", closefd=False)
                                      for descriptor in (1, 2))
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


class Child:
    """A program, by its path below the root, that runs as a child of this process in a folder.
    inside: a function that the child calls first. environment: variables that it sets."""

    def __init__(self, program, *arguments, inside=None, environment=(), folder=ROOT):
        self.line = f"python {program} {' '.join(map(str, arguments))}"
        self.files = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]
        self.status, self.out, self.err, self.memory, self.hangs = None, "", "", 0, False

        def work():
            os.setsid()  # no signal to its group reaches another child
            os.environ.update(environment)
            os.chdir(folder)
            sys.argv = [program, *map(str, arguments)]
            for signum in cli.SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, cli.SIGNALS)
            if inside:
                inside()
            cli.program(sys.modules[module_of(program)].main)
        # A signal waits until the child has forgotten this process's handlers, which may raise.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, cli.SIGNALS)
        self.pid = fork(work, [open(os.devnull), *self.files])
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def running(self):
        """Whether it has not ended yet. Once it has, it is waited for, and `status` is a number."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.memory = usage.ru_maxrss * 1024
                for file in self.files:
                    file.seek(0)
                self.out, self.err = (file.read() for file in self.files)
        return self.status is None

    def send(self, signum):
        """Sends a signal, if it is still running."""
        if self.running():
            os.kill(self.pid, signum)

    def ends_within(self, seconds):
        """Whether it ends in so many seconds."""
        end = time.monotonic() + seconds
        while self.running() and time.monotonic() < end:
            time.sleep(0.002)
        return self.status is not None

    def wait(self, seconds=300):
        """Its exit status, negative after a signal. One that takes longer hangs, and is killed."""
        self.hangs = not self.ends_within(seconds)
        if self.hangs:
            self.end()
        return self.status

    def end(self):
        """Kills it, and what it has started."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
            self.ends_within(300)

    @property
    def killed(self):
        """Whether a disturbance killed it."""
        return self.status == -signal.SIGKILL and not self.hangs

    @property
    def complaint(self):
        """Why its end is not status 0, nor status 2 after a line `error: ...`, or None."""
        if self.hangs:
            return "it hangs"
        refused = self.status == 2 and self.err.strip().split("\n")[-1].startswith("error: ")
        if (self.status == 0 or refused) and "Traceback" not in self.err + self.out:
            return None
        return f"status {self.status}: {self.err[-1500:]}"


# --------------------------------------------------------------------------------------------------
# Disturbances from inside


class Kill:
    """SIGKILL before or after the n-th operation on files that a program asks of the system."""

    def __init__(self, at, after=False):
        self.at, self.after, self.calls = at, after, 0

    def __call__(self):
        for name in ("fsync", "replace", "rename", "unlink", "mkdir"):
            setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real):
        def operation(*args, **options):
            self.calls += 1
            is_the_one = self.calls == self.at
            if is_the_one and not self.after:
                self.crash()
            result = real(*args, **options)
            if real.__name__ == "fsync":
                self.synced(os.readlink(f"/proc/self/fd/{args[0]}"))
            if is_the_one:
                self.crash()
            return result
        return operation

    def synced(self, path):
        """Called after each fsync of a file or folder."""

    def crash(self):
        os.kill(os.getpid(), signal.SIGKILL)


class PowerLoss(Kill):
    """The disk after a power cut at the n-th operation. A file is what it was at its last fsync,
    with any part of what came later, cut or zeroed. A folder has its names of that time, or newer
    ones."""

    def __init__(self, at, after, roots, seed):
        super().__init__(at, after)
        self.roots, self.random = roots, random.Random(seed)
        self.contents = {}  # {inode: what is surely on the disk of this file}
        self.names = {}     # {folder: {name: inode}, what is surely on the disk of this folder}
        for root in roots:
            for path in (root, *root.rglob("*")):
                self.synced(path)

    def synced(self, path):
        if os.path.isdir(path):
            files = [entry for entry in os.scandir(path) if entry.is_file()]
            self.names[str(path)] = {entry.name: entry.inode() for entry in files}
        elif os.path.isfile(path):
            self.contents[os.stat(path).st_ino] = Path(path).read_bytes()

    def crash(self):
        for root in self.roots:
            for folder, _, files in list(os.walk(root)):
                durable = self.names.get(folder, {})
                for name in sorted(durable.keys() | set(files)):
                    self.cut(Path(folder, name), durable.get(name))
        super().crash()

    def cut(self, path, durable_inode):
        """Leaves of a file what the power cut leaves. durable_inode: what its name surely meant."""
        inode = path.stat().st_ino if path.exists() else None
        if durable_inode != inode and self.random.random() < 0.5:
            path.unlink(missing_ok=True)  # the rename, or the removal, was not written
            if durable_inode is not None:
                path.write_bytes(self.contents.get(durable_inode, b""))
        elif inode is not None:
            now, durable = path.read_bytes(), self.contents.get(inode, b"")
            if now != durable:
                least = len(durable) if now.startswith(durable) else 0
                kept = self.random.randint(least, len(now))
                zeroed = now[:kept] + bytes(len(now) - kept)
                path.write_bytes(self.random.choice([now, now[:kept], zeroed]))
