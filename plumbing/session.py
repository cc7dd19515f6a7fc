"""Where a run computes: its processes, its device, its precision, and what must be closed.

    with Session("auto", "auto") as session:
        corpus = session.keep(open_corpus(...))      # closed at the end, however it ends
        session.join(batch_size)                     # all processes are here from now on
        with session.open_run(folder, settings) as run:
            ...
"""
import contextlib
import math
import os

from plumbing import hardware
from plumbing.cli import UserError
from plumbing.parallel import Follower, Processes, micro_batch_that_fits
from plumbing.runs import Run, refuse_foreign


class Session:
    """The machine as a run sees it. `prepare` measures how fast it is."""

    def __init__(self, device="auto", dtype="auto"):
        self.processes = Processes()
        self.device, self.dtype = hardware.select(self.processes.device(device), dtype)
        self.micro_batch = None       # blocks that a pass computes at once
        self.flops_per_second = None  # of all processes together, measured
        self.peak = None              # FLOP/s of large matrix products, measured
        self.compiled = False
        self.resources = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.resources.close()
        if kind is None:  # after a failure the other processes may be gone, or hang
            self.processes.leave()

    def keep(self, resource):
        """The resource, which is closed at the end of the session."""
        return self.resources.enter_context(contextlib.closing(resource))

    @property
    def story_makers(self):
        """How many processes make stories: as many as keep a GPU busy, or one beside a CPU."""
        return 1 if self.device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 2))

    def autocast(self):
        """The context in which a forward pass multiplies in this session's precision."""
        return hardware.autocast(self.device, self.dtype)

    def join(self, batch_size):
        """Waits for the other processes. Raises UserError where a step has no block for each."""
        world = self.processes.world
        if batch_size < world:
            raise UserError(f"--batch-size {batch_size} is less than a block for each of {world} "
                            "processes: raise it, or start fewer")
        self.processes.join(self.device)

    @contextlib.contextmanager
    def open_run(self, folder, settings, dry_run=False):
        """The run's folder, locked (runs.Run). All processes but the first, and a dry run, get a
        Follower, which writes nothing."""
        refuse_foreign(folder)
        writes = self.processes.first and not dry_run
        with Run(folder, settings) if writes else Follower(folder) as run:
            run.record = self.processes.broadcast(run.record)
            yield run

    def prepare(self, args, record, learner, batch, student, teacher):
        """Decides the micro-batch, and measures how fast this machine takes a step of the run.

        A run that was begun goes on with the micro-batch that it began with: sums in another order
        differ in their last digits."""
        processes, B = self.processes, args.batch_size
        teacher_size = teacher and teacher.model.config.size
        fitting = micro_batch_that_fits(student.size, learner.model.config.vocab_size,
                                        args.seq_len, student.lesson, teacher_size, self.device,
                                        math.ceil(B / processes.world))
        wanted = args.micro_batch or record.get("micro_batch") or fitting
        self.micro_batch = processes.broadcast(wanted)
        self.flops_per_sequence = student.plan.flops_per_step // B
        self.flops_per_second = processes.world * self.measure(learner, batch)
        self.peak = processes.world * hardware.peak(self.device, self.dtype)
        # Compiling takes some minutes: it pays for a long run on a GPU.
        seconds = student.plan.flops_spent / self.flops_per_second
        pays = record.get("compiled", self.device.type == "cuda" and seconds > 600)
        compiled = args.compile == "on" or args.compile == "auto" and pays
        self.compiled = processes.broadcast(compiled)

    def measure(self, learner, batch):
        """FLOP/s of this process in forward and backward passes on rows of a batch."""
        rows = min(self.micro_batch, len(batch[0]))
        return hardware.measure_speed(learner, batch, self.autocast, self.flops_per_sequence, rows)

    def compile(self, learner, batch):
        """Compiles the learner's layers, where `prepare` has decided so. Raises UserError where
        torch's compiler fails."""
        if not self.compiled:
            return
        learner.compile_layers()
        try:
            self.measure(learner, batch)
        except Exception as failure:  # the compiler has many, a missing C++ compiler among them
            if "memory" in str(failure):
                raise
            raise UserError(f"the layers cannot be compiled here ({type(failure).__name__}): give "
                            "--compile off") from None
        self.processes.barrier(1800)  # some compilers take long
