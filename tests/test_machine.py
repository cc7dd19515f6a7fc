"""machine.py: what a process may use of the machine is measured, or asked of the system. And a run
on two processes, or in micro-batches, is the same run but for the last digits of its weights."""
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

from program import cli
from program.cli import UserError
from running import machine
from running.machine import Session

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import budget
import distill
from model import Bert, BertConfig
from train import Learner, Settings, Setup, StudentPlan

CPU = torch.device("cpu")
SHORT = ["--flops", "2e10", "--model", "1x64", "--dtype", "fp32", "--batch-size", "15"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# One thread, as torchrun starts its processes.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ISOFLOP_PATIENCE": "15"}
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")


class Alone(machine.Processes):
    """One of several processes, whose messages to the others are left out."""

    def __init__(self, rank, world):
        self.rank, self.world, self.first = rank, world, rank == 0

    def all_reduce_sum(self, *tensors):
        pass

    all_reduce_max = all_reduce_sum


# --------------------------------------------------------------------------------------------------
# Control groups. The folders are laid out as the kernel's documentation says.

UNLIMITED = "9223372036854771712"  # what version 1 says without a limit


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function that makes this process's /proc/self/cgroup and the files of /sys/fs/cgroup, on a
    machine with eight processors and 1,000 kB of free memory."""
    for name in ("OWN_GROUPS", "GROUPS", "MEMINFO"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    machine.MEMINFO.write_text("MemTotal:  4000 kB\nMemAvailable:    1000 kB\n")

    def make(own, files):
        texts = {machine.OWN_GROUPS: own} if own else {}
        texts |= {machine.GROUPS / name: text for name, text in files.items()}
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    return make


@pytest.mark.parametrize("own, files, expected", [
    ("", {}, 8), ("0::/", {"cpu.max": "max 100000"}, 8),
    ("0::/", {"cpu.max": "50000 100000"}, 1),                       # half a processor
    ("0::/", {"cpu.max": "6400000 100000"}, 8),                     # more than there are
    ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2),
    ("4:cpuacct,cpu:/a", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000",
                          "cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "50000"}, 2),
    # In a container: the path is the one outside, and the mount's root is the container's group.
    ("4:cpu:/docker/1f/a", {"cpu/a/cpu.cfs_quota_us": "200000",
                            "cpu/a/cpu.cfs_period_us": "100000"}, 2),
    ("0::/../a", {"cpu.max": "400000 100000"}, 4),
    # Both versions at once, and a hierarchy that limits nothing.
    ("1:name=systemd:/x\n3:cpu:/\n0::/y", {"cpu/cpu.cfs_quota_us": "300000",
                                           "cpu/cpu.cfs_period_us": "100000"}, 3)])
def test_the_tightest_quota_of_all_groups_counts_rounded_up(system, own, files, expected):
    system(own, files)
    assert machine.cores() == expected


@pytest.mark.parametrize("own, files, expected", [
    ("", {}, 1024000), ("0::/", {"memory.max": "max", "memory.current": "5"}, 1024000),
    # Copies of files that nobody has used for a while are not counted as used.
    ("0::/a", {"memory.max": "900", "memory.current": "600", "a/memory.max": "700",
               "a/memory.current": "500", "a/memory.stat": "anon 300\ninactive_file 200"}, 300),
    # In version 1 the entry without "total_" lacks the groups inside.
    ("2:memory:/job", {"memory/job/memory.limit_in_bytes": "800",
                       "memory/job/memory.usage_in_bytes": "300",
                       "memory/job/memory.stat": "inactive_file 10\ntotal_inactive_file 100"}, 600),
    ("2:memory:/", {"memory/memory.limit_in_bytes": UNLIMITED,
                    "memory/memory.usage_in_bytes": "300"}, 1024000)])
def test_free_memory_is_what_the_tightest_limit_leaves(system, monkeypatch, own, files, expected):
    system(own, files)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert machine.free_memory(CPU) == expected
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun's processes on this machine share it
    assert machine.free_memory(CPU) == expected // 2




@pytest.mark.parametrize("variables, expected", [({}, 1), ({"OMP_NUM_THREADS": "2"}, 2)])
def test_torch_has_no_more_threads_than_the_quota_unless_told_so(python, variables, expected):
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = python("-c", "from running import machine; import torch; machine.cores = lambda: 1; "
                  "machine.Session('cpu', 'fp32'); print(torch.get_num_threads())",
                  env={**kept, **variables})
    assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.parametrize("flags, dtype, named", [
    ("sse avx2", "auto", "fp32"), ("avx512_bf16", "auto", "bf16"), ("amx_bf16", "auto", "bf16"),
    ("amx_bf16", "fp32", "fp32"), ("sse", "bf16", "bf16")])
def test_dtype_follows_the_hardware_unless_one_is_given(tmp_path, monkeypatch, flags, dtype, named):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    machine.CPUINFO.write_text(f"flags : {flags}\n")
    assert machine.select("cpu", dtype) == (CPU, named)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", ""])
def test_a_device_that_is_not_there_is_said(name):
    with pytest.raises(UserError, match=f"--device {name}: torch finds none here"):
        machine.select(name, "auto")


# --------------------------------------------------------------------------------------------------
# A session

SIZE, V, T, B = budget.size("1x32h2"), 40, 20, 6  # words, tokens of a block, blocks of a step


@pytest.fixture
def session():
    return Session("cpu", "fp32")


@pytest.fixture
def batch():
    """blocks (B, T), inputs (B, T), positions (N,), labels (N,), with 3 positions in a row."""
    blocks = torch.randint(5, V, (B, T), generator=torch.Generator().manual_seed(0))
    positions = (torch.arange(B)[:, None] * T + torch.tensor([2, 7, 11])).flatten()
    return blocks, blocks, positions, blocks.flatten()[positions]


@pytest.fixture
def setup_of(session):
    """setup_of(micro_batch=3) -> a train.Setup with these settings."""
    torch.manual_seed(0)
    lesson, step = distill.lesson("scratch", SIZE), budget.step_flops(SIZE, V, T, B)
    student = StudentPlan(SIZE, lesson, budget.plan(10 * step, step, B, T), V, lr=1e-3)
    learner = Learner(Bert(BertConfig.of(SIZE, vocab_size=V)), lesson)

    def build(**settings):
        settings = {"flops": 10 ** 9, "batch_size": B, "seq_len": T, **settings}
        return Setup(Settings(**settings), session, None, None, None, student, learner)
    return build


def test_a_session_meets_the_others_first_and_closes_what_it_keeps_however_it_ends(session):
    events = []
    session.processes.meet = lambda device: events.append("meet")
    with pytest.raises(UserError), session:
        session.keep(SimpleNamespace(close=lambda: events.append("close")))
        raise UserError("on the way")
    assert events == ["meet", "close"]


def test_a_step_needs_a_block_for_each_process(session):
    session.processes.world = 8
    with pytest.raises(UserError, match="--batch-size 7 is less than a block for each of 8"):
        session.join(7)


def test_only_the_first_process_asks_whose_folder_it_is(session, tmp_path):
    # The first one may be writing run.json just now, which another one would take for foreign.
    (tmp_path / "run.json.being-written").write_text("{")
    session.processes.first = False
    with session.open_run(tmp_path, {"seed": 0}) as run:
        assert run.record == {} and run.read_log() == []
    session.processes.first = True
    with pytest.raises(UserError, match="holds other files"):
        session.open_run(tmp_path, {"seed": 0}).__enter__()


def test_prepare_measures_and_leaves_no_trace(session, setup_of, batch):
    setup = setup_of()
    before = {name: value.clone() for name, value in setup.learner.state_dict().items()}
    session.prepare(setup, {}, batch)
    assert session.micro_batch == B
    assert session.flops_per_second > 0 and not session.compiled and session.peak is None
    assert all(p.grad is None for p in setup.learner.parameters())
    after = setup.learner.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("device, free, settings, record, micro_batch, compiled", [
    ("cpu", 10 ** 9, {}, {}, B, False),                 # all blocks fit into memory
    ("cpu", 1000, {}, {}, 1, False),
    ("cpu", 1000, {}, {"micro_batch": 2}, 2, False),    # a run that was begun goes on with it
    ("cpu", 1000, {"micro_batch": 3, "compile": "on"}, {"micro_batch": 2}, 3, True),
    # On a CPU "auto" compiles nothing that has not been compiled before, and no peak is measured.
    ("cpu", 10 ** 9, {}, {"compiled": True}, B, True),
    ("cpu", 10 ** 9, {"compile": "off"}, {"compiled": True}, B, False),
    ("cuda", 10 ** 9, {}, {}, B, True), ("cuda", 10 ** 9, {}, {"compiled": False}, B, False)])
def test_what_a_run_of_hours_computes_at_once_and_compiles(session, setup_of, batch, monkeypatch,
        device, free, settings, record, micro_batch, compiled):
    monkeypatch.setattr(machine, "free_memory", lambda device: free)
    monkeypatch.setattr(machine, "peak", lambda device, dtype: 3e14)
    monkeypatch.setattr(session, "measure", lambda *_: 1e-3)
    monkeypatch.setattr(session, "device", SimpleNamespace(type=device))
    session.prepare(setup_of(**settings), record, batch)
    assert (session.micro_batch, session.compiled) == (micro_batch, compiled)
    assert session.peak == (3e14 if device == "cuda" else None)


@pytest.mark.parametrize("world, micro_batch, flops, rows", [
    (1, 4, 1000, 4), (2, 8, 1000, 3),  # a process measures its share
    (1, 8, 3 * 10 ** 10, 3)])          # on a CPU what a laptop computes in about a second
def test_the_speed_is_the_mean_of_passes_that_wait_and_of_those_that_do_not(
        session, setup_of, batch, monkeypatch, world, micro_batch, flops, rows):
    # Each third reading of the clock comes late, as where others compute, too; so does the first.
    now = itertools.accumulate(itertools.chain([0, 3.0], itertools.cycle([0.01, 0.01, 0.1])))
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    session.processes.world = world
    session.micro_batch, session.flops_per_block = micro_batch, flops
    speed = session.measure(setup_of().learner, batch)
    # In the mean a pass takes 40 ms; the median would say 10.
    assert speed == pytest.approx(rows * flops / 0.040, rel=0.1)
    assert 4 < next(now) < 4.3  # and beside the first pass it takes no longer than a second


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
            for name, value in machine.forward_backward(learner, batch, None, session).items():
                total[name] += value.item()
        assert total == pytest.approx({name: value.item() for name, value in terms.items()},
                                      rel=1e-6)
        torch.testing.assert_close(gradients(), expected, rtol=1e-5, atol=1e-9)


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize("strategy, size, teacher, V, T", [
    ("scratch", "1x64", None, 30000, 64), ("minilm", "2x128", "4x128", 1000, 128)])
def test_a_row_takes_no_more_memory_than_is_reckoned(strategy, size, teacher, V, T):
    program = f"""if True:
        import torch, budget, distill
        from model import Bert, BertConfig
        from running import machine
        from train import Learner
        machine.keep_memory(False)
        sizes = [budget.size(name) for name in {[size, teacher]!r} if name]
        bert, *teacher = (Bert(BertConfig.of(size, vocab_size={V})) for size in sizes)
        learner = Learner(bert, distill.lesson({strategy!r}, *sizes), *teacher)
        k = budget.masked_positions({T})
        def high_water(B):
            blocks, words = torch.randint(5, {V}, (B, {T})), torch.randint(5, {V}, (B * k,))
            positions = (torch.arange(B)[:, None] * {T} + torch.arange(k)).flatten()
            sum(learner(blocks, blocks, positions, words).values()).backward()
            # Not ru_maxrss, in which the peak of the process counts that started this one.
            lines = open("/proc/self/status").read().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if "VmHWM" in line)
        high_water(2)
        few = high_water(32)
        print((high_water(160) - few) / 128)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, check=True)
    measured = float(done.stdout)
    size, teacher = budget.size(size), teacher and budget.size(teacher)
    student = SimpleNamespace(size=size, V=V, lesson=distill.lesson(strategy, size, teacher))
    counted = machine.numbers_kept(student, T, budget.masked_positions(T), teacher)
    estimate = 4 * 1.5 * counted  # bytes
    assert measured < 1.2 * estimate and estimate < 4 * measured, (measured, estimate)


# --------------------------------------------------------------------------------------------------
# Whole runs


def trained(folder, *options, launcher=()):
    """What a run prints, as torchrun starts it or python."""
    command = [sys.executable, *launcher, "train.py", *SHORT, *options, "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run on one process, whose steps are in one piece."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    trained(folder)
    return folder


def assert_same_weights(a, b, tolerance=1e-5):
    """All weights but the keys' biases: they add the same to all scores of a row, which the softmax
    ignores. Their gradient is 0 but for rounding, which AdamW scales up."""
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        if not name.endswith("attention.self.key.bias"):
            assert (a[name] - b[name]).abs().max().item() < tolerance, name


@pytest.mark.slow
def test_two_processes_end_where_one_ends(plain, tmp_path):
    folder = tmp_path / "run"
    out = trained(folder, launcher=TORCHRUN)
    assert_same_weights(plain, folder)
    one, two = (json.loads((path / "run.json").read_text()) for path in (plain, folder))
    assert one["settings"] == two["settings"] and two["processes"] == 2
    assert all(one[key] == two[key] for key in ("flops_spent", "steps", "tokens", "bill"))
    assert one["val_loss"] == pytest.approx(two["val_loss"], abs=1e-5)
    assert out.count("finished") == 1  # one process speaks


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")),
                    reason="torch.compile wants a C++ compiler")
def test_compiled_layers_learn_the_same(plain, tmp_path):
    trained(tmp_path / "run", "--compile", "on")
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


def start_rank(rank, port, program):
    """Starts one of two processes, as torchrun would."""
    beginning = """if True:
        import sys, time
        from program import cli
        from running import machine
        import torch
        processes = machine.Processes()
"""
    environment = {**ENVIRONMENT, "ISOFLOP_PATIENCE": "60", "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank)}
    return subprocess.Popen([sys.executable, "-c", beginning + program], cwd=ROOT, text=True,
                            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def test_processes_wait_for_each_other_add_compare_and_take_over_what_they_know(port):
    program = """
        processes.meet(torch.device("cpu"))
        machine.SILENCE = 0
        if not processes.first:
            sys.stdin.readline()
        processes.gather("prepared", 600, ", which prepare")
        mine = torch.full((2,), 1.0 + processes.rank)
        processes.all_reduce_sum(mine)
        largest = processes.all_reduce_max(10 * processes.rank)
        word = processes.broadcast({"from": processes.rank})
        print(mine.tolist(), largest, word, file=sys.stderr)
        processes.barrier(1)
        torch.distributed.destroy_process_group()  # as a Session does at its end
    """
    pair = [start_rank(rank, port, program) for rank in range(2)]
    assert pair[0].stdout.readline() == "waiting for 1 of 2 processes, which prepare\n"
    for process in reversed(pair):
        _, err = process.communicate("go on\n", timeout=300)
        assert process.returncode == 0 and f"{[3.0, 3.0]} 10 {({'from': 0})}" in err, err




@pytest.mark.parametrize("rank, signum, words", [
    (0, signal.SIGINT, "waiting for 1 of 2 processes; leave WORLD_SIZE out if you start one"),
    (1, signal.SIGTERM, r"waiting for the first process at port \d+ of 127.0.0.1 \(.* refused\);")])
def test_a_process_alone_says_whom_it_waits_for_and_hears_a_signal(port, rank, signum, words):
    alone = start_rank(rank, port, """
        machine.SILENCE = 0
        cli.program(lambda: processes.meet(torch.device("cpu")))
    """)
    said = alone.stdout.readline()
    alone.send_signal(signum)
    _, err = alone.communicate(timeout=300)  # it would wait for 600 seconds
    assert re.match(words, said) and alone.returncode == 128 + signum and not err


@pytest.mark.parametrize("rank, address, message", [
    (0, "127.0.0.1", "waited 0.0 s in vain for 1 of 2 processes; leave WORLD_SIZE out"),
    (1, "127.0.0.1", r"in vain for the first process at port \d+ of 127.0.0.1 \(.* refused\)"),
    (1, "nowhere.invalid", r"the first process at port \d+ of nowhere.invalid \(.* [Nn]ame ")])
def test_others_that_never_come_are_given_up(monkeypatch, port, rank, address, message):
    monkeypatch.setattr(machine, "MEETING", 0)
    set_variables(monkeypatch, WORLD_SIZE="2", RANK=str(rank), MASTER_ADDR=address,
                  MASTER_PORT=port)
    with pytest.raises(UserError, match=message):
        machine.Processes().meet(CPU)


def test_a_port_in_use_is_said(monkeypatch, port):
    set_variables(monkeypatch, WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with socket.create_server(("127.0.0.1", int(port))):
        with pytest.raises(UserError, match="choose another MASTER_PORT .*address already in use"):
            machine.Processes().meet(CPU)


def test_without_torchrun_there_is_one_process_which_waits_for_nobody(monkeypatch):
    set_variables(monkeypatch)
    processes = machine.Processes()
    processes.meet(CPU)
    processes.gather("prepared", 1, "")
    processes.barrier(1)
    assert processes.first and processes.rows(7) == slice(0, 7)
    assert processes.all_reduce_max(5) == 5 and processes.broadcast("word") == "word"


@pytest.mark.parametrize("variables, message", [
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is no number from 1"),
    ({"WORLD_SIZE": "2"}, "RANK= in the environment is no number from 0 to 1: start it with torch"),
    ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT= in the environment is no number"),
    ({"RANK": "1"}, "RANK=1 in the environment is no number from 0 to 0"),
    ({"ISOFLOP_PATIENCE": "soon"}, "ISOFLOP_PATIENCE=soon in the environment is no number")])
def test_an_environment_that_torchrun_has_not_made_is_refused(monkeypatch, variables, message):
    set_variables(monkeypatch, **variables)
    with pytest.raises(UserError, match=message):
        machine.Processes().meet(CPU)
        machine.patience()


def test_each_of_many_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "select", lambda name, dtype: (name, dtype))
    set_variables(monkeypatch, WORLD_SIZE="4", RANK="3", LOCAL_RANK="3")
    devices = [Session(name, "fp32").device for name in ("auto", "cuda", "cpu")]
    assert devices == ["cuda:3", "cuda:3", "cpu"]
