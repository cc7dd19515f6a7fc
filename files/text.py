"""Text: where documents come from, and how they are read.

    source = open_source(["books/"])                # files, folders or a hub id
    tokenizer = source.tokenizer(vocab_size=8192)   # made from the text
    for part, text in source.documents(): ...       # part: "train" or "validation"

pyarrow decompresses and notices what was cut short; Python's own readers of CSV and JSON are the
ones that refuse an open quote. The library `datasets` reads the hub. Validation text is held out by
document, and the rule reads nothing but the document: a copy of a held-out document is held out.
"""
import contextlib
import csv
import functools
import io
import itertools
import json
import os
import re
import zlib
from pathlib import Path

from files import disk
from files.vocabulary import MAKER, train_wordpiece
from files.wordpiece import SPECIAL, tokenizer_from
from program import cli
from program.cli import UserError, one_line

READER = 4  # the version of the rules by which files become documents
KINDS = {".txt": "text", ".md": "text", ".jsonl": "json", ".json": "json", ".csv": "csv",
         ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
CODECS = {".gz": "gzip", ".zst": "zstd"}
# What `datasets` leaves beside its data, and what is about the files beside it.
RECORDS = re.compile(r"(dataset_infos?|state|dataset_dict)\.json|cache-.*\.arrow|readme\.md")
# The name of a part, and what may stand around it: books_valid, wiki.test.tokens, train-v2.0,
# test data, train-00000-of-00002. A title has other words beside it: A Test of Wills.
WORDS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation") | dict.fromkeys(
    ("test", "testing", "eval", "evaluation"), "test")
PART = re.compile(rf"(?:.*[-_.])?({'|'.join(WORDS)})(?:[-_. ]?(?:data|set|split|raw|tokens))?"
                  r"(?:[-_. ]?v?\d[\d.]*)?(?:-of-\d+)?(?:-[0-9a-f]{16})?")
SHARD = re.compile(r"\d{5}-of-(\d{5})")
BEGINNING = 2 ** 20   # bytes, by which a file of text is judged
CHARACTERS = 2 ** 20  # that are read at once
EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
FIRST_ROWS = 1000     # by which columns are judged; so many are converted at once


# ---- Which files ---------------------------------------------------------------------------------

def plain(path):
    """A path without the ending that says how the file is compressed: a.txt.gz -> a.txt"""
    return path.with_suffix("") if path.suffix.lower() in CODECS else path


def kind_of(path):
    """The kind of a file by its name, such as "text". None where the name says none."""
    return KINDS.get(plain(path).suffix.lower())


def part_of(path, root):
    """The part that names say: the file's own first, then its folders' up to the root. A part is
    what a whole name says, not a word in it. None where no name says one."""
    *folders, _ = Path(os.path.abspath(path)).relative_to(root).parts
    for name in (plain(path).stem, *reversed(folders)):
        if match := PART.fullmatch(name.lower()):
            return WORDS[match[1]]
    return None


def below(folder, entered):
    """The files below a folder, in alphabetical order, without hidden ones. Links are followed, and
    each real folder is entered once."""
    entered.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from below(path, entered) if path.resolve() not in entered else ()
        elif not path.name.startswith(".") and not RECORDS.fullmatch(path.name.lower()):
            yield path


def files_at(paths):
    """({file: its part}, [the names that are left out]) of some paths, each a file or a folder.
    Each real file is taken once, whatever links lead to it.

    Raises UserError where there is no text, or one that would be read twice or in part."""
    # A folder that is named alone says no part. So p/train p/test mean the same as p.
    parents = [path if path.is_dir() and len(paths) == 1 else path.parent for path in paths]
    root = os.path.commonpath(map(os.path.abspath, parents))
    parts, left_out, met, texts = {}, [], set(), {}
    for path in paths:
        found = list(below(path, set())) if path.is_dir() else [path]
        check_shards(found if path.is_dir() else [])
        for file in found:
            if file.suffix.lower() in PACKED:
                raise UserError(f"{file} is packed in a way that is not read here: unpack it")
            inode = file.stat()[1:3] if file.is_file() else None  # and device: the same for links
            if kind_of(file) is None or inode is None:
                left_out.append(file.name)
            elif inode not in met and file.stat().st_size:
                if texts.setdefault(plain(file), file) != file:
                    raise UserError(f"{texts[plain(file)]} and {file} look like one text in two "
                                    "files: remove or rename one of them")
                parts[file] = part_of(file, root)
            met.add(inode)
    if not parts:
        raise UserError(f"{', '.join(map(str, paths))} holds no text: wanted are files, not empty, "
                        f"that end in {' '.join(KINDS)}, also with .gz or .zst behind it")
    return parts, left_out


def check_shards(paths):
    """Raises UserError where a folder lacks one of its numbered files, or has those of two saves:
    train-00000-of-00002 and train-00000-of-00003."""
    totals = {}
    for path in paths:
        if match := SHARD.search(path.name):
            pattern = path.with_name(SHARD.sub("*", path.name))
            totals.setdefault(pattern, []).append(int(match[1]))
    for pattern, of in totals.items():
        if set(of) != {len(of)}:
            raise UserError(f"{pattern} are {len(of)} files, and not as many as their names say: "
                            "add what is missing, or name the files one by one")


# ---- What is in a file ---------------------------------------------------------------------------

@contextlib.contextmanager
def reading(name, advise):
    """Turns whatever goes wrong while something is read into a UserError that names it: each
    format, each compression and the hub have classes of their own. advise(failure): what to do."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as failure:
        raise UserError(f"{name} cannot be read ({type(failure).__name__}: {one_line(failure)}): "
                        f"{advise(failure)}") from None


@contextlib.contextmanager
def opened(path):
    """A stream of a file's bytes, decompressed. Raises UserError for what goes wrong inside."""
    with reading(path, lambda _: "check that it is whole, that text is UTF-8, and its name"):
        with open(path, "rb") as stream:
            if plain(path) != path:
                import pyarrow  # here: it takes a moment, and few files need it
                codec = CODECS[path.suffix.lower()]
                stream = io.BufferedReader(pyarrow.input_stream(stream, codec))
            yield stream


def rows_of(path, column=None):
    """The rows of a file, each a dict {column: value}. column: the one that is wanted. Raises
    UserError for whatever is wrong with the file."""
    with opened(path) as stream:
        if kind_of(path) == "json":
            yield from json_rows(path, stream)
        elif kind_of(path) == "csv":
            yield from csv_rows(path, stream, column)
        else:
            for batch in batches_of(path, stream, column):
                yield from batch.to_pylist()


def json_rows(path, stream):
    """The rows of JSON lines, or of one JSON array of objects."""
    is_array = stream.peek().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
    for n, line in enumerate([lines.read()] if is_array else lines, start=1):
        if line.isspace():
            continue
        try:
            value = json.loads(line, object_pairs_hook=row_of)
            rows = value if is_array else [value]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a row is no object")
        except (ValueError, RecursionError) as failure:
            raise UserError(f"{path}, line {n}: {one_line(failure)}; wanted are lines like "
                            '{"text": "..."}, or one array of such objects') from None
        yield from rows


def row_of(pairs):
    """{column: value}. Raises ValueError where a column is there twice: one value would be lost."""
    if len(row := dict(pairs)) < len(pairs):
        raise ValueError("a column, or a key, is there twice")
    return row


def csv_rows(path, stream, column):
    """The rows of a .csv or .tsv file with a header. A field may stand in quotes, in which a quote
    is doubled and lines may end (RFC 4180). column: one that may have more than one word."""
    csv.field_size_limit(2 ** 31 - 1)
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    separator = "\t" if plain(path).suffix.lower() == ".tsv" else ","
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header = next(reader, [])
    if len(header) == 1 and header[0] != column and re.search(r"[,;|\s]", header[0]):
        raise UserError(f"{path}, line 1: the header should name the columns, and it is "
                        f"{header[0][:60]!r}: use commas in .csv and tabs in .tsv, begin with a "
                        "line `text`, or name the file .txt")
    try:
        for fields in filter(None, reader):  # without empty lines
            # Many programs end each line with a separator: then it has an empty field more.
            if len(fields) < len(header) or any(fields[len(header):]):
                raise csv.Error(f"{len(fields)} fields, where the header has {len(header)}")
            yield row_of(list(zip(header, fields)))
    except csv.Error as failure:
        raise UserError(f"{path}, line {reader.line_num}: {failure}; a field with a separator or a "
                        "quote in it stands in quotes, with that quote doubled") from None


def batches_of(path, stream, column):
    """The rows of a Parquet file, or of an Arrow stream (save_to_disk), in Arrow's batches."""
    from pyarrow import ipc, parquet  # here: it takes a moment, and few files need it
    stream = stream if plain(path) == path else io.BytesIO(stream.read())  # it is read from its end
    if kind_of(path) == "parquet":
        table = parquet.ParquetFile(stream)
        names, batches = table.schema_arrow.names, table.iter_batches
    else:
        table = ipc.open_stream(stream)
        names, batches = table.schema.names, lambda _, columns: (
            batch.select(columns) for batch in table)
    if column and names.count(column) != 1:
        raise wrong_column(path, names)
    yield from batches(FIRST_ROWS, columns=[column] if column else names)


def wrong_column(name, columns):
    """The UserError of rows without the text column."""
    return UserError(f"{name} has the columns {', '.join(columns)}: say which holds the text with "
                     "--text-column")


def checked(place, column, value):
    """A value of the text column. Raises UserError where it is no text."""
    try:
        if value is not None:
            value.encode()
    except (AttributeError, UnicodeEncodeError):  # a number, or half of a character's two \\u
        raise UserError(f"{place}: the column {column} holds {ascii(value)[:40]}, which is no text:"
                        " mend it, or choose another column with --text-column") from None
    return value


def documents_in(path):
    """The documents of a file of text: what stands between empty lines where has_paragraphs says
    so, else lines. They are read a few characters at a time: a text may be larger than memory."""
    with opened(path) as stream:
        beginning = stream.read(BEGINNING)
    if b"\0" in beginning[:4096]:
        raise UserError(f"{path} is not text: it holds NUL bytes (text is read as UTF-8)")
    with opened(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
        if not has_paragraphs(beginning):
            yield from (line.rstrip("\n") for line in lines)
            return
        rest = ""
        while characters := lines.read(CHARACTERS):
            *whole, rest = EMPTY_LINE.split(rest + characters)
            yield from whole
        yield rest


def has_paragraphs(beginning):
    """Whether an empty line follows at least one in a hundred lines. A text of many lines, each a
    document, may have an empty line somewhere, and any text at its end."""
    text = re.sub(r"\r\n?", "\n", beginning.decode("utf-8", "ignore")).strip()
    lines = [bool(line.strip()) for line in text.split("\n")]
    ends = sum(line and not following for line, following in zip(lines, lines[1:]))
    return ends > 0 and 100 * ends >= sum(lines)


# ---- Sources -------------------------------------------------------------------------------------

def open_source(data, text_column=None):
    """The source that `--data` names: files and folders, or a hub id. Raises UserError where it
    names neither."""
    paths = [disk.path_of(entry) for entry in data]
    missing = [str(path) for path in paths if not path.exists()]
    if not missing:
        return FileSource(data, paths, text_column)
    is_id = len(data) == 1 and re.fullmatch(disk.HUB_ID + r"(:[\w.-]*){0,2}", data[0], re.ASCII)
    if not is_id or kind_of(paths[0]) or is_reader_of_files(data[0].split(":")[0]):
        raise UserError(f"no such file, folder or hub id: {', '.join(missing)}")
    return HubSource(data[0], text_column)


class Source:
    """Documents, one after the other, so that memory does not grow with the corpus.

    A subclass has a `key`, which differs from every other text's, `has_validation`, and
    `texts(part)`, in which some may be empty or None."""
    held_out = 100  # one document in 100, where there is no validation split

    def __init__(self, name, text_column):
        self.name, self.column = name, text_column

    def documents(self):
        """(part, text) pairs, where the part is "train" or "validation", without empty texts.

        Without a validation split about one document in 100 is held out, by its checksum. So that
        a text of two documents has both parts, document 0 is always for training, and the first
        document that differs from it is always held out."""
        if self.has_validation:
            for part in ("train", "validation"):
                yield from ((part, text) for text in self.filled(part))
            return
        first = other = None
        for text in self.filled("train"):
            crc = checksum(text)
            first = crc if first is None else first
            other = crc if other is None and crc != first else other
            is_held_out = crc != first and (crc == other or crc % self.held_out == 0)
            yield "validation" if is_held_out else "train", text

    def filled(self, part):
        """The texts of a part, without those of white space."""
        return (text for text in self.texts(part) if text and not text.isspace())

    def tokenizer(self, vocab_size=None):
        """A WordPiece tokenizer whose vocabulary is made from the beginning of the training text.
        It is kept in the cache."""
        vocab_size = 8192 if vocab_size is None else vocab_size
        if vocab_size <= len(SPECIAL):
            raise UserError(f"--vocab-size {vocab_size} leaves no room for a word beside the "
                            f"{len(SPECIAL)} special tokens: use 1000 or more")
        key = disk.fingerprint([MAKER, self.key, self.column, vocab_size])
        path = disk.cache_folder() / f"tokenizer-{key}.json"
        lock = path.with_suffix(".lock")
        with disk.sharing_cache(), disk.locked(lock, "makes the same vocabulary"):
            # Where there is none yet, or it is damaged, it is made again.
            with contextlib.suppress(FileNotFoundError, UserError, KeyError):
                return tokenizer_from(disk.read_json(path)["tokenizer"])
            path.unlink(missing_ok=True)  # raises now, and not after the work, if it is another's
            cli.say(f"making a vocabulary of {vocab_size:,} word pieces from {self.name} ...")
            tokenizer = train_wordpiece(
                lambda: (text for part, text in self.documents() if part == "train"), vocab_size)
            disk.write_json(path, {"tokenizer": tokenizer.to_str()})
            return tokenizer_from(tokenizer.to_str())


def checksum(text):
    """CRC-32 of a document. It decides which documents are held out."""
    return zlib.crc32(text.encode("utf-8", "replace"))


class FileSource(Source):
    """Files, and folders of files."""

    def __init__(self, data, paths, text_column):
        super().__init__(", ".join(data), text_column)
        parts, left_out = files_at(paths)
        self.files = by_part(parts)
        self.has_validation = bool(self.files["validation"])
        left_out += [f"{path} (called test)" for path in self.files["test"]]
        if self.has_validation or left_out:
            more = ", ..." if len(left_out) > 5 else ""
            cli.say(f"{self.name}: {cli.counted(len(self.files['train']), 'file')} to train on, "
                    f"{len(self.files['validation'])} for validation, {len(left_out)} left out: "
                    f"{', '.join(left_out[:5])}{more}")
        read = [(part, path) for part in ("train", "validation") for path in self.files[part]]
        self.column = self.column or text_column_of([path for _, path in read])
        self.key = ["files", READER, [[part, key_of(path)] for part, path in read]]

    def texts(self, part):
        """The texts of a part. Rows of JSON that lack the column are counted. Raises UserError
        where all lack it."""
        for path in self.files[part]:
            if kind_of(path) == "text":
                yield from documents_in(path)
                continue
            n = without = 0
            for n, row in enumerate(rows_of(path, self.column), start=1):
                without += self.column not in row
                yield checked(f"{path}, row {n}", self.column, row.get(self.column))
            if n and without == n:
                raise wrong_column(path, row)
            if without:
                cli.say_once(f"{path}: {without:,} of {n:,} rows have no {self.column}, and are "
                             "left out")


def by_part(parts):
    """{file: its part} -> {"train": files, "validation": files, "test": files}. Where no file is
    left to train on, the names say nothing, and all are for training."""
    files = {part: [path for path in parts if (parts[path] or "train") == part]
             for part in ("train", "validation", "test")}
    if not files["train"] and files["validation"] and files["test"]:
        raise UserError(f"{files['test'][0]} and the other files are called validation and test, "
                        "and none is left to train on: name them one by one, or rename them")
    return files if files["train"] else {"train": list(parts), "validation": [], "test": []}


def key_of(path):
    """What changes when a file does: its place, its size and its times."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def text_column_of(paths):
    """The column that holds the text in the files of rows: "text" where one of them has it, or else
    the only column of texts. None where all are files of text. Raises UserError where there is no
    such column, or beside files of text: rows may be about them."""
    of_rows, types = [path for path in paths if kind_of(path) != "text"], {}
    for row in itertools.chain.from_iterable(
            itertools.islice(rows_of(path), FIRST_ROWS) for path in of_rows):
        if "text" in row:
            return "text"
        for column, value in row.items():
            types.setdefault(column, set()).add(type(value))
    texts = [column for column, found in types.items() if found - {type(None)} == {str}]
    if types and (len(texts) != 1 or len(of_rows) < len(paths)):
        raise wrong_column(", ".join(map(str, of_rows[:3])), types)
    return texts[0] if types else None


class HubSource(Source):
    """A data set of the hub: `name`, `name:configuration` or `name:configuration:split`.

    Its commit is part of the key. It is remembered, so that without a network the tokens are found
    that were made from it."""

    def __init__(self, name, text_column):
        super().__init__(name, text_column)
        import huggingface_hub  # here: it takes a moment, and only the hub needs it
        self.path, self.configuration, self.split = (name.split(":") + ["", ""])[:3]
        self.commit = None
        with contextlib.suppress(Exception):  # no network, or no such id: `splits` says which
            self.commit = huggingface_hub.HfApi().dataset_info(self.path, timeout=10).sha
        remembered = disk.cache_folder() / f"hub-{disk.fingerprint(name)}.txt"
        if self.commit is None and remembered.exists():
            self.commit = remembered.read_text()
            cli.say(f"{name}: the hub does not answer, so what it had before is meant, commit "
                    f"{self.commit[:7]}")
        else:
            self.splits  # are loaded: what is wrong is said now, before anything is written
            if self.commit:
                disk.write_file(remembered, self.commit)
        self.key = ["hub", READER, name, self.commit]

    @functools.cached_property
    def splits(self):
        """{"train": a streamed data set, perhaps "validation": another}. Raises UserError where
        the hub does not give it."""
        with self.asking_hub():
            loaded = load_from_hub(self.path, self.configuration or None, streaming=True,
                                   split=self.split or None, revision=self.commit)
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        if "train" not in splits:
            raise UserError(f"{self.name} has the splits {', '.join(splits)}: say which is for "
                            f"training, as in {self.path}:{self.configuration}:SPLIT")
        return splits

    @contextlib.contextmanager
    def asking_hub(self):
        """Turns whatever goes wrong at the hub into a UserError. The library raises many kinds: no
        network, no such id, a wrong split, damaged files."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as failure:
            advice = disk.hub_advice(failure, "check the id, the configuration and the network")
            raise UserError(f"{self.name} cannot be loaded from the hub: {advice} "
                            f"({type(failure).__name__}: {one_line(failure)})") from None

    @property
    def has_validation(self):
        """Whether there is a validation split."""
        return "validation" in self.splits

    def texts(self, part):
        """The texts of a split."""
        column = self.column
        with self.asking_hub():
            # Arrow tables skip the library's conversion of each row to a dict (docs/LOG.md).
            for table in self.splits[part].with_format("arrow").iter(batch_size=256):
                if column is None:
                    texts = [field.name for field in table.schema if "string" in str(field.type)]
                    column = texts[0] if len(texts) == 1 else "text"
                if column not in table.column_names:
                    raise wrong_column(self.name, table.column_names)
                for text in table[column].to_pylist():
                    yield checked(self.name, column, text)


def load_from_hub(path, *words, **options):
    """datasets.load_dataset of a data set on the hub. It raises whatever the library raises.

    The library keeps what it loads. In a folder of our own it finds nothing of other programs."""
    import datasets  # takes a second, and only the hub needs it
    datasets.disable_progress_bars()
    cache = str(disk.cache_folder() / "hub")
    with disk.sharing_cache():
        return datasets.load_dataset(path, *words, cache_dir=cache, **options)


def is_reader_of_files(name):
    """Whether load_dataset takes a name for a reader of files, such as "text" or "csv". It would
    read whatever files lie below the working directory."""
    from datasets import packaged_modules  # as above
    return name in packaged_modules._PACKAGED_DATASETS_MODULES
