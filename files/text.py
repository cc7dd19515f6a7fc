"""Text: where documents come from, and how they are read.

    source = open_source(["books/"])                # files, folders or a hub id
    tokenizer = source.tokenizer(vocab_size=8192)   # made from the text
    for part, text in source.documents(): ...       # part: "train" or "validation"

pyarrow decompresses and notices what was cut short; Python's own readers of CSV and JSON are the
ones that refuse an open quote. The library `datasets` reads the hub.
"""
import contextlib
import csv
import functools
import io
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
FILE_ADVICE = ("check that it is whole, in UTF-8, and what its name says: .jsonl has lines like "
               '{"text": "..."}, .csv and .tsv begin with the names of the columns')


# ---- Which files ---------------------------------------------------------------------------------

def plain(path):
    """A path without the ending that says how the file is compressed: a.txt.gz -> a.txt"""
    return path.with_suffix("") if path.suffix.lower() in CODECS else path


def kind_of(path):
    """The kind of a file by its name, such as "text". None where the name says none."""
    return KINDS.get(plain(path).suffix.lower())


def part_of(path, root):
    """The part that whole names say: the file's, or its folders' up to the root. None without."""
    *folders, _ = Path(os.path.abspath(path)).relative_to(root).parts
    for name in (plain(path).stem, *reversed(folders)):
        if match := PART.fullmatch(name.lower()):
            return WORDS[match[1]]
    return None


def below(folder, entered):
    """The files below a folder, sorted, without hidden ones. Each real folder is entered once."""
    entered.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from below(path, entered) if path.resolve() not in entered else ()
        elif not path.name.startswith(".") and not RECORDS.fullmatch(path.name.lower()):
            yield path


def files_at(paths):
    """({file: its part}, [the names that are left out]) of some paths, each a file or a folder.
    Raises UserError where there is no text, or one that would be read twice or in part."""
    # A folder that is named alone says no part. So p/train p/test mean the same as p.
    parents = [path if path.is_dir() and len(paths) == 1 else path.parent for path in paths]
    root = os.path.commonpath(map(os.path.abspath, parents))
    parts, left_out, met, texts = {}, [], set(), {}
    for path in paths:
        found = list(below(path, set())) if path.is_dir() else [path]
        check_numbers(found if path.is_dir() else [])
        for file in found:
            inode = file.stat()[1:3] if file.is_file() else None  # and device: one for all links
            if kind_of(file) is None or inode is None:
                left_out.append(file.name)
            elif inode not in met and file.stat().st_size:
                if texts.setdefault(plain(file), file) != file:
                    raise UserError(f"{texts[plain(file)]} and {file} seem one text: remove one")
                parts[file] = part_of(file, root)
            met.add(inode)
    if not parts:
        raise UserError(f"{', '.join(map(str, paths))} holds no text: wanted are files, not empty, "
                        f"that end in {' '.join(KINDS)}, or so with .gz or .zst: unpack others")
    if not {"train", None} & {*parts.values()}:  # none to train on: then names say nothing
        if len({*parts.values()}) == 2:
            raise UserError(f"{root}: all files are called validation or test, and none is left to "
                            "train on: name them one by one, or rename them")
        parts = dict.fromkeys(parts)
    return parts, left_out


def check_numbers(paths):
    """Raises UserError where a folder lacks one of its files like train-00000-of-00002.txt."""
    splits = [(path.parent, *SHARD.split(path.name)) for path in paths if SHARD.search(path.name)]
    for folder, name, total, ending in set(splits):
        n = sum((folder, name, ending) == (*split[:2], split[3]) for split in splits)
        if n != int(total):
            raise UserError(f"{folder / name}*{ending} are {n} files, and their names say {total}: "
                            "add or remove some, or name the files one by one")


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
    with reading(path, lambda _: FILE_ADVICE):
        with open(path, "rb") as stream:
            if plain(path) != path:
                import pyarrow  # here: it takes a moment, and few files need it
                codec = CODECS[path.suffix.lower()]
                stream = io.BufferedReader(pyarrow.input_stream(stream, codec))
            yield stream


def texts_in(path, column):
    """The documents of a file of text, or the texts in a column of a file of rows."""
    if kind_of(path) == "text":
        yield from documents_in(path)
        return
    rows = {"json": json_rows, "csv": csv_rows}.get(kind_of(path), arrow_rows)
    with opened(path) as stream:
        for n, row in enumerate(rows(path, stream, column), start=1):
            yield text_of(f"{path}, row {n}", row, column)


def json_rows(path, stream, column):
    """The rows of JSON lines, or of one JSON array of objects."""
    is_array = stream.peek().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    def unlike(pairs):  # JSON's reader would take the last of two values
        if len(dict(pairs)) < len(pairs):
            raise ValueError("an object has a key twice")
        return dict(pairs)
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
    for n, line in enumerate([lines.read()] if is_array else lines, start=1):
        try:
            value = [] if line.isspace() else json.loads(line, object_pairs_hook=unlike)
        except ValueError as failure:
            raise ValueError(f"line {n}: {failure}") from None
        rows = value if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"line {n}: a row is no object")
        yield from rows


def csv_rows(path, stream, column):
    """The rows of a .csv or .tsv file with a header. A field may stand in quotes, in which a quote
    is doubled and lines may end (RFC 4180)."""
    csv.field_size_limit(2 ** 31 - 1)
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    separator = "\t" if plain(path).suffix.lower() == ".tsv" else ","
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header = next(reader, [])
    for fields in filter(None, reader):  # without empty lines
        row = dict(zip(header, fields))
        # Many programs end each line with a separator: then it has an empty field more.
        if len(row) < len(header) or any(fields[len(header):]):
            raise ValueError(f"line {reader.line_num}: {len(fields)} fields for the columns "
                             f"{', '.join(header)}")
        yield row


def arrow_rows(path, stream, column):
    """The rows of a Parquet file, or of an Arrow stream, as save_to_disk writes them."""
    from pyarrow import ipc, parquet  # here: it takes a moment, and few files need it
    stream = stream if plain(path) == path else io.BytesIO(stream.read())  # it is read from its end
    if kind_of(path) == "arrow":
        batches = ipc.open_stream(stream)
    else:
        table = parquet.ParquetFile(stream)
        columns = [column] if column in table.schema_arrow.names else None
        batches = table.iter_batches(1000, columns=columns)
    for batch in batches:
        yield from batch.to_pylist()


def text_of(place, row, column):
    """The text in a column of a row, perhaps None. place: where the row stands, in words."""
    if column not in row:
        raise UserError(f"{place} has the columns {', '.join(row)}: say which holds the text with "
                        "--text-column")
    try:
        if row[column] is not None:
            row[column].encode()
    except (AttributeError, UnicodeEncodeError):  # a number, or half of a character from JSON
        raise UserError(f"{place}: the column {column} holds {ascii(row[column])[:40]}, no text: "
                        "mend it, or choose another with --text-column") from None
    return row[column]


def documents_in(path):
    """The documents of a file of text: what stands between empty lines where one follows at least
    one in a hundred lines (a text of many lines may have an empty one somewhere), else lines."""
    with opened(path) as stream:
        beginning = stream.read(BEGINNING)
    if b"\0" in beginning[:4096]:
        raise UserError(f"{path} is not text: it holds NUL bytes (text is read as UTF-8)")
    text = re.sub(r"\r\n?", "\n", beginning.decode("utf-8", "ignore")).strip()
    has_words = [bool(line.strip()) for line in text.split("\n")]
    ends = sum(line and not following for line, following in zip(has_words, has_words[1:]))
    with opened(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
        if not ends or 100 * ends < sum(has_words):
            yield from (line.rstrip("\n") for line in lines)
            return
        rest = ""  # a text may be larger than memory
        while characters := lines.read(CHARACTERS):
            *whole, rest = EMPTY_LINE.split(rest + characters)
            yield from whole
        yield rest


# ---- Sources -------------------------------------------------------------------------------------

def open_source(data, text_column=None):
    """The source that `--data` names: files and folders, or a hub id."""
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

    A subclass has a `name`, the `column` of its texts, a `key`, which differs from every other
    text's, `has_validation`, and `texts(part)`, of which some may be empty or None."""

    def documents(self):
        """(part, text) pairs, where the part is "train" or "validation", without empty texts.

        Without a validation split about one document in 100 is held out, by its checksum: so a copy
        of it is held out, too. So that a text of two documents has both parts, document 0 is always
        for training, and the first document that differs from it is always held out."""
        first = other = None
        for part in ("train", "validation") if self.has_validation else ("train",):
            for text in self.texts(part):
                if not text or text.isspace():
                    continue
                if not self.has_validation:
                    crc = checksum(text)
                    first = crc if first is None else first
                    other = crc if other is None and crc != first else other
                    is_held_out = crc != first and (crc == other or crc % 100 == 0)
                    part = "validation" if is_held_out else "train"
                yield part, text

    def tokenizer(self, vocab_size=None):
        """A WordPiece tokenizer of the beginning of the training text. It is kept in the cache."""
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
        self.name, self.column = ", ".join(data), text_column or "text"
        parts, left_out = files_at(paths)
        self.files = {part: [path for path in parts if (parts[path] or "train") == part]
                      for part in ("train", "validation", "test")}
        self.has_validation = bool(self.files["validation"])
        left_out += [f"{path} (called test)" for path in self.files["test"]]
        if self.has_validation or left_out:
            cli.say(f"{self.name}: {cli.counted(len(self.files['train']), 'file')} to train on, "
                    f"{len(self.files['validation'])} for validation, {len(left_out)} left out: "
                    f"{', '.join(left_out[:5])}")
        self.key = ["files", READER]
        for part in ("train", "validation"):
            for path in self.files[part]:
                next(texts_in(path, self.column), None)  # says now what is wrong there
                status = path.stat()
                self.key.append([part, str(path.resolve()), status.st_size, status.st_mtime_ns,
                                 status.st_ctime_ns])

    def texts(self, part):
        """The texts of a part."""
        for path in self.files[part]:
            yield from texts_in(path, self.column)


class HubSource(Source):
    """A data set of the hub: `name`, `name:configuration` or `name:configuration:split`.

    Its commit is part of the key. It is remembered: without a network its tokens are found."""

    def __init__(self, name, text_column):
        from huggingface_hub import HfApi  # here: it takes a moment, and only the hub needs it
        self.name, self.column = name, text_column or "text"
        remembered = disk.cache_folder() / f"hub-{disk.fingerprint(name)}.txt"
        with reading(name, disk.hub_advice):
            try:
                self.commit = HfApi().dataset_info(name.split(":")[0], timeout=10).sha
            except Exception:  # no network, or no such id
                if not remembered.exists():
                    raise
                self.commit = remembered.read_text()
                cli.say(f"{name}: the hub does not answer: its commit {self.commit[:7]} is meant")
            else:
                disk.write_file(remembered, self.commit)
        self.key = ["hub", READER, name, self.commit]

    @functools.cached_property
    def splits(self):
        """{"train": a streamed data set, perhaps "validation": another}."""
        path, configuration, split = (self.name.split(":") + ["", ""])[:3]
        with reading(self.name, disk.hub_advice):
            loaded = load_from_hub(path, configuration or None, streaming=True,
                                   split=split or None, revision=self.commit)
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        if "train" not in splits:
            raise UserError(f"{self.name} has the splits {', '.join(splits)}: say which is for "
                            f"training, as in {path}:{configuration}:SPLIT")
        return splits

    @property
    def has_validation(self):
        """Whether there is a validation split."""
        return "validation" in self.splits

    def texts(self, part):
        """The texts of a split."""
        with reading(self.name, disk.hub_advice):
            # Arrow tables skip the library's conversion of each row to a dict (docs/LOG.md).
            for table in self.splits[part].with_format("arrow").iter(batch_size=256):
                names = [name for name in table.column_names if name == self.column]
                for row in table.select(names or table.column_names).to_pylist():
                    yield text_of(self.name, row, self.column)


def load_from_hub(path, *words, **options):
    """datasets.load_dataset of a data set on the hub. It raises whatever the library raises."""
    import datasets  # takes a second, and only the hub needs it
    datasets.disable_progress_bars()
    cache = str(disk.cache_folder() / "hub")  # where it finds nothing of other programs
    with disk.sharing_cache():
        return datasets.load_dataset(path, *words, cache_dir=cache, **options)


def is_reader_of_files(name):
    """Whether load_dataset reads whatever files lie below the working directory, as for "text"."""
    from datasets import packaged_modules  # as above
    return name in packaged_modules._PACKAGED_DATASETS_MODULES
