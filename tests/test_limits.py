"""limits.py: of all control groups around this process the tightest limit counts, in both versions
of Linux's control groups. The folders here are laid out as the kernel's documentation says."""
import os
import subprocess
import sys

from plumbing import limits

import pytest
from conftest import ROOT

UNLIMITED = "9223372036854771712"  # what version 1 says without a limit


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function that makes this process's /proc/self/cgroup and the files of /sys/fs/cgroup."""
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "MOUNT", tmp_path / "groups")
    monkeypatch.setattr(limits, "processors", lambda: 8)

    def make(own, files):
        texts = {limits.PROC / "self" / "cgroup": own}
        texts |= {limits.MOUNT / name: text for name, text in files.items()}
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    return make


@pytest.mark.parametrize("own, files, expected", [
    ("0::/", {"cpu.max": "max 100000"}, 8),
    ("0::/", {"cpu.max": "50000 100000"}, 1),                       # half a processor
    ("0::/", {"cpu.max": "150000 100000"}, 2),
    ("0::/", {"cpu.max": "6400000 100000"}, 8),                     # more than there are
    ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
    ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2),
    ("0::/a", {"b/cpu.max": "100000 100000"}, 8),                   # another's group
    ("0::/", {"cpu.max": ""}, 8),
    ("4:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
                          "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3),
    ("4:cpuacct,cpu:/a", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000",
                          "cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "50000"}, 2),
    # In a container: the path is the one outside, and the mount's root is the container's group.
    ("4:cpu:/docker/1f", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ("4:cpu:/docker/1f/a", {"cpu/a/cpu.cfs_quota_us": "200000",
                            "cpu/a/cpu.cfs_period_us": "100000"}, 2),
    ("0::/../a", {"cpu.max": "400000 100000"}, 4),
    # Both versions at once, and a hierarchy that limits nothing.
    ("1:name=systemd:/x\n3:cpu:/\n0::/y", {"cpu/cpu.cfs_quota_us": "300000",
                                           "cpu/cpu.cfs_period_us": "100000"}, 3)])
def test_the_tightest_quota_of_all_groups_counts_rounded_up(system, own, files, expected):
    system(own, files)
    assert limits.cores() == expected


def test_without_control_groups_the_processors_count_and_no_memory_is_limited(system):
    assert limits.cores() == 8 and list(limits.memory()) == []


@pytest.mark.parametrize("own, files, expected", [
    ("0::/", {"memory.max": "max", "memory.current": "5"}, []),
    # Copies of files that nobody has used for a while are not counted as used.
    ("0::/a", {"memory.max": "900", "memory.current": "600", "a/memory.max": "700",
               "a/memory.current": "500", "a/memory.stat": "anon 300\ninactive_file 200"},
     [(700, 300), (900, 600)]),
    # In version 1 the entry without "total_" lacks the groups inside.
    ("2:memory:/job", {"memory/job/memory.limit_in_bytes": "800",
                       "memory/job/memory.usage_in_bytes": "300",
                       "memory/job/memory.stat": "inactive_file 10\ntotal_inactive_file 100"},
     [(800, 200)]),
    ("2:memory:/", {"memory/memory.limit_in_bytes": UNLIMITED,
                    "memory/memory.usage_in_bytes": "300"}, [(int(UNLIMITED), 300)]),
    ("2:memory:/", {"memory/memory.limit_in_bytes": "-1", "memory/memory.usage_in_bytes": "3"}, []),
    ("2:memory:/docker/1f", {"memory/memory.limit_in_bytes": "800",
                             "memory/memory.usage_in_bytes": "300"}, [(800, 300)])])
def test_each_limit_of_memory_comes_with_what_is_used_of_it(system, own, files, expected):
    system(own, files)
    assert sorted(set(limits.memory())) == expected


def test_an_entry_of_a_system_file_is_the_number_after_its_name(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       16000 kB\nMemAvailable:    9000 kB\n")
    assert limits.entry(path, "MemAvailable:") == 9000
    with pytest.raises(ValueError, match="SwapTotal"):
        limits.entry(path, "SwapTotal:")


@pytest.mark.parametrize("quota, variables, expected", [
    (1, {}, "1"), (1, {"OMP_NUM_THREADS": "2"}, "2"), (2, {}, "None")])
def test_torch_has_no_more_threads_than_the_quota_unless_the_user_says_so(quota, variables,
                                                                         expected):
    # A stand-in for limits.py, since plumbing reads the true one when it is imported.
    program = f"""if True:
        import sys, types
        limits = types.ModuleType("plumbing.limits")
        limits.processors, limits.cores = lambda: 2, lambda: {quota}
        sys.modules["plumbing.limits"] = limits
        import os
        import plumbing
        print(os.environ.get("OMP_NUM_THREADS"))"""
    environment = {key: os.environ[key] for key in os.environ if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env={**environment, **variables}, check=True)
    assert done.stdout.strip() == expected
