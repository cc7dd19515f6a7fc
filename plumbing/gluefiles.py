"""The tasks that students are scored on: GLUE's files with their quirks, GLUE on the hub, and the embedded world's own.

    tasks, skipped = load("glue_data", "cola,rte")       # [Task, ...], ["MNLI: no such folder", ...]
    task.parts["train"]                                  # [(first text, second text or None, label), ...]

A label is a number: an index into `task.labels`, or for STS-B a score from 0 to 5.
"""
import collections
import math
import re
import zipfile
from typing import NamedTuple, Optional

from plumbing import cli, disk
from plumbing.cli import UserError

from measure import metrics
from world import tasks as world_tasks


class Missing(UserError):
    """A task whose files are not there: an error where it was asked for, and skipped among all."""


class Task(NamedTuple):
    name: str
    parts: dict                 # {"train": [(first, second, label)], "dev": ..., ...}
    labels: Optional[tuple]     # the labels' names; None: a score
    metrics: tuple
    scored: tuple               # the parts with labels that are scored; the first one chooses the best setting
    submissions: dict = {}      # {part without labels: (file of the leaderboard, its rows)}
    spells_names: bool = False  # whether the leaderboard wants names, not numbers

    @property
    def fingerprint(self):
        return disk.fingerprint([self.parts["train"], *(self.parts[part] for part in self.scored)])

    @property
    def majority(self):
        """{part: {metric: what always giving the training set's most frequent label (or its mean score) is worth}}"""
        labels = [label for _, _, label in self.parts["train"]]
        answer = collections.Counter(labels).most_common(1)[0][0] if self.labels else 0.0
        def worth(metric, part):
            value = metric([answer] * len(self.parts[part]), [label for _, _, label in self.parts[part]])
            return value if value == value else 0.0  # a constant correlates with nothing: nan
        return {part: {metric.__name__: worth(metric, part) for metric in self.metrics} for part in self.scored}

    def spell(self, value):
        """A prediction as the leaderboard wants it."""
        if self.labels is None:
            return f"{min(5.0, max(0.0, float(value))):.3f}"
        return self.labels[int(value)] if self.spells_names else str(int(value))


# ---------------------------------------------------------------------------------------------------------------------
# GLUE (Wang et al. 2018)

class Format(NamedTuple):
    """A task's files: the folder, the columns of texts and label, and what the leaderboard wants of it."""
    folder: str
    columns: tuple                      # names in the header of train and dev: (first, second or None, label)
    labels: Optional[tuple]             # in the order of the hub's numbers
    metrics: tuple
    submissions: dict                   # {test file: (submission file, rows)}
    dev: tuple = ("dev",)
    hub_columns: Optional[tuple] = None  # where the hub's names are others

BINARY, ENTAILS = ("0", "1"), ("entailment", "not_entailment")
GLUE = {
    "cola": Format("CoLA", ("sentence", None, "label"), BINARY, (metrics.matthews,), {"test": ("CoLA.tsv", 1063)}),
    "sst2": Format("SST-2", ("sentence", None, "label"), BINARY, (metrics.accuracy,), {"test": ("SST-2.tsv", 1821)}),
    "mrpc": Format("MRPC", ("#1 String", "#2 String", "Quality"), BINARY, (metrics.accuracy, metrics.f1), {"test": ("MRPC.tsv", 1725)},
                   hub_columns=("sentence1", "sentence2", "label")),
    "qqp": Format("QQP", ("question1", "question2", "is_duplicate"), BINARY, (metrics.accuracy, metrics.f1), {"test": ("QQP.tsv", 390965)},
                  hub_columns=("question1", "question2", "label")),
    "stsb": Format("STS-B", ("sentence1", "sentence2", "score"), None, (metrics.pearson, metrics.spearman), {"test": ("STS-B.tsv", 1379)},
                   hub_columns=("sentence1", "sentence2", "label")),
    "mnli": Format("MNLI", ("sentence1", "sentence2", "gold_label"), ("entailment", "neutral", "contradiction"), (metrics.accuracy,),
                   {"test_matched": ("MNLI-m.tsv", 9796), "test_mismatched": ("MNLI-mm.tsv", 9847), "diagnostic": ("AX.tsv", 1104)}, dev=("dev_matched", "dev_mismatched"),
                   hub_columns=("premise", "hypothesis", "label")),
    "qnli": Format("QNLI", ("question", "sentence", "label"), ENTAILS, (metrics.accuracy,), {"test": ("QNLI.tsv", 5463)}),
    "rte": Format("RTE", ("sentence1", "sentence2", "label"), ENTAILS, (metrics.accuracy,), {"test": ("RTE.tsv", 3000)}),
    "wnli": Format("WNLI", ("sentence1", "sentence2", "label"), BINARY, (metrics.accuracy,), {"test": ("WNLI.tsv", 146)}),
}
PAPER_SEVEN = ("mnli", "qqp", "qnli", "sst2", "mrpc", "rte", "cola")
SUBMISSION_FILES = [file for form in GLUE.values() for file, _ in form.submissions.values()]
COLA_HEADER = ["source", "label", "star", "sentence"]  # train and dev of CoLA have no header; test has


def read_tsv(path, form, labelled):
    """A file of the official download -> [(first, second, label or None)]. Raises UserError with the line's number.

    Quotes are text, not quoting (MRPC); a byte-order mark may stand first (MRPC); lines end at a newline only, for a text may hold
    other signs that Python takes for one."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as failure:
        line = failure.object[:failure.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: no UTF-8 text") from None
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if rows[-1] == [""]:
        rows.pop()
    headless = form.folder == "CoLA" and labelled
    header = COLA_HEADER if headless else rows[0] if rows else []
    wanted = [form.columns[0], *(column for column in form.columns[1:2] if column), *(form.columns[2:] if labelled else ())]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise UserError(f"{path} is damaged or another file: line 1 has no column {', '.join(missing)}")
    first, second, label = (header.index(column) if column in wanted else None for column in form.columns)
    examples = []
    for number, row in enumerate(rows[0 if headless else 1:], start=1 if headless else 2):
        if len(row) != len(header):
            if form.folder == "QQP" and labelled and len(row) < len(header):
                continue  # the official file has a few lines that were cut in two: everybody leaves them out
            raise UserError(f"{path}, line {number}: {len(row)} columns where {len(header)} should be")
        examples.append((row[first], None if second is None else row[second], None if label is None else number_of(row[label], form, path, number)))
    if not examples:
        raise UserError(f"{path} is empty")
    return examples


def number_of(spelled, form, path, line):
    if form.labels is None:
        try:
            value = float(spelled)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 5:
            raise UserError(f"{path}, line {line}: the score {spelled[:40]!r} is not a number from 0 to 5")
        return value
    if spelled not in form.labels:
        raise UserError(f"{path}, line {line}: the label {spelled[:40]!r} is none of {', '.join(form.labels)}")
    return form.labels.index(spelled)


def glue_from_folder(name, folder):
    """A Task from the official download's layout. Raises UserError where a file is missing or damaged."""
    form = GLUE[name]
    parts, place = {}, folder / form.folder
    for part in ("train", *form.dev):
        path = place / f"{part}.tsv"
        if not path.is_file():
            raise Missing(f"{form.folder}: {path} is missing")
        parts[part] = read_tsv(path, form, labelled=True)
    for part in form.submissions:
        if (place / f"{part}.tsv").is_file():
            parts[part] = read_tsv(place / f"{part}.tsv", form, labelled=False)
    diagnostic = folder / "diagnostic" / "diagnostic.tsv"
    if name == "mnli" and diagnostic.is_file():  # answered by the model of MNLI
        parts["diagnostic"] = read_tsv(diagnostic, form, labelled=False)
    return glue_task(name, parts)


def glue_from_hub(name, data):
    """A Task from the hub's data set, or from a copy of it on disk."""
    import datasets
    form, parts = GLUE[name], {}
    try:
        loaded = datasets.load_dataset(data, name)
    except Exception as failure:  # the hub's client and Arrow have many
        raise Missing(f"{data} has no {name} that can be read ({type(failure).__name__}: {cli.one_line(failure)}): check the name and the "
                        f"network") from None
    first, second, label = form.hub_columns or form.columns
    for split, rows in loaded.items():
        part = split.replace("validation", "dev")
        labelled = not part.startswith("test")
        missing = [column for column in (first, second, label if labelled else None) if column and column not in rows.column_names]
        if missing:
            raise UserError(f"{data}: {name} has no column {', '.join(missing)}, but {', '.join(rows.column_names)}")
        labels = [None] * len(rows) if not labelled else [number_of(str(y), form._replace(labels=form.labels and tuple(map(str, range(len(form.labels))))),
                                                                    f"{data} {name} {split}", i) for i, y in enumerate(rows[label])]
        parts[part] = list(zip(rows[first], rows[second] if second else [None] * len(rows), labels))
    for part in ("train", *form.dev):
        if part not in parts:
            raise UserError(f"{data}: {name} has no split {part.replace('dev', 'validation')}")
    return glue_task(name, parts)


def glue_task(name, parts):
    form = GLUE[name]
    return Task(name, parts, form.labels, form.metrics, form.dev, form.submissions, spells_names=form.labels is not None and form.labels != BINARY)


def read_task(name, data, folder):
    """The Task called `name` in the official download's layout, where `folder` has it, else from the
    hub's data set called `data`. Raises Missing where it is in neither."""
    is_official = folder.is_dir() and any((folder / form.folder).is_dir() for form in GLUE.values())
    return glue_from_folder(name, folder) if is_official else glue_from_hub(name, data)


def write_submission(folder, tasks, predictions):
    """Writes glue-submission.zip: a file a task, header `index prediction`, label names where GLUE
    wants names. predictions: {task: {part: values}}. Returns what to say of it."""
    files, remarks = {}, []
    for task in tasks:
        if not predictions[task.name]:
            remarks += [f"{task.name} has no test set"]
        for part, values in predictions[task.name].items():
            file, rows = task.submissions[part]
            lines = [f"{i}\t{task.spell(value)}\n" for i, value in enumerate(values)]
            files[file] = "index\tprediction\n" + "".join(lines)
            if len(lines) != rows:
                remarks += [f"{file} has {len(lines):,} rows, and the leaderboard wants {rows:,}"]
    missing = [file for file in SUBMISSION_FILES if file not in files]
    if missing:
        remarks += [f"the leaderboard also wants {', '.join(missing)}"]

    def write(temporary):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, contents in files.items():
                archive.writestr(file, contents)
    path = folder / "glue-submission.zip"
    disk.replace(path, write)
    return "\n".join([f"wrote {path}: {', '.join(files) or 'nothing'}", *remarks])


# --------------------------------------------------------------------------------------------------
# Which tasks are meant

EMBEDDED = {"acceptability": (metrics.matthews,), "sentiment": (metrics.accuracy,),
            "paraphrase": (metrics.accuracy, metrics.f1), "entailment": (metrics.accuracy,)}


def embedded(name):
    """One of the embedded world's own tasks."""
    parts = {part: world_tasks.examples(name, part) for part in world_tasks.SIZES}
    return Task(name, parts, ("no", "yes"), EMBEDDED[name], ("dev", "test"))


def load_tasks(data, names):
    """([Task], why others were skipped). data: "stories", a folder, or a hub id.

    Raises UserError where there is no such task, or where a task that is asked for by name cannot
    be read. Of "all" those count that are there."""
    known = EMBEDDED if data == "stories" else GLUE
    wanted = list(known) if names == "all" else list(dict.fromkeys(names.split(",")))
    for name in wanted:
        if name not in known:
            raise UserError(f"{name!r} is no task of {data}: {', '.join(known)}")
    if data == "stories":
        return [embedded(name) for name in wanted], []
    folder, found, skipped = disk.path_of(data), [], []
    if not folder.exists() and not re.fullmatch(disk.HUB_ID, data, re.ASCII):
        raise UserError(f"--data {data}: there is no such folder, and it is no hub id")
    for name in wanted:
        try:
            found.append(read_task(name, data, folder))
        except Missing as failure:
            if names != "all":
                raise
            skipped.append(str(failure))
    if not found:
        raise UserError(f"{data} holds no task of GLUE: {skipped[0]}")
    return found, skipped
