"""monitor.py: what is due after a step, and one decision for all processes."""
import copy
import math
import os
import signal
from types import SimpleNamespace

from program import cli
from program.cli import UserError
from running import monitor

import pytest
import torch
from torch import nn

import budget

STEPS = 100


class Folder:
    """What a Monitor asks of a runfolder.Run. A save takes `save_takes` seconds of the clock."""

    def __init__(self, clock, save_takes):
        self.clock, self.save_takes, self.folder = clock, save_takes, "runs/x"
        self.rows, self.saves, self.loaded = [], [], None
        self.load_checkpoint, self.read_log = lambda: self.loaded, lambda: self.rows
        self.rewind_log = lambda: None

    def log(self, **fields):
        self.rows.append(fields)

    def save_checkpoint(self, step, state):
        self.clock.now += self.save_takes
        self.saves.append(step)


class Learner(nn.Module):
    """One weight, which has a validation loss of 2."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))

    def lesson_at(self, step):
        return "finish" if step >= 70 else "own"

    def validate(self, batch, session, lesson):
        return {"mlm": 2.0} if lesson == "finish" else {"mlm": 2.0, "kd": 1.0}


def processes_of(rank=0, answers=()):
    """The processes of a run as the one of this rank sees them. answers: what the others say."""
    return SimpleNamespace(first=rank == 0, broadcast=lambda value: value,
                           barrier=lambda seconds: None,
                           all_reduce_max=lambda number: max([number, *answers]))


@pytest.fixture
def monitor_of(monkeypatch):
    """monitor_of(save_takes=1.0) -> a Monitor that is not entered yet."""
    def build(save_takes=0.0, processes=None, finish_steps=30):
        clock, learner = SimpleNamespace(now=1000.0), Learner()  # it stands still between steps
        clock.perf_counter = lambda: clock.now
        monkeypatch.setattr(monitor, "time", clock)
        plan = budget.Plan(100 * STEPS, flops_per_step=100, steps=STEPS, flops_spent=100 * STEPS,
                           tokens=32 * STEPS, epochs=0.0, finish_steps=finish_steps,
                           flops_per_finish_step=100)
        session = SimpleNamespace(processes=processes or processes_of(), peak=1e9,
                                  device=torch.device("cpu"))
        validation = SimpleNamespace(batch=None, counting_losses={"unigram_loss": 5.0,
                                                                  "neighbour_loss": 4.0})
        setup = SimpleNamespace(settings=SimpleNamespace(batch_size=2, seq_len=16), learner=learner,
                                session=session, student=SimpleNamespace(plan=plan, lr=1e-3))
        made = monitor.Monitor(Folder(clock, save_takes),
                               torch.optim.AdamW(learner.parameters()), setup, validation)
        made.clock = clock
        return made
    return build


def take_steps(monitored, seconds=1.0, until=STEPS):
    """Takes the run's steps, each of so many seconds of the clock."""
    with monitored:
        for step in range(1, until + 1):
            monitored.clock.now += seconds
            monitored.after(step, {"mlm": torch.tensor(float(step))})


def test_each_tenth_of_the_run_and_the_change_to_the_mlm_finish_are_validated(monitor_of):
    monitored = monitor_of(finish_steps=35)
    take_steps(monitored)
    steps = [row["step"] for row in monitored.run.rows if "val_terms" in row]
    assert steps == [0, 10, 20, 30, 40, 50, 60, 65, 70, 80, 90, 100]
    terms = {row["step"]: set(row["val_terms"]) for row in monitored.run.rows if "val_terms" in row}
    # The last validation before the finish is of the strategy's own lesson.
    assert terms[65] == {"mlm", "kd"} and terms[80] == {"mlm"}


def test_a_validation_that_the_log_holds_is_not_made_again(monitor_of):
    monitored = monitor_of()
    monitored.run.rows = [{"step": 0, "val_terms": {"mlm": 2.0}}]
    take_steps(monitored, until=5)
    assert [row["step"] for row in monitored.run.rows if "val_terms" in row] == [0]




def test_a_line_of_the_log_is_the_mean_since_the_line_before(monitor_of):
    monitored = monitor_of()
    monitored.log_every = 4
    take_steps(monitored, until=8)
    losses = [(row["step"], row["loss"]) for row in monitored.run.rows if "loss" in row]
    assert losses == [(4, (1 + 2 + 3 + 4) / 4), (8, (5 + 6 + 7 + 8) / 4)]


def test_the_logged_speed_leaves_saves_out(monitor_of):
    monitored = monitor_of(save_takes=7.0)
    take_steps(monitored, seconds=0.5, until=60)
    speeds = {row["flops_per_second"] for row in monitored.run.rows if "loss" in row}
    assert monitored.run.saves and speeds == {100 / 0.5}  # FLOPs of a step by its seconds


def test_the_progress_of_the_first_process_is_printed(monitor_of, capsys):
    take_steps(monitor_of(), until=50)
    err = capsys.readouterr().err
    assert "50%|" in err and "| 5.00k/10.0k [" in err
    assert err.endswith("FLOP/s, loss 50.000, 0% of peak]\n")
    monitored = monitor_of(processes=processes_of(1))
    monitored.session.peak = None  # on a CPU there is no share of it
    take_steps(monitored, until=50)
    assert capsys.readouterr().err == ""
    assert not any("share_of_peak" in row for row in monitored.run.rows)


@pytest.mark.parametrize("save_takes, step_takes, until, saves", [
    (0.0, 1.0, STEPS, list(range(5, 101, 5))),  # a quick disk: after each 20th of the run
    (0.0, 40.0, 9, [2, 4, 5, 7, 9]),            # long steps: each minute; 5 is a 20th
    # The first save shows that it takes a second: the next is due 50 seconds later.
    (1.0, 1.0, STEPS, [5, 60, 100]),
    (18.0, 18.1, STEPS, [4, 54, 100])])         # 50 steps are 905 seconds; the last must be
def test_saves_are_as_often_as_a_fiftieth_of_the_time_allows(monitor_of, save_takes, step_takes,
                                                             until, saves):
    monitored = monitor_of(save_takes=save_takes)
    take_steps(monitored, seconds=step_takes, until=until)
    assert monitored.run.saves == saves


@pytest.mark.parametrize("rank, answers, seconds, decision", [
    (0, [0, 0], 0, monitor.GO_ON), (1, [monitor.SAVE, monitor.STOP], 0, monitor.STOP),
    (0, [0], 1000, monitor.SAVE), (1, [0], 1000, monitor.GO_ON)])  # the first one has a clock
def test_all_processes_do_the_most_that_one_of_them_wants(monitor_of, rank, answers, seconds,
                                                          decision):
    with monitor_of(processes=processes_of(rank, answers)) as monitored:
        monitored.clock.now += seconds
        assert monitored.decide() == decision


def test_a_signal_saves_and_then_stops_the_program(monitor_of, capsys):
    monitored = monitor_of(save_takes=100.0)
    with pytest.raises(cli.Stopped) as end, monitored:
        os.kill(os.getpid(), signal.SIGINT)
        monitored.clock.now += 1
        monitored.after(1, {"mlm": torch.tensor(1.0)})
    assert end.value.status == 130 and monitored.run.saves == [1]
    assert "the same command continues" in capsys.readouterr().out


def test_a_signal_in_another_process_stops_this_one(monitor_of):
    monitored = monitor_of(processes=processes_of(1, [monitor.STOP]))
    with pytest.raises(cli.Stopped) as end:
        take_steps(monitored)
    assert end.value.status == 143 and monitored.step == 1


def test_a_restored_run_takes_the_same_next_step_bit_for_bit(monitor_of):
    with monitor_of() as monitored:
        train_a_step(monitored)
        monitored.clock.now += 1
        monitored.after(1, {"mlm": torch.tensor(3.0)})
        saved = copy.deepcopy({"step": 1, **monitored.state()})
        train_a_step(monitored)
    again = monitor_of()
    nn.init.zeros_(again.learner.weight)
    again.run.loaded = saved
    with again:
        assert (again.step, again.seconds, again.sums.tolist(), again.logged) == \
            (1, saved["seconds"], saved["sums"].tolist(), saved["logged"])
        train_a_step(again)
    assert torch.equal(again.learner.weight, monitored.learner.weight)


def train_a_step(monitored):
    (monitored.learner.weight.square().sum() + monitored.learner.weight.sum()).backward()
    monitored.optimizer.step()
    monitored.optimizer.zero_grad()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_step_and_what_to_do(monitor_of, loss):
    monitored = monitor_of()
    take_steps(monitored, until=1)
    with pytest.raises(UserError, match=f"the loss is {loss} at step 1.* lower --lr"):
        monitored.check_finite({"mlm": torch.tensor(3.0), "kd": torch.tensor(loss)})
    monitored.learner.validate = lambda *_: {"mlm": 2.0, "kd": loss}
    with pytest.raises(UserError, match=f"the loss is {loss}"):
        monitored.validate()


def test_a_weight_that_is_not_finite_is_never_saved(monitor_of):
    with monitor_of() as monitored:
        nn.init.constant_(monitored.learner.weight, math.inf)
        with pytest.raises(UserError, match="lower --lr"):
            monitored.save()
    assert monitored.run.saves == []
