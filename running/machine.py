"""Where a run computes: its processes, its device, its precision, what fits and how fast it is.

    torchrun --nproc-per-node 2 train.py --strategy scratch --flops 1e14

    with Session("auto", "auto") as session:
        corpus = session.keep(open_corpus(...))      # closed at the end, however it ends
        session.join(batch_size)                     # waits until all processes are prepared
        with session.open_run(folder, settings) as run:
            session.prepare(setup, run.record, batch)
            terms = forward_backward(learner, batch, lesson, session)

Each process makes the whole batch, which is a function of (seed, step). It then works on its own
rows, one micro-batch at a time. The gradients of all processes are summed, and each process takes
the same optimizer step, so that their weights are always equal. The budget, the batch, its order
and its masks therefore do not depend on the number of processes. Only the last digits of sums
depend on it, and with --dropout the choice of the neurons that are dropped. Only the first process
writes files, and a checkpoint does not hold the number of processes.

All processes meet first, and those that do not come are given up after ten minutes. Then each one
prepares, which may take hours: one may tokenize what another finds in its cache. Later all exchange
a message after each micro-batch, and where one is missing for 40 seconds, since a process has died
or hangs, the run ends. The same command continues it.
"""
import contextlib
import ctypes
import datetime
import math
import os
import re
import socket
import sys
import time
from pathlib import Path
from statistics import mean

from program import cli
from program.cli import UserError
from running.runfolder import Run, refuse_foreign

import torch
import torch.distributed as dist

DAYS_30 = 30 * 24 * 3600  # in seconds
MEETING, SILENCE = 600, 5  # seconds in which all must come, and after which a wait is told
MOST_PROCESSES = 10 ** 6
ALONE = "; leave WORLD_SIZE out if you start one"


def environment(name, default, least, most, kind=int):
    """A number from the environment. Raises UserError where the variable is not a number from
    `least` to `most`."""
    text = os.environ.get(name, default)
    with contextlib.suppress(ValueError):
        value = kind(text)
        if least <= value <= most:
            return value
    raise UserError(f"{name}={text} in the environment is no number from {least} to {most}: "
                    "torchrun sets what it needs, so leave it out")


# --------------------------------------------------------------------------------------------------
# What this process may use of the machine. A container, a batch system and systemd put it into a
# control group. That lies in others, and the tightest limit of all counts. Linux has two versions
# of control groups, and one machine may use both.

OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The files of version 2 and of version 1, whose words are the two numbers of a limit.
CPU = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
MEMORY = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def groups(controller):
    """Yields the folders of this process's control groups, from the innermost to the outermost that
    can be seen from here. controller: "cpu" or "memory"."""
    with contextlib.suppress(OSError):  # not Linux
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)  # no controllers: version 2
            if controllers and controller not in controllers.split(","):
                continue
            for root in {GROUPS / controllers, GROUPS / controller}:
                # Inside a container the path may begin outside: there only its end is a folder.
                names = [name for name in path.split("/") if name not in ("", "..")]
                while names and not root.joinpath(*names).is_dir():
                    names.pop(0)
                yield from (root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1))


def limits(controller, versions):
    """Yields (folder, number, number) for each control group of this process that has a limit."""
    for folder in groups(controller):
        for files in versions:
            with contextlib.suppress(OSError, ValueError):  # another version, or the word "max"
                words = " ".join((folder / name).read_text() for name in files).split()
                first, second = map(int, words)
                if first > 0:  # -1 is no limit
                    yield folder, first, second


def entries(path, name):
    """The numbers that stand after `name` in a file like /proc/meminfo; [] without such a file."""
    with contextlib.suppress(OSError):
        return [int(number) for number in re.findall(rf"{name}:? +(\d+)", Path(path).read_text())]
    return []


def cores():
    """How many processors this process may use: those that it may run on, or what the quotas of its
    control groups allow, rounded up."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    # A quota is so many microseconds of all processors together, in each period.
    quotas = [math.ceil(quota / period) for _, quota, period in limits("cpu", CPU)]
    return min([len(ours), *quotas])


def free_memory(device):
    """How many bytes are free on a device. On a CPU it is what is free in this machine, or in this
    process's control groups where that is less, shared with torchrun's other processes here."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Half of all memory, where the system tells nothing better.
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = [1024 * n for n in entries("/proc/meminfo", "MemAvailable")] or [half]
    for folder, limit, used in limits("memory", MEMORY):
        # Copies of files give way when memory is needed. In version 1 there is a second entry,
        # which has those of the groups inside, too.
        free.append(limit - used + max(entries(folder / "memory.stat", "inactive_file"), default=0))
    return min(free) // environment("LOCAL_WORLD_SIZE", 1, 1, MOST_PROCESSES)


# --------------------------------------------------------------------------------------------------
# The device: nothing is looked up in a table of names, all is measured, or asked of the system


def select(name, dtype):
    """The names given to --device and --dtype -> (torch.device, "fp32" or "bf16"), and this process
    is set up to compute there.

    "auto" is a GPU where there is one, and bf16 where the hardware multiplies it. Raises UserError
    where this machine does not have the device."""
    device = find_device(name)
    if dtype == "auto":
        dtype = "bf16" if multiplies_bf16(device) else "fp32"
    keep_memory()
    # torch takes as many threads as there are processors. Where a quota gives less than that, they
    # would wait for each other: on half a processor two take longer than one.
    if "OMP_NUM_THREADS" not in os.environ and cores() < torch.get_num_threads():
        torch.set_num_threads(cores())
    if device.type == "cuda":
        # A GPU adds in a fixed order then. Otherwise the backward pass of attention adds in any
        # order, and the same run would end with other last bits.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    return device, dtype


def find_device(name):
    """The torch.device called `name`, or a GPU or else the CPU for "auto". Raises UserError where
    this machine does not have it."""
    there = {"cpu": 1, "cuda": torch.cuda.device_count(),
             "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        name = "cuda" if there["cuda"] else "cpu"
    with contextlib.suppress(RuntimeError):  # torch knows no such name
        device = torch.device(name)
        if (device.index or 0) < there.get(device.type, 0):
            return device
    raise UserError(f"--device {name}: torch finds none here; it may be cpu, and on a machine that "
                    "has it cuda, cuda:1 or mps")


def multiplies_bf16(device):
    """Whether a device has instructions for bf16 products. Without them bf16 is emulated, which
    is ten times slower than fp32."""
    if device.type == "cuda":
        # Ampere or newer. torch.cuda.is_bf16_supported() also counts emulation.
        return torch.cuda.get_device_capability(device)[0] >= 8
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if device.type == "cpu" and cpuinfo.exists() else ()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def keep_memory(keep=True):
    """Tells the C library to keep memory that is freed, instead of giving it back to the system.

    By default glibc asks the system anew for each large block of memory, and the first touch of
    each page then costs a page fault. When it keeps the memory, a step of 6x768 takes 4 to 20% less
    time (docs/LOG.md). keep=False goes back to about glibc's own way. Other C libraries have no
    mallopt; there nothing happens."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # their numbers in malloc.h
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0 if keep else 65536)
        mallopt(mmap_threshold, 2 ** 25)  # what glibc itself arrives at
        mallopt(trim_threshold, -1 if keep else 2 ** 26)


def autocast(device, dtype):
    """The context in which a forward pass multiplies in `dtype`, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


def peak(device, dtype, seconds=0.3):
    """FLOP/s of a large square matrix product in `dtype`, the best of those that are computed
    within `seconds`: the speed that training is compared with."""
    n = 2048 if device.type == "cpu" else 8192
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    a = torch.randn(n, n, device=device, dtype=torch_dtype)
    best, began = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # reading a number waits until a GPU has done its work
        best = min(best, time.perf_counter() - start)
    return 2 * n ** 3 / best


# --------------------------------------------------------------------------------------------------
# The processes


def patience(more=0):
    """How long one process may be behind another within a micro-batch, and `more` seconds."""
    seconds = environment("ISOFLOP_PATIENCE", 40, 0, DAYS_30, float)
    return datetime.timedelta(seconds=seconds + more)


@contextlib.contextmanager
def failures_in_one_line(words="another process of this run has died or hangs: its own message, if "
                         "it had one, stands above; the same command continues the run from its "
                         "last checkpoint"):
    """Turns a failed exchange of messages into a UserError.

    The process that died has printed its own reason. Any of the others may be the first to notice
    that it is gone."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(1)  # so that the reason of the one that died is printed first
        raise UserError(f"{words} ({cli.one_line(failure) or 'no reason'})") from None


class Processes:
    """The processes of this run, as torchrun started them: this one has number `rank` of `world`.

    Without torchrun there is one process, and no method waits for anything."""

    def __init__(self):
        self.world = environment("WORLD_SIZE", 1, 1, MOST_PROCESSES)
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if self.world > 1 and not os.environ.get(name):
                raise UserError(f"WORLD_SIZE={self.world} in the environment, and no {name}: start "
                                "it with torchrun, or leave both out")
        self.rank = environment("RANK", 0, 0, self.world - 1)
        self.port = environment("MASTER_PORT", 1, 1, 65535) if self.world > 1 else None
        self.first = self.rank == 0
        self.barriers = 0  # how many this process has come to

    def device(self, name):
        """The name of this process's device, from --device: each process has a GPU of its own."""
        if self.world == 1:
            return name
        if name not in ("auto", "cpu", "cuda"):
            raise UserError(f"--device {name} with {self.world} processes: auto, cpu or cuda, and "
                            "each takes a GPU of its own")
        if name == "cpu" or not torch.cuda.is_available():
            return name
        return f"cuda:{environment('LOCAL_RANK', 0, 0, MOST_PROCESSES)}"

    def meet(self):
        """Waits until all processes are here. Raises UserError where one does not come."""
        if self.world == 1:
            return
        # The processes leave messages in a store, which torchrun has, or else the first process.
        has_store = self.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address = "127.0.0.1" if has_store else os.environ["MASTER_ADDR"]
        if not has_store:
            wait(lambda: silent(address, self.port), MEETING)
        with failures_in_one_line(f"the processes cannot meet at port {self.port} of {address}: "
                                  "choose another MASTER_PORT"):
            self.store = dist.TCPStore(address, self.port, self.world, has_store, patience(),
                                       wait_for_workers=False)
        if not self.first:  # only the first process prints; errors go to stderr
            sys.stdout = open(os.devnull, "w")
        self.gather("here", MEETING, ALONE)

    @failures_in_one_line()
    def gather(self, event, seconds, advice=""):
        """Waits until all processes have come to an event. Raises UserError where one of them has
        not after so many seconds."""
        def missing(coming=0):
            number = self.world - self.store.add(event, coming)
            return f"{number} of {self.world} processes{advice}" if number > 0 else ""
        if self.world > 1:
            missing(coming=1)
            wait(missing, seconds)

    @failures_in_one_line()
    def join(self, device):
        """Waits until all processes are prepared, and connects them."""
        if self.world > 1:
            self.gather("prepared", DAYS_30, ", which still prepare their text")
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=self.store, rank=self.rank,
                                    world_size=self.world, timeout=patience())

    @failures_in_one_line()
    def barrier(self, seconds):
        """Waits for all processes, after one of them alone has done some work, such as writing a
        checkpoint to a slow disk. seconds: how long this work takes at most.

        The first process may end right after it, and the others have still got its message."""
        if self.world > 1:
            self.barriers += 1
            keys = [f"barrier {self.barriers}, process {rank}" for rank in range(self.world)]
            self.store.set(keys[self.rank], "here")
            self.store.wait(keys, patience(seconds))

    def rows(self, n):
        """The slice of n rows that is this process's share. Where there are fewer rows than
        processes, each process takes all rows."""
        if n < self.world:
            return slice(0, n)
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    @failures_in_one_line()
    def all_reduce_sum(self, *tensors):
        """Puts into each tensor, of any shape, its sum over all processes."""
        if self.world > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    @failures_in_one_line()
    def all_reduce_max(self, number=0):
        """The largest of the processes' whole numbers. Each process must call it."""
        largest = torch.tensor(number)
        if self.world > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    @failures_in_one_line()
    def broadcast(self, value=None):
        """The first process's value, in all processes."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]


def silent(address, port):
    """Who does not answer there, and why. Empty where somebody answers."""
    try:
        socket.create_connection((address, port), 5).close()
    except (OSError, UnicodeError) as failure:
        return f"the first process at port {port} of {address} ({cli.one_line(failure)}){ALONE}"


def wait(missing, seconds):
    """Waits until missing() is empty, and says what it is where that takes long. Raises UserError
    after so many seconds. It asks again and again: while torch itself waits, no signal is heard."""
    began = time.monotonic()
    while what := missing():
        waited = time.monotonic() - began
        if waited > seconds:
            raise UserError(f"waited {cli.duration(seconds)} in vain for {what}")
        if waited > SILENCE:
            cli.say_once(f"waiting for {what}")
        time.sleep(0.2)


# --------------------------------------------------------------------------------------------------
# A step's gradients


def values_in_mean(name, labels):
    """How many values a term called `name` is the mean of, in rows with these labels (N,): a scalar
    tensor of a whole number.

    "mlm" is a mean over the words that have a label. Any other term is one over all masked
    positions or over the rows, which weigh the same, since each row has k positions."""
    counted = labels >= 0 if name == "mlm" else torch.ones_like(labels)
    return counted.sum()


def forward_backward(learner, batch, lesson, session):
    """Adds the gradients of the whole batch's loss to the learner's parameters. Returns
    {term: its value over the whole batch}, each a scalar.

    batch: blocks (B, T), inputs (B, T), positions (N,), labels (N,). The session says which rows
    this process works on, and how many of them a pass computes at once."""
    processes, micro_batch = session.processes, session.micro_batch
    blocks, inputs, positions, labels = batch
    B, T = inputs.shape
    k = len(positions) // B  # masked positions in each row
    mine, sums = processes.rows(B), {}
    # All processes count to the largest share, so that each sends as many messages as the others.
    for start in range(0, math.ceil(B / processes.world), micro_batch):
        if start:
            processes.all_reduce_max()  # the message that this process is still here
        begin, end = mine.start + start, min(mine.start + start + micro_batch, mine.stop)
        if begin >= end:  # another process has a row more
            continue
        rows, masked = slice(begin, end), slice(begin * k, end * k)
        with session.autocast():
            terms = learner(blocks[rows], inputs[rows], positions[masked] - begin * T,
                            labels[masked], lesson)
        parts = {}
        for name, value in terms.items():
            # mean over the batch = sum_i mean_i n_i / n over the micro-batches i
            n_i, n = values_in_mean(name, labels[masked]), values_in_mean(name, labels)
            parts[name] = value * (n_i / n.clamp(min=1))  # where nothing has a label all n_i are 0
        sum(parts.values()).backward()
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in parts.items()}
    values = torch.stack(list(sums.values()))
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    processes.all_reduce_sum(values, *gradients)
    return dict(zip(sums, values))


def numbers_kept(student, T, k, teacher):
    """How many fp32 numbers the passes of one row keep until the gradients are computed. student: a
    train.StudentPlan; teacher: the teacher's Size, or None; T tokens in a row, of which k are
    masked."""
    (L, h, A, f), V, lesson = student.size, student.V, student.lesson
    n = k if lesson.student.logits else 0
    # The student: a layer's activations and its T x T tables; logits, their softmax and gradient.
    # numbers = L T (8h + 2f + 2AT) + 4nV
    numbers = L * T * (8 * h + 2 * f + 2 * A * T) + 4 * n * V
    if lesson.teacher is not None:  # one of its layers at a time is kept, and what the loss reads
        reads, h_T = lesson.teacher, teacher.h
        numbers += T * (8 * h_T + 2 * teacher.f) + 2 * n * V
        numbers += len(reads.hidden) * T * h_T
        relation_heads = 1 + h // 16  # distill.relation_heads makes them about 16 wide
        numbers += (len(reads.scores) * teacher.A + 5 * reads.relations * relation_heads) * T * T
    return numbers


# --------------------------------------------------------------------------------------------------
# All of it, as a run sees it


class Follower:
    """The folder of a run, for a process that writes nothing: all but the first, and a dry run.

    It has the methods of runs.Run, and none of them does anything."""

    def __init__(self, folder):
        self.folder, self.record = folder, {}

    @property
    def finished(self):
        return bool(self.record.get("finished"))

    def nothing(self, *_, **__):
        return []

    log = rewind_log = read_log = nothing
    save_checkpoint = load_checkpoint = remove_checkpoints = nothing
    write_record = nothing


class Session:
    """The machine as a run sees it.

    `prepare` sets the attributes that depend on the run: the micro-batch, and the measured speeds.
    """

    def __init__(self, device="auto", dtype="auto"):
        self.processes = Processes()
        self.device, self.dtype = select(self.processes.device(device), dtype)
        self.micro_batch = None         # blocks that a pass computes at once
        self.flops_per_sequence = None  # FLOPs of a block in a training step
        self.flops_per_second = None    # of all processes together, measured
        self.peak = None                # FLOP/s of large matrix products, measured on a GPU
        self.compiled = False           # whether torch compiles the layers
        self.resources = contextlib.ExitStack()

    def __enter__(self):
        self.processes.meet()
        return self

    def __exit__(self, kind, *_):
        self.resources.close()
        # After a failure the other processes may be gone, or hang.
        if kind is None and dist.is_initialized():
            dist.destroy_process_group()

    def keep(self, resource):
        """Returns the resource, and closes it at the end of the session."""
        return self.resources.enter_context(contextlib.closing(resource))

    @property
    def story_makers(self):
        """How many processes write stories for this one to train on: one where a CPU trains, and as
        many as keep a GPU busy."""
        return 1 if self.device.type == "cpu" else max(1, min(8, cores() - 2))

    def autocast(self):
        """The context in which a forward pass multiplies in this session's precision."""
        return autocast(self.device, self.dtype)

    def join(self, batch_size):
        """Waits until all processes are prepared. Raises UserError where a step has fewer blocks
        than there are processes."""
        world = self.processes.world
        if batch_size < world:
            raise UserError(f"--batch-size {batch_size} is less than a block for each of {world} "
                            "processes: raise it, or start fewer")
        self.processes.join(self.device)

    @contextlib.contextmanager
    def open_run(self, folder, settings, dry_run=False):
        """The run's folder, locked (runs.Run). In all processes but the first, and in a dry run, it
        is a Follower, which writes nothing."""
        if dry_run:
            refuse_foreign(folder)  # as Run does; another process must not ask while it begins
        writes = self.processes.first and not dry_run
        opened = Run(folder, settings) if writes else contextlib.nullcontext(Follower(folder))
        with opened as run:
            run.record = self.processes.broadcast(run.record)
            yield run

    def prepare(self, setup, record, batch):
        """Chooses the micro-batch, measures how fast this machine computes the run's steps, and
        decides whether to compile. setup: a train.Setup; record: the run's run.json."""
        world, plan, settings = self.processes.world, setup.student.plan, setup.settings
        self.micro_batch = self.choose_micro_batch(setup, record, batch)
        self.flops_per_sequence = plan.flops_per_step // settings.batch_size
        self.flops_per_second = world * self.measure(setup.learner, batch)
        if self.device.type == "cuda":
            # A CPU computes for others, too, and more or less of it is left when the run is on its
            # way: a share of what was free for a moment would say nothing.
            self.peak = world * peak(self.device, self.dtype)
        # Compiling takes some minutes, which pays for a long run on a GPU.
        pays = self.device.type == "cuda" and plan.flops_spent / self.flops_per_second > 600
        wanted = {"on": True, "off": False, "auto": record.get("compiled", pays)}
        self.compiled = self.processes.broadcast(wanted[settings.compile])

    def choose_micro_batch(self, setup, record, batch):
        """How many blocks a pass computes at once: --micro-batch, or what a run that was begun has
        used before, or what fits into memory.

        A run keeps its micro-batch, since sums in another order differ in their last digits."""
        wanted = setup.settings.micro_batch or record.get("micro_batch")
        if not wanted:
            (B, T), k = batch[0].shape, len(batch[2]) // len(batch[0])
            # Half of the free memory is for what a pass keeps, and half as much again as is
            # counted for what is not counted.
            bytes_of_row = 4 * 1.5 * numbers_kept(setup.student, T, k, setup.teacher_size)
            fitting = int(free_memory(self.device) // 2 // bytes_of_row)
            wanted = max(1, min(math.ceil(B / self.processes.world), fitting))
        return self.processes.broadcast(wanted)

    def measure(self, learner, batch, seconds=1.0):
        """FLOP/s of this process in its share of a step, as the machine is now: its passes, and the
        optimizer.

        It is the mean of what fits into about so many seconds. On a busy machine some passes wait
        for a processor, the run's will wait as often, and a median or a minimum would hide it. The
        weights stay as they are, since the learning rate is 0, and the gradients are cleared."""
        rows_of_step = math.ceil(len(batch[0]) / self.processes.world)
        rows = min(self.micro_batch, rows_of_step)
        if self.device.type == "cpu":  # no more rows than a laptop computes in about a second
            rows = min(rows, max(1, int(1e11 // self.flops_per_sequence)))
        blocks, inputs, positions, labels = batch
        n = len(positions) // len(inputs) * rows
        weight = learner.model.embeddings.word_embeddings.weight
        optimizer = torch.optim.AdamW(learner.parameters(), lr=0.0,
                                      fused=self.device.type in ("cpu", "cuda"))
        passes, steps = [], []  # in seconds; the first ones, which warm up, do not count
        while len(passes) < 3 or sum(passes[1:] + steps[1:]) < seconds and len(passes) < 31:
            start = time.perf_counter()
            optimizer.zero_grad()
            with self.autocast():
                terms = learner(blocks[:rows], inputs[:rows], positions[:n], labels[:n])
            sum(terms.values()).backward()
            weight.grad[0, 0].item()  # reading a number waits until a GPU has done its work
            middle = time.perf_counter()
            optimizer.step()
            weight[0, 0].item()
            passes.append(middle - start)
            steps.append(time.perf_counter() - middle)
        optimizer.zero_grad()
        # seconds of a step = its passes, each for `rows` rows, and one step of the optimizer
        seconds_of_step = rows_of_step / rows * mean(passes[1:]) + mean(steps[1:])
        return rows_of_step * self.flops_per_sequence / seconds_of_step

    def compile(self, learner, batch):
        """Compiles the learner's layers, where `prepare` has decided so. Raises UserError where
        torch's compiler fails."""
        if not self.compiled:
            return
        learner.compile_layers()
        try:
            self.measure(learner, batch)
        except Exception as failure:  # the compiler raises many kinds: it may lack a C++ compiler
            if "memory" in str(failure):  # cli.program says what to do
                raise
            raise UserError(f"the layers cannot be compiled here ({type(failure).__name__}): give "
                            "--compile off") from None
        self.processes.gather("compiled", 1800)  # some compilers take long
