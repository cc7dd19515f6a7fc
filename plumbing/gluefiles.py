"""The tasks that students are scored on: GLUE's files with their quirks, GLUE on the hub, and the
embedded world's own tasks.

    tasks, skipped = load_tasks("glue_data", "all", world.tasks.examples)
    tasks[0].parts["train"]    # [(first text, second text or None, label), ...]
    skipped                    # ["MNLI: glue_data/MNLI/train.tsv is missing", ...]

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


class Missing(UserError):
    """The files of a task are missing. That is an error where the task was asked for by name; where
    all tasks were asked for, it is skipped."""


class Task(NamedTuple):
    """A task with its examples, (first text, second text or None, label or None) each."""
    name: str
    parts: dict                 # {"train": [example], "dev": [example], ...}
    labels: Optional[tuple]     # the labels' names; None where the label is a score
    metrics: tuple
    scored: tuple               # parts that are scored; the first one chooses the best setting
    submissions: dict = {}      # {part without labels: (file for the leaderboard, its rows)}
    spells_names: bool = False  # whether the leaderboard wants the labels' names, not numbers

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
            answers = [answer] * len(labels)
            values[part] = {metric.__name__: number_or_0(metric(answers, labels))
                            for metric in self.metrics}
        return values

    def spell(self, value):
        """A prediction as the leaderboard wants it."""
        if self.labels is None:
            return f"{min(5.0, max(0.0, float(value))):.3f}"
        return self.labels[int(value)] if self.spells_names else str(int(value))


def number_or_0(value):
    """A constant answer has no correlation with anything: nan counts as 0."""
    return 0.0 if math.isnan(value) else value


# --------------------------------------------------------------------------------------------------
# GLUE (Wang et al. 2018)


class Format(NamedTuple):
    """What the files of a task look like, and what the leaderboard wants of it."""
    folder: str
    columns: tuple                       # names in the header: (first, second or None, label)
    labels: Optional[tuple]              # in the order of the hub's numbers
    metrics: tuple
    submissions: dict                    # {test part: (file for the leaderboard, its rows)}
    dev: tuple = ("dev",)
    hub_columns: Optional[tuple] = None  # where the hub has other names


BINARY, ENTAILS = ("0", "1"), ("entailment", "not_entailment")
GLUE = {
    "cola": Format("CoLA", ("sentence", None, "label"), BINARY, (metrics.matthews,),
                   {"test": ("CoLA.tsv", 1063)}),
    "sst2": Format("SST-2", ("sentence", None, "label"), BINARY, (metrics.accuracy,),
                   {"test": ("SST-2.tsv", 1821)}),
    "mrpc": Format("MRPC", ("#1 String", "#2 String", "Quality"), BINARY,
                   (metrics.accuracy, metrics.f1), {"test": ("MRPC.tsv", 1725)},
                   hub_columns=("sentence1", "sentence2", "label")),
    "qqp": Format("QQP", ("question1", "question2", "is_duplicate"), BINARY,
                  (metrics.accuracy, metrics.f1), {"test": ("QQP.tsv", 390965)},
                  hub_columns=("question1", "question2", "label")),
    "stsb": Format("STS-B", ("sentence1", "sentence2", "score"), None,
                   (metrics.pearson, metrics.spearman), {"test": ("STS-B.tsv", 1379)},
                   hub_columns=("sentence1", "sentence2", "label")),
    "mnli": Format("MNLI", ("sentence1", "sentence2", "gold_label"),
                   ("entailment", "neutral", "contradiction"), (metrics.accuracy,),
                   {"test_matched": ("MNLI-m.tsv", 9796), "test_mismatched": ("MNLI-mm.tsv", 9847),
                    "diagnostic": ("AX.tsv", 1104)}, dev=("dev_matched", "dev_mismatched"),
                   hub_columns=("premise", "hypothesis", "label")),
    "qnli": Format("QNLI", ("question", "sentence", "label"), ENTAILS, (metrics.accuracy,),
                   {"test": ("QNLI.tsv", 5463)}),
    "rte": Format("RTE", ("sentence1", "sentence2", "label"), ENTAILS, (metrics.accuracy,),
                  {"test": ("RTE.tsv", 3000)}),
    "wnli": Format("WNLI", ("sentence1", "sentence2", "label"), BINARY, (metrics.accuracy,),
                   {"test": ("WNLI.tsv", 146)}),
}
SUBMISSION_FILES = [file for form in GLUE.values() for file, _ in form.submissions.values()]
COLA_HEADER = ["source", "label", "star", "sentence"]  # CoLA's train and dev files do not have it


def read_tsv(path, form, labelled):
    """A file of the official download -> [(first, second or None, label or None)]. Raises UserError
    with the line's number where the file is damaged."""
    rows, first_line = rows_of(path), 1
    if form.folder == "CoLA" and labelled:
        header = COLA_HEADER
    else:
        header, rows, first_line = (rows[0] if rows else []), rows[1:], 2
    columns = form.columns if labelled else (*form.columns[:2], None)
    missing = [column for column in columns if column and column not in header]
    if missing:
        raise UserError(f"{path} is damaged or another file: line 1 has no column "
                        f"{', '.join(missing)}")
    places = [header.index(column) if column else None for column in columns]
    examples = []
    for line, row in enumerate(rows, start=first_line):
        # The official QQP has a few lines that were cut in two. Everybody leaves them out.
        if form.folder == "QQP" and labelled and len(row) < len(header):
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} columns where {len(header)} should "
                            "be")
        first, second, label = (None if i is None else row[i] for i in places)
        if labelled:
            label = label_number(label, form.labels, f"{path}, line {line}")
        examples.append((first, second, label))
    if not examples:
        raise UserError(f"{path} is empty")
    return examples


def rows_of(path):
    """A file of tab-separated columns -> a list of strings for each line. Raises UserError where it
    is not UTF-8.

    Quotes are ordinary characters, as MRPC needs it, and a byte-order mark is skipped, which MRPC
    has. Only a newline ends a line, since texts hold other characters that Python takes for one."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as failure:
        line = failure.object[:failure.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: no UTF-8 text") from None
    if lines[-1].removesuffix("\r") == "":  # after the last newline
        lines.pop()
    return [line.removesuffix("\r").split("\t") for line in lines]


def label_number(text, labels, place):
    """The index of a label in `labels`; where these are None, the score that the text spells.
    Raises UserError, which names the `place`, where the text is neither."""
    if labels is not None:
        if text not in labels:
            raise UserError(f"{place}: the label {text[:40]!r} is none of {', '.join(labels)}")
        return labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 5:
        raise UserError(f"{place}: the score {text[:40]!r} is not a number from 0 to 5")
    return score


def glue_from_folder(name, folder):
    """A Task from the official download's layout. Raises Missing where a file is missing, and
    UserError where one is damaged."""
    form = GLUE[name]
    parts, task_folder = {}, folder / form.folder
    for part in ("train", *form.dev):
        path = task_folder / f"{part}.tsv"
        if not path.is_file():
            raise Missing(f"{form.folder}: {path} is missing")
        parts[part] = read_tsv(path, form, labelled=True)
    for part in form.submissions:
        path = task_folder / f"{part}.tsv"
        if path.is_file():
            parts[part] = read_tsv(path, form, labelled=False)
    diagnostic = folder / "diagnostic" / "diagnostic.tsv"
    if name == "mnli" and diagnostic.is_file():  # MNLI's model answers it
        parts["diagnostic"] = read_tsv(diagnostic, form, labelled=False)
    return glue_task(name, parts)


def glue_from_hub(name, data):
    """A Task from the hub's data set called `data`, or from a copy of it on disk. Raises Missing
    where it cannot be read, and UserError where it is not like GLUE."""
    form = GLUE[name]
    parts = {}
    for split, rows in hub_splits(name, data).items():
        part = split.replace("validation", "dev")
        parts[part] = read_split(form, rows, f"{data}: {name}", f"{data} {name} {split}",
                                 labelled=not part.startswith("test"))
    for part in ("train", *form.dev):
        if part not in parts:
            raise UserError(f"{data}: {name} has no split {part.replace('dev', 'validation')}")
    return glue_task(name, parts)


def hub_splits(name, data):
    """{split: its rows} of one task in the hub's data set. Raises Missing where it is not there, or
    cannot be read."""
    import datasets  # here: only this function needs it, and the import takes seconds
    try:
        return datasets.load_dataset(data, name)
    except Exception as failure:  # the hub's client and Arrow raise many kinds
        raise Missing(f"{data} has no {name} that can be read ({type(failure).__name__}: "
                      f"{cli.one_line(failure)}): check the name and the network") from None


def read_split(form, rows, task, place, labelled):
    """The rows of a split, a datasets.Dataset -> [(first, second or None, label or None)]. task and
    place: what an error line calls the task and the split."""
    first, second, label = form.hub_columns or form.columns
    wanted = [column for column in (first, second, label if labelled else None) if column]
    missing = [column for column in wanted if column not in rows.column_names]
    if missing:
        raise UserError(f"{task} has no column {', '.join(missing)}, but "
                        f"{', '.join(rows.column_names)}")
    nothing = [None] * len(rows)
    labels = nothing
    if labelled:
        # The hub stores the numbers of the labels, in the order of form.labels.
        numbers = form.labels and tuple(map(str, range(len(form.labels))))
        labels = [label_number(str(value), numbers, f"{place}, line {i}")
                  for i, value in enumerate(rows[label])]
    return list(zip(rows[first], rows[second] if second else nothing, labels))


def glue_task(name, parts):
    """The Task called `name` in GLUE, with its examples."""
    form = GLUE[name]
    spells_names = form.labels not in (None, BINARY)
    return Task(name, parts, form.labels, form.metrics, form.dev, form.submissions, spells_names)


def read_task(name, data, folder):
    """The Task called `name`: from `folder` where it has the official download's layout, else from
    the hub's data set called `data`. Raises Missing where the task is not there."""
    is_official = folder.is_dir() and any((folder / form.folder).is_dir() for form in GLUE.values())
    return glue_from_folder(name, folder) if is_official else glue_from_hub(name, data)


def write_submission(folder, tasks, predictions):
    """Writes glue-submission.zip, with one file for each test set, as the leaderboard wants them.

    predictions: {task: {part: values}}. Returns the lines to print: what was written, and what the
    leaderboard would miss."""
    files, remarks = {}, []
    for task in tasks:
        if not predictions[task.name]:
            remarks.append(f"{task.name} has no test set")
        for part, values in predictions[task.name].items():
            file, rows = task.submissions[part]
            lines = [f"{i}\t{task.spell(value)}\n" for i, value in enumerate(values)]
            files[file] = "index\tprediction\n" + "".join(lines)
            if len(lines) != rows:
                remarks.append(f"{file} has {len(lines):,} rows, and the leaderboard wants "
                               f"{rows:,}")
    missing = [file for file in SUBMISSION_FILES if file not in files]
    if missing:
        remarks.append(f"the leaderboard also wants {', '.join(missing)}")

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


def embedded_task(name, examples):
    """The Task of the embedded world that is called `name`."""
    parts = {part: examples(name, part) for part in ("train", "dev", "test")}
    return Task(name, parts, ("no", "yes"), EMBEDDED[name], ("dev", "test"))


def load_tasks(data, names, examples):
    """([Task], [why a task was skipped]). data: "stories", a folder, or a hub id; names: "all", or
    some like "cola,rte". examples(name, part): those of the embedded world, world.tasks.examples.

    Raises UserError where there is no such task, where a task is damaged, and where one that is
    asked for by name is missing. Of "all", the tasks that are missing are skipped."""
    known = EMBEDDED if data == "stories" else GLUE
    wanted = list(known) if names == "all" else list(dict.fromkeys(names.split(",")))
    for name in wanted:
        if name not in known:
            raise UserError(f"{name!r} is no task of {data}: {', '.join(known)}")
    if data == "stories":
        return [embedded_task(name, examples) for name in wanted], []
    folder = disk.path_of(data)
    if not folder.exists() and not re.fullmatch(disk.HUB_ID, data, re.ASCII):
        raise UserError(f"--data {data}: there is no such folder, and it is no hub id")
    tasks, skipped = [], []
    for name in wanted:
        try:
            tasks.append(read_task(name, data, folder))
        except Missing as failure:
            if names != "all":
                raise
            skipped.append(str(failure))
    if not tasks:
        raise UserError(f"{data} holds no task of GLUE: {skipped[0]}")
    return tasks, skipped
