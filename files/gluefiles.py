"""The tasks that students are scored on: GLUE's files with their quirks, GLUE on the hub, and the
embedded world's own tasks.

    tasks, skipped = load_tasks("glue_data", "all", world.tasks.examples)
    tasks[0].parts["train"]    # [(first text, second text or None, label), ...]
    skipped                    # ["MNLI: glue_data/MNLI/train.tsv is missing, ...", ...]

    glue_data/RTE/train.tsv                     the official download
    glue/rte/train-00000-of-00001.parquet       the hub's files

A label is a number: an index into `task.labels`, or for STS-B a score from 0 to 5.
"""
import collections
import contextlib
import json
import math
import re
from pathlib import Path
from typing import NamedTuple, Optional

from files import disk
from program import cli
from program.cli import UserError

from measure import metrics


class Missing(UserError):
    """The files of a task are missing: an error where it was asked for by name, else skipped."""


class Task(NamedTuple):
    """A task with its examples, (first text, second text or None, label) each."""
    name: str
    parts: dict                 # {"train": [example], "dev": [example], ...}
    labels: Optional[tuple]     # the labels' names; None where the label is a score
    metrics: tuple
    scored: tuple               # parts that are scored; the first one chooses the best setting

    @property
    def fingerprint(self):
        """A short name for the examples that a score depends on."""
        return disk.fingerprint([self.parts["train"], *(self.parts[part] for part in self.scored)])

    @property
    def majority(self):
        """{part: {metric: the value of a constant answer}}. The answer is the most frequent label
        of the training set, or 0 for a task of scores."""
        counts = collections.Counter(label for _, _, label in self.parts["train"])
        answer = counts.most_common(1)[0][0] if self.labels else 0.0
        values = {}
        for part in self.scored:
            labels = [label for _, _, label in self.parts[part]]
            scores = {metric.__name__: metric([answer] * len(labels), labels)
                      for metric in self.metrics}
            # A constant answer has no correlation with anything: nan counts as 0.
            values[part] = {name: 0.0 if math.isnan(x) else x for name, x in scores.items()}
        return values


# --------------------------------------------------------------------------------------------------
# GLUE (Wang et al. 2018)


class Format(NamedTuple):
    """What the files of a task look like."""
    folder: str
    columns: tuple                       # names in the header: (first, second or None, label)
    labels: Optional[tuple]              # in the order of the hub's numbers
    metrics: tuple
    dev: tuple = ("dev",)
    hub_columns: Optional[tuple] = None  # where the hub has other names
    hub_labels: Optional[tuple] = None   # likewise


BINARY, ENTAILS = ("0", "1"), ("entailment", "not_entailment")
GLUE = {
    "cola": Format("CoLA", ("sentence", None, "label"), BINARY, (metrics.matthews,),
                   hub_labels=("unacceptable", "acceptable")),
    "sst2": Format("SST-2", ("sentence", None, "label"), BINARY, (metrics.accuracy,),
                   hub_labels=("negative", "positive")),
    "mrpc": Format("MRPC", ("#1 String", "#2 String", "Quality"), BINARY,
                   (metrics.accuracy, metrics.f1), hub_columns=("sentence1", "sentence2", "label"),
                   hub_labels=("not_equivalent", "equivalent")),
    "qqp": Format("QQP", ("question1", "question2", "is_duplicate"), BINARY,
                  (metrics.accuracy, metrics.f1), hub_columns=("question1", "question2", "label"),
                  hub_labels=("not_duplicate", "duplicate")),
    "stsb": Format("STS-B", ("sentence1", "sentence2", "score"), None,
                   (metrics.pearson, metrics.spearman),
                   hub_columns=("sentence1", "sentence2", "label")),
    "mnli": Format("MNLI", ("sentence1", "sentence2", "gold_label"),
                   ("entailment", "neutral", "contradiction"), (metrics.accuracy,),
                   dev=("dev_matched", "dev_mismatched"),
                   hub_columns=("premise", "hypothesis", "label")),
    "qnli": Format("QNLI", ("question", "sentence", "label"), ENTAILS, (metrics.accuracy,)),
    "rte": Format("RTE", ("sentence1", "sentence2", "label"), ENTAILS, (metrics.accuracy,)),
    "wnli": Format("WNLI", ("sentence1", "sentence2", "label"), BINARY, (metrics.accuracy,),
                   hub_labels=("not_entailment", "entailment")),
}
EMBEDDED = {"acceptability": (metrics.matthews,), "sentiment": (metrics.accuracy,),
            "paraphrase": (metrics.accuracy, metrics.f1), "entailment": (metrics.accuracy,)}


# --------------------------------------------------------------------------------------------------
# Examples and their labels

COLA_HEADER = ["source", "label", "star", "sentence"]  # CoLA's train and dev files do not have it
CUT_MOST = 0.01  # of a file's lines may be cut in two, as a few of the official QQP are


def read_tsv(path, form):
    """A file of the official download -> its examples. Raises UserError where it is damaged.

    Quotes are ordinary characters, as MRPC needs it, and a byte-order mark is skipped, which MRPC
    has. Only a newline ends a line, since texts hold other characters that Python takes for one."""
    content = disk.read_text(path).removeprefix("\ufeff").rstrip("\r\n")
    lines = [line.removesuffix("\r").split("\t") for line in content.split("\n")]
    has_header = form.folder != "CoLA"
    header = lines.pop(0) if has_header else COLA_HEADER
    check_columns(f"{path}, line 1", form.columns, header)
    numbers = {label: i for i, label in enumerate(form.labels or ())}
    examples, cut = [], 0
    for n, line in enumerate(lines, start=1 + has_header):
        if form.folder == "QQP" and len(line) < len(header):
            cut += 1  # everybody leaves these out
            continue
        if len(line) != len(header):
            raise UserError(f"{path}, line {n}: {len(line)} columns where {len(header)} should be")
        row = dict(zip(header, line))
        examples.append(example_of(f"{path}, line {n}", row, form.columns, numbers))
    if cut:
        words = f"{path}: {cut:,} of {len(lines):,} lines are cut off and have too few columns"
        if cut > CUT_MOST * len(lines):
            raise UserError(f"{words}: download the file again")
        cli.say(f"{words}: they are left out")
    return examples


def read_parquet(path, form):
    """A file with the hub's columns -> its examples. Raises UserError where it is damaged."""
    from pyarrow import parquet  # here: it takes a moment, and few runs need it
    try:
        with open(path, "rb") as file:
            table = parquet.ParquetFile(file).read()
        table.validate(full=True)  # raises where a text is not UTF-8
    except Exception as failure:  # Arrow raises many kinds
        raise UserError(f"{path} cannot be read ({type(failure).__name__}: "
                        f"{cli.one_line(failure)}): check that the file is whole") from None
    columns = form.hub_columns or form.columns
    check_columns(path, columns, table.column_names)
    numbers = label_numbers(path, table.schema, columns[2], form)
    rows = table.select([column for column in columns if column]).to_pylist()
    return [example_of(f"{path}, row {n} counted from 0", row, columns, numbers)
            for n, row in enumerate(rows)]


def check_columns(place, columns, names):
    """Raises UserError unless each column that is wanted is once among the names."""
    wanted = [column for column in columns if column]
    if any(names.count(column) != 1 for column in wanted):
        raise UserError(f"{place} should name the columns {', '.join(wanted)}, once each, and "
                        f"names {cli.one_line(', '.join(names)) or 'none'}: take GLUE's own file")


def example_of(place, row, columns, numbers):
    """{column: value} -> (first text, second text or None, label). columns: the names of these
    three. Raises UserError where a value is no text or no label."""
    for column in columns[:2]:
        if column and not isinstance(row[column], str):
            value = "null" if row[column] is None else repr(row[column])[:40]
            raise UserError(f"{place}: {column} is {value}, no text")
    first, second, label = (row[column] if column else None for column in columns)
    return first, second, label_number(place, label, numbers)


def label_number(place, value, numbers):
    """The number of a label, or a score. numbers: {how a label is written: its number}, or {}."""
    # Where a column has empty places, pandas writes 1 as 1.0.
    text = value if isinstance(value, str) else str(value).removesuffix(".0")
    if text in numbers:
        return numbers[text]
    with contextlib.suppress(ValueError):
        if not numbers and 0 <= float(text) <= 5:
            return float(text)
    wanted = ", ".join(numbers) or "the scores from 0 to 5"
    raise UserError(f"{place}: the label {text[:40]!r} is none of {wanted}")


def label_numbers(place, schema, column, form):
    """{how a label is written in the hub's columns: its number}, empty for scores: its name, or a
    stored number, which means the name that the schema gives it, or else the hub's. Raises
    UserError where the schema has other names."""
    # `datasets.Features.from_arrow_schema` loses the names where the numbers are not int64.
    names = json.loads((schema.metadata or {}).get(b"huggingface", "{}"))
    for key in ("info", "features", column, "names"):
        names = names.get(key) if isinstance(names, dict) else None
    own = form.hub_labels or form.labels or ()
    if not names or names == [str(i) for i in range(len(own))]:  # labels without names
        names = own
    if sorted(names) != sorted(own):
        raise UserError(f"{place}: the labels are called {cli.one_line(', '.join(names))}, and "
                        f"wanted are {', '.join(own) or 'scores from 0 to 5'}")
    by_name = {name: i for i, name in enumerate(own)}
    return {str(stored): by_name[name] for stored, name in enumerate(names)} | by_name


# --------------------------------------------------------------------------------------------------
# Where the tasks lie

TAKEN = re.compile(r"(train|dev(_(mis)?matched)?)\.tsv|"
                   r"(train|validation(_(mis)?matched)?)-\d+-of-\d+[-\w]*\.parquet")
OTHER = re.compile(r"(train(ing)?|dev|val(id(ation)?)?|eval(uation)?)"
                   r"([-_](mis)?matched)?([-_.]\d.*|/.*)?"
                   r"\.(tsv|csv|jsonl?|parquet|arrow)(\.\w+)?", re.IGNORECASE)


def plain(name):
    """The name of a task or folder without case and punctuation: SST-2 -> sst2"""
    return re.sub(r"[\W_]", "", str(name).lower())


def glue_from_folder(name, root):
    """A Task from its folder in `root`, or from `root` itself where that is called like the task.
    Raises Missing where a file is missing, and UserError where one is damaged."""
    form = GLUE[name]
    folders = {path.resolve(): path for path in (*sorted(root.iterdir()), root) if path.is_dir()
               and plain(path.absolute().name) == name and not path.name.startswith(".")}
    if len(folders) > 1:
        raise UserError(f"{form.folder} is there twice: {', '.join(map(str, folders))}")
    folder = next(iter(folders.values()), root / form.folder)
    for path in sorted([*folder.glob("*"), *folder.glob("*/[!.]*")]):
        inside = path.relative_to(folder).as_posix()
        if OTHER.fullmatch(inside) and not TAKEN.fullmatch(inside):
            raise UserError(f"{path}: GLUE is read from train.tsv and dev.tsv, or from the hub's "
                            "train-00000-of-00001.parquet and validation-...: save it so, or move "
                            "it away")
    parts = {part: read_part(folder, part, form) for part in ("train", *form.dev)}
    for part, examples in parts.items():
        if not examples:
            raise Missing(f"{form.folder}: {folder}/{part}.tsv is missing, and so is "
                          f"{part.replace('dev', 'validation')}-00000-of-00001.parquet")
    return Task(name, parts, form.labels, form.metrics, form.dev)


def read_part(folder, part, form):
    """The examples of a part, [] where its files are missing. Raises UserError where it is there
    twice, or not wholly, or is empty."""
    hub = part.replace("dev", "validation")
    tsv, shards = folder / f"{part}.tsv", sorted(folder.glob(f"{hub}-*.parquet"))
    # The hub once wrote a hash behind the numbers.
    is_one_save = all(path.name.startswith(f"{hub}-{i:05}-of-{len(shards):05}")
                      for i, path in enumerate(shards))
    if not is_one_save or tsv.exists() and shards:
        names = ", ".join(path.name for path in (tsv, *shards) if path.exists())
        raise UserError(f"{folder}: wanted is {part}.tsv, or all files of one save, "
                        f"{hub}-00000-of-N.parquet and so on, and there are {names}")
    examples = read_tsv(tsv, form) if tsv.exists() else []
    for path in shards:
        examples += read_parquet(path, form)
    if not examples and (shards or tsv.exists()):
        raise UserError(f"{folder}: the part {part} is empty")
    return examples


def load_tasks(data, names, examples):
    """([Task], [why a task was skipped]). data: "stories", a folder, or a hub id; names: "all", or
    some like "cola,rte". examples(name, part): those of the embedded world, world.tasks.examples.

    Raises UserError where there is no such task, where a task is damaged, and where one that is
    asked for by name is missing. Of "all", the tasks that are missing are skipped."""
    known = EMBEDDED if data == "stories" else GLUE
    is_all = plain(names) == "all"
    wanted = list(known if is_all else dict.fromkeys(map(plain, names.split(","))))
    for name in wanted:
        if name not in known:
            raise UserError(f"--tasks {names}: {name!r} is no task of {data}: name some of "
                            f"{', '.join(known)}, or say all, alone")
    if data == "stories":
        return [Task(name, {part: examples(name, part) for part in ("train", "dev", "test")},
                     ("no", "yes"), EMBEDDED[name], ("dev", "test")) for name in wanted], []
    path = disk.path_of(data)
    if is_all and path.is_dir() and plain(path.absolute().name) in GLUE:  # the folder of one task
        wanted = [plain(path.absolute().name)]
    folder = disk.fetch(data, [f"{name}/*.parquet" for name in wanted], "dataset")
    tasks, skipped = [], []
    for name in wanted:
        try:
            tasks.append(glue_from_folder(name, folder))
        except Missing as failure:
            if not is_all:
                raise
            skipped.append(str(failure))
    if not tasks:
        raise UserError(f"{data} holds no task of GLUE that can be read: {skipped[0]}")
    return tasks, skipped


# --------------------------------------------------------------------------------------------------
# glue.json, with the fine-tunings that are finished


def glue_folder(model):
    """Where a model's glue.json goes: into its own folder, or for a hub id into one in runs/."""
    return Path(model) if Path(model).is_dir() else Path("runs") / f"glue-{Path(model).name}"


def read_glue_json(path):
    """{"cells": [cell with its scores]}, with no cells where there is no file."""
    cells = disk.read_json(path).get("cells") if path.exists() else []
    if not isinstance(cells, list) or not all(
            isinstance(cell, dict) and isinstance(cell.get("scores"), dict) for cell in cells):
        raise UserError(f"{path} is damaged: remove it, and its cells are made again")
    return {"cells": cells}


def finished_cell(kept, cell):
    """The finished fine-tuning of a cell, or None. It may have entries that the cell does not name,
    such as its scores. Where the data lie does not count: what they are says `examples_sha256`."""
    wanted = {key: value for key, value in cell.items() if key != "data"}
    return next((finished for finished in kept["cells"]
                 if all(finished.get(key) == value for key, value in wanted.items())), None)
