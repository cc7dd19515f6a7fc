"""Where a run computes: its processes, its device, its precision, and what it must close.

    with Session("auto", "auto") as session:
        corpus = session.keep(open_corpus(...))      # closed at the end, however it ends
        session.join(batch_size)                     # waits until all processes are prepared
        with session.open_run(folder, settings) as run:
            ...
"""
import contextlib
import math

from plumbing import hardware, limits
from plumbing.cli import UserError
from plumbing.parallel import Follower, Processes, micro_batch_that_fits
from program.runfolder import Run, refuse_foreign


class Session:
    """The machine as a run sees it.

    `prepare` sets the attributes that depend on the run: the micro-batch, and the measured speeds.
    """

    def __init__(self, device="auto", dtype="auto"):
        self.processes = Processes()
        self.device, self.dtype = hardware.select(self.processes.device(device), dtype)
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
        if kind is None:  # after a failure the other processes may be gone, or hang
            self.processes.leave()

    def keep(self, resource):
        """Returns the resource, and closes it at the end of the session."""
        return self.resources.enter_context(contextlib.closing(resource))

    @property
    def story_makers(self):
        """How many processes write stories for this one to train on: one where a CPU trains, and as
        many as keep a GPU busy."""
        if self.device.type == "cpu":
            return 1
        return max(1, min(8, limits.cores() - 2))

    def autocast(self):
        """The context in which a forward pass multiplies in this session's precision."""
        return hardware.autocast(self.device, self.dtype)

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
        """The run's folder, locked (a Run). In all processes but the first, and in a dry run, it
        is a Follower, which writes nothing."""
        if dry_run:
            refuse_foreign(folder)  # as Run does; another process must not ask while it begins
        writes = self.processes.first and not dry_run
        opened = Run(folder, settings) if writes else Follower(folder)
        with opened as run:
            run.record = self.processes.broadcast(run.record)
            yield run

    def prepare(self, setup, record, batch):
        """Chooses the micro-batch, measures how fast this machine computes the run's steps, and
        decides whether to compile. setup: a train.Setup; record: the run's run.json."""
        world, plan = self.processes.world, setup.student.plan
        self.micro_batch = self.choose_micro_batch(setup, record, batch)
        self.flops_per_sequence = plan.flops_per_step // setup.settings.batch_size
        self.flops_per_second = world * self.measure(setup.learner, batch)
        if self.device.type == "cuda":
            # A CPU computes for others, too, and more or less of it is left when the run is on its
            # way: a share of what was free for a moment would say nothing.
            self.peak = world * hardware.peak(self.device, self.dtype)
        seconds = plan.flops_spent / self.flops_per_second
        self.compiled = self.choose_compiled(setup.settings.compile, record, seconds)

    def choose_micro_batch(self, setup, record, batch):
        """How many blocks a pass computes at once: --micro-batch, or what a run that was begun has
        used before, or what fits into memory.

        A run keeps its micro-batch, since sums in another order differ in their last digits."""
        wanted = setup.settings.micro_batch or record.get("micro_batch")
        if not wanted:
            blocks, _, positions, _ = batch
            B, T = blocks.shape
            rows = math.ceil(B / self.processes.world)
            wanted = micro_batch_that_fits(setup.student, T, len(positions) // B,
                                           setup.teacher_size, self.device, rows)
        return self.processes.broadcast(wanted)

    def choose_compiled(self, asked, record, seconds):
        """Whether to compile the layers of a run that takes so many seconds without. Compiling
        takes some minutes, which pays for a long run on a GPU. asked: by --compile."""
        pays = self.device.type == "cuda" and seconds > 600
        wanted = {"on": True, "off": False, "auto": record.get("compiled", pays)}[asked]
        return self.processes.broadcast(wanted)

    def measure(self, learner, batch):
        """FLOP/s of this process in its share of a step."""
        rows_of_step = math.ceil(len(batch[0]) / self.processes.world)
        return hardware.measure_speed(learner, batch, self.autocast, self.flops_per_sequence,
                                      min(self.micro_batch, rows_of_step), rows_of_step)

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
