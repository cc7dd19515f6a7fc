"""hardware.py: what the machine is, measured or asked of the system."""
import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

from plumbing import hardware
from plumbing.cli import UserError

import pytest
import torch

CPU = torch.device("cpu")


def test_dtype_follows_the_hardware():
    device, dtype = hardware.select("cpu", "auto")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert device == CPU
    assert dtype == ("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")


def test_a_dtype_that_is_asked_for_is_taken():
    assert [hardware.select("cpu", dtype)[1] for dtype in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "tpu:0", "meta"])
def test_a_device_that_is_not_there_is_said(name):
    with pytest.raises(UserError, match=f"--device {name}"):
        hardware.select(name, "auto")


def test_autocast_multiplies_in_the_dtype_that_was_chosen():
    a = torch.ones(2, 2)
    for dtype, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with hardware.autocast(CPU, dtype):
            assert (a @ a).dtype == expected


def test_the_peak_is_the_best_of_the_products_within_the_time(monkeypatch):
    # The clock is read at the beginning, and then for each product before the loop goes on (not
    # before the first), at its start and at its end. The products take 0.2, 0.05 and 0.1 seconds.
    times = iter([0.0, 0.0, 0.2, 0.2, 0.2, 0.25, 0.25, 0.25, 0.35, 0.35])
    monkeypatch.setattr(hardware, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    assert hardware.peak(CPU, "fp32", seconds=0.3) == pytest.approx(2 * 2048 ** 3 / 0.05)


class Waits:
    """A learner whose passes take 10 ms, and each third one 100 ms, as where others compute, too. A
    step of its optimizer takes 5 ms. The first pass and the first step take seconds."""

    def __init__(self, monkeypatch):
        self.now, self.passes, self.steps = 0.0, 0, 0
        self.weight = torch.nn.Parameter(torch.ones(3, 2))
        self.model = SimpleNamespace(embeddings=SimpleNamespace(
            word_embeddings=SimpleNamespace(weight=self.weight)))
        monkeypatch.setattr(hardware, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(hardware, "step_once", self.step)

    def __call__(self, blocks, *_):
        self.now += 3.0 if self.passes == 0 else (0.010, 0.010, 0.100)[self.passes % 3]
        self.passes += 1
        return {"mlm": (self.weight * len(blocks)).sum()}

    def step(self, *_):
        self.now += 2.0 if self.steps == 0 else 0.005
        self.steps += 1

    def parameters(self):
        return [self.weight]

    def zero_grad(self):
        self.weight.grad = None


def test_the_speed_is_the_mean_of_passes_that_wait_and_of_those_that_do_not(monkeypatch):
    learner = Waits(monkeypatch)
    batch = [torch.zeros(8, 4), torch.zeros(8, 4), torch.zeros(8), torch.zeros(8)]
    speed = hardware.measure_speed(learner, batch, contextlib.nullcontext, 1000, 4, 8)
    # Two passes of 4 rows and a step of the optimizer make a step of 8 rows, of 1,000 FLOPs each.
    # In the mean a pass takes 40 ms; the median would say 10.
    assert speed == pytest.approx(8 * 1000 / (2 * 0.040 + 0.005), rel=0.1)
    assert 1 < learner.now - 5 < 1.2  # and beside that it takes no longer than a second


def test_the_measured_optimizer_does_the_work_of_adamw_and_changes_no_weight():
    module = torch.nn.Linear(3, 2)
    module.untrained = torch.nn.Parameter(torch.ones(4))
    before = [p.detach().clone() for p in module.parameters()]
    module(torch.ones(1, 3)).sum().backward()
    twin = hardware.twin_optimizer(module)
    hardware.step_once(twin, module)
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before))
    copies = twin.param_groups[0]["params"]
    trained = [p for p in module.parameters() if p.grad is not None]
    expected = torch.optim.AdamW(trained)
    expected.step()
    assert len(copies) == 2 and all(map(torch.allclose, copies, trained))


def test_free_memory_is_less_than_all_there_is():
    all_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < hardware.free_memory(CPU) <= all_memory


def test_free_memory_is_what_the_tightest_limit_leaves(monkeypatch):
    monkeypatch.setattr(hardware.limits, "memory", lambda: iter([(900, 500), (10 ** 18, 7)]))
    assert hardware.free_memory(CPU) == 400
