"""Programs of this project as forked children of a process that has imported all they need: each starts in milliseconds, so that a
campaign can disturb thousands. And disturbances that act from inside: a kill at the n-th file operation, a power cut.

    child = Child("train.py", "--flops", "1e9", "--out", folder, inside=Kill(at=7))
    child.wait()          # its status; child.out and child.err are what it printed
"""
import gc
import importlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from plumbing import cli, hardware

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("budget", "train", "glue", "compare", "bench")


def prepare():
    """Imports what children need. No thread may run here before a fork: torch and tokenizers start theirs when they first compute."""
    sys.path.insert(0, str(ROOT))
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import matplotlib
    import torch
    import torch._dynamo  # noqa: F401: torch.optim imports it when it is first used
    matplotlib.use("Agg")
    import matplotlib.pyplot  # noqa: F401
    for name in (*PROGRAMS, "baselines", "data", "learner", "model", "parallel", "report", "tasks", "gate"):
        importlib.import_module(name)
    hardware.peak = lambda *_, **__: 1e11  # what is printed of speed is not tested: this saves half a second a child
    torch.set_num_threads(1)


class Child:
    def __init__(self, program, *arguments, inside=None, environment=(), folder=None):
        self.line = f"python {program} {' '.join(map(str, arguments))}"
        self.files = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]
        self.status, self.out, self.err, self.memory, self.began = None, "", "", 0, time.monotonic()
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        try:
            os.setsid()
            for descriptor, file in enumerate((open(os.devnull), *self.files)):
                os.dup2(file.fileno(), descriptor)
            sys.stdout, sys.stderr = open(1, "w", errors="replace", closefd=False), open(2, "w", errors="replace", closefd=False)
            gc.callbacks.clear()  # hypothesis's own may swallow a signal
            os.environ.update(environment)
            os.chdir(folder or ROOT)
            sys.argv = [program, *map(str, arguments)]
            if inside:
                inside()
            cli.program(sys.modules[program.removesuffix(".py")].main)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def running(self):
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status, self.memory = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
                for file in self.files:
                    file.seek(0)
                self.out, self.err = (file.read() for file in self.files)
        return self.status is None

    def signal(self, signum):
        if self.running():
            os.kill(self.pid, signum)

    def wait(self, seconds=120, kill=True):
        """Its exit status, negative after a signal; None where it is still running after so many seconds (it is killed then, with `kill`)."""
        end = time.monotonic() + seconds
        while self.running() and time.monotonic() < end:
            time.sleep(0.002)
        if self.running() and kill:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
            self.status = None
        return self.status

    @property
    def complaint(self):
        """Why this end is no clear one, or None: only statuses 0 and 2 are, and 2 says one line, `error: ...`."""
        if self.status is None:
            return "it hangs"
        last = (self.err.strip().splitlines() or [""])[-1]
        if "Traceback" in self.err + self.out or self.status not in (0, 2) or self.status == 2 and not last.split("\r")[-1].startswith("error: "):
            return f"status {self.status}: {self.err[-1500:]}"
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Disturbances from inside

OPERATIONS = ("fsync", "replace", "rename", "unlink", "mkdir")


class Kill:
    """SIGKILL at the n-th operation on files that a program asks of the system, before it or after it. at=None only counts."""

    def __init__(self, at=None, after=False):
        self.at, self.after, self.calls = at, after, 0

    def __call__(self):
        for name in OPERATIONS:
            setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real):
        def operation(*args, **options):
            self.calls += 1
            if self.calls == self.at and not self.after:
                self.crash()
            result = real(*args, **options)
            self.note(real.__name__, args)
            if self.calls == self.at:
                self.crash()
            return result
        return operation

    def note(self, name, args):
        pass

    def crash(self):
        os.kill(os.getpid(), signal.SIGKILL)


class PowerLoss(Kill):
    """The disk after a power cut at the n-th operation: a file is what it was at its last fsync, with any part of what came later, cut or
    zeroed; a folder has the names that it had at its own last fsync, or newer ones."""

    def __init__(self, at, after, roots, seed):
        super().__init__(at, after)
        self.roots, self.random, self.contents, self.names = roots, random.Random(seed), {}, {}
        for root in roots:
            for folder, _, files in os.walk(root):
                for path in (folder, *(os.path.join(folder, name) for name in files)):
                    self.written(path)

    def written(self, path):
        if os.path.isdir(path):
            self.names[path] = {entry.name: entry.inode() for entry in os.scandir(path) if entry.is_file()}
        elif os.path.isfile(path):
            self.contents[os.stat(path).st_ino] = Path(path).read_bytes()

    def note(self, name, args):
        if name == "fsync":
            self.written(os.readlink(f"/proc/self/fd/{args[0]}"))

    def crash(self):
        for root in self.roots:
            for folder, _, files in list(os.walk(root)):
                durable = self.names.get(folder, {})
                for name in sorted(durable.keys() | set(files)):
                    path = Path(folder, name)
                    inode = path.stat().st_ino if path.exists() else None
                    if durable.get(name) != inode and self.random.random() < 0.5:  # the rename, or the removal, was not written
                        path.unlink(missing_ok=True)
                        if name in durable:
                            path.write_bytes(self.contents.get(durable[name], b""))
                    elif inode is not None:
                        self.damage(path, self.contents.get(inode, b""))
        super().crash()

    def damage(self, path, durable):
        now = path.read_bytes()
        if now != durable:
            kept = self.random.randint(len(durable) if now.startswith(durable) else 0, len(now))
            path.write_bytes(self.random.choice([now, now[:kept], now[:kept] + bytes(len(now) - kept)]))
