"""Where a run computes: its processes, its device, its precision, what fits and how fast it is.

    with Session("auto", "auto") as session:
        corpus = session.keep(open_corpus(...))      # closed at the end, however it ends
        session.join(batch_size)                     # waits until all processes are prepared
        with session.open_run(folder, settings) as run:
            session.prepare(setup, run.record, batch)
            terms = forward_backward(learner, batch, lesson, session)

With `torchrun --nproc-per-node 2 train.py ...` each process makes the whole batch, a function of
(seed, step), and works on its own rows, one micro-batch at a time. The gradients of all processes
are summed, and each takes the same optimizer step, so that their weights are always equal. Only the
last digits of sums depend on the number of processes, and with --dropout which neurons are dropped.
Only the first process writes files.

All processes meet, for ten minutes at most. Then each prepares, which may take hours. Later each
sends a message after each micro-batch. Where one is missing for 40 seconds, since a process has
died or hangs, the run ends, and the same command continues it.
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

from program import cli
from program.cli import UserError
from running.runfolder import Run, refuse_foreign

import torch
import torch.distributed as dist

DAYS_30 = 30 * 24 * 3600  # in seconds
MEETING, SILENCE = 600, 5  # seconds in which all must come, and after which a wait is told
ALONE = "; leave WORLD_SIZE out if you start one"


def environment(name, default, least, most=10 ** 6):
    """A number from the environment. Raises UserError where it is none from `least` to `most`."""
    text = os.environ.get(name, default)
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise UserError(f"{name}={text} in the environment is no number from {least} to {most}: start "
                    "it with torchrun, which sets what it needs, or leave that and WORLD_SIZE out")


# --------------------------------------------------------------------------------------------------
# What this process may use of the machine. A container, a batch system and systemd put it into a
# control group. That lies in others, and the tightest limit of all counts. Linux has two versions
# of control groups, and one machine may use both.

OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
MEMINFO, CPUINFO = Path("/proc/meminfo"), Path("/proc/cpuinfo")
# The files of version 2 and of version 1, whose words are the two numbers of a limit.
LIMITS = {"cpu": (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]),
          "memory": (["memory.max", "memory.current"],
                     ["memory.limit_in_bytes", "memory.usage_in_bytes"])}


def limits(controller):
    """Yields (folder, number, number) for each control group of this process that has a limit.
    controller: "cpu" or "memory"."""
    for line in OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)  # version 2 names no controllers
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / (controllers and controller)
        # Inside a container the path may begin outside: there only its end is a folder.
        names = [name for name in path.split("/") if name not in ("", "..")]
        while names and not root.joinpath(*names).is_dir():
            names.pop(0)
        for depth in range(len(names) + 1):
            folder = root.joinpath(*names[:depth])
            for files in LIMITS[controller]:
                with contextlib.suppress(OSError, ValueError):  # another version, or no limit: max
                    first, second = " ".join((folder / f).read_text() for f in files).split()
                    if int(first) > 0:  # -1 is no limit
                        yield folder, int(first), int(second)


def entries(path, name):
    """The numbers that stand after `name` in a file like /proc/meminfo; [] without such a file."""
    text = path.read_text() if path.exists() else ""
    return [int(number) for number in re.findall(rf"{name}:? +(\d+)", text)]


def cores():
    """How many processors this process may use: those that it may run on, or what the quotas of its
    control groups allow, rounded up."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    # A quota is so many microseconds of all processors together, in each period.
    return min([len(ours), *(math.ceil(quota / period) for _, quota, period in limits("cpu"))])


def free_memory(device):
    """How many bytes are free on a device. On a CPU it is what is free in this machine, or in this
    process's control groups where that is less, shared with torchrun's other processes here."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Half of all memory, where the system tells nothing better.
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = [1024 * n for n in entries(MEMINFO, "MemAvailable")] or [half]
    for folder, limit, used in limits("memory"):
        # Copies of files give way when memory is needed. In version 1 there is a second entry,
        # which has those of the groups inside, too.
        free.append(limit - used + max(entries(folder / "memory.stat", "inactive_file"), default=0))
    return min(free) // environment("LOCAL_WORLD_SIZE", 1, 1)


def select(name, dtype):
    """The names given to --device and --dtype -> (torch.device, "fp32" or "bf16"), and this process
    is set up to compute there. "auto" is a GPU where there is one, and bf16 where the hardware
    multiplies it. Raises UserError where this machine does not have the device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as failure:  # torch knows no such name, or was built so
        raise UserError(f"--device {name}: torch finds none here ({cli.one_line(failure)}); it may "
                        "be cpu, and on a machine that has it cuda, cuda:1 or mps") from None
    if dtype == "auto":
        dtype = "bf16" if multiplies_bf16(device) else "fp32"
    keep_memory()
    # torch takes as many threads as there are processors. Where a quota gives less than that, they
    # would wait for each other: on half a processor two take longer than one.
    if "OMP_NUM_THREADS" not in os.environ and cores() < torch.get_num_threads():
        torch.set_num_threads(cores())
    if device.type == "cuda":
        # A fixed order of sums: else the same run would end with other last bits.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    return device, dtype


def multiplies_bf16(device):
    """Whether a device has instructions for bf16 products. Without them bf16 is emulated, which
    is ten times slower than fp32."""
    if device.type == "cuda":  # Ampere or newer; torch.cuda.is_bf16_supported() counts emulation
        return torch.cuda.get_device_capability(device)[0] >= 8
    flags = CPUINFO.read_text().split() if device.type == "cpu" and CPUINFO.exists() else ()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def keep_memory(keep=True):
    """Tells the C library to keep memory that is freed, instead of giving it back to the system: a
    step of 6x768 takes 4 to 20% less time (docs/LOG.md). keep=False goes back to about glibc's own
    way. Other C libraries have no mallopt; there nothing happens."""
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
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
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
    return datetime.timedelta(seconds=environment("ISOFLOP_PATIENCE", 40, 0, DAYS_30) + more)


@contextlib.contextmanager
def failures_in_one_line(words="another process of this run has died or hangs: its own message, if "
                         "it had one, stands above; the same command continues the run from its "
                         "last checkpoint"):
    """Turns a failed exchange of messages into a UserError. The process that died has printed its
    own reason. Any of the others may be the first to notice that it is gone."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(1)  # so that the reason of the one that died is printed first
        raise UserError(f"{words} ({cli.one_line(failure) or 'no reason'})") from None


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


class Processes:
    """The processes of this run, as torchrun started them: this one has number `rank` of `world`.
    Without torchrun there is one process, and no method waits for anything."""

    def __init__(self):
        self.world = environment("WORLD_SIZE", 1, 1)
        self.rank = environment("RANK", 0 if self.world == 1 else "", 0, self.world - 1)
        self.first = self.rank == 0

    def meet(self, device):
        """Waits until all processes are here, and connects them. Raises UserError where one does
        not come."""
        if self.world == 1:
            return
        # The processes leave messages in a store, which torchrun has, or else the first process.
        has_store = self.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address = "127.0.0.1" if has_store else os.environ.get("MASTER_ADDR", "127.0.0.1")
        port = environment("MASTER_PORT", "", 1, 65535)

        def silent():
            """Who does not answer, and why."""
            try:
                socket.create_connection((address, port), 5).close()
            except (OSError, UnicodeError) as failure:
                return f"the first process at port {port} of {address} ({failure}){ALONE}"
        if not has_store:
            wait(silent, MEETING)
        with failures_in_one_line(f"the processes cannot meet at port {port} of {address}: choose "
                                  "another MASTER_PORT"):
            self.store = dist.TCPStore(address, port, self.world, has_store, patience(),
                                       wait_for_workers=False)
        if not self.first:  # only the first process prints; errors go to stderr
            sys.stdout = open(os.devnull, "w")
        self.gather("here", MEETING, ALONE)
        with failures_in_one_line():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                                    store=self.store, rank=self.rank, world_size=self.world,
                                    timeout=patience())
            self.group = dist.new_group(backend="gloo")

    @failures_in_one_line()
    def gather(self, event, seconds, advice):
        """Waits until all processes have come to an event, and hears signals meanwhile. Raises
        UserError where one of them has not after so many seconds."""
        def missing(coming=0):
            number = self.world - self.store.add(event, coming)
            return f"{number} of {self.world} processes{advice}" if number > 0 else ""
        if self.world > 1:
            missing(coming=1)
            wait(missing, seconds)

    @failures_in_one_line()
    def barrier(self, seconds):
        """Waits for all processes, after one of them alone has done some work, such as writing a
        checkpoint to a slow disk. seconds: how long this work takes at most."""
        if self.world > 1:
            dist.monitored_barrier(self.group, patience(seconds))

    def rows(self, n):
        """The slice of n rows that is this process's share: all, where there are fewer rows than
        processes."""
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

def values_in_mean(name, labels):
    """How many values a term called `name` is the mean of, in rows with these labels (N,): a scalar
    tensor. "mlm" is a mean over the words that have a label. Any other term is one over all masked
    positions or over the rows, which weigh the same, since each row has k positions."""
    return (labels >= 0).sum() if name == "mlm" else torch.ones_like(labels).sum()


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
    train.StudentPlan; teacher: the teacher's Size, or None; T tokens, of which k are masked."""
    (L, h, A, f), V, lesson = student.size, student.V, student.lesson
    n = k if lesson.student.logits else 0
    # The student: a layer's activations and its T x T tables; logits, their softmax and gradient.
    # numbers = L T (8h + 2f + 2AT) + 4nV
    numbers = L * T * (8 * h + 2 * f + 2 * A * T) + 4 * n * V
    if lesson.teacher is not None:  # one of its layers at a time is kept, and what the loss reads
        reads, h_T = lesson.teacher, teacher.h
        numbers += T * (8 * h_T + 2 * teacher.f) + 2 * n * V + len(reads.hidden) * T * h_T
        relation_heads = 1 + h // 16  # distill.relation_heads makes them about 16 wide
        numbers += (len(reads.scores) * teacher.A + 5 * reads.relations * relation_heads) * T * T
    return numbers


class Follower(Run):
    """A run's folder, for a process that writes nothing: all but the first, and a dry run."""

    def __enter__(self):
        return self

    def nothing(self, *_, **__):
        return []

    __exit__ = write_record = save_checkpoint = load_checkpoint = remove_checkpoints = nothing
    log = rewind_log = read_log = nothing


class Session:
    """The machine as a run sees it. `prepare` sets the attributes that depend on the run."""

    def __init__(self, device="auto", dtype="auto"):
        self.processes = Processes()
        if self.processes.world > 1 and device != "cpu" and torch.cuda.is_available():
            device = f"cuda:{environment('LOCAL_RANK', '', 0)}"  # each has a GPU of its own
        self.device, self.dtype = select(device, dtype)
        self.micro_batch = None       # blocks that a pass computes at once
        self.flops_per_block = None   # in a training step
        self.flops_per_second = None  # of all processes together, measured
        self.peak = None              # FLOP/s of large matrix products, measured on a GPU
        self.compiled = False         # whether torch compiles the layers
        self.resources = contextlib.ExitStack()

    def __enter__(self):
        self.processes.meet(self.device)
        return self

    def __exit__(self, kind, *_):
        self.resources.close()
        if kind is None and dist.is_initialized():  # after a failure the others may be gone
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
        """Waits until all processes are prepared. Each needs a block of a step."""
        world = self.processes.world
        if batch_size < world:
            raise UserError(f"--batch-size {batch_size} is less than a block for each of {world} "
                            "processes: raise it, or start fewer")
        self.processes.gather("prepared", DAYS_30, ", which still prepare their text")

    @contextlib.contextmanager
    def open_run(self, folder, settings, dry_run=False):
        """The run's folder, locked (runfolder.Run), or a Follower."""
        if dry_run:
            refuse_foreign(folder)  # as Run does; another process must not ask while it begins
        kind = Run if self.processes.first and not dry_run else Follower
        with kind(folder, settings) as run:
            run.record = self.processes.broadcast(run.record or {})
            yield run

    def prepare(self, setup, record, batch):
        """Chooses the micro-batch, measures how fast this machine computes the run's steps, and
        decides whether to compile. setup: a train.Setup; record: the run's run.json.

        A run that was begun keeps its micro-batch: sums in another order differ in their last
        digits."""
        world, plan, settings = self.processes.world, setup.student.plan, setup.settings
        wanted = settings.micro_batch or record.get("micro_batch") or self.fitting(setup, batch)
        self.micro_batch = self.processes.broadcast(wanted)
        self.flops_per_block = plan.flops_per_step // settings.batch_size
        self.flops_per_second = world * self.measure(setup.learner, batch)
        if self.device.type == "cuda":  # of a CPU, which computes for others, it would say nothing
            self.peak = world * peak(self.device, self.dtype)
        # Compiling takes some minutes, which pays for a long run on a GPU.
        pays = self.device.type == "cuda" and plan.flops_spent / self.flops_per_second > 600
        wanted = {"on": True, "off": False, "auto": record.get("compiled", pays)}
        self.compiled = self.processes.broadcast(wanted[settings.compile])

    def fitting(self, setup, batch):
        """How many blocks fit into memory: half of it is for what a pass keeps, and half as much
        again as is counted for what is not counted."""
        (B, T), k = batch[0].shape, len(batch[2]) // len(batch[0])
        bytes_of_row = 4 * 1.5 * numbers_kept(setup.student, T, k, setup.teacher_size)
        fitting = int(free_memory(self.device) // 2 // bytes_of_row)
        return max(1, min(math.ceil(B / self.processes.world), fitting))

    def measure(self, learner, batch, seconds=1.0):
        """FLOP/s of this process: the mean of the passes and optimizer's steps that fit into about
        so many seconds. On a busy machine some wait for a processor, and the run's will, too. The
        weights stay as they are, since the learning rate is 0."""
        blocks, inputs, positions, labels = batch
        rows = min(self.micro_batch, math.ceil(len(blocks) / self.processes.world))
        if self.device.type == "cpu":  # no more rows than a laptop computes in about a second
            rows = min(rows, max(1, int(1e11 // self.flops_per_block)))
        n = len(positions) // len(inputs) * rows
        weight = learner.model.embeddings.word_embeddings.weight
        optimizer = torch.optim.AdamW(learner.parameters(), lr=0.0,
                                      fused=self.device.type in ("cpu", "cuda"))
        times = [time.perf_counter()]
        while len(times) < 4 or times[-1] - times[1] < seconds and len(times) < 32:
            with self.autocast():
                terms = learner(blocks[:rows], inputs[:rows], positions[:n], labels[:n])
            sum(terms.values()).backward()
            optimizer.step()
            optimizer.zero_grad()
            weight[0, 0].item()  # reading a number waits until a GPU has done its work
            times.append(time.perf_counter())
        # The first pass, which warms up, does not count.
        return rows * self.flops_per_block * (len(times) - 2) / (times[-1] - times[1])

    def compile(self, learner, batch):
        """Compiles the learner's layers, where `prepare` has decided so. Raises UserError where
        torch's compiler fails."""
        if not self.compiled:
            return
        learner.compile_layers()
        try:
            self.measure(learner, batch)
        except Exception as failure:  # the compiler raises many kinds: it may lack a C++ compiler
            if cli.is_out_of_memory(failure):
                raise
            raise UserError(f"the layers cannot be compiled here ({type(failure).__name__}): give "
                            "--compile off") from None
        self.processes.barrier(1800)  # some compilers take long
