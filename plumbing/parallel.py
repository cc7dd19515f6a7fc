"""One step in pieces: on many processes, and in portions that fit into memory.

    torchrun --nproc-per-node 2 train.py --strategy scratch --flops 1e14

Each process makes the whole batch, which is a function of (seed, step), and works on its own rows of it, a portion at a time. The
gradients of all are summed, and each process takes the same optimizer step: their weights are equal at any time. So the budget, the
batch, its order and its masks do not depend on how many processes there are; only the last digits of sums do (and with --dropout, which
neurons are dropped). One process, the first, writes: a checkpoint knows nothing of their number.

A process that dies or hangs would leave the others waiting: each portion ends with a word among all of them, and whoever misses one
for 40 seconds ends the run. The same command continues it.
"""
import contextlib
import datetime
import math
import os
import sys
import time

from plumbing import hardware
from plumbing.cli import UserError

import torch
import torch.distributed as dist

from budget import masked_positions


def environment(name, otherwise, kind=int):
    """A number from the environment. Raises UserError where it is none."""
    try:
        return kind(os.environ.get(name, otherwise))
    except ValueError:
        raise UserError(f"{name}={os.environ[name]} in the environment is no number: torchrun sets it, or leave it out") from None


def patience():
    """How long one process may be behind another within a portion."""
    return datetime.timedelta(seconds=environment("ISOFLOP_PATIENCE", 40, float))


class Processes:
    """The processes of this run: `rank` of `world`. Without torchrun there is one, and nothing here does anything."""

    def __init__(self):
        self.rank, self.world = environment("RANK", 0), environment("WORLD_SIZE", 1)
        if self.world > 1 and "RANK" not in os.environ:
            raise UserError(f"WORLD_SIZE={self.world} in the environment, and no RANK: start it with torchrun, or leave both out")
        self.first, self.meetings = self.rank == 0, 0
        if not self.first:  # one speaks; errors go to stderr
            sys.stdout = open(os.devnull, "w")

    def device(self, name):
        """--device for this process: each takes a GPU of its own."""
        if self.world > 1 and name not in ("auto", "cpu", "cuda"):
            raise UserError(f"--device {name} with {self.world} processes: auto, cpu or cuda, and each takes a GPU of its own")
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if self.world > 1 and name in ("auto", "cuda") and torch.cuda.is_available() else name

    def join(self, device):
        """Waits, as long as it takes, until all are here: one may have tokenized for hours where another found the tokens."""
        if self.world > 1:
            with explained():
                self.store = next(dist.rendezvous("env://"))[0]
                self.barrier(30 * 24 * 3600)
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=self.store, rank=self.rank,
                                        world_size=self.world, timeout=patience())

    def barrier(self, seconds):
        """Waits for all, after work of about so many `seconds` at most that one of them does alone, like writing a checkpoint to a slow disk."""
        if self.world > 1:
            self.meetings += 1
            with explained():
                self.store.set(f"meeting {self.meetings}, {self.rank}", "here")
                self.store.wait([f"meeting {self.meetings}, {rank}" for rank in range(self.world)], patience() + datetime.timedelta(seconds=seconds))

    def leave(self):
        if dist.is_initialized():
            dist.destroy_process_group()

    def rows(self, n):
        """This process's share of n rows, a slice; all of them where there are fewer than processes."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world) if n >= self.world else slice(0, n)

    def all_reduce_sum(self, *tensors):
        """Each tensor's sum over all processes, in place."""
        if self.world > 1:
            with explained():
                for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                    work.wait()
        return tensors

    def all_reduce_max(self, number=0):
        """The largest of the numbers that they say. All must ask."""
        if self.world == 1:
            return number
        word = torch.tensor(number)
        with explained():
            dist.all_reduce(word, dist.ReduceOp.MAX)
        return int(word)

    def broadcast(self, value=None):
        """What the first process gave, in all of them."""
        box = [value]
        if self.world > 1:
            with explained():
                dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


@contextlib.contextmanager
def explained():
    """Turns the failure of a conversation into one line. Whoever died has said why; the first to notice may be any of the others."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(1)  # the one that died speaks first
        raise UserError("another process of this run has died or hangs: its own message, if it had one, stands above; the same command "
                        f"continues the run from its last checkpoint ({(str(failure).splitlines() or ['no reason'])[0][:200]})") from None


class Follower:
    """The run's folder for a process that writes nothing: all but the first, and a dry run."""

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

    log = rewind_log = read_log = save_checkpoint = write_record = load_checkpoint = nothing
    remove_checkpoints = nothing


# --------------------------------------------------------------------------------------------------
# A step's gradients


def backward(learner, batch, lesson, session):
    """Adds the gradients of the whole batch's loss to the learner's parameters. Returns
    {term: its value over the whole batch}.

    batch: blocks (B, T), inputs (B, T), positions (N,), labels (N,). The session says which rows
    this process works on, and how many of them a pass computes at once."""
    processes = session.processes
    blocks, inputs, positions, labels = batch
    (B, T), k = inputs.shape, len(positions) // len(inputs)  # k masked positions in each row
    mine, all_labels, sums = processes.rows(B), (labels >= 0).sum(), {}
    for start in range(0, math.ceil(B / processes.world), session.micro_batch):
        begin, end = mine.start + start, min(mine.start + start + session.micro_batch, mine.stop)
        if start:
            processes.all_reduce_max()  # still here
        if begin >= end:  # another process has a row more
            continue
        rows, masked = slice(begin, end), slice(begin * k, end * k)
        with session.autocast():
            terms = learner(blocks[rows], inputs[rows], positions[masked] - begin * T,
                            labels[masked], lesson)
        # A term is a mean, over labels or over rows. The batch's is the sum over micro-batches of
        # share times mean.
        share_of_labels = (labels[masked] >= 0).sum() / all_labels
        share_of_rows = (end - begin) / B
        parts = {name: value * (share_of_labels if name == "mlm" else share_of_rows)
                 for name, value in terms.items()}
        sum(parts.values()).backward()
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in parts.items()}
    values = torch.stack(list(sums.values()))
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    processes.all_reduce_sum(values, *gradients)
    return dict(zip(sums, values))


def micro_batch_that_fits(size, V, T, lesson, teacher, device, rows):
    """How many of `rows` rows a forward and backward pass may take at once, by what it keeps in memory and what is free."""
    L, h, A, f = size
    n = masked_positions(T) if lesson.student.logits else 0
    # Kept for backward, in 4-byte numbers: a layer's activations, its T x T tables, logits with their softmax and gradient
    numbers = L * T * (8 * h + 2 * f + 2 * A * T) + 4 * n * V
    if teacher is not None:  # nothing is kept of its layers but what the lesson reads
        read = lesson.teacher
        numbers += T * (8 * teacher.h + 2 * teacher.f) + 2 * n * V + len(read.hidden) * T * teacher.h
        numbers += (len(read.scores) * teacher.A + 5 * read.relations * (1 + h // 16)) * T * T  # relation heads have a width of 16
    room = hardware.free_memory(device) // 2 // (int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if device.type == "cpu" else 1)
    return max(1, min(rows, int(room // (4 * 1.5 * numbers))))
