"""What this machine is: where to compute and in which numbers, how fast it multiplies, how much fits.

    device, dtype = select("auto", "auto")       # (torch.device, "fp32" or "bf16")
    peak(device, dtype)                             # FLOP/s of a large square matrix product, measured

Imported before torch, since some settings are read when torch is.
"""
import contextlib
import ctypes
import os
import time
from pathlib import Path

from plumbing.cli import UserError

import torch


def keep_memory(keep=True):
    """glibc maps every large block of memory anew and gives it back when it is freed, and each first touch of a page is then a fault.
    Kept in the heap (no mmap, no trimming) a step of 6x768 takes 4 to 20% less time (LOG.md). keep=False: about glibc's own way.
    Other C libraries have no mallopt."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0 if keep else 65536)
        mallopt(mmap_threshold, 2 ** 25)  # what glibc itself arrives at
        mallopt(trim_threshold, -1 if keep else 2 ** 26)


keep_memory()



def select(device, dtype):
    """(torch.device, "fp32" or "bf16"). The one dtype rule: bf16 autocast where the hardware multiplies bf16 (any recent GPU;
    on CPU AVX512-BF16 or AMX), else fp32: without the instructions bf16 is ten times slower. Raises UserError."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
    except RuntimeError:
        raise UserError(f"--device {device} is unknown: cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA GPUs that torch can use; try --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Apple GPU that torch can use; try --device cpu")
    if dtype == "auto":
        if device.type == "cuda":
            fast = torch.cuda.get_device_capability(device)[0] >= 8  # Ampere or newer: torch's own answer counts emulation
        else:
            cpuinfo = Path("/proc/cpuinfo")
            flags = set(cpuinfo.read_text().split()) if device.type == "cpu" and cpuinfo.exists() else set()
            fast = bool(flags & {"avx512_bf16", "amx_bf16"})
        dtype = "bf16" if fast else "fp32"
    if device.type == "cuda":  # attention's backward adds in any order otherwise, and the same run would differ in the last bits
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    return device, dtype


def autocast(device, dtype):
    """The context in which a forward pass multiplies in `dtype`, as `hardware` named it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


def peak(device, dtype, seconds=0.3):
    """FLOP/s of a large square matrix product in `dtype`: what any training is measured by. The best of some, never a table of names."""
    n = 2048 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits until a GPU has done its work
        best = min(best, time.perf_counter() - start)
    return 2 * n ** 3 / best


def free_memory(device):
    """Bytes that are free on a device (on a CPU: of this machine or container)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # where nothing better is known
    with contextlib.suppress(OSError, StopIteration):
        free = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    with contextlib.suppress(OSError, ValueError, StopIteration):  # a container's limit, or "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        cached = next(int(line.split()[1]) for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines() if line.startswith("inactive_file"))
        free = min(free, limit - used + cached)  # copies of files in memory give way
    return free


def measure_speed(learner, batch, autocast, flops_per_sequence, rows):
    """FLOP/s of this machine, from a few measured forward and backward passes on some rows of a batch. Leaves no trace."""
    blocks, inputs, positions, labels = batch
    if inputs.device.type == "cpu":
        rows = min(rows, max(1, int(1e11 // flops_per_sequence)))  # about a second's work on a laptop
    n = len(positions) // len(inputs) * rows
    times, began = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < 1 and len(times) < 30):
        start = time.perf_counter()
        with autocast():
            terms = learner(blocks[:rows], inputs[:rows], positions[:n], labels[:n])
        sum(terms.values()).backward()
        learner.model.embeddings.word_embeddings.weight.grad[0, 0].item()  # waits until a GPU has done its work
        times.append(time.perf_counter() - start)
    learner.zero_grad()
    return rows * flops_per_sequence / sorted(times[1:])[len(times[1:]) // 2]
