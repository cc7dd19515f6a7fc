"""The hardware: where to compute and in which precision, how fast it multiplies, how much fits.

    device, dtype = select("auto", "auto")    # (torch.device, "fp32" or "bf16")
    peak(device, dtype)                       # FLOP/s of a large square matrix product, measured
    free_memory(device)                       # bytes

Nothing is looked up in a table of device names: all is measured, or asked of the system.
"""
import contextlib
import ctypes
import math
import os
import time
from pathlib import Path

from plumbing import limits
from plumbing.cli import UserError

import torch


def keep_memory(keep=True):
    """Tells the C library to keep memory that is freed, instead of giving it back to the system.

    By default glibc asks the system anew for each large block of memory, and the first touch of
    each page then costs a page fault. When it keeps the memory, a step of 6x768 takes 4 to 20% less
    time (docs/LOG.md). keep=False goes back to about glibc's own way. Other C libraries have no
    mallopt; there nothing happens."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # their numbers in malloc.h
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0 if keep else 65536)
        mallopt(mmap_threshold, 2 ** 25)  # what glibc itself arrives at
        mallopt(trim_threshold, -1 if keep else 2 ** 26)


keep_memory()


# --------------------------------------------------------------------------------------------------
# Where to compute, and in which precision


def select(device, dtype):
    """The names given to --device and --dtype -> (torch.device, "fp32" or "bf16").

    "auto" is a GPU where there is one, and bf16 where the hardware multiplies it. Raises UserError
    where this machine does not have the device."""
    device = find_device(device)
    if dtype == "auto":
        dtype = "bf16" if multiplies_bf16(device) else "fp32"
    if device.type == "cuda":
        make_deterministic()
    return device, dtype


def find_device(name):
    """The torch.device called `name`, or a GPU or else the CPU for "auto". Raises UserError where
    this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name} is unknown: cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA "
                        "GPUs that torch can use; try --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Apple GPU that torch can use; try "
                        "--device cpu")
    return device


def multiplies_bf16(device):
    """Whether a device has instructions for bf16 products. Without them bf16 is emulated, which
    is ten times slower than fp32."""
    if device.type == "cuda":
        # Ampere or newer. torch.cuda.is_bf16_supported() also counts emulation.
        return torch.cuda.get_device_capability(device)[0] >= 8
    cpuinfo = Path("/proc/cpuinfo")
    if device.type != "cpu" or not cpuinfo.exists():
        return False
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def make_deterministic():
    """Makes a GPU add in a fixed order. Otherwise the backward pass of attention adds in any order,
    and the same run would end with other last bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def autocast(device, dtype):
    """The context in which a forward pass multiplies in `dtype`, "fp32" or "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


# --------------------------------------------------------------------------------------------------
# How fast, and how much


def peak(device, dtype, seconds=0.3):
    """FLOP/s of a large square matrix product in `dtype`: the speed that training is compared with.

    It is the best of the products that are computed within `seconds`."""
    n = 2048 if device.type == "cpu" else 8192
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    a = torch.randn(n, n, device=device, dtype=torch_dtype)
    best, began = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # reading a number waits until a GPU has done its work
        best = min(best, time.perf_counter() - start)
    return 2 * n ** 3 / best


def free_memory(device):
    """How many bytes are free on a device. On a CPU it is what is free in this machine, or in this
    container where that is less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Half of all memory, where the system tells nothing better.
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with contextlib.suppress(OSError, ValueError):
        free = 1024 * limits.entry("/proc/meminfo", "MemAvailable:")
    return min([free, *(limit - used for limit, used in limits.memory())])


def measure_speed(learner, batch, autocast, flops_per_sequence, rows, rows_of_step, seconds=1.0):
    """FLOP/s of this machine, as it is now, in steps of `rows_of_step` rows: their passes, of which
    each computes `rows` rows of a batch, and the optimizer.

    It is the mean of what fits into about so many seconds. On a busy machine some passes wait for a
    processor, the run's will wait as often, and a median or a minimum would hide it. The first
    pass and the first step, which warm up, do not count. The weights stay as they are, and the
    gradients are cleared."""
    if batch[1].device.type == "cpu":  # no more rows than a laptop computes in about a second
        rows = min(rows, max(1, int(1e11 // flops_per_sequence)))
    pass_once(learner, batch, autocast, rows)
    optimizer = twin_optimizer(learner)
    step_once(optimizer, learner)
    passes, steps, began = [], [], time.perf_counter()
    while len(passes) < 2 or time.perf_counter() - began < seconds and len(passes) < 30:
        start = time.perf_counter()
        learner.zero_grad()
        pass_once(learner, batch, autocast, rows)
        middle = time.perf_counter()
        step_once(optimizer, learner)
        passes.append(middle - start)
        steps.append(time.perf_counter() - middle)
    learner.zero_grad()
    # seconds of a step = its passes, each for `rows` rows, and one step of the optimizer
    mean_pass, mean_step = sum(passes) / len(passes), sum(steps) / len(steps)
    return rows_of_step * flops_per_sequence / (rows_of_step / rows * mean_pass + mean_step)


def pass_once(learner, batch, autocast, rows):
    """A forward and a backward pass on the first `rows` rows of a batch, until they are done."""
    blocks, inputs, positions, labels = batch
    n = len(positions) // len(inputs) * rows
    with autocast():
        terms = learner(blocks[:rows], inputs[:rows], positions[:n], labels[:n])
    sum(terms.values()).backward()
    gradient = learner.model.embeddings.word_embeddings.weight.grad
    gradient[0, 0].item()  # reading a number waits until a GPU has done its work


def twin_optimizer(learner):
    """An AdamW for copies of those weights that have a gradient: it takes as long as the run's own,
    and does not change the weights."""
    copies = [p.detach().clone() for p in learner.parameters() if p.grad is not None]
    return torch.optim.AdamW(copies, fused=copies[0].device.type in ("cpu", "cuda"))


def step_once(optimizer, learner):
    """A step of the twin optimizer with the learner's gradients, until it is done."""
    copies = optimizer.param_groups[0]["params"]
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    for copy, gradient in zip(copies, gradients):
        copy.grad = gradient
    optimizer.step()
    copies[0].flatten()[0].item()
