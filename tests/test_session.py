"""session.py: what a session keeps it closes, a dry run writes nothing, and a run keeps its
micro-batch."""

from types import SimpleNamespace

from plumbing import hardware
from plumbing.cli import UserError
from plumbing.session import Session
from program import runfolder

import pytest
import torch

import budget
import distill
from model import Bert, BertConfig
from train import Learner, Settings, Setup, StudentPlan

SIZE, V, T, B = budget.size("1x32h2"), 40, 20, 6  # words, tokens of a block, blocks of a step


@pytest.fixture
def session():
    with Session("cpu", "fp32") as session:
        yield session


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(Bert(BertConfig.of(SIZE, vocab_size=V)), distill.lesson("scratch", SIZE))


@pytest.fixture
def student():
    step = budget.step_flops(SIZE, V, T, B)
    lesson = distill.lesson("scratch", SIZE)
    return StudentPlan(SIZE, lesson, budget.plan(10 * step, step, B, T), V, lr=1e-3)


@pytest.fixture
def batch():
    """blocks (B, T), inputs (B, T), positions (N,), labels (N,), with 3 positions in a row."""
    blocks = torch.randint(5, V, (B, T), generator=torch.Generator().manual_seed(0))
    positions = (torch.arange(B)[:, None] * T + torch.tensor([2, 7, 11])).flatten()
    return blocks, blocks, positions, blocks.flatten()[positions]


@pytest.fixture
def setup_of(session, learner, student):
    """setup_of(micro_batch=3) -> a train.Setup with these settings."""
    def build(**settings):
        settings = {"flops": 10 ** 9, "batch_size": B, "seq_len": T, **settings}
        return Setup(Settings(**settings), session, None, None, None, student, learner)
    return build


class Resource:
    closed = False

    def close(self):
        self.closed = True


def test_a_session_closes_what_it_keeps():
    with Session("cpu", "fp32") as session:
        resource = session.keep(Resource())
        assert not resource.closed
    assert resource.closed


def test_it_closes_what_it_keeps_after_a_failure_too():
    resource = Resource()
    with pytest.raises(UserError, match="on the way"):
        with Session("cpu", "fp32") as session:
            session.keep(resource)
            raise UserError("something on the way")
    assert resource.closed


def test_processes_meet_before_any_of_them_prepares():
    session, events = Session("cpu", "fp32"), []
    session.processes.meet = lambda: events.append("meet")
    with session:
        events.append("prepare")
    assert events == ["meet", "prepare"]


def test_a_step_needs_a_block_for_each_process(session):
    session.processes.world = 8
    with pytest.raises(UserError, match="--batch-size 7 is less than a block for each of 8"):
        session.join(7)


def test_a_run_has_its_folder_and_nobody_else_has_it(session, tmp_path):
    folder = tmp_path / "run"
    with session.open_run(folder, {"seed": 0}) as run:
        assert run.record == {"finished": False, "settings": {"seed": 0}}
        with pytest.raises(UserError, match="another process"):
            runfolder.Run(folder, {"seed": 0}).__enter__()


def test_the_run_of_a_dry_run_writes_nothing(session, tmp_path):
    folder = tmp_path / "run"
    with session.open_run(folder, {"seed": 0}, dry_run=True) as run:
        run.write_record(finished=True)
        run.log(step=1)
        run.save_checkpoint(1, {"w": torch.zeros(1)})
        assert not run.finished and run.read_log() == []
    assert not folder.exists()


def test_a_run_that_was_begun_goes_on_with_its_micro_batch(session, setup_of, batch):
    def chosen(record, **settings):
        return session.choose_micro_batch(setup_of(**settings), record, batch)
    assert chosen({}) == B                                  # all blocks fit into memory
    assert chosen({"micro_batch": 2}) == 2
    assert chosen({"micro_batch": 2}, micro_batch=3) == 3   # --micro-batch


def test_a_step_that_does_not_fit_into_memory_is_cut(session, setup_of, batch, monkeypatch):
    monkeypatch.setattr(hardware, "free_memory", lambda device: 1000)
    assert session.choose_micro_batch(setup_of(), {}, batch) == 1


def test_prepare_measures_and_leaves_no_trace(session, setup_of, learner, batch):
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    session.prepare(setup_of(), {}, batch)
    assert session.micro_batch == B
    assert session.flops_per_second > 0 and not session.compiled
    assert all(p.grad is None for p in learner.parameters())
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("device, peak", [("cpu", None), ("cuda", 3e14)])
def test_a_peak_is_measured_where_nobody_else_computes(session, setup_of, batch, monkeypatch,
                                                       device, peak):
    monkeypatch.setattr(hardware, "peak", lambda device, dtype: 3e14)
    monkeypatch.setattr(hardware, "measure_speed", lambda *_: 1e10)
    monkeypatch.setattr(session, "device", SimpleNamespace(type=device))
    session.prepare(setup_of(micro_batch=B), {}, batch)
    assert session.peak == peak


def test_a_process_measures_its_share_of_a_step(session, setup_of, batch, monkeypatch):
    asked = []
    monkeypatch.setattr(hardware, "measure_speed", lambda *words: asked.append(words[4:]) or 1e10)
    monkeypatch.setattr(session.processes, "broadcast", lambda value: value)
    session.processes.world = 3
    session.prepare(setup_of(micro_batch=4), {}, batch)
    assert asked == [(2, 2)] and session.flops_per_second == 3e10  # 6 blocks for 3 processes
    session.processes.world = 1
    session.prepare(setup_of(micro_batch=4), {}, batch)
    assert asked[1:] == [(4, 6)]


@pytest.mark.parametrize("choice, record, expected", [
    ("auto", {}, False), ("auto", {"compiled": True}, True), ("on", {}, True),
    ("off", {"compiled": True}, False)])
def test_a_run_that_was_begun_compiled_stays_compiled(session, choice, record, expected):
    # On a CPU, "auto" compiles nothing that has not been compiled before.
    assert session.choose_compiled(choice, record, seconds=10 ** 6) == expected


def test_only_the_first_process_asks_whose_folder_it_is(session, tmp_path):
    # The first one may be writing run.json at this moment: for another one the folder would hold a
    # file and be no run's folder.
    (tmp_path / "run.json.being-written").write_text("{")
    session.processes.first = False
    with session.open_run(tmp_path, {"seed": 0}) as run:
        assert run.record == {}
    session.processes.first = True
    with pytest.raises(UserError, match="holds other files"):
        with session.open_run(tmp_path, {"seed": 0}):
            pass
