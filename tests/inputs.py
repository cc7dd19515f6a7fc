"""What people and strangers may give to the programs: command lines, texts, model folders.

These are rows of the fault campaign (faults.py), which calls each with its `Lane`. A program must
take the input or refuse it in one line, and it must run no code that comes with the input.
"""
import json
import os
import pickle
import re
import resource
import shutil
from functools import cache

from children import PROGRAMS, Child
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from undisturbed import TINY, Wrong

# --------------------------------------------------------------------------------------------------
# Command lines

JUNK = ["", "0", "-1", "1e13", "1e99999999", "nan", "inf", "-inf", "None", "true", "1x1", "2x64",
        "96x12288", "0x0", "2x65", "x", "🙂", "a b", "--", "-", "../..", "/", "/dev/null",
        "/dev/zero", "/proc/self/mem", "stories", "kd", "scratch", "tinybert", "cpu", "cuda",
        "cuda:99", "mps", "bf16", "no/such/model", "1,2,3", "1e3,x", "%s%n", "$(touch x)", "'", '"',
        "\n", "\t", "é" * 300, "=", "all", "cola", "paper", "quick", "mean", "1_000", "٣", "0x10",
        "1/3", "05", "1e-400", "9" * 400]
FIRST_WORDS = {"train.py": ["--dry-run"], "compare.py": ["--dry-run"],
               "tools/bench.py": ["--rounds", "1"]}
# Seconds after which a program is told to stop: its command line is right, and there is work to do.
# A slow machine needs longer for all, so that no limit decides whether an end is a clear one.
LIMIT = 30
LIMITS = {"tools/bench.py": 1, "tools/gate.py": 1}  # which always have


@cache
def flags_of(program):
    """The flags that a program's --help names."""
    child = Child(program, "--help")
    child.wait()
    return sorted(set(re.findall(r"--[a-z][a-z-]+", child.out)) - {"--help"})


def lines_of(program):
    """A hypothesis strategy of (program, words), made of its own flags, of junk, and of any text.
    """
    any_text = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")
    value = st.one_of(st.sampled_from(JUNK), st.text(any_text, max_size=20),
                      st.integers().map(str), st.floats().map(str))
    flag = st.one_of(st.sampled_from(flags_of(program)), value)
    budget = st.tuples(st.just("--flops"), st.sampled_from(["1e9", "3e12", "1e30"]))
    option = st.one_of(st.tuples(flag, value), st.tuples(flag), st.tuples(flag, value, value),
                       budget)

    def words_of(options):
        return [word for option in options for word in option]
    return st.tuples(st.just(program), st.lists(option, max_size=5).map(words_of))


def command_lines(lane, n=100):
    """Gives the programs `n` command lines that hypothesis makes."""
    failures = []

    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @seed(lane.random.randrange(2 ** 32))
    @given(st.sampled_from(PROGRAMS).flatmap(lines_of))
    def answers(line):
        try:
            answer(lane, *line)
        except Wrong as failure:
            # Kept from hypothesis, which would run it again, and where it ended otherwise then, as
            # a process may, would speak of a flaky test instead.
            failures.append(str(failure))
    answers()
    if failures:
        raise Wrong("\n".join(failures))
    return n


def answer(lane, program, words):
    """Gives a program one command line, in an empty folder. Raises Wrong unless it is taken, or
    refused clearly and without leaving anything."""
    folder = lane.new("cwd")
    folder.mkdir()
    words = [*FIRST_WORDS.get(program, []), *(word.replace("\0", "") for word in words)]
    child = Child(program, *words, folder=folder, inside=lambda: limit_memory(2 ** 34),
                  environment={"HOME": str(lane.folder), "COLUMNS": "80"})
    if not child.ends_within(LIMITS.get(program, LIMIT)):
        child.stop()
    a_cell_failed = child.status == 1 and program == "compare.py" and "Traceback" not in child.err
    if child.complaint and not a_cell_failed:
        raise Wrong(f"{program} {words!r}: {child.complaint}")
    if child.status == 2 and any(folder.iterdir()):
        names = [path.name for path in folder.rglob("*")]
        raise Wrong(f"{program} {words!r}: refused, and wrote {names}: {child.err[-500:]}")
    shutil.rmtree(folder, ignore_errors=True)


def limit_memory(n_bytes):
    """Limits the addresses that this process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


# --------------------------------------------------------------------------------------------------
# Texts

CHARACTERS = {"emoji": (0x1F300, 0x1FAFF), "right-to-left": (0x5D0, 0x6FF), "han": (0x4E00, 0x9FFF),
              "controls": (1, 31), "private": (0xE000, 0xF8FF), "any": (1, 0xD7FF)}


def texts(draw):
    """(what it is, its bytes) of a text that nobody would call well kept."""
    def word():
        return "".join(draw.choice("abcdefghijkl") for _ in range(draw.randint(1, 8)))

    def foreign(first, last):
        lines = ["".join(chr(draw.randint(first, last)) for _ in range(40)) for _ in range(100)]
        return "\n".join(lines).encode()
    lines = [" ".join(word() for _ in range(12)) for _ in range(draw.choice([3, 300]))]
    plain = "\n".join(lines)
    kinds = {name: foreign(*span) for name, span in CHARACTERS.items()} | {
        "plain": plain.encode(),
        "invalid UTF-8": plain.encode()[:-5] + draw.randbytes(draw.randint(1, 50)) + b"\n"
        + plain.encode(),
        "noise": draw.randbytes(5000),
        "NULs": bytes(5000),
        "a NUL": plain.encode() + b"\0" + plain.encode(),
        "UTF-16": plain.encode("utf-16"),
        "BOM": b"\xef\xbb\xbf" + plain.encode(),
        "CRLF": "\r\n".join(lines).encode(),
        "CR": "\r".join(lines).encode(),
        "Zalgo": ("a" + "̵͙́" * 500 + " b\n").encode() * 100,
        "empty lines": b"\n" * 10 ** draw.randint(0, 6),
        "spaces": b" " * 10 ** draw.randint(0, 6),
        "one line": " ".join(lines).encode() * draw.choice([1, 100]),
        "one word": b"a" * 10 ** draw.randint(0, 6),
        "special tokens": b"[CLS] [MASK] [SEP] [PAD] [UNK]\n" * 300,
        "same": b"the same line\n" * 500,
        "nothing": b"",
        "json in text": b'{"text": 1}\n' * 50}
    return draw.choice(sorted(kinds.items()))


HUGE_TEXTS = [("one line of 50 MB", b"the quick brown fox " * 2_500_000),
              ("10 million empty lines", b"\n" * 10 ** 7)]


def bad_text(lane):
    """Invalid, empty, endless, foreign: as lines of text, and inside JSON, CSV and Parquet."""
    draw, folder = lane.random, lane.new("text")
    folder.mkdir()
    name, content = texts(draw)
    if draw.random() < 0.01:
        name, content = draw.choice(HUGE_TEXTS)
    suffix = draw.choice([".txt", ".txt", ".txt", ".jsonl", ".csv", ".json", ".parquet", ".txt.gz"])
    if suffix == ".jsonl" and draw.random() < 0.7:
        lines = content.decode("utf-8", "replace").split("\n")
        content = b"\n".join(json.dumps({"text": line}).encode() for line in lines)
    path = folder / f"text{suffix}"
    path.write_bytes(content)
    tokenizer = draw.choice([["--vocab-size", str(draw.choice([6, 60, 5000]))],
                             ["--tokenizer", lane.teacher]])
    child = Child("train.py", *TINY, "--data", path, *tokenizer, "--out", folder / "run",
                  environment={"ISOFLOP_CACHE": str(folder / "cache")})
    child.wait()
    if child.complaint:
        raise Wrong(f"{name}, {suffix}, {tokenizer}: {child.line}: {child.complaint}")
    shutil.rmtree(folder)
    return 1


# --------------------------------------------------------------------------------------------------
# Folders of models


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Forgery:
    """The teacher's folder, changed by somebody who means harm. Code that comes with it would make
    the file `mark`."""

    def __init__(self, lane):
        self.draw = draw = lane.random
        self.folder, self.mark = lane.new("hostile"), lane.new("mark")
        shutil.copytree(lane.teacher, self.folder)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.tokenizer = json.loads((self.folder / "tokenizer.json").read_text())
        self.file = draw.choice(["config.json", "tokenizer.json", "model.safetensors"])
        self.key = draw.choice(sorted(self.config))
        record = self.folder / "run.json"
        if draw.random() < 0.3:  # one that says nothing of the files, or nonsense
            nonsense = [{"files": 3}, {"files": ["config.json"]}, {"files": None}, {},
                        {"settings": None}, {"finished": True, "files": {}}]
            record.write_text(json.dumps(draw.choice(nonsense)))
        else:
            record.unlink()
        kinds = self.weights() | self.configurations() | self.tokenizers() | self.files()
        self.name = draw.choice(sorted(kinds))
        kinds[self.name]()

    def write(self, name, content):
        """Puts bytes, or a value as JSON, in the place of a file."""
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).write_bytes(content)

    def write_endless(self, name):
        self.write(name, b"{")
        os.truncate(self.folder / name, 2 ** 40)

    def link(self, name, target):
        (self.folder / name).unlink()
        (self.folder / name).symlink_to(target)

    def pipe(self, name):
        (self.folder / name).unlink()
        os.mkfifo(self.folder / name)

    def configure(self, **changes):
        self.write("config.json", self.config | changes)

    def tokenize_with(self, **changes):
        self.write("tokenizer.json", self.tokenizer | changes)

    def weights(self):
        """{what is done to the weights: a function that does it}."""
        payload = pickle.dumps(Payload(self.mark))
        length = (2 ** self.draw.choice([20, 40, 62])).to_bytes(8, "little")
        huge = json.dumps({"x": {"dtype": "F32", "shape": [2 ** 40, 2 ** 20],
                                 "data_offsets": [0, 2 ** 62]}}).encode()

        def pickle_beside_nothing():
            (self.folder / "model.safetensors").unlink()
            self.write("pytorch_model.bin", payload)
        return {
            "pickle as weights": lambda: self.write("model.safetensors", payload),
            "pickle beside nothing": pickle_beside_nothing,
            "pickle as any file": lambda: self.write(self.file, payload),
            "header of the weights":
                lambda: self.write("model.safetensors", length + b"{" * 100),
            "sizes of the weights":
                lambda: self.write("model.safetensors", len(huge).to_bytes(8, "little") + huge)}

    def configurations(self):
        """{what is done to the configuration: a function that does it}."""
        draw, key = self.draw, self.key
        numbers = [name for name, value in self.config.items() if type(value) is int]

        def code():
            self.configure(auto_map={"AutoModel": "evil.Evil"}, trust_remote_code=True)
            self.write("evil.py", f"import os; os.system('touch {self.mark}')".encode())
        sizes = [10 ** 9, 10 ** 18, -1, 0, 2 ** 31, 1e308]
        others = [None, [], {}, "x", True, [[]] * 100, "9" * 10 ** 6]
        return {
            "code in the configuration": code,
            "absurd size": lambda: self.configure(**{key: draw.choice(sizes)}),
            "absurd sizes": lambda: self.configure(**dict.fromkeys(numbers, 10 ** 9)),
            "wrong type": lambda: self.configure(**{key: draw.choice(others)})}

    def tokenizers(self):
        """{what is done to the tokenizer: a function that does it}."""
        draw, model = self.draw, self.tokenizer["model"]
        others = [{"type": "BPE", "vocab": {}, "merges": []}, {"type": "Unigram", "vocab": []},
                  None, [], "x",
                  {"type": "WordLevel", "vocab": {"[MASK]": 0}, "unk_token": "x"}]
        huge_ids = {word: i * 10 ** 7 for word, i in model["vocab"].items()}
        slow_pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed",
                        "invert": False}
        part = draw.choice(sorted(self.tokenizer))
        return {
            "no BERT's tokenizer": lambda: self.tokenize_with(model=draw.choice(others)),
            "tokenizer with huge ids":
                lambda: self.tokenize_with(model={**model, "vocab": huge_ids}),
            "tokenizer with a bomb of a pattern":
                lambda: self.tokenize_with(pre_tokenizer=slow_pattern),
            "tokenizer with parts of wrong kind":
                lambda: self.tokenize_with(**{part: draw.choice([None, [], {}, 5, "x"])})}

    def files(self):
        """{what takes the place of any file: a function that puts it there}."""
        draw, file = self.draw, self.file
        devices = ["/dev/zero", "/dev/random", "/dev/stdin", "/dev/full"]
        targets = ["/etc/passwd", "/proc/self/mem", "/", "../../..", "/proc/kmsg",
                   str(self.folder / file)]
        return {
            "deep JSON": lambda: self.write(file, b"[" * 10 ** 6),
            "endless JSON": lambda: self.write_endless(file),
            "a device": lambda: self.link(file, draw.choice(devices)),
            "a pipe": lambda: self.pipe(file),
            "link out of the folder": lambda: self.link(file, draw.choice(targets))}


def hostile_folder(lane):
    """A hostile model's folder, given as teacher, as tokenizer, or as model to score."""
    forgery = Forgery(lane)
    line = lane.line_with(lane.any_job(), forgery.folder)
    child = Child(*line, "--out", lane.new(), inside=lambda: limit_memory(2 ** 35))
    child.wait()
    what = f"{forgery.name} ({forgery.file}, {forgery.key}): {child.line}"
    if forgery.mark.exists():
        raise Wrong(f"{what}: ran its code")
    if child.complaint:
        raise Wrong(f"{what}: {child.complaint}")
    if child.memory > 1.5 * 2 ** 30:
        raise Wrong(f"{what}: took {child.memory / 2 ** 30:.1f} GiB of memory")
    shutil.rmtree(forgery.folder)
    return 1
