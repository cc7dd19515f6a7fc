"""A run on two processes, or in portions, is the same run: same budget, same batches, same masks, same weights but for the last digits."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from plumbing import hardware, parallel

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import budget
import distill
from model import Bert, BertConfig
from train import Learner

LINE = ["--flops", "2e10", "--model", "1x64", "--dtype", "fp32", "--batch-size", "15"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "ISOFLOP_PATIENCE": "15"}  # one thread, as torchrun starts its processes


def train(folder, *options, launcher=(), line=LINE):
    command = [sys.executable, *launcher, "train.py", *line, *options, "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def done(process, status=0):
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    return out, err


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    done(train(folder))
    return folder


def close(a, b, by=1e-5):
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert a.keys() == b.keys() and max((a[key] - b[key]).abs().max().item() for key in a) < by


def test_two_processes_end_where_one_ends(plain, tmp_path):
    out, _ = done(train(tmp_path / "run", launcher=TORCHRUN))
    close(plain, tmp_path / "run")
    one, two = (json.loads((folder / "run.json").read_text()) for folder in (plain, tmp_path / "run"))
    assert one["settings"] == two["settings"] and two["processes"] == 2
    assert all(one[key] == two[key] for key in ("flops_spent", "steps", "tokens", "bill"))
    assert one["val_loss"] == pytest.approx(two["val_loss"], abs=1e-5)
    assert out.count("finished") == 1  # one process speaks


@pytest.mark.parametrize("portion", [1, 4, 15])
def test_portions_add_up_to_the_batch(plain, tmp_path, portion):
    done(train(tmp_path / "run", "--micro-batch", str(portion)))
    close(plain, tmp_path / "run")


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile wants a C++ compiler")
def test_compiled_layers_learn_the_same(plain, tmp_path):
    done(train(tmp_path / "run", "--compile", "on"))
    close(plain, tmp_path / "run", 1e-4)


class Alone(parallel.Processes):
    """One of several processes, whose conversation with the others is left out."""

    def __init__(self, rank, world):
        self.rank, self.world = rank, world

    def sum(self, *tensors):
        return tensors

    def most(self, number=0):
        return number


@pytest.mark.parametrize("strategy", ["scratch", "kd", "tinybert", "minilm"])
def test_gradients_of_all_shares_are_those_of_the_batch_whatever_the_loss(strategy):
    from contextlib import nullcontext
    torch.manual_seed(0)
    sizes = budget.size("2x16h2"), budget.size("4x24h2")
    student, teacher = (Bert(BertConfig.of(size, vocab_size=40, max_position_embeddings=20, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
                        for size in sizes)
    lesson = distill.lesson(strategy, *sizes, distill.Options(1.0, 2 if strategy == "minilm" else None, None))
    learner = Learner(student, lesson, None if strategy == "scratch" else teacher).double()
    teacher.double()
    B, T, n = 7, 20, 3
    blocks = torch.randint(5, 40, (B, T))
    labels = torch.randint(5, 40, (B * n,))
    labels[[0, 4, 5, 18, 19, 20]] = -100  # one row has none at all: a portion of it has no mean over words
    batch = blocks, blocks.roll(1), torch.arange(B)[:, None].mul(T).add(torch.tensor([2, 7, 11])).flatten(), labels

    def gradients(*shares):
        learner.zero_grad()
        values = [parallel.backward(learner, batch, None, nullcontext, process, portion) for process, portion in shares]
        total = {name: sum(value[name] for value in values).item() for name in values[0]}
        return total, {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}

    terms = learner(*batch)
    learner.zero_grad()
    sum(terms.values()).backward()
    expected = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    for shares in ([(Alone(0, 1), 100)], [(Alone(0, 1), 1)], [(Alone(0, 1), 3)], [(Alone(rank, 3), 2) for rank in range(3)]):
        total, found = gradients(*shares)
        assert total == pytest.approx({name: value.item() for name, value in terms.items()}, rel=1e-6)
        assert found.keys() == expected.keys() and all(torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-9) for name in expected)


def test_each_row_belongs_to_one_process():
    for world in (1, 2, 3, 8):
        for n in (8, 9, 100):
            rows = [row for rank in range(world) for row in range(n)[Alone(rank, world).rows(n)]]
            assert rows == list(range(n))
    assert Alone(2, 4).rows(3) == slice(0, 3)  # too few for all: each takes all


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM")
@pytest.mark.parametrize("strategy, size, teacher, V, T", [("scratch", "4x256", None, 1000, 128), ("scratch", "1x64", None, 30000, 64), ("minilm", "2x128", "4x128", 1000, 128)])
def test_a_row_takes_no_more_memory_than_is_reckoned(monkeypatch, strategy, size, teacher, V, T):
    """Too low an estimate would end in an out of memory error; too high a one only in smaller portions."""
    program = f"""if True:
        import bench, budget, torch
        def step(B):
            bench.our_step({strategy!r}, budget.size({size!r}), {teacher!r} and budget.size({teacher!r}), B, "fp32", torch.device("cpu"), {V}, {T})[0]()
            return bench.high_water()
        step(2)
        few = step(32)
        print((step(160) - few) / 128)"""
    found = float(subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ALONE, capture_output=True, text=True, check=True).stdout)
    monkeypatch.setattr(hardware, "free_memory", lambda device: 2 * 10 ** 12)
    student, master = budget.size(size), teacher and budget.size(teacher)
    estimate = 10 ** 12 / parallel.portion_that_fits(student, V, T, distill.lesson(strategy, student, master), master, torch.device("cpu"), 10 ** 9)
    assert found < 1.2 * estimate and estimate < 4 * found, (found, estimate)


LONG = ["--flops", "3e11", "--model", "1x64", "--dtype", "fp32"]


def ranks_of(launcher):
    """Process ids of a torchrun's two processes, once they train."""
    end = time.time() + 60
    while time.time() < end:
        children = subprocess.run(["pgrep", "-P", str(launcher.pid), "-f", "train.py"], capture_output=True, text=True).stdout.split()
        if len(children) == 2:
            return [int(child) for child in children]
        time.sleep(0.1)
    raise AssertionError("torchrun started no two processes")


def wait_for_a_checkpoint(folder):
    end = time.time() + 90
    while not list(folder.glob("checkpoint-*.safetensors")):
        assert time.time() < end
        time.sleep(0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pgrep")
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_process_that_dies_or_hangs_ends_the_run_within_a_minute_and_the_same_command_continues(tmp_path, fault):
    folder = tmp_path / "run"
    launcher = train(folder, launcher=TORCHRUN, line=LONG)
    first, second = sorted(ranks_of(launcher))
    wait_for_a_checkpoint(folder)
    time.sleep(1)
    began = time.time()
    os.kill(second, fault)
    try:
        _, err = launcher.communicate(timeout=100)
    finally:
        for pid in (first, second):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert launcher.returncode and time.time() - began < 90
    if fault == signal.SIGSTOP:  # of one that dies torchrun tells, and ends the other, most often before it notices
        assert len(re.findall("error: another process of this run has died or hangs", err)) == 1
    saved = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*"))
    assert saved > 0 and not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    alone = train(folder, line=LONG)  # one process goes on where two stopped
    assert any(f"continuing at step {saved:,} of" in line for line in iter(alone.stdout.readline, ""))
    os.killpg(alone.pid, signal.SIGTERM)
    done(alone, 143)


def test_one_that_never_comes_to_a_meeting_is_waited_for_no_longer_than_its_work_may_take(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = """
import parallel, sys, time, torch
processes = parallel.Processes()
processes.join(torch.device("cpu"))
if not processes.first:
    time.sleep(60)
began = time.monotonic()
try:
    processes.meet(1)
except parallel.UserError as failure:
    print("died or hangs" in str(failure), time.monotonic() - began)
"""
    pair = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={
        **ALONE, "ISOFLOP_PATIENCE": "2", "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}) for rank in range(2)]
    said = pair[0].communicate(timeout=60)[0].split()
    pair[1].kill()
    pair[1].wait()
    assert said[0] == "True" and 2.5 < float(said[1]) < 15
