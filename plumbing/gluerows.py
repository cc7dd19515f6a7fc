"""The examples in GLUE's files: (first text, second text or None, label or None) each.

    read_tsv(file, form, is_labelled=True)               # a file of the official download
    read_files("mrpc train", part_files, form, True)     # files with the hub's columns
    read_hub("mrpc train", split, form, True)            # the hub itself

A form is a `gluefiles.Format`. A label is a number: an index into `form.labels`, or for STS-B a
score. A line or row that is wrong is an error that names it.
"""
import json
import math

from files import disk
from plumbing import cli, rows
from plumbing.cli import UserError
from plumbing.files import readable

COLA_HEADER = ["source", "label", "star", "sentence"]  # CoLA's train and dev files do not have it
CUT_MOST = 0.01  # of a file's lines may be cut off


# --------------------------------------------------------------------------------------------------
# The official download


def read_tsv(file, form, is_labelled):
    """A file of the official download -> its examples. Raises UserError with the line's number
    where the file is damaged."""
    lines, first_line = lines_of(file), 1
    if form.folder == "CoLA" and is_labelled:
        header = COLA_HEADER
    else:
        header, lines, first_line = (lines[0] if lines else []), lines[1:], 2
    columns = form.columns if is_labelled else (*form.columns[:2], None)
    missing = [column for column in columns if column and column not in header]
    if missing:
        raise UserError(f"{file} is damaged or another file: line 1 has no column "
                        f"{', '.join(missing)}")
    rows.check_once(f"{file}, line 1", header, columns)
    places = [header.index(column) if column else None for column in columns]
    examples, cut = [], 0
    for number, line in enumerate(lines, start=first_line):
        # The official QQP has a few lines that were cut in two. Everybody leaves them out.
        if form.folder == "QQP" and is_labelled and len(line) < len(header):
            cut += 1
            continue
        if len(line) != len(header):
            raise UserError(f"{file}, line {number}: {len(line)} columns where {len(header)} "
                            "should be")
        first, second, label = (None if i is None else line[i] for i in places)
        if is_labelled:
            label = label_number(label, form.labels, f"{file}, line {number}")
        examples.append((first, second, label))
    say_cut(file, cut, len(lines))
    if not examples:
        raise UserError(f"{file} is empty")
    return examples


def lines_of(file):
    """A file of tab-separated columns -> a list of strings for each line. Raises UserError where it
    is not UTF-8.

    Quotes are ordinary characters, as MRPC needs it, and a byte-order mark is skipped, which MRPC
    has. Only a newline ends a line, since texts hold other characters that Python takes for one.
    Empty lines at the end are nothing."""
    with file.open() as stream:
        contents = stream.read()
    try:
        lines = contents.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as failure:
        line = failure.object[:failure.start].count(b"\n") + 1
        raise UserError(f"{file}, line {line}: no UTF-8 text") from None
    while lines and lines[-1].removesuffix("\r") == "":
        lines.pop()
    return [line.removesuffix("\r").split("\t") for line in lines]


def say_cut(file, cut, n):
    """Says how many of a file's n lines were cut off. Raises UserError where they are more than a
    few."""
    if not cut:
        return
    words = f"{file}: {cut:,} of {n:,} lines are cut off: they have too few columns"
    if cut > CUT_MOST * n:
        raise UserError(f"{words}; more than {CUT_MOST:.0%} is damage, so download the file again")
    cli.say(f"{words}, and are left out")


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


# --------------------------------------------------------------------------------------------------
# The hub's columns


def wanted_columns(form, is_labelled):
    """The columns that a task has on the hub, those that are not needed left out."""
    first, second, label = form.hub_columns or form.columns
    return [column for column in (first, second, label if is_labelled else None) if column]


def read_files(name, part_files, form, is_labelled):
    """The examples of a part in the hub's columns, from its files in order. name: what error lines
    call the part, such as "mrpc train"."""
    wanted = wanted_columns(form, is_labelled)
    examples = []
    for file in part_files:
        place = f"{name} ({file})"
        check_columns(place, wanted, rows.columns_of(file))
        order = None
        if is_labelled:
            order = label_order(place, names_in(file, wanted[-1]), form)
        examples += read_rows(name, rows.rows(file, wanted), form, order, is_labelled)
    if not examples:
        raise UserError(f"{name} is empty: {', '.join(map(str, part_files))}")
    return examples


def read_hub(name, split, form, is_labelled):
    """The same from the hub, whose split is a datasets.Dataset."""
    wanted = wanted_columns(form, is_labelled)
    check_columns(name, wanted, split.column_names)
    order = None
    if is_labelled:
        feature = split.features.get(wanted[-1])  # of which only a ClassLabel has names
        order = label_order(name, getattr(feature, "names", None), form)
    with readable(name):
        tables = split.select_columns(wanted).with_format("arrow").iter(batch_size=rows.ROWS)
        pairs = rows.numbered(name, tables)
        return read_rows(name, pairs, form, order, is_labelled)


def check_columns(name, wanted, columns):
    """Raises UserError where a wanted column is not among the columns of rows. No rows have no
    columns."""
    missing = [column for column in wanted if column not in columns]
    if columns and missing:
        raise UserError(f"{name} has no column {', '.join(missing)}, but {', '.join(columns)}")


def read_rows(name, pairs, form, order, is_labelled):
    """(place, row) pairs in the hub's columns -> the examples. Rows count from 0, as the library
    `datasets` counts them. order: see label_order."""
    first, second, label = form.hub_columns or form.columns
    examples = []
    for n, (place, row) in enumerate(pairs):
        where = f"{name}, row {n}"
        missing = [column for column in wanted_columns(form, is_labelled) if column not in row]
        if missing:
            raise UserError(f"{where}: there is no {', '.join(missing)} ({place})")
        a = text_of(row[first], first, where, place)
        b = text_of(row[second], second, where, place) if second else None
        number = None
        if is_labelled:
            number = hub_label(row[label], label, form, order, where, place)
        examples.append((a, b, number))
    return examples


def text_of(value, column, where, place):
    """A text. Raises UserError where the value is something else, such as null."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {rows.type_of(value)}, no text ({place})")
    if rows.has_half_character(value):
        raise UserError(f"{where}: {column} holds half a character, like \\ud83d ({place})")
    return value


def hub_label(value, column, form, order, where, place):
    """The hub's number of a label that is a stored number (see label_order) or a name, or STS-B's
    score. Raises UserError where it is neither."""
    if value is None:
        raise UserError(f"{where}: {column} is null, no label ({place})")
    text = str(value)
    if form.labels is None:
        return label_number(text, None, f"{where} ({place})")
    numbers = [str(i) for i in range(len(order))]
    names = form.hub_labels or form.labels
    number = text.removesuffix(".0")  # a column with empty places holds 1.0 for 1
    if number in numbers:
        return order[int(number)]
    if text in names:
        return names.index(text)
    known = ", ".join(f"{i} ({names[label]})" for i, label in enumerate(order))
    raise UserError(f"{where}: {column} is {text[:40]}, none of {known} ({place})")


# --------------------------------------------------------------------------------------------------
# The order of the labels


def label_order(place, names, form):
    """The hub's number of each label, in the order of the numbers that are stored: (1, 0) where 0
    is stored for the hub's 1. None for scores.

    names: the labels' names in the stored order, or None where the file has none. Then the stored
    numbers are the hub's. Raises UserError, which names the `place`, where they are other names."""
    labels = form.labels or ()
    unnamed = [str(i) for i in range(len(labels))]  # what `datasets` calls labels without names
    if not names or list(names) == unnamed:
        return tuple(range(len(labels))) if labels else None
    for known in (form.hub_labels, form.labels):
        if known and sorted(names) == sorted(known):
            return tuple(known.index(name) for name in names)
    wanted = ", ".join(form.hub_labels or labels) or "scores from 0 to 5"
    raise UserError(f"{place}: the labels are called {cli.one_line(', '.join(names))}, and wanted "
                    f"are {wanted}")


def names_in(file, column):
    """The names of the labels in a column, in the order of the stored numbers. None where nothing
    says them.

    The library `datasets` writes them into the schema of Parquet and Arrow, and into the file
    dataset_info.json beside. Raises UserError where these two differ."""
    path = file.path.parent / "dataset_info.json"
    beside = class_names(disk.read_json(path), column) if path.is_file() else None
    within = None
    if file.kind in ("parquet", "arrow"):
        with readable(file):
            metadata = rows.schema_of(file).metadata or {}
            described = json.loads(metadata.get(b"huggingface", b"{}"))
            within = class_names(described.get("info"), column)
    if beside and within and beside != within:
        raise UserError(f"{file} calls the labels {', '.join(within)}, and {path} calls them "
                        f"{', '.join(beside)}: remove the one that is wrong")
    return within or beside


def class_names(info, column):
    """The names of a column's labels in a description by `datasets`: {"features": {"label":
    {"names": ["no", "yes"]}}}. None where it says none."""
    for key in ("features", column, "names"):
        info = info.get(key) if isinstance(info, dict) else None
    is_names = isinstance(info, list) and all(isinstance(name, str) for name in info)
    return info if is_names else None
