"""What the machine is: found out, not assumed."""
import time
from pathlib import Path

from plumbing import hardware
from plumbing.cli import UserError

import pytest
import torch

CPU = torch.device("cpu")


def test_dtype_follows_the_hardware():
    device, dtype = hardware.select("cpu", "auto")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert dtype == ("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "tpu:0"])
def test_a_device_that_is_not_there_is_said(name):
    with pytest.raises(UserError, match="--device"):
        hardware.select(name, "auto")


def test_the_peak_is_what_a_large_product_reaches():
    a = torch.randn(1024, 1024)
    a @ a
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        rates.append(2 * 1024 ** 3 / (time.perf_counter() - began))
    assert max(rates) / 5 < hardware.peak(CPU, "fp32") < 20 * max(rates)  # loose: other work may run beside this


def test_free_memory_is_less_than_all_there_is():
    import os
    assert 0 < hardware.free_memory(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
