"""What this process may use of the machine: its processors, and the memory of its control groups.

    cores()                        # processors
    for limit, used in memory():   # bytes, of each control group that has a limit

A container, a batch system and systemd put a process into a control group. The group lies in
others, and the tightest limit of all of them counts. Linux has two versions of control groups, and
one machine may use both. This file imports the standard library only, since the number of threads
must be known before torch is imported.
"""
import contextlib
import math
import os
from pathlib import Path

PROC, MOUNT = Path("/proc"), Path("/sys/fs/cgroup")
# The files of version 2 and of version 1, whose words are the two numbers of a limit.
CPU = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
MEMORY = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def processors():
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores():
    """How many processors this process may use: those that it may run on, or what the quotas of its
    control groups allow, rounded up."""
    # A quota is so many microseconds of all processors together, in each period.
    quotas = [quota / period for _, quota, period in limits("cpu", CPU)]
    return min([processors(), *map(math.ceil, quotas)])


def memory():
    """Yields (limit, used) in bytes for each control group with a limit. Copies of files are not
    used memory: they give way when memory is needed."""
    for folder, limit, used in limits("memory", MEMORY):
        cached = 0
        for name in ("inactive_file", "total_inactive_file"):  # version 1: with the groups inside
            with contextlib.suppress(OSError, ValueError):
                cached = entry(folder / "memory.stat", name)
        yield limit, used - cached


def limits(controller, versions):
    """Yields (folder, number, number) for each control group of this process that has a limit."""
    for folder in groups(controller):
        for files in versions:
            with contextlib.suppress(OSError, ValueError):  # another version, or the word "max"
                words = " ".join((folder / name).read_text() for name in files).split()
                first, second = map(int, words)
                if first > 0:  # -1 is no limit
                    yield folder, first, second


def groups(controller):
    """Yields the folders of this process's control groups, from the innermost to the outermost that
    can be seen from here. controller: "cpu" or "memory"."""
    with contextlib.suppress(OSError):  # not Linux
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)  # no controllers: version 2
            if controllers and controller not in controllers.split(","):
                continue
            for root in {MOUNT / controllers, MOUNT / controller}:
                # Inside a container the path may begin outside: there only its end is a folder.
                names = [name for name in path.split("/") if name not in ("", "..")]
                while names and not root.joinpath(*names).is_dir():
                    names.pop(0)
                yield from (root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1))


def entry(path, name):
    """The number that stands after `name` in a file like /proc/meminfo. Raises ValueError where no
    line begins with the name."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no line {name}")
