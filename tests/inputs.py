"""What people and strangers may give to the programs: command lines, texts, model folders. Rows of the fault campaign (faults.py), which
calls each with its `World`; a program must take them or refuse them in one line, and run no code of theirs."""
import json
import os
import pickle
import re
import resource
import shutil
import signal
import time
from functools import cache

from children import PROGRAMS, Child

JUNK = ["", "0", "-1", "1e13", "1e99999999", "nan", "inf", "-inf", "None", "true", "1x1", "2x64", "96x12288", "0x0", "2x65", "x", "🙂", "a b", "--", "-", "../..", "/", "/dev/null", "/dev/zero",
        "/proc/self/mem", "stories", "kd", "scratch", "tinybert", "cpu", "cuda", "cuda:99", "mps", "bf16", "no/such/model", "1,2,3", "1e3,x", "%s%n", "$(touch x)", "'", '"', "\n", "\t", "é" * 300, "=", "all",
        "cola", "paper", "quick", "mean", "1_000", "٣", "0x10", "1/3", "05", "1e-400", "9" * 400]


@cache
def flags_of(program):
    child = Child(f"{program}.py", "--help")
    child.wait()
    return sorted(set(re.findall(r"--[a-z][a-z-]+", child.out)) - {"--help"})


def command_lines(world):
    """100 command lines that `hypothesis` makes of the programs' own flags, of junk, and of any text."""
    from faults import Wrong
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    value = st.one_of(st.sampled_from(JUNK), st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20),
                      st.integers().map(str), st.floats().map(str))
    fixed = {"train": ["--dry-run"], "compare": ["--dry-run"], "glue": [], "budget": [], "bench": ["--rounds", "1"]}

    def line_of(program):
        flag = st.one_of(st.sampled_from(flags_of(program)), value)
        option = st.one_of(st.tuples(flag, value), st.tuples(flag), st.tuples(flag, value, value), st.tuples(st.just("--flops"), st.sampled_from(["1e9", "3e12", "1e30"])))
        return st.tuples(st.just(program), st.lists(option, max_size=5).map(lambda options: [word for option in options for word in option]))

    @settings(max_examples=100, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @seed(world.random.randrange(2 ** 32))
    @given(st.sampled_from(PROGRAMS).flatmap(line_of))
    def answers(program_and_options):
        program, options = program_and_options
        folder = world.new("cwd")
        folder.mkdir()
        options = [*fixed[program], *(option.replace("\0", "") for option in options)]
        child = Child(f"{program}.py", *options, folder=folder, environment={"HOME": str(world.folder), "COLUMNS": "80"},
                      inside=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 ** 34, 2 ** 34)))
        end = time.monotonic() + (1 if program == "bench" else 30)
        while child.running() and time.monotonic() < end:
            time.sleep(0.002)
        if child.running():  # valid, and long
            for _ in range(20):  # an import may swallow one
                child.signal(signal.SIGTERM)
                if child.wait(3, kill=False) is not None:
                    break
            if child.status == 143 and program != "train":
                child.status = 0
        if child.complaint and not (child.status == 1 and program == "compare" and "Traceback" not in child.err):  # 1: a cell failed
            raise Wrong(f"{program}.py {options!r}: {child.complaint}")
        if child.status == 2 and any(folder.iterdir()):
            raise Wrong(f"{program}.py {options!r}: refused, and wrote {[path.name for path in folder.rglob('*')]}: {child.err[-500:]}")
        shutil.rmtree(folder)
    answers()
    return 100


# ---------------------------------------------------------------------------------------------------------------------

def texts(draw):
    """A text that nobody would call well kept."""
    word = lambda: "".join(draw.choice("abcdefghijkl") for _ in range(draw.randint(1, 8)))  # noqa: E731
    lines = [" ".join(word() for _ in range(12)) for _ in range(draw.choice([3, 300]))]
    ranges = {"emoji": (0x1F300, 0x1FAFF), "right-to-left": (0x5D0, 0x6FF), "han": (0x4E00, 0x9FFF), "controls": (1, 31), "private": (0xE000, 0xF8FF), "any": (1, 0xD7FF)}
    kinds = {name: "\n".join("".join(chr(draw.randint(*span)) for _ in range(40)) for _ in range(100)).encode() for name, span in ranges.items()}
    kinds |= {"plain": "\n".join(lines).encode(),
              "invalid UTF-8": "\n".join(lines).encode()[:-5] + draw.randbytes(draw.randint(1, 50)) + b"\n" + "\n".join(lines).encode(),
              "noise": draw.randbytes(5000), "NULs": bytes(5000), "a NUL": "\n".join(lines).encode() + b"\0" + "\n".join(lines).encode(),
              "UTF-16": "\n".join(lines).encode("utf-16"), "BOM": b"\xef\xbb\xbf" + "\n".join(lines).encode(), "CRLF": "\r\n".join(lines).encode(),
              "CR": "\r".join(lines).encode(), "Zalgo": ("a" + "̵͙́" * 500 + " b\n").encode() * 100, "empty lines": b"\n" * 10 ** draw.randint(0, 6),
              "spaces": b" " * 10 ** draw.randint(0, 6), "one line": " ".join(lines).encode() * draw.choice([1, 100]), "one word": b"a" * 10 ** draw.randint(0, 6),
              "special tokens": b"[CLS] [MASK] [SEP] [PAD] [UNK]\n" * 300, "same": b"the same line\n" * 500, "nothing": b"", "json in text": b'{"text": 1}\n' * 50}
    return draw.choice(sorted(kinds.items()))


def bad_text(world):
    """Invalid, empty, endless, foreign: as lines of text, and inside JSON, CSV and Parquet."""
    from faults import TINY, Wrong
    draw, folder = world.random, world.new("text")
    folder.mkdir()
    name, content = texts(draw)
    if draw.random() < 0.01:
        name, content = draw.choice([("one line of 50 MB", b"the quick brown fox " * 2_500_000), ("10 million empty lines", b"\n" * 10 ** 7)])
    suffix = draw.choice([".txt", ".txt", ".txt", ".jsonl", ".csv", ".json", ".parquet", ".txt.gz"])
    if suffix == ".jsonl" and draw.random() < 0.7:
        content = b"\n".join(json.dumps({"text": line}).encode() for line in content.decode("utf-8", "replace").split("\n"))
    path = folder / f"text{suffix}"
    path.write_bytes(content)
    tokenizer = draw.choice([["--vocab-size", str(draw.choice([6, 60, 5000]))], ["--tokenizer", world.teacher]])
    child = Child("train.py", *TINY, "--data", path, *tokenizer, "--out", folder / "run", environment={"ISOFLOP_CACHE": str(folder / "cache")})
    child.wait(300)
    if child.complaint:
        raise Wrong(f"{name}, {suffix}, {tokenizer}: {child.line}: {child.complaint}")
    shutil.rmtree(folder)
    return 1


# ---------------------------------------------------------------------------------------------------------------------

class Payload:
    """What runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def hostile_folder(world):
    """A model's folder by somebody who means harm: given as teacher, as tokenizer, as model to score."""
    from faults import Wrong
    draw, folder, mark = world.random, world.new("hostile"), world.new("mark")
    shutil.copytree(world.teacher, folder)
    left = folder / "run.json"
    if draw.random() < 0.3:  # somebody's own, which tells nothing of the files, or nonsense
        left.write_text(json.dumps(draw.choice([{"files": 3}, {"files": ["config.json"]}, {"files": None}, {}, {"settings": None}, {"finished": True, "files": {}}])))
    else:
        left.unlink()
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())

    def write(name, content):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def sparse(name, beginning=b"{"):
        write(name, beginning)
        os.truncate(folder / name, 2 ** 40)

    def link(name, target):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    def pipe(name):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    any_file, key = draw.choice(["config.json", "tokenizer.json", "model.safetensors"]), draw.choice(sorted(config))
    header = (2 ** draw.choice([20, 40, 62])).to_bytes(8, "little")
    huge = {"x": {"dtype": "F32", "shape": [2 ** 40, 2 ** 20], "data_offsets": [0, 2 ** 62]}}
    kinds = {
        "pickle as weights": lambda: write("model.safetensors", pickle.dumps(Payload(mark))),
        "pickle beside nothing": lambda: ((folder / "model.safetensors").unlink(), write("pytorch_model.bin", pickle.dumps(Payload(mark)))),
        "pickle as any file": lambda: write(any_file, pickle.dumps(Payload(mark))),
        "code in the configuration": lambda: (write("config.json", {**config, "auto_map": {"AutoModel": "evil.Evil"}, "trust_remote_code": True}), write("evil.py", f"import os; os.system('touch {mark}')".encode())),
        "absurd size": lambda: write("config.json", {**config, key: draw.choice([10 ** 9, 10 ** 18, -1, 0, 2 ** 31, 1e308])}),
        "absurd sizes": lambda: write("config.json", {key: 10 ** 9 if isinstance(value, int) and not isinstance(value, bool) else value for key, value in config.items()}),
        "wrong type": lambda: write("config.json", {**config, key: draw.choice([None, [], {}, "x", True, [[]] * 100, "9" * 10 ** 6])}),
        "deep JSON": lambda: write(any_file, b"[" * 10 ** 6),
        "endless JSON": lambda: sparse(any_file),
        "a device": lambda: link(any_file, draw.choice(["/dev/zero", "/dev/random", "/dev/stdin", "/dev/full"])),
        "a pipe": lambda: pipe(any_file),
        "link out of the folder": lambda: link(any_file, draw.choice(["/etc/passwd", "/proc/self/mem", "/", "../../..", "/proc/kmsg", str(folder / any_file)])),
        "header of the weights": lambda: write("model.safetensors", header + b"{" * 100),
        "sizes of the weights": lambda: write("model.safetensors", len(json.dumps(huge)).to_bytes(8, "little") + json.dumps(huge).encode()),
        "no BERT's tokenizer": lambda: write("tokenizer.json", {**tokenizer, "model": draw.choice([{"type": "BPE", "vocab": {}, "merges": []}, {"type": "Unigram", "vocab": []}, None, [], "x", {"type": "WordLevel", "vocab": {"[MASK]": 0}, "unk_token": "x"}])}),
        "tokenizer with huge ids": lambda: write("tokenizer.json", {**tokenizer, "model": {**tokenizer["model"], "vocab": {word: i * 10 ** 7 for word, i in tokenizer["model"]["vocab"].items()}}}),
        "tokenizer with a bomb of a pattern": lambda: write("tokenizer.json", {**tokenizer, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}}),
        "tokenizer with parts of wrong kind": lambda: write("tokenizer.json", {**tokenizer, draw.choice(sorted(tokenizer)): draw.choice([None, [], {}, 5, "x"])}),
    }
    name = draw.choice(sorted(kinds))
    kinds[name]()
    out = world.new()
    line = draw.choice([[argument if argument != world.teacher else folder for argument in world.lines[job]] for job in world.lines])
    child = Child(*line, "--out", out, inside=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 ** 35, 2 ** 35)))
    child.wait(60)
    what = f"{name} ({any_file}, {key}): {child.line}"
    if mark.exists():
        raise Wrong(f"{what}: ran its code")
    if child.complaint:
        raise Wrong(f"{what}: {child.complaint}")
    if child.memory > 1.5 * 2 ** 30:
        raise Wrong(f"{what}: took {child.memory / 2 ** 30:.1f} GiB of memory")
    shutil.rmtree(folder)
    return 1
