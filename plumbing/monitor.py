"""What happens around the steps of a run: log, validation, checkpoints, and how it stops.

    with Monitor(run, learner, optimizer, plan, args, session, validation) as monitor:
        step = monitor.step                 # of the newest checkpoint, or 0
        while step < plan.steps:
            terms = ...                     # forward and backward
            monitor.check_finite(terms)
            ...                             # the optimizer's step
            step += 1
            monitor.after(step, terms)

All processes log, validate, save and stop after the same steps, since the first one decides.
"""
import contextlib
import math
import signal
import time

from plumbing import cli
from plumbing.cli import UserError
from plumbing.runs import checkpoint, restore

import torch
from tqdm import tqdm

GO_ON, SAVE, STOP = 0, 1, 2


class Monitor:
    """What is no training itself. `step` and `seconds` say how far the run is."""

    def __init__(self, run, learner, optimizer, plan, args, session, validation):
        self.run, self.learner, self.optimizer, self.plan = run, learner, optimizer, plan
        self.args, self.processes, self.session = args, session.processes, session
        self.validation = validation
        steps = plan.steps
        self.finish_from = steps - plan.finish_steps
        self.log_every, self.save_every = max(1, min(100, steps // 500)), max(1, steps // 20)
        self.validate_at = {round(i * steps / 10) for i in range(11)} | {self.finish_from}
        self.train_loss = "-"
        # Seconds of a save. At first a guess, three fp32 numbers a parameter; then the last one's.
        self.save_seconds = 12 * sum(p.numel() for p in learner.parameters()) / 5e8

    def __enter__(self):
        loaded = self.run.load_checkpoint()
        self.wait_for_disk()
        restored = restore(self.processes.broadcast(loaded), self.learner, self.optimizer)
        self.step, self.seconds_before, self.sums, self.logged = restored
        self.run.rewind_log()
        if self.step:
            cli.say(f"continuing at step {self.step:,} of {self.plan.steps:,}")
        self.began = self.saved = time.perf_counter()
        self.mark()
        self.resources = contextlib.ExitStack()
        self.signals = self.resources.enter_context(cli.Signals())
        self.bar = self.resources.enter_context(tqdm(
            total=self.plan.flops_spent, initial=self.plan.spent(self.step), unit="FLOP",
            unit_scale=True, smoothing=0.05, mininterval=0.5, dynamic_ncols=True,
            disable=not self.processes.first))
        rows = [row for row in self.run.read_log() if row["step"] == self.step]
        was_validated = any("val_terms" in row for row in rows)
        if self.processes.broadcast(self.step in self.validate_at and not was_validated):
            self.validate()
        return self

    def __exit__(self, *failure):
        return self.resources.__exit__(*failure)

    @property
    def seconds(self):
        """Seconds of training so far, those before an interruption included."""
        return self.seconds_before + time.perf_counter() - self.began

    def mark(self):
        """The logged speed is measured from here: it leaves validations and saves out."""
        self.marked_step, self.marked_time = self.step, time.perf_counter()

    def wait_for_disk(self):
        """Waits until the first process has read or written a checkpoint. A disk may be slower than
        most; what takes longer is a hang."""
        self.processes.barrier(100 * self.save_seconds)

    def check_finite(self, terms):
        """Raises UserError where the loss is NaN or infinite, before the optimizer spreads it. On a
        GPU reading the loss would stop the pipeline; there the log finds it."""
        if self.session.device.type == "cpu":
            self.checked(sum(terms.values()).item())

    def checked(self, loss):
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.step:,}: most likely the learning rate is too "
                f"high ({self.args.lr:g}); lower --lr and choose another --out. What was saved "
                f"before is kept in {self.run.folder}")
        return loss

    def after(self, step, terms):
        """What is due after `step` steps. terms: {name: scalar} of the last one.

        Raises cli.Stopped, after a save, where a signal asks the program to stop."""
        self.step = step
        self.bar.update(self.plan.spent(step) - self.plan.spent(step - 1))
        decision = self.decide()
        values = torch.stack(list(terms.values()))
        self.sums = values if self.logged == 0 else self.sums + values
        self.logged += 1
        is_last = step == self.plan.steps
        if step % self.log_every == 0 or step == self.finish_from or is_last:
            self.log(list(terms))
        if step in self.validate_at:
            self.validate()
        if decision != GO_ON or is_last:
            self.save()
        if decision == STOP and not is_last:
            cli.say(f"stopped at step {step:,} of {self.plan.steps:,}, saved in {self.run.folder}: "
                    "the same command continues", self.bar.write)
            raise self.signals.stopped or cli.Stopped(signal.SIGTERM)

    def decide(self):
        """GO_ON, SAVE or STOP: the same for all processes. Saves come each 20th of the run or each
        minute, but take no more than a 50th of the time."""
        pause = 50 * self.save_seconds
        if self.step % self.save_every:
            pause = max(60, pause)
        due = self.processes.first and time.perf_counter() - self.saved > pause
        return self.processes.all_reduce_max(STOP if self.signals.stopped else int(due))

    def log(self, names):
        """A line of the log: the means of the loss's terms since the last one, and the speed."""
        means = dict(zip(names, (self.sums / self.logged).tolist()))
        loss = self.checked(sum(means.values()))
        flops = self.plan.spent(self.step) - self.plan.spent(self.marked_step)
        speed = flops / (time.perf_counter() - self.marked_time)
        self.run.log(**self.progress(), loss=loss, terms=means,
                     lr=self.optimizer.param_groups[0]["lr"], flops_per_second=speed,
                     share_of_peak=speed / self.session.peak, seconds=self.seconds)
        self.train_loss, self.logged = spell(means), 0
        self.mark()
        postfix = f"loss {loss:.3f}, {speed / self.session.peak:.0%} of peak"
        self.bar.set_postfix_str(postfix, refresh=False)

    def progress(self):
        """How far the run is: step, FLOPs and tokens."""
        tokens = self.step * self.args.batch_size * self.args.seq_len
        return {"step": self.step, "flops": self.plan.spent(self.step), "tokens": tokens}

    def validate(self):
        """Measures the validation loss, and logs it beside the losses of counting words."""
        lesson = self.learner.lesson_at(self.step - 1)  # that of the last step
        terms = self.learner.validate(self.validation.batch, self.session, lesson)
        # There is a validation loss where the loss has an MLM term. The number of a head that
        # nothing trains would mean nothing.
        counting, mlm, counts = self.validation.counting_losses, {}, ""
        if "mlm" in terms:
            mlm = {"val_loss": terms["mlm"], **counting}
            counts = (f"   (unigram {counting['unigram_loss']:.3f}, neighbours "
                      f"{counting['neighbour_loss']:.3f})")
        self.run.log(**self.progress(), val_terms=terms, **mlm)
        spent = cli.flops(self.plan.spent(self.step))
        cli.say(f"{self.step:>9,} steps {spent:>9} FLOPs   training {self.train_loss}   "
                f"validation {spell(terms)}{counts}", self.bar.write)
        self.mark()

    def save(self):
        """Writes a checkpoint. Raises UserError where a weight is no finite number."""
        if not all(p.isfinite().all() for p in self.learner.parameters()):
            self.checked(math.nan)
        start = time.perf_counter()
        if self.processes.first:
            state = checkpoint(self.learner, self.optimizer, self.seconds, self.sums, self.logged)
            self.run.save_checkpoint(self.step, state)
        self.wait_for_disk()
        self.saved = time.perf_counter()
        self.save_seconds = self.saved - start
        self.mark()


def spell(terms):
    """{"mlm": 3.21, ...} in words."""
    return ", ".join(f"{name} {value:#.4g}" for name, value in terms.items())
