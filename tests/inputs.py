"""What the fault campaign (faults.py) gives to the programs: command lines, texts, model folders. A
program must take the input or refuse it in one line, and it must run no code that comes with it.
"""
import json
import os
import re
import resource
import shutil
from functools import cache

from children import PROGRAMS, Child
from undisturbed import TINY, Wrong

# --------------------------------------------------------------------------------------------------
# Command lines

JUNK = ["", "0", "-1", "1e13", "1e99999999", "nan", "inf", "None", "1x1", "2x64", "2x65",
        "96x12288", "🙂", "a b", "--", "-", "../..", "/", "/dev/null", "/dev/zero",
        "/proc/self/mem", "stories", "kd", "scratch", "cpu", "cuda:99", "mps", "bf16",
        "no/such/model", "1,2,3", "1e3,x", "%s%n", "$(touch x)", "'", "\n", "é" * 300, "=", "all",
        "cola", "paper", "1_000", "٣", "0x10", "1/3", "1e-400", "9" * 400]
FIRST_WORDS = {"train.py": ["--dry-run"], "compare.py": ["--dry-run"],
               "tools/bench.py": ["--rounds", "1"]}
# Seconds after which a program is ended: its command line is right, and there is work to do.
LIMIT, LIMITS = 30, {"tools/bench.py": 1, "tools/gate.py": 1}  # the two always have


@cache
def flags_of(program):
    """The flags that a program's --help names."""
    child = Child(program, "--help")
    child.wait()
    return sorted(set(re.findall(r"--[a-z][a-z-]+", child.out)) - {"--help"})


def value(draw):
    """Junk, a number, or any text."""
    letters = "".join(chr(draw.randint(1, 0xD7FF)) for _ in range(draw.randint(0, 20)))
    number = draw.choice([draw.randint(-10 ** 12, 10 ** 12), draw.uniform(-9, 9), 1e300])
    return draw.choice([draw.choice(JUNK), draw.choice(JUNK), letters, str(number)])


def words_for(draw, program):
    """Up to five options of a program: its own flags, most of them, with none to two values."""
    words = []
    for _ in range(draw.randint(0, 5)):
        flag = draw.choice([*flags_of(program), value(draw)])
        words += [flag, *(value(draw) for _ in range(draw.choice([0, 1, 1, 2])))]
        words += draw.choice([[]] * 4 + [["--flops", draw.choice(["1e9", "3e12", "1e30"])]])
    return words


def command_lines(lane):
    """Gives the programs a hundred command lines."""
    for _ in range(100):
        program = lane.random.choice(PROGRAMS)
        answer(lane, program, words_for(lane.random, program))
    return 100


def answer(lane, program, words):
    """Gives a program one command line, in an empty folder. Raises Wrong unless it is taken, or
    refused clearly and without leaving anything."""
    folder = lane.new("cwd")
    folder.mkdir()
    child = Child(program, *FIRST_WORDS.get(program, []), *words, folder=folder,
                  inside=lambda: limit_memory(2 ** 34),
                  environment={"HOME": str(lane.folder), "COLUMNS": "80"})
    works_long = not child.ends_within(LIMITS.get(program, LIMIT))
    child.end()
    a_cell_failed = child.status == 1 and program == "compare.py" and "Traceback" not in child.err
    if child.complaint and not works_long and not a_cell_failed:
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

def texts(draw):
    """{what it is: the bytes of a text} that nobody would call well kept."""
    lines = [" ".join("".join(draw.choices("abcdefghijkl", k=draw.randint(1, 8)))
                      for _ in range(12)) for _ in range(draw.choice([3, 300]))]
    plain = "\n".join(lines).encode()
    start = draw.choice([1, 0x5D0, 0x4E00, 0xE000, 0x1F300])  # controls, Hebrew, Chinese, emoji
    foreign = "\n".join("".join(chr(start + draw.randrange(700)) for _ in range(40))
                        for _ in range(100))
    return {
        "foreign": foreign.encode(), "nothing": b"", "noise": draw.randbytes(5000),
        "invalid UTF-8": plain[:-5] + draw.randbytes(draw.randint(1, 50)) + b"\n" + plain,
        "a NUL": plain + b"\0" + plain, "UTF-16": plain.decode().encode("utf-16"),
        "BOM": b"\xef\xbb\xbf" + plain, "CRLF": plain.replace(b"\n", b"\r\n"),
        "Zalgo": ("a" + "̵͙́" * 500 + " b\n").encode() * 100,
        "empty lines": b"\n" * 10 ** 6, "one word": b"a" * 10 ** draw.randint(0, 6),
        "one line": plain.replace(b"\n", b" ") * draw.choice([1, 100]),
        "special tokens": b"[CLS] [MASK] [SEP] [PAD] [UNK]\n" * 300,
        "json in text": b'{"text": 1}\n' * 50}


def bad_text(lane):
    """Invalid, empty, endless, foreign: as lines of text, and inside JSON, CSV and Parquet."""
    draw, folder = lane.random, lane.new("text")
    folder.mkdir()
    name, content = draw.choice(sorted(texts(draw).items()))
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




def other_weights(draw, payload):
    """What may stand in the place of model.safetensors: {what: {file's name: its content}}."""
    length = (2 ** draw.choice([20, 40, 62])).to_bytes(8, "little")
    huge = json.dumps({"x": {"dtype": "F32", "shape": [2 ** 40, 2 ** 20],
                             "data_offsets": [0, 2 ** 62]}}).encode()
    name = "model.safetensors"
    return {"pickle as weights": {name: payload},
            "pickle beside nothing": {name: None, "pytorch_model.bin": payload},
            "header of the weights": {name: length + b"{" * 100},
            "sizes of the weights": {name: len(huge).to_bytes(8, "little") + huge}}


def other_entries(draw, folder):
    """Other entries of config.json and tokenizer.json."""
    config, tokenizer = (json.loads((folder / name).read_text())
                         for name in ("config.json", "tokenizer.json"))
    key, part = draw.choice([*config]), draw.choice([*tokenizer])
    model = tokenizer["model"]
    huge_ids = {word: i * 10 ** 7 for word, i in model["vocab"].items()}
    bomb = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed",
            "invert": False}
    wrong = draw.choice([None, [], {}, "x", True, [[]] * 100, "9" * 10 ** 6])
    rows = [
        ("code", "config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
        ("absurd size", "config.json", {key: draw.choice([10 ** 9, 10 ** 18, -1, 0, 1e308])}),
        ("wrong type", "config.json", {key: wrong}),
        ("no BERT's tokenizer", "tokenizer.json", {"model": {"type": "BPE", "vocab": {},
                                                             "merges": []}}),
        ("huge ids", "tokenizer.json", {"model": {**model, "vocab": huge_ids}}),
        ("bomb of a pattern", "tokenizer.json", {"pre_tokenizer": bomb}),
        ("part of wrong kind", "tokenizer.json", {part: wrong})]
    whole = {"config.json": config, "tokenizer.json": tokenizer}
    return {name: {file: json.dumps(whole[file] | entries).encode()}
            for name, file, entries in rows}


def other_files(draw, folder, payload):
    """What takes the place of any file. A function makes what is no bytes."""
    file = draw.choice(["config.json", "tokenizer.json", "model.safetensors", "run.json"])
    place = draw.choice(["/dev/zero", "/dev/random", "/dev/stdin", "/dev/full", "/etc/passwd",
                         "/proc/self/mem", "/", "../../..", "/proc/kmsg", folder / file])

    def endless(path):
        path.write_bytes(b"{")
        os.truncate(path, 2 ** 40)
    contents = {"pickle as": payload, "deep JSON as": b"[" * 10 ** 6, "endless": endless,
                "pipe": os.mkfifo, f"link to {place} as": lambda path: path.symlink_to(place),
                "nonsense in": draw.choice([b'{"files": 3}', b'{"files": ["config.json"]}',
                                            b'{"settings": null}', b'{"finished": true}'])}
    return {f"{name} {file}": {file: content} for name, content in contents.items()}


def hostile_folder(lane):
    """The teacher's folder, changed by somebody who means harm, given in its place. Code that comes
    with it would make the file `mark`."""
    draw, folder, mark = lane.random, lane.new("hostile"), lane.new("mark")
    shutil.copytree(lane.teacher, folder)
    (folder / "run.json").unlink()
    (folder / "evil.py").write_text(f"import os; os.system('touch {mark}')")
    payload = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()  # a pickle that calls os.system
    kinds = other_weights(draw, payload) | other_entries(draw, folder)
    kinds |= other_files(draw, folder, payload)
    name = draw.choice(sorted(kinds))
    for file, content in kinds[name].items():
        (folder / file).unlink(missing_ok=True)
        if callable(content):
            content(folder / file)
        elif content is not None:
            (folder / file).write_bytes(content)
    line = lane.line_with(lane.any_job(), folder)
    child = Child(*line, "--out", lane.new(), inside=lambda: limit_memory(2 ** 35))
    child.wait()
    what = f"{name}: {child.line}"
    if mark.exists():
        raise Wrong(f"{what}: ran its code")
    if child.complaint:
        raise Wrong(f"{what}: {child.complaint}")
    if child.memory > 1.5 * 2 ** 30:
        raise Wrong(f"{what}: took {child.memory / 2 ** 30:.1f} GiB of memory")
    shutil.rmtree(folder)
    return 1
