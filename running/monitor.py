"""What happens around the steps of a run: its log, validations, checkpoints, and how it stops.

    with Monitor(run, optimizer, setup, validation) as monitor:
        step = monitor.step                 # of the newest checkpoint, or 0
        while step < plan.steps:
            terms = ...                     # forward and backward
            monitor.check_finite(terms)
            ...                             # the optimizer's step
            step += 1
            monitor.after(step, terms)

All processes log, validate, save and stop after the same steps, since they decide together.
"""
import contextlib
import math
import signal
import time

from program import cli, progress
from program.cli import UserError

import torch

# What all processes decide together after each step. The largest of their answers counts.
GO_ON, SAVE, STOP = 0, 1, 2
VALIDATIONS = 11  # of a run: before its first step, and after each tenth
LONGEST_PAUSE = 60  # seconds between two saves, where saving is quick
SAVING_SHARE = 1 / 50  # of the run's time at most goes to saving


class Monitor:
    """What a run does besides training. `step` says how far it is, and `seconds` how long it took.
    setup is a train.Setup, and validation a train.Validation."""

    def __init__(self, run, optimizer, setup, validation):
        self.run, self.optimizer, self.setup, self.validation = run, optimizer, setup, validation
        self.session, self.learner = setup.session, setup.learner
        self.processes = setup.session.processes
        self.plan = plan = setup.student.plan
        self.finish_from = plan.finish_from
        self.log_every = max(1, min(100, plan.steps // 500))
        self.save_every = max(1, plan.steps // 20)
        tenths = {round(i * plan.steps / (VALIDATIONS - 1)) for i in range(VALIDATIONS)}
        self.validate_at = tenths | {self.finish_from}
        self.train_loss = "-"
        # Before the first save nobody knows how long one takes: three numbers of 4 bytes a
        # parameter, at 500 MB a second. Later it is the time that the last one took.
        self.save_seconds = 12 * sum(p.numel() for p in self.learner.parameters()) / 5e8

    def __enter__(self):
        loaded = self.run.load_checkpoint()
        self.processes.barrier(100 * self.save_seconds)  # what takes longer is a hang
        self.restore(self.processes.broadcast(loaded))
        self.run.rewind_log()
        if self.step:
            cli.say(f"continuing at step {self.step:,} of {self.plan.steps:,}")
        self.began = self.saved = time.perf_counter()
        self.mark()
        with contextlib.ExitStack() as resources:
            self.signals = resources.enter_context(cli.Signals())
            self.bar = resources.enter_context(progress.bar(
                self.plan.flops_spent, "FLOP", initial=self.plan.spent(self.step), unit_scale=True,
                disable=not self.processes.first))
            if self.processes.broadcast(self.lacks_validation()):
                self.validate()
            self.resources = resources.pop_all()  # from here on __exit__ closes them
        return self

    def __exit__(self, *failure):
        return self.resources.__exit__(*failure)

    def state(self):
        """All that the next step depends on, as a dict: the weights, AdamW's moments, the seconds
        so far, and the loss's terms summed since the last line of the log, over `logged` steps."""
        return {"learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict(),
                "seconds": self.seconds, "sums": self.sums, "logged": self.logged}

    def restore(self, loaded):
        """Puts the state of a loaded checkpoint into place. None: the run begins."""
        device = self.session.device
        self.step, self.seconds_before, self.logged = 0, 0.0, 0
        self.sums = torch.zeros(0, device=device)
        if loaded:
            self.learner.load_state_dict(loaded["learner"])
            self.optimizer.load_state_dict(loaded["optimizer"])
            self.step, self.seconds_before = loaded["step"], loaded["seconds"]
            self.sums, self.logged = loaded["sums"].to(device), loaded["logged"]

    def lacks_validation(self):
        """Whether a validation is due where the run begins or continues, which the log lacks."""
        validated = [row["step"] for row in self.run.read_log() if "val_terms" in row]
        return self.step in self.validate_at and self.step not in validated

    @property
    def seconds(self):
        """Seconds of training so far, those before an interruption included."""
        return self.seconds_before + time.perf_counter() - self.began

    def mark(self):
        """Measures the logged speed from here on, so that it leaves validations and saves out."""
        self.marked_step, self.marked_time = self.step, time.perf_counter()

    def check_finite(self, terms):
        """Raises UserError where the loss is NaN or infinite, before the optimizer spreads it to
        all weights. On a GPU, which would have to be waited for, the next line of the log does."""
        if self.session.device.type == "cpu":
            self.finite(sum(terms.values()).item())

    def finite(self, loss):
        """The loss, if it is a finite number. Raises UserError if not."""
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.step:,}: most likely the learning rate is too "
                f"high ({self.setup.student.lr:g}); lower --lr and choose another --out. What was "
                f"saved before is kept in {self.run.folder}")
        return loss

    def after(self, step, terms):
        """Logs, validates, saves and stops after `step` steps, each when it is due. terms: {name:
        scalar} of the last step's loss. Raises cli.Stopped, after a save, where a signal came."""
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
        """GO_ON, SAVE or STOP, the same in all processes. A save is due after each 20th of the run,
        and after each minute, but on a slow disk no sooner than a 50th of the time allows."""
        pause = self.save_seconds / SAVING_SHARE
        if self.step % self.save_every != 0:
            pause = max(LONGEST_PAUSE, pause)
        answer = GO_ON
        if self.processes.first and time.perf_counter() - self.saved > pause:
            answer = SAVE
        if self.signals.stopped:
            answer = STOP
        return self.processes.all_reduce_max(answer)

    def log(self, names):
        """Logs the speed, and the mean of each term of the loss, both since the line before."""
        means = dict(zip(names, (self.sums / self.logged).tolist()))
        loss = self.finite(sum(means.values()))
        flops = self.plan.spent(self.step) - self.plan.spent(self.marked_step)
        speed = flops / (time.perf_counter() - self.marked_time)
        share, words = {}, f"loss {loss:.3f}"
        if self.session.peak:
            share = {"share_of_peak": speed / self.session.peak}
            words += f", {share['share_of_peak']:.0%} of peak"
        self.run.log(**self.progress(), loss=loss, terms=means,
                     lr=self.optimizer.param_groups[0]["lr"], flops_per_second=speed, **share,
                     seconds=self.seconds)
        self.bar.set_postfix_str(words, refresh=False)
        self.train_loss, self.logged = spell(means), 0
        self.mark()

    def progress(self):
        """How far the run is: step, FLOPs and tokens."""
        tokens = self.step * self.setup.settings.batch_size * self.setup.settings.seq_len
        return {"step": self.step, "flops": self.plan.spent(self.step), "tokens": tokens}

    def validate(self):
        """Measures the validation loss, and logs it beside the losses of counting words."""
        lesson = self.learner.lesson_at(self.step - 1)  # the lesson of the last step
        terms = self.learner.validate(self.validation.batch, self.session, lesson)
        self.finite(sum(terms.values()))
        counting, mlm, counts = self.validation.counting_losses, {}, ""
        if "mlm" in terms:  # else nothing trains the head, and its loss would say nothing
            mlm = {"val_loss": terms["mlm"], **counting}
            counts = (f"   (unigram {counting['unigram_loss']:.3f}, neighbours "
                      f"{counting['neighbour_loss']:.3f})")
        self.run.log(**self.progress(), val_terms=terms, **mlm)
        spent = cli.flops(self.plan.spent(self.step))
        cli.say(f"{self.step:>9,} steps {spent:>9} FLOPs   training {self.train_loss}   "
                f"validation {spell(terms)}{counts}", self.bar.write)
        self.mark()

    def save(self):
        """Writes a checkpoint. Raises UserError where a weight is not a finite number."""
        if not all(p.isfinite().all() for p in self.learner.parameters()):
            self.finite(math.nan)
        start = time.perf_counter()
        self.run.save_checkpoint(self.step, self.state())  # in the first process
        self.processes.barrier(100 * self.save_seconds)  # a disk may be much slower than most
        self.saved = time.perf_counter()
        self.save_seconds = self.saved - start
        self.mark()


def spell(terms):
    """{"mlm": 3.21, "kd": 2} as text: 'mlm 3.210, kd 2.000'."""
    return ", ".join(f"{name} {value:#.4g}" for name, value in terms.items())
