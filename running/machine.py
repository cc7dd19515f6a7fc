"""Where a run computes: its processes, its device, its precision, what fits and how fast it is.

    with Session("auto", "auto") as session:
        corpus = session.keep(open_corpus(...))      # closed at the end, however it ends
        session.join(batch_size)                     # waits until all processes are prepared

With `torchrun --nproc-per-node 2 train.py ...` each process makes the whole batch, a function of
(seed, step), and works on its own rows, one micro-batch at a time. The gradients of all processes
are summed, and each takes the same optimizer step, so that their weights are always equal. Only the
first process writes files. A process that sends no message for 40 seconds ends the run.
"""
import contextlib
import ctypes
import datetime
import functools
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


def environment(name, default, least, most=DAYS_30):
    """A number from the environment. Raises UserError where it is none from `least` to `most`."""
    text = os.environ.get(name, default)
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise UserError(f"{name}={text} in the environment is no number from {least} to {most}: start "
                    "it with torchrun, which sets what it needs, or leave that and WORLD_SIZE out")


# --------------------------------------------------------------------------------------------------
# A container, a batch system or systemd puts a process into a control group. That lies in others,
# and the tightest limit of all counts. Linux has two versions, and one machine may use both.

OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
MEMINFO, CPUINFO = Path("/proc/meminfo"), Path("/proc/cpuinfo")
# The files of version 2 and of version 1, whose words are the two numbers of a limit.
LIMITS = {"cpu": (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]),
          "memory": (["memory.max", "memory.current"],
                     ["memory.limit_in_bytes", "memory.usage_in_bytes"])}


def limits(controller):
    """Yields (folder, number, number) for each limit of "cpu" or "memory" on this process."""
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
    """The numbers after `name` in a file like /proc/meminfo; [] without such a file."""
    text = path.read_text() if path.exists() else ""
    return [int(number) for number in re.findall(rf"{name}:? +(\d+)", text)]


def cores():
    """How many processors this process may use: those that it may run on, or what the quotas of its
    control groups allow, in microseconds of all processors in each period, rounded up."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return min([len(ours), *(math.ceil(quota / period) for _, quota, period in limits("cpu"))])


def free_memory(device):
    """How many bytes are free on a device. On a CPU it is what is free in this machine, or in this
    process's control groups where that is less, shared with torchrun's other processes here."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # without /proc/meminfo
    free = [1024 * n for n in entries(MEMINFO, "MemAvailable")] or [half]
    for folder, limit, used in limits("memory"):
        # Copies of files give way when memory is needed. Version 1 has two entries: the larger one
        # has those of the groups inside, too.
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
        raise UserError(f"--device {name}: torch finds none here ({cli.one_line(failure)}); give "
                        "cpu, or cuda, cuda:1 or mps where there is one") from None
    if dtype == "auto":  # emulated bf16 is ten times slower than fp32
        if device.type == "cuda":  # torch.cuda.is_bf16_supported() counts emulation
            has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8  # Ampere or newer
        else:
            flags = CPUINFO.read_text().split() if CPUINFO.exists() else ()
            has_bf16 = device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)
        dtype = "bf16" if has_bf16 else "fp32"
    keep_memory()
    # torch takes a thread for each processor. With a smaller quota they wait for each other.
    if "OMP_NUM_THREADS" not in os.environ and cores() < torch.get_num_threads():
        torch.set_num_threads(cores())
    if device.type == "cuda":  # a fixed order of sums: else a run would end with other last bits
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    return device, dtype


def keep_memory(keep=True):
    """Tells glibc to keep memory that is freed: a step of 6x768 takes 4 to 20% less time
    (docs/LOG.md). keep=False goes back to about glibc's own way."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # their numbers in malloc.h
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0 if keep else 65536)
        mallopt(mmap_threshold, 2 ** 25)  # what glibc itself arrives at
        mallopt(trim_threshold, -1 if keep else 2 ** 26)


def autocast(device, dtype):
    """The context in which a forward pass multiplies in `dtype`, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


def peak(device, dtype, seconds=0.3):
    """FLOP/s of a large square matrix product in `dtype`, the best of those within `seconds`."""
    n = 2048 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    best, began = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # reading a number waits until a GPU has done its work
        best = min(best, time.perf_counter() - start)
    return 2 * n ** 3 / best


def patience(more=0):
    """How long one process may be behind another within a micro-batch, and `more` seconds."""
    return datetime.timedelta(seconds=environment("ISOFLOP_PATIENCE", 40, 0) + more)


@contextlib.contextmanager
def failures_in_one_line(words="another process of this run has died or hangs, and its own message "
                         "stands above: the same command continues from the last checkpoint"):
    """Turns a failed exchange of messages into a UserError."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(1)  # so that the reason of the one that died is printed first
        raise UserError(f"{words} ({cli.one_line(failure) or 'no reason'})") from None


def wait(missing, seconds):
    """Waits until missing() is empty, and says what it is. Raises UserError after so many seconds.
    It asks again and again: while torch itself waits, no signal is heard."""
    began = time.monotonic()
    while what := missing():
        if time.monotonic() - began > seconds:
            raise UserError(f"waited {cli.duration(seconds)} in vain for {what}")
        if time.monotonic() - began > SILENCE:
            cli.say_once(f"waiting for {what}")
        time.sleep(0.2)


class Processes:
    """The processes of this run, as torchrun started them: this one has number `rank` of `world`,
    which is 1 without torchrun."""

    def __init__(self):
        self.world = environment("WORLD_SIZE", 1, 1)
        self.rank = environment("RANK", 0 if self.world == 1 else "", 0, self.world - 1)
        self.first = self.rank == 0

    def meet(self, device):
        """Connects all processes. Raises UserError where one does not come."""
        if self.world == 1:
            return
        # The processes leave messages in a store, which torchrun has, or else the first process.
        has_store = self.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address = "127.0.0.1" if has_store else os.environ.get("MASTER_ADDR", "127.0.0.1")
        port = environment("MASTER_PORT", "", 1, 65535)

        def silent():
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
        """Waits until all have come to an event. Raises UserError after so many seconds."""
        def missing(coming=0):
            number = self.world - self.store.add(event, coming)
            return f"{number} of {self.world} processes{advice}" if number > 0 else ""
        if self.world > 1:
            missing(coming=1)
            wait(missing, seconds)

    @failures_in_one_line()
    def barrier(self, seconds):
        """Waits for one process that alone has done some work, of so many seconds at most."""
        if self.world > 1:
            dist.monitored_barrier(self.group, patience(seconds))

    def rows(self, n):
        """The slice of n rows that is this process's share: all, where there are too few."""
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
    tensor. "mlm" is a mean over words that have a label, others over all masked positions."""
    return (labels >= 0).sum() if name == "mlm" else torch.ones_like(labels).sum()


def forward_backward(learner, batch, lesson, session):
    """Adds the gradients of the whole batch's loss to the learner's parameters. Returns
    {term: its value over the whole batch}, each a scalar.

    batch: blocks (B, T), inputs (B, T), positions (N,), labels (N,)."""
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
    """How many fp32 numbers the passes of one row of T tokens, k of them masked, keep for the
    gradients. student: a train.StudentPlan; teacher: the teacher's Size, or None."""
    (L, h, A, f), V, lesson = student.size, student.V, student.lesson
    n = k if lesson.student.logits else 0
    # The student: a layer's activations and its T x T tables; logits, their softmax and gradient.
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


class Session(contextlib.ExitStack):
    """The machine as a run sees it. `prepare` sets the attributes that depend on the run."""

    def __init__(self, device="auto", dtype="auto"):
        super().__init__()
        self.processes = Processes()
        if self.processes.world > 1 and device != "cpu" and torch.cuda.is_available():
            device = f"cuda:{environment('LOCAL_RANK', '', 0)}"  # each has a GPU of its own
        self.device, self.dtype = select(device, dtype)
        self.autocast = functools.partial(autocast, self.device, self.dtype)
        self.micro_batch = None       # blocks that a pass computes at once
        self.flops_per_block = None   # in a training step
        self.flops_per_second = None  # of all processes together, measured
        self.peak = None              # FLOP/s of large matrix products, measured on a GPU
        self.compiled = False         # whether torch compiles the layers

    def __enter__(self):
        self.processes.meet(self.device)
        return self

    def __exit__(self, *failure):
        super().__exit__(*failure)
        if failure[0] is None and dist.is_initialized():  # after a failure others may be gone
            dist.destroy_process_group()

    def keep(self, resource):
        """Returns the resource, and closes it at the end of the session."""
        return self.enter_context(contextlib.closing(resource))

    @property
    def story_makers(self):
        """How many processes write stories: one where a CPU trains, or what keeps a GPU busy."""
        return 1 if self.device.type == "cpu" else max(1, min(8, cores() - 2))

    def join(self, batch_size):
        """Waits until all processes are prepared. Each needs a block of a step."""
        if batch_size < self.processes.world:
            raise UserError(f"--batch-size {batch_size} is less than a block for each of "
                            f"{self.processes.world} processes: raise it, or start fewer")
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
        decides whether to compile. setup: a train.Setup; record: the run's run.json."""
        world, plan, settings = self.processes.world, setup.student.plan, setup.settings
        # Half of the memory is for what a pass keeps, at 1.5 times what is counted.
        (B, T), k = batch[0].shape, len(batch[2]) // len(batch[0])
        row = 1.5 * numbers_kept(setup.student, T, k, setup.teacher_size)  # of 4 bytes each
        fitting = int(min(math.ceil(B / world), free_memory(self.device) // 2 // (4 * row)))
        # A run that was begun keeps it: sums in another order differ in their last digits.
        wanted = settings.micro_batch or record.get("micro_batch") or max(1, fitting)
        self.micro_batch = self.processes.broadcast(wanted)
        self.flops_per_block = plan.flops_per_step // settings.batch_size
        self.flops_per_second = world * self.measure(setup.learner, batch)
        if self.device.type == "cuda":  # of a CPU, which computes for others, it would say nothing
            self.peak = world * peak(self.device, self.dtype)
        # Compiling takes some minutes, which pays for a long run on a GPU.
        pays = self.device.type == "cuda" and plan.flops_spent / self.flops_per_second > 600
        wanted = {"on": True, "off": False, "auto": record.get("compiled", pays)}
        self.compiled = self.processes.broadcast(wanted[settings.compile])

    def measure(self, learner, batch, seconds=1.0):
        """FLOP/s of this process: the mean of the passes and optimizer's steps, with a learning
        rate of 0, that fit into about so many seconds."""
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
        """Compiles the layers, where `prepare` has decided so. Raises UserError where it fails."""
        if not self.compiled:
            return
        learner.compile_layers()
        try:
            self.measure(learner, batch)
        except Exception as failure:  # of many kinds: it may lack a C++ compiler
            raise UserError(f"the layers cannot be compiled here ({type(failure).__name__}): give "
                            "--compile off") from None
        self.processes.barrier(1800)  # some compilers take long
