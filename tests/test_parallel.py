"""parallel.py: a run on two processes, or in micro-batches, is the same run. It has the same
budget, the same batches and masks, and the same weights but for their last digits."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from plumbing import cli, hardware, parallel
from plumbing.cli import UserError

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import budget
import distill
from model import Bert, BertConfig
from train import Learner

SHORT = ["--flops", "2e10", "--model", "1x64", "--dtype", "fp32", "--batch-size", "15"]
LONG = ["--flops", "3e12", "--model", "1x64", "--dtype", "fp32"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# One thread, as torchrun starts its processes.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ISOFLOP_PATIENCE": "15"}
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")


class Alone(parallel.Processes):
    """One of several processes, whose messages to the others are left out."""

    def __init__(self, rank, world):
        self.rank, self.world = rank, world

    def all_reduce_sum(self, *tensors):
        return tensors

    def all_reduce_max(self, number=0):
        return number


# --------------------------------------------------------------------------------------------------
# A step in pieces


# The first leaves the last row without a label: it has no mean over labels. The second leaves all.
@pytest.mark.parametrize("unlabelled", [[0, 4, 5, 18, 19, 20], slice(None)])
@pytest.mark.parametrize("strategy", ["scratch", "kd", "tinybert", "minilm"])
def test_gradients_of_all_shares_are_those_of_the_batch_whatever_the_loss(strategy, unlabelled):
    torch.manual_seed(0)
    sizes = budget.size("2x16h2"), budget.size("4x24h2")
    student, teacher = (
        Bert(BertConfig.of(size, vocab_size=40, max_position_embeddings=20,
                           hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
        for size in sizes)
    heads = 2 if strategy == "minilm" else None
    lesson = distill.lesson(strategy, *sizes, distill.Options(relation_heads=heads))
    learner = Learner(student, lesson, None if strategy == "scratch" else teacher).double()
    teacher.double()
    B, T, k = 7, 20, 3
    blocks = torch.randint(5, 40, (B, T))
    positions = (torch.arange(B)[:, None] * T + torch.tensor([2, 7, 11])).flatten()
    labels = torch.randint(5, 40, (B * k,))
    labels[unlabelled] = -100
    batch = blocks, blocks.roll(1), positions, labels

    def gradients():
        return {name: p.grad.clone() for name, p in learner.named_parameters()
                if p.grad is not None}

    terms = learner(*batch)
    assert unlabelled != slice(None) or terms.get("mlm", 0.0) == 0.0
    sum(terms.values()).backward()
    expected = gradients()
    for world, micro_batch in ((1, 100), (1, 1), (1, 3), (3, 2)):
        learner.zero_grad()
        total = dict.fromkeys(terms, 0.0)
        for rank in range(world):
            session = SimpleNamespace(processes=Alone(rank, world), micro_batch=micro_batch,
                                      autocast=contextlib.nullcontext)
            for name, value in parallel.forward_backward(learner, batch, None, session).items():
                total[name] += value.item()
        assert total == pytest.approx({name: value.item() for name, value in terms.items()},
                                      rel=1e-6)
        summed = gradients()
        assert summed.keys() == expected.keys()
        for name, gradient in summed.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-9,
                                       msg=lambda text, name=name: f"{name}: {text}")


def test_each_row_belongs_to_one_process():
    for world in (1, 2, 3, 8):
        for n in (8, 9, 100):
            rows = [row for rank in range(world) for row in range(n)[Alone(rank, world).rows(n)]]
            assert rows == list(range(n))
    assert Alone(2, 4).rows(3) == slice(0, 3)  # too few for all: each takes all


def step_memory(strategy, size, teacher, V, T):
    """How many bytes a row of a training step takes, measured in a process of its own."""
    program = f"""if True:
        import torch
        import budget
        from tools import bench
        def step(B):
            teacher = {teacher!r} and budget.size({teacher!r})
            one_step, *_ = bench.our_step({strategy!r}, budget.size({size!r}), teacher, B, "fp32",
                                          torch.device("cpu"), {V}, {T})
            one_step()
            return bench.high_water()
        step(2)
        few = step(32)
        print((step(160) - few) / 128)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, check=True)
    return float(done.stdout)


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize("strategy, size, teacher, V, T", [
    ("scratch", "4x256", None, 1000, 128), ("scratch", "1x64", None, 30000, 64),
    ("minilm", "2x128", "4x128", 1000, 128)])
def test_a_row_takes_no_more_memory_than_is_reckoned(monkeypatch, strategy, size, teacher, V, T):
    """Too low an estimate would end in an out of memory error; too high a one only in smaller
    micro-batches."""
    measured = step_memory(strategy, size, teacher, V, T)
    monkeypatch.setattr(hardware, "free_memory", lambda device: 2 * 10 ** 12)
    size, teacher = budget.size(size), teacher and budget.size(teacher)
    student = SimpleNamespace(size=size, V=V, lesson=distill.lesson(strategy, size, teacher))
    rows = parallel.micro_batch_that_fits(student, T, budget.masked_positions(T), teacher,
                                          torch.device("cpu"), 10 ** 9)
    estimate = 10 ** 12 / rows
    assert measured < 1.2 * estimate and estimate < 4 * measured, (measured, estimate)


# --------------------------------------------------------------------------------------------------
# Whole runs


def start_training(folder, *options, launcher=(), line=SHORT):
    command = [sys.executable, *launcher, "train.py", *line, *options, "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def output_of(process, status=0):
    """What a process prints until it ends, which it does with this exit status."""
    out, err = process.communicate(timeout=1800)
    assert process.returncode == status, err
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run on one process, whose steps are in one piece."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    output_of(start_training(folder))
    return folder


def assert_same_weights(a, b, tolerance=1e-5):
    """All weights but the keys' biases. A bias b of the keys adds q b to all scores of a row, and
    the softmax ignores that: the gradient is 0 but for rounding, which AdamW scales up."""
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        if not name.endswith("attention.self.key.bias"):
            assert (a[name] - b[name]).abs().max().item() < tolerance, name


@pytest.mark.slow
def test_two_processes_end_where_one_ends(plain, tmp_path):
    folder = tmp_path / "run"
    out = output_of(start_training(folder, launcher=TORCHRUN))
    assert_same_weights(plain, folder)
    one, two = (json.loads((path / "run.json").read_text()) for path in (plain, folder))
    assert one["settings"] == two["settings"] and two["processes"] == 2
    assert all(one[key] == two[key] for key in ("flops_spent", "steps", "tokens", "bill"))
    assert one["val_loss"] == pytest.approx(two["val_loss"], abs=1e-5)
    assert out.count("finished") == 1  # one process speaks


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 4, 15])
def test_micro_batches_add_up_to_the_batch(plain, tmp_path, micro_batch):
    output_of(start_training(tmp_path / "run", "--micro-batch", str(micro_batch)))
    assert_same_weights(plain, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")),
                    reason="torch.compile wants a C++ compiler")
def test_compiled_layers_learn_the_same(plain, tmp_path):
    output_of(start_training(tmp_path / "run", "--compile", "on"))
    assert_same_weights(plain, tmp_path / "run", 1e-4)


# --------------------------------------------------------------------------------------------------
# What processes say to each other


def set_variables(monkeypatch, **variables):
    """Makes an environment with these and no others of the variables that torchrun sets."""
    for name in set(os.environ) - set(cli.environment_of_one()):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def port():
    """A port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start_rank(rank, port, program, patience=60):
    """Starts one of two processes, as torchrun would. It has met the other before `program` runs.
    """
    beginning = """if True:
        import sys, time
        import torch
        from plumbing import cli, parallel
        cpu = torch.device("cpu")
        processes = parallel.Processes()
"""
    environment = {**ENVIRONMENT, "ISOFLOP_PATIENCE": str(patience), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank)}
    return subprocess.Popen([sys.executable, "-c", beginning + program], cwd=ROOT, text=True,
                            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def test_processes_add_compare_and_take_over_what_they_know(port):
    program = """
        processes.meet()
        processes.join(cpu)
        mine = torch.full((2,), 1.0 + processes.rank)
        processes.all_reduce_sum(mine)
        largest = processes.all_reduce_max(10 * processes.rank)
        word = processes.broadcast({"from": processes.rank})
        processes.barrier(1)
        print(mine.tolist(), largest, word, file=sys.stderr)
        # The first process keeps what they say to each other. It leaves once the other has heard.
        processes.all_reduce_max()
        processes.leave()
    """
    pair = [start_rank(rank, port, program) for rank in range(2)]
    expected = f"{[3.0, 3.0]} 10 {({'from': 0})}"
    for process in pair:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0 and expected in err, err


@pytest.mark.slow
def test_one_that_never_comes_to_a_barrier_is_waited_for_no_longer_than_its_work_may_take(port):
    # Impatient only from here on: a busy machine may start one process much later than the other.
    program = """
        processes.meet()
        processes.join(cpu)
        import os
        os.environ["ISOFLOP_PATIENCE"] = "2"
        if not processes.first:
            time.sleep(60)
        began = time.monotonic()
        try:
            processes.barrier(1)
        except parallel.UserError as failure:
            print("died or hangs" in str(failure), time.monotonic() - began)
    """
    pair = [start_rank(rank, port, program) for rank in range(2)]
    try:
        noticed, seconds = pair[0].communicate(timeout=300)[0].split()
    finally:
        pair[1].kill()
        pair[1].communicate()
    assert noticed == "True" and 2.5 < float(seconds) < 15


@pytest.mark.parametrize("rank, signum, words", [
    (0, signal.SIGINT, "waiting for 1 of 2 processes; leave WORLD_SIZE out if you start one"),
    (1, signal.SIGTERM, r"waiting for the first process at port \d+ of 127.0.0.1 \(.* refused\);")])
def test_a_process_alone_says_whom_it_waits_for_and_hears_a_signal(port, rank, signum, words):
    alone = start_rank(rank, port, """
        parallel.SILENCE = 0
        cli.program(processes.meet)
    """)
    said = alone.stdout.readline()
    alone.send_signal(signum)
    _, err = alone.communicate(timeout=300)  # it would wait for 600 seconds
    assert re.match(words, said) and alone.returncode == 128 + signum and not err


@pytest.mark.parametrize("rank, address, message", [
    (0, "127.0.0.1", "waited 0.0 s in vain for 1 of 2 processes; leave WORLD_SIZE out"),
    (1, "127.0.0.1", r"in vain for the first process at port \d+ of 127.0.0.1 \(.* refused\)"),
    (1, "nowhere.invalid", r"the first process at port \d+ of nowhere.invalid \(.* [Nn]ame "),
    (1, "no..where", r"the first process at port \d+ of no..where \(.* label ")])
def test_others_that_never_come_are_given_up(monkeypatch, port, rank, address, message):
    monkeypatch.setattr(parallel, "MEETING", 0)
    set_variables(monkeypatch, WORLD_SIZE="2", RANK=str(rank), MASTER_ADDR=address,
                  MASTER_PORT=port)
    with pytest.raises(UserError, match=message):
        parallel.Processes().meet()


def test_a_port_in_use_is_said(monkeypatch, port):
    set_variables(monkeypatch, WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with socket.create_server(("127.0.0.1", int(port))):
        with pytest.raises(UserError, match="choose another MASTER_PORT .*address already in use"):
            parallel.Processes().meet()


def test_one_that_prepares_for_long_is_waited_for(port):
    first = start_rank(0, port, """
        processes.meet()
        parallel.MEETING = parallel.SILENCE = 0
        processes.join(cpu)
        processes.barrier(1)
        print("joined")
    """)
    other = start_rank(1, port, """
        processes.meet()
        sys.stdin.readline()
        processes.join(cpu)
        processes.barrier(1)
    """)
    said = first.stdout.readline()
    assert said == "waiting for 1 of 2 processes, which still prepare their text\n"
    other.communicate("go on\n", timeout=300)
    out, err = first.communicate(timeout=300)
    assert out == "joined\n" and first.returncode == other.returncode == 0, err


def test_without_torchrun_there_is_one_process_which_waits_for_nobody(monkeypatch):
    set_variables(monkeypatch)
    processes = parallel.Processes()
    processes.meet()
    processes.join(torch.device("cpu"))
    processes.barrier(1)
    assert processes.first and processes.rows(7) == slice(0, 7)
    assert processes.all_reduce_max(5) == 5 and processes.broadcast("word") == "word"
    assert processes.device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("variables, message", [
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is no number"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 in the environment is no number from 1"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 in the environment, and no RANK"),
    ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2 in the environment, and no MASTER_ADDR"),
    ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 in the"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT=x in"),
    ({"RANK": "one"}, "RANK=one in the environment is no number"),
    ({"RANK": "1"}, "RANK=1 in the environment is no number from 0 to 0")])
def test_an_environment_that_torchrun_has_not_made_is_refused(monkeypatch, variables, message):
    set_variables(monkeypatch, **variables)
    with pytest.raises(UserError, match=message):
        parallel.Processes()


def test_each_of_many_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    many = Alone(3, 4)
    assert [many.device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    with pytest.raises(UserError, match="--device cuda:1 with 4 processes"):
        many.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "third")
    with pytest.raises(UserError, match="LOCAL_RANK=third in the environment is no number"):
        many.device("cuda")


@pytest.mark.parametrize("seconds", ["soon", "nan", "-1", "1e99"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(monkeypatch, seconds):
    monkeypatch.setenv("ISOFLOP_PATIENCE", seconds)
    with pytest.raises(UserError, match=f"ISOFLOP_PATIENCE={seconds} in the environment"):
        parallel.patience()


@pytest.mark.parametrize("number", ["two", "0"])
def test_the_number_of_processes_that_share_the_memory_is_a_number(monkeypatch, number):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", number)
    size = budget.size("2x128")
    student = SimpleNamespace(size=size, V=200, lesson=distill.lesson("scratch", size))
    with pytest.raises(UserError, match=f"LOCAL_WORLD_SIZE={number} in the environment"):
        parallel.micro_batch_that_fits(student, 32, 5, None, torch.device("cpu"), 32)


# --------------------------------------------------------------------------------------------------
# A process that dies or hangs


def ranks_of(launcher):
    """The process ids of a torchrun's two processes, once they train."""
    command = ["pgrep", "-P", str(launcher.pid), "-f", "train.py"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        children = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if len(children) == 2:
            return [int(child) for child in children]
        time.sleep(0.1)
    raise AssertionError("torchrun started no two processes")


def wait_for_a_checkpoint(folder):
    end = time.monotonic() + 600
    while not list(folder.glob("checkpoint-*.pt")):
        assert time.monotonic() < end
        time.sleep(0.2)


def kill_what_is_left(pids, folder):
    """Kills those of the processes that still train in `folder`: the system may have given the
    number of one that has ended to another process."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_process_that_dies_or_hangs_ends_the_run_within_a_minute_and_the_same_command_continues(
        tmp_path, fault):
    folder = tmp_path / "run"
    launcher = start_training(folder, launcher=TORCHRUN, line=LONG)
    ranks = sorted(ranks_of(launcher))
    wait_for_a_checkpoint(folder)
    time.sleep(1)
    began = time.monotonic()
    os.kill(ranks[1], fault)
    try:
        _, err = launcher.communicate(timeout=100)
    finally:
        kill_what_is_left(ranks, folder)
    assert launcher.returncode and time.monotonic() - began < 90
    if fault == signal.SIGSTOP:
        # Of a process that dies, torchrun itself tells. It mostly ends the other one before that
        # one notices.
        message = "error: another process of this run has died or hangs"
        assert len(re.findall(message, err)) == 1
    saved = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*"))
    assert saved > 0 and not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    alone = start_training(folder, line=LONG)  # one process goes on where two stopped
    continuing = f"continuing at step {saved:,} of"
    assert any(continuing in line for line in iter(alone.stdout.readline, ""))
    alone.terminate()
    output_of(alone, 143)
