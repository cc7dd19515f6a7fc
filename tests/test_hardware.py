"""hardware.py: what the machine is, measured or asked of the system."""
import os
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


def test_the_peak_is_what_a_large_product_reaches():
    a = torch.randn(1024, 1024)
    a @ a
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        rates.append(2 * 1024 ** 3 / (time.perf_counter() - began))
    # Loose bounds: other work may run beside this.
    assert max(rates) / 5 < hardware.peak(CPU, "fp32") < 20 * max(rates)


def test_free_memory_is_less_than_all_there_is():
    all_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < hardware.free_memory(CPU) <= all_memory


def test_an_entry_of_a_system_file_is_the_number_after_its_name(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       16000 kB\nMemAvailable:    9000 kB\n")
    assert hardware.entry(path, "MemAvailable:") == 9000
    with pytest.raises(ValueError, match="SwapTotal"):
        hardware.entry(path, "SwapTotal:")
