"""Where the files of a GLUE task lie: the layouts that people have.

    glue_data/RTE/train.tsv                          the official download
    glue/rte/train-00000-of-00001.parquet            the hub's, also as .jsonl .json .csv .arrow
    glue/rte/train/data-00000-of-00001.arrow         save_to_disk of the library `datasets`

    find(Path("glue_data"), "rte", "RTE")    # (glue_data/RTE, {"train": [File], "dev": [File]})

A folder's name counts without its case and its punctuation: SST-2, sst-2 and SST2 are one task.
Files may be compressed (.gz .bz2 .xz .zst), and several shards are read in the order of their
numbers. Hidden files and all other names are ignored, since the official download has many more
files. Where the names leave open what is meant, that is an error.
"""
import re
from pathlib import Path
from typing import NamedTuple, Optional

from plumbing import files
from plumbing.files import File
from program.cli import UserError


class Missing(UserError):
    """The files of a task are missing. That is an error where the task was asked for by name; where
    all tasks were asked for, it is skipped."""


# The names of the parts. MNLI has two of each but the training set.
PART = re.compile(rf"({'|'.join(files.WORDS)})(?:[-_](matched|mismatched))?")
# A shard: train-00000-of-00002. The hub once added a hash to that.
SHARD = re.compile(r"(?:(.+?)[-_.])?(\d+)(?:-of-(\d+))?(?:-[0-9a-f]{16})?")
KINDS = ("tsv", "json", "csv", "parquet", "arrow")


def plain(name):
    """The name of a task, of a folder, or of an answer in `--tasks`, without case and punctuation:
    SST-2 -> sst2"""
    return re.sub(r"[\W_]", "", str(name).lower())


def find(root, name, official, is_only=False):
    """(folder of the task, {part: its Files in order}) of the task that is called `name`, and
    `official` in the official download. The parts are "train", "dev", "test", or such as
    "dev_matched".

    root: a folder with a folder for each task, or the task's own folder. It is the task's own where
    it is called like the task, or where `is_only`: the user asked for this task only. Raises
    Missing where there is no such task, and UserError where two layouts are there."""
    inside = [path for path in visible(root) if path.is_dir() and plain(path.name) == name]
    folders = inside + [root] * may_be_own(root, name, is_only)
    parts = {folder.resolve(): parts_in(folder) for folder in folders}
    with_files = [folder for folder in folders if parts[folder.resolve()]]
    if len({folder.resolve() for folder in with_files}) > 1:
        raise UserError(f"{official} is there twice, in {' and in '.join(map(str, with_files))}: "
                        "keep one of them, or name it with --data")
    if not folders:
        raise Missing(f"{official}: {root}/{official}/train.tsv is missing; looked for a folder "
                      f"{official} or {name} with train.tsv, {others('train')}")
    folder = (with_files or folders)[0]
    ordered = {part: in_order(shards, part) for part, shards in parts[folder.resolve()].items()}
    return folder, ordered


def others(part):
    """The names under which a part is looked for beside train.tsv, in words."""
    hub = part.replace("dev", "validation")
    return f"{hub}.jsonl, {hub}.json, {hub}.csv, {hub}-*.parquet or {hub}/*.arrow"


# --------------------------------------------------------------------------------------------------
# A task's own folder


def tasks_called_like(folder):
    """How a folder is called: its name, and where it is a link, that of what it stands for."""
    return {plain(folder.absolute().name), plain(folder.resolve().name)}


def own_task(root, names):
    """The task of `names` whose own folder `root` is, by its name and its files. None where it is
    none's."""
    for name in names:
        if name in tasks_called_like(root) and parts_in(root):
            return name
    return None


def may_be_own(root, name, is_only):
    """Whether `root` may be the task's own folder."""
    return name in tasks_called_like(root) or (is_only and bool(parts_in(root)))


# --------------------------------------------------------------------------------------------------
# The files in a task's folder


class Shard(NamedTuple):
    """A file of a part. Its number and their count are None where the name does not say them."""
    file: File
    word: str                # the part's name as it is spelled, such as "validation"
    number: Optional[int]
    count: Optional[int]


def visible(folder):
    """What lies in a folder, without hidden files and folders, in alphabetical order."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def parts_in(folder):
    """{part: [Shard]}: the files of a task in its folder, either train.tsv or train/ANY.tsv."""
    parts = {}
    for path in visible(folder):
        if path.is_dir():
            part = part_called(path.name)
            for inner in visible(path) if part else ():
                if is_data(inner):
                    _, number, count = split_name(inner.name)
                    parts.setdefault(part, []).append(shard(inner, path.name, number, count))
        elif is_data(path):
            word, number, count = split_name(path.name)
            if part := part_called(word):
                parts.setdefault(part, []).append(shard(path, word, number, count))
    return parts


def is_data(path):
    """Whether a path is a file of rows."""
    is_file = path.is_file() and not files.RECORDS.fullmatch(path.name)
    return is_file and files.kind_of(path.name) in KINDS


def shard(path, word, number, count):
    """The Shard at a path."""
    return Shard(File(path, files.kind_of(path.name), None), word.lower(), number, count)


def part_called(word):
    """The part that a word names: "validation_matched" -> "dev_matched". None where it names
    none."""
    match = PART.fullmatch((word or "").lower())
    if not match:
        return None
    part = files.WORDS[match[1]].replace("validation", "dev")
    return f"{part}_{match[2]}" if match[2] else part


def split_name(name):
    """The name of a file -> (what it is called, number, count), of which the last two may be None:
    "train-00000-of-00002.parquet" -> ("train", 0, 2)"""
    path = Path(name)
    if path.suffix.lower() not in files.KINDS:  # an ending of compression
        path = path.with_suffix("")
    match = SHARD.fullmatch(path.stem)
    if not match:
        return path.stem, None, None
    return match[1], int(match[2]), int(match[3]) if match[3] else None


def in_order(shards, part):
    """The Files of a part, in the order of their numbers. Raises UserError where it is there more
    than once, such as train.tsv and train.jsonl, or where shards are missing."""
    places = {(shard.file.path.parent, shard.file.kind, shard.word, shard.count)
              for shard in shards}
    numbers = {shard.number for shard in shards}
    names = ", ".join(str(shard.file) for shard in shards[:4])
    is_numbered = len(shards) == 1 or None not in numbers
    if len(places) > 1 or len(numbers) < len(shards) or not is_numbered:
        raise UserError(f"the part {part} is there more than once: {names}; keep one of them")
    if numbers != {None}:
        check_numbers(names, numbers, shards[0].count)
    return [shard.file for shard in sorted(shards, key=lambda shard: shard.number or 0)]


def check_numbers(names, numbers, count):
    """Raises UserError where shards are missing. Their numbers begin at 0, or at 1 where no name
    says how many there are. names: what error lines call the files."""
    if count and len(numbers) != count:
        raise UserError(f"{names}: {len(numbers)} of {count} files; wanted are all of them")
    first = 1 if count is None and 0 not in numbers else 0
    wanted = set(range(first, first + len(numbers)))
    if numbers != wanted:
        missing = min(wanted - numbers)
        raise UserError(f"{names}: the file with number {missing} is missing, where the numbers "
                        f"begin at {first} and go up to {max(numbers)}")
