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

import machine  # before torch: it says how torch's threads wait

import torch
import torch.distributed as dist

from budget import masked_positions
from cli import UserError

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
            with together():
                self.store = next(dist.rendezvous("env://"))[0]
                self.meet(30 * 24 * 3600)
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=self.store, rank=self.rank,
                                        world_size=self.world, timeout=patience())

    def meet(self, seconds):
        """Waits for all, after work of about so many `seconds` at most that one of them does alone, like writing a checkpoint to a slow disk."""
        if self.world > 1:
            self.meetings += 1
            with together():
                self.store.set(f"meeting {self.meetings}, {self.rank}", "here")
                self.store.wait([f"meeting {self.meetings}, {rank}" for rank in range(self.world)], patience() + datetime.timedelta(seconds=seconds))

    def leave(self):
        if dist.is_initialized():
            dist.destroy_process_group()

    def rows(self, n):
        """This process's share of n rows, a slice; all of them where there are fewer than processes."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world) if n >= self.world else slice(0, n)

    def sum(self, *tensors):
        """Each tensor's sum over all processes, in place."""
        if self.world > 1:
            with together():
                for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                    work.wait()
        return tensors

    def most(self, number=0):
        """The largest of the numbers that they say. All must ask."""
        if self.world == 1:
            return number
        word = torch.tensor(number)
        with together():
            dist.all_reduce(word, dist.ReduceOp.MAX)
        return int(word)

    def from_first(self, value=None):
        """What the first process gave, in all of them."""
        box = [value]
        if self.world > 1:
            with together():
                dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


@contextlib.contextmanager
def together():
    """Turns the failure of a conversation into one line. Whoever died has said why; the first to notice may be any of the others."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(1)  # the one that died speaks first
        raise UserError("another process of this run has died or hangs: its own message, if it had one, stands above; the same command "
                        f"continues the run from its last checkpoint ({(str(failure).splitlines() or ['no reason'])[0][:200]})") from None


class Follower:
    """The run's folder for all processes but the first: they write nothing, and get the checkpoint from the first."""

    def __init__(self, folder):
        self.folder, self.record = folder, {}

    def nothing(self, *_, **__):
        return []

    log = rewind_log = read_log = save_checkpoint = write_record = load_checkpoint = nothing


# ---------------------------------------------------------------------------------------------------------------------
# A step's gradients

def backward(learner, batch, lesson, autocast, processes, portion):
    """Adds the gradients of the whole batch's loss to the learner's parameters -> {term: its value over the whole batch}.

    batch: blocks (B, T), inputs (B, T), positions (N,), labels (N,). portion: rows that a pass computes at once."""
    blocks, inputs, positions, labels = batch
    (B, T), n = inputs.shape, len(positions) // len(inputs)  # n masked positions in each row
    mine, words, sums, most = processes.rows(B), (labels >= 0).sum(), {}, math.ceil(B / processes.world)  # rows of a process
    for begun in range(0, most, portion):
        rows = slice(mine.start + begun, min(mine.start + begun + portion, mine.stop))
        if begun:
            processes.most()  # still here
        if rows.start >= rows.stop:  # another process has a row more
            continue
        masked = slice(rows.start * n, rows.stop * n)
        with autocast():
            terms = learner(blocks[rows], inputs[rows], positions[masked] - rows.start * T, labels[masked], lesson)
        # A term is a mean, over labelled words or over rows: the batch's is the sum over portions of share times mean.
        parts = {name: value * ((labels[masked] >= 0).sum() / words if name == "mlm" else (rows.stop - rows.start) / B)
                 for name, value in terms.items()}
        sum(parts.values()).backward()
        sums = {name: sums.get(name, 0.0) + value.detach() for name, value in parts.items()}
    values = torch.stack(list(sums.values()))
    processes.sum(values, *(p.grad for p in learner.parameters() if p.grad is not None))
    return dict(zip(sums, values))


def portion_that_fits(size, V, T, lesson, teacher, device, rows):
    """How many of `rows` rows a forward and backward pass may take at once, by what it keeps in memory and what is free."""
    L, h, A, f = size
    n = masked_positions(T) if lesson.student.logits else 0
    # Kept for backward, in 4-byte numbers: a layer's activations, its T x T tables, logits with their softmax and gradient
    numbers = L * T * (8 * h + 2 * f + 2 * A * T) + 4 * n * V
    if teacher is not None:  # nothing is kept of its layers but what the lesson reads
        read = lesson.teacher
        numbers += T * (8 * teacher.h + 2 * teacher.f) + 2 * n * V + len(read.hidden) * T * teacher.h
        numbers += (len(read.scores) * teacher.A + 5 * read.relations * (1 + h // 16)) * T * T  # relation heads have a width of 16
    room = machine.free_memory(device) // 2 // (int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if device.type == "cpu" else 1)
    return max(1, min(rows, int(room // (4 * 1.5 * numbers))))
