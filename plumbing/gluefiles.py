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

from files import disk
from plumbing import cli, gluelayouts, gluerows, text
from plumbing.cli import UserError
from plumbing.files import File
from plumbing.gluelayouts import Missing

from measure import metrics


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
    hub_labels: Optional[tuple] = None   # likewise


BINARY, ENTAILS = ("0", "1"), ("entailment", "not_entailment")
GLUE = {
    "cola": Format("CoLA", ("sentence", None, "label"), BINARY, (metrics.matthews,),
                   {"test": ("CoLA.tsv", 1063)},
                   hub_labels=("unacceptable", "acceptable")),
    "sst2": Format("SST-2", ("sentence", None, "label"), BINARY, (metrics.accuracy,),
                   {"test": ("SST-2.tsv", 1821)},
                   hub_labels=("negative", "positive")),
    "mrpc": Format("MRPC", ("#1 String", "#2 String", "Quality"), BINARY,
                   (metrics.accuracy, metrics.f1), {"test": ("MRPC.tsv", 1725)},
                   hub_columns=("sentence1", "sentence2", "label"),
                   hub_labels=("not_equivalent", "equivalent")),
    "qqp": Format("QQP", ("question1", "question2", "is_duplicate"), BINARY,
                  (metrics.accuracy, metrics.f1), {"test": ("QQP.tsv", 390965)},
                  hub_columns=("question1", "question2", "label"),
                  hub_labels=("not_duplicate", "duplicate")),
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
                   {"test": ("WNLI.tsv", 146)},
                   hub_labels=("not_entailment", "entailment")),
}
SUBMISSION_FILES = [file for form in GLUE.values() for file, _ in form.submissions.values()]


def glue_from_folder(name, folder, is_only=False):
    """A Task from the files in a folder (see gluelayouts.find). Raises Missing where a file is
    missing, and UserError where one is damaged."""
    form = GLUE[name]
    task_folder, by_part = gluelayouts.find(folder, name, form.folder, is_only)
    for part in ("train", *form.dev):
        if part not in by_part:
            raise Missing(f"{form.folder}: {task_folder}/{part}.tsv is missing; looked for it, "
                          f"{gluelayouts.others(part)}")
    diagnostic = folder / "diagnostic" / "diagnostic.tsv"
    if name == "mnli" and diagnostic.is_file():  # MNLI's model answers it
        by_part["diagnostic"] = [File(diagnostic, "tsv", None)]
    parts = {}
    for part in ("train", *form.dev, *form.submissions):
        if part in by_part:
            parts[part] = read_part(name, part, by_part[part])
    return glue_task(name, parts)


def read_part(name, part, part_files):
    """The examples of one part from its files."""
    form = GLUE[name]
    is_labelled = part not in form.submissions
    if part_files[0].kind != "tsv":
        split = part.replace("dev", "validation")
        return gluerows.read_files(f"{name} {split}", part_files, form, is_labelled)
    examples = []
    for file in part_files:
        examples += gluerows.read_tsv(file, form, is_labelled)
    return examples


def glue_from_hub(name, data):
    """A Task from the hub's data set called `data`. Raises Missing where it cannot be read, and
    UserError where it is not like GLUE."""
    form = GLUE[name]
    parts = {}
    for split, rows in hub_splits(name, data).items():
        part = split.replace("validation", "dev")
        if part in ("train", *form.dev, *form.submissions):
            parts[part] = gluerows.read_hub(f"{data} {name} {split}", rows, form,
                                            is_labelled=part not in form.submissions)
    for part in ("train", *form.dev):
        if part not in parts:
            raise UserError(f"{data}: {name} has no split {part.replace('dev', 'validation')}")
    return glue_task(name, parts)


def hub_splits(name, data):
    """{split: its rows} of one task in the hub's data set. Raises Missing where the data set has no
    such task, and UserError where the hub cannot be reached."""
    try:
        return text.load_from_hub(data, name)
    except UserError:
        raise
    except Exception as failure:  # the hub's client and Arrow raise many kinds
        advice = disk.hub_advice(failure)
        problem = (f"there is no folder {data}, and the hub's data set of that name has no {name} "
                   f"that can be read ({type(failure).__name__}: {cli.one_line(failure)}): "
                   f"{advice}")
        # Where the hub gives nothing, each further task would be tried for half a minute.
        is_of_all = isinstance(failure, ConnectionError) or advice != disk.UNKNOWN
        raise (UserError if is_of_all else Missing)(problem) from None


def glue_task(name, parts):
    """The Task called `name` in GLUE, with its examples."""
    form = GLUE[name]
    spells_names = form.labels not in (None, BINARY)
    return Task(name, parts, form.labels, form.metrics, form.dev, form.submissions, spells_names)


def write_submission(folder, tasks, predictions):
    """Writes glue-submission.zip, with one file for each test set, as the leaderboard wants them.

    predictions: {task: {part: values}}. Returns the lines to print: what was written, and what the
    leaderboard would miss."""
    contents, remarks = {}, []
    for task in tasks:
        if not predictions[task.name]:
            remarks.append(f"{task.name} has no test set")
        for part, values in predictions[task.name].items():
            file, rows = task.submissions[part]
            lines = [f"{i}\t{task.spell(value)}\n" for i, value in enumerate(values)]
            contents[file] = "index\tprediction\n" + "".join(lines)
            if len(lines) != rows:
                remarks.append(f"{file} has {len(lines):,} rows, and the leaderboard wants "
                               f"{rows:,}")
    missing = [file for file in SUBMISSION_FILES if file not in contents]
    if missing:
        remarks.append(f"the leaderboard also wants {', '.join(missing)}")

    def write(temporary):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, lines in contents.items():
                archive.writestr(file, lines)

    path = folder / "glue-submission.zip"
    disk.replace(path, write)
    return "\n".join([f"wrote {path}: {', '.join(contents) or 'nothing'}", *remarks])


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
    if not data:
        raise UserError('--data "" is empty: give a folder, a hub id or stories')
    known = EMBEDDED if data == "stories" else GLUE
    is_all = gluelayouts.plain(names) == "all"
    wanted = list(known) if is_all else chosen(data, names, known)
    if data == "stories":
        return [embedded_task(name, examples) for name in wanted], []
    folder = disk.path_of(data)
    if not folder.exists():
        check_hub_id(data)
        return read_tasks(wanted, is_all, data, lambda name: glue_from_hub(name, data))
    check_is_folder(data, folder)
    own = gluelayouts.own_task(folder, GLUE)
    if is_all and own:
        wanted = [own]
    is_only = len(wanted) == 1 and own in (None, *wanted)
    return read_tasks(wanted, is_all, data, lambda name: glue_from_folder(name, folder, is_only))


def read_tasks(wanted, is_all, data, read):
    """([Task], [why a task was skipped]) by read(name) -> Task."""
    tasks, skipped = [], []
    for name in wanted:
        try:
            tasks.append(read(name))
        except Missing as failure:
            if not is_all:
                raise
            skipped.append(str(failure))
    if not tasks:
        raise UserError(f"{data} holds no task of GLUE that can be read: {skipped[0]}")
    return tasks, skipped


def chosen(data, names, known):
    """The tasks that `--tasks` names, each once. Case and punctuation do not count: STS-B is
    stsb."""
    words = names.split(",")
    if "all" in map(gluelayouts.plain, words):
        raise UserError(f"--tasks {names}: all stands alone, since it means every task that the "
                        "data has; a task that is named must be there")
    tasks = []
    for word in words:
        name = gluelayouts.plain(word)
        if name not in known:
            raise UserError(f"{word.strip()!r} is no task of {data}: {', '.join(known)}")
        if name not in tasks:
            tasks.append(name)
    return tasks


def check_is_folder(data, path):
    """Raises UserError where `--data` names a file."""
    if not path.is_dir():
        raise UserError(f"--data {data} is a file; wanted is a folder with GLUE's tasks (unpack "
                        "it, if it is an archive)")


def check_hub_id(data):
    """Raises UserError where `--data`, which is no folder, is no hub id either."""
    if not re.fullmatch(disk.HUB_ID, data, re.ASCII):
        raise UserError(f"--data {data}: there is no such folder, and it is no hub id")
    if text.is_reader_of_files(data):
        raise UserError(f"--data {data}: there is no such folder, and the hub has no data set of "
                        "that name")
