"""One step in pieces: on many processes, and in micro-batches that fit into memory.

    torchrun --nproc-per-node 2 train.py --strategy scratch --flops 1e14

Each process makes the whole batch, which is a function of (seed, step). It then works on its own
rows of the batch, one micro-batch at a time. The gradients of all processes are summed, and each
process takes the same optimizer step, so that their weights are always equal.

The budget, the batch, its order and its masks therefore do not depend on the number of processes.
Only the last digits of sums depend on it, and with --dropout the choice of the neurons that are
dropped. Only the first process writes files, and a checkpoint does not hold the number of
processes.

All processes meet first, and those that do not come are given up after ten minutes. Then each one
prepares, which may take hours: one may tokenize what another finds in its cache.

A process that dies or hangs would leave the others waiting. So all processes exchange a message
after each micro-batch, and where a message is missing for 40 seconds the run ends. The same command
continues it.
"""
import contextlib
import datetime
import math
import os
import socket
import sys
import time

from plumbing import cli, hardware
from plumbing.cli import UserError

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


def patience():
    """How long one process may be behind another within a micro-batch."""
    seconds = environment("ISOFLOP_PATIENCE", 40, 0, DAYS_30, float)
    return datetime.timedelta(seconds=seconds)


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

    def gather(self, event, seconds, advice=""):
        """Waits until all processes have come to an event. Raises UserError where one of them has
        not after so many seconds."""
        def missing(coming=0):
            number = self.world - self.store.add(event, coming)
            return f"{number} of {self.world} processes{advice}" if number > 0 else ""
        if self.world > 1:
            with failures_in_one_line():
                missing(coming=1)
                wait(missing, seconds)

    def join(self, device):
        """Waits until all processes are prepared, and connects them."""
        if self.world == 1:
            return
        self.gather("prepared", DAYS_30, ", which still prepare their text")
        with failures_in_one_line():
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=self.store, rank=self.rank,
                                    world_size=self.world, timeout=patience())

    def barrier(self, seconds):
        """Waits for all processes, after one of them alone has done some work, such as writing a
        checkpoint to a slow disk. seconds: how long this work takes at most.

        The first process may end right after it, and the others have still got its message."""
        if self.world == 1:
            return
        self.barriers += 1
        longest = patience() + datetime.timedelta(seconds=seconds)
        keys = [f"barrier {self.barriers}, process {rank}" for rank in range(self.world)]
        with failures_in_one_line():
            self.store.set(keys[self.rank], "here")
            self.store.wait(keys, longest)

    def leave(self):
        """Ends the connection."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def rows(self, n):
        """The slice of n rows that is this process's share. Where there are fewer rows than
        processes, each process takes all rows."""
        if n < self.world:
            return slice(0, n)
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def all_reduce_sum(self, *tensors):
        """Puts into each tensor, of any shape, its sum over all processes."""
        if self.world == 1:
            return tensors
        with failures_in_one_line():
            running = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in running:
                work.wait()
        return tensors

    def all_reduce_max(self, number=0):
        """The largest of the processes' whole numbers. Each process must call it."""
        if self.world == 1:
            return number
        largest = torch.tensor(number)
        with failures_in_one_line():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def broadcast(self, value=None):
        """The first process's value, in all processes."""
        if self.world == 1:
            return value
        values = [value]
        with failures_in_one_line():
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
        reason = (str(failure).splitlines() or ["no reason"])[0][:200]
        raise UserError(f"{words} ({reason})") from None


class Follower:
    """The folder of a run, for a process that writes nothing: all but the first, and a dry run.

    It has the methods of runfolder.Run, and none of them does anything."""

    def __init__(self, folder):
        self.folder, self.record = folder, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def finished(self):
        return bool(self.record.get("finished"))

    def nothing(self, *_, **__):
        return []

    log = rewind_log = read_log = nothing
    save_checkpoint = load_checkpoint = remove_checkpoints = nothing
    write_record = nothing


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
        for name, mean in terms.items():
            # mean over the batch = sum_i mean_i n_i / n over the micro-batches i
            n_i, n = values_in_mean(name, labels[masked]), values_in_mean(name, labels)
            parts[name] = mean * (n_i / n.clamp(min=1))  # where nothing has a label, all n_i are 0
        sum(parts.values()).backward()
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in parts.items()}
    values = torch.stack(list(sums.values()))
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    processes.all_reduce_sum(values, *gradients)
    return dict(zip(sums, values))


def micro_batch_that_fits(student, T, k, teacher, device, rows):
    """How many of `rows` rows a forward and backward pass may compute at once on a device: half of
    its free memory is for what the pass keeps.

    student: a train.StudentPlan; teacher: the teacher's Size, or None; T tokens in a row, of which
    k are masked."""
    # Half as much again as is counted, for what is not counted.
    bytes_of_row = 4 * 1.5 * numbers_kept(student, T, k, teacher)
    free = hardware.free_memory(device) // 2
    if device.type == "cpu":  # the processes of a machine share its memory
        free //= environment("LOCAL_WORLD_SIZE", 1, 1, MOST_PROCESSES)
    return max(1, min(rows, int(free // bytes_of_row)))


def numbers_kept(student, T, k, teacher):
    """How many fp32 numbers the passes of one row keep until the gradients are computed."""
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
