"""Text: where documents come from, and how a text gets a vocabulary of its own.

    source = open_source(["books/"])                # files, folders or a hub id
    tokenizer = source.tokenizer(vocab_size=8192)   # made from the text
    for part, text in source.documents(): ...       # part: "train" or "validation"

Files are listed and read one by one (plumbing/files.py, plumbing/rows.py). The library `datasets`
reads what is on the hub. Validation text is held out by document, and the rule reads nothing but
the document. So a second copy of a held-out document is held out too, and no text is in both parts.
"""
import contextlib
import re
import zlib

from files import disk
from plumbing import cli, files, rows
from plumbing.cli import UserError, one_line
from plumbing.vocabulary import MAKER, train_wordpiece
from plumbing.wordpiece import SPECIAL, tokenizer_from

READER = 3  # the version of the rules by which files become documents


def open_source(data, text_column=None):
    """The source that `--data` names: files and folders, or a hub id.

    Raises UserError where `data` names neither."""
    paths = [disk.path_of(entry) for entry in data]
    missing = [str(path) for path in paths if not path.exists()]
    if not missing:
        return FileSource(data, paths, text_column)
    pattern = disk.HUB_ID + r"(:[\w.-]*){0,2}"
    is_id = len(data) == 1 and re.fullmatch(pattern, data[0], re.ASCII)
    if not is_id or files.is_text(data[0]):
        raise UserError(f"no such file, folder or hub id: {', '.join(missing)}")
    return HubSource(data[0], text_column)


class Source:
    """Documents, one after the other, so that neither memory nor disk grows with the corpus.

    A subclass has a `key`, which differs from every other text's, and `texts(part)`."""
    held_out = 100  # one document in 100, where there is no validation split

    def __init__(self, name, text_column):
        self.name, self.column = name, text_column

    def documents(self):
        """(part, text) pairs, where the part is "train" or "validation". Empty texts are left
        out."""
        if not self.has_validation:
            yield from self.hold_out(self.texts("train"))
            return
        for part in ("train", "validation"):
            for text in self.texts(part):
                yield part, text

    def hold_out(self, texts):
        """(part, text) pairs of a text without a validation split: about one document in 100 is
        held out, by its checksum.

        So that a text of two documents has both parts, document 0 is always for training, and the
        first document that differs from it is always held out."""
        first = first_other = None
        for text in texts:
            crc = checksum(text)
            if first is None:
                first = crc
            if first_other is None and crc != first:
                first_other = crc
            is_chosen = crc == first_other or crc % self.held_out == 0
            yield "validation" if crc != first and is_chosen else "train", text

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
            print(f"making a vocabulary of {vocab_size:,} word pieces from {self.name} ...",
                  flush=True)
            tokenizer = train_wordpiece(self.training_texts, vocab_size)
            disk.write_json(path, {"tokenizer": tokenizer.to_str()})
            return tokenizer_from(tokenizer.to_str())

    def training_texts(self):
        """The texts of the training part."""
        return (text for part, text in self.documents() if part == "train")


def checked(place, column, value):
    """A value of the text column. Raises UserError where it is no text."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"{place}: the column {column} holds {rows.type_of(value)}, not text: mend "
                        "the row, or choose another column with --text-column")
    if value and rows.has_half_character(value):
        raise UserError(f"{place}: the column {column} holds half a character, like \\ud83d: mend "
                        "the row")
    return value or ""


def is_empty(text):
    """Whether a text holds nothing but white space."""
    return not text or text.isspace()


# --------------------------------------------------------------------------------------------------
# Files


class FileSource(Source):
    """Files, and folders of files: text, JSON, CSV, TSV, Parquet or Arrow, compressed or not."""

    def __init__(self, data, paths, text_column):
        super().__init__(", ".join(data), text_column)
        chosen = files.choose(paths)
        self.files = by_part(chosen.files)
        self.has_validation = bool(self.files["validation"])
        if remark := self.remark(chosen.left_out):
            cli.say(remark)
        self.check_column(chosen.files)
        of_rows = [file for part in ("train", "validation") for file in self.files[part]
                   if file.kind != "text"]
        if of_rows and not self.column:
            # Beside files of text, a file of rows may be about them: only a column `text` is text.
            is_mixed = any(file.kind == "text" for file in chosen.files)
            self.column = text_column_of(of_rows, is_mixed)
        self.key = ["files", READER, [[part, file.key] for part in ("train", "validation")
                                      for file in self.files[part]]]

    def check_column(self, chosen):
        """Raises UserError where a column is named, and no file has columns."""
        if self.column and all(file.kind == "text" for file in chosen):
            raise UserError(f"--text-column {self.column}: {self.name} holds text and no rows: "
                            "leave it out")

    def remark(self, left_out):
        """One line on what names decided and what was left out, or None."""
        validation, test = self.files["validation"], self.files["test"]
        if test:
            examples = ", ".join(str(file) for file in test[:3]) + ", ..." * (len(test) > 3)
            left_out = [f"{len(test)} called test ({examples})", *left_out]
        if not validation and not left_out:
            return None
        words = [f"{cli.counted(len(self.files['train']), 'file')} to train on"]
        if validation:
            words.append(f"{len(validation)} for validation")
        if left_out:
            words.append(f"left out: {', '.join(left_out)}")
        return f"{self.name}: {'; '.join(words)}"

    def texts(self, part):
        """The texts of a part."""
        for file in self.files[part]:
            if file.kind == "text":
                yield from (text for text in rows.documents(file) if not is_empty(text))
            else:
                yield from self.column_of(file)

    def column_of(self, file):
        """The texts in the column of a file of rows. Rows of JSON that lack it are counted. Raises
        UserError where all lack it."""
        n = without = 0
        for place, row in rows.rows(file, [self.column]):
            n += 1
            without += self.column not in row
            text = checked(place, self.column, row.get(self.column))
            if not is_empty(text):
                yield text
        if n and without == n:
            raise wrong_column(file, rows.columns_of(file))
        if without:
            cli.say_once(f"{file}: {without:,} of {n:,} rows have no {self.column}, and are left "
                         "out")


def by_part(chosen):
    """{"train": files, "validation": files, "test": files} by their names. Where no file is left to
    train on, the names say nothing, and all are for training."""
    parts = {"train": [], "validation": [], "test": []}
    for file in chosen:
        parts[file.part or "train"].append(file)
    if not parts["train"]:
        kinds = [part for part in ("validation", "test") if parts[part]]
        if len(kinds) == 2:
            raise UserError(f"{chosen[0]} and the other files are called validation and test, and "
                            "none is left to train on: name them one by one, or rename them")
        parts = {"train": chosen, "validation": [], "test": []}
    return parts


def text_column_of(chosen, is_mixed):
    """The column that holds the text in files of rows: "text" where one of them has it, or else the
    only column of texts. Raises UserError where neither exists."""
    columns = {}
    for file in chosen:
        for column, is_text in rows.columns_of(file).items():
            columns[column] = columns.get(column, False) or is_text
        if "text" in columns:  # the other files need not be opened for this
            return "text"
    if not columns:
        return "text"
    texts = [column for column, is_text in columns.items() if is_text]
    if len(texts) != 1 or is_mixed:
        first = next(file for file in chosen if rows.columns_of(file))
        raise wrong_column(first, columns)
    return texts[0]


def wrong_column(name, columns):
    """The UserError of rows without the text column."""
    return UserError(f"{name} has the columns {', '.join(columns)}: say which holds the text with "
                     "--text-column")


# --------------------------------------------------------------------------------------------------
# The hub


class HubSource(Source):
    """A data set of the hub: `name`, `name:configuration` or `name:configuration:split`."""

    def __init__(self, name, text_column):
        super().__init__(name, text_column)
        self.path, self.configuration, self.split = (name.split(":") + ["", ""])[:3]
        # This asks the hub: what is wrong is said now, before anything is written.
        self.splits = self.load()
        self.has_validation = "validation" in self.splits
        info = self.splits["train"].info
        self.key = ["hub", name, commit_of(self.path), str(info.version)]

    def load(self):
        """{"train": a streamed data set, perhaps "validation": another}. Raises UserError where
        the hub does not give it."""
        if is_reader_of_files(self.path):
            raise UserError(f"no such file, folder or hub id: {self.path}")
        with self.asking_hub("check the id, the configuration and the network"):
            loaded = load_from_hub(self.path, self.configuration or None, streaming=True,
                                   split=self.split or None)
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        if "train" not in splits:
            raise UserError(f"{self.name} has the splits {', '.join(splits)}: say which is for "
                            f"training, as in {self.path}:{self.configuration}:SPLIT")
        return {part: splits[part] for part in ("train", "validation") if part in splits}

    @contextlib.contextmanager
    def asking_hub(self, otherwise):
        """Turns whatever goes wrong at the hub into a UserError with what to do about it. The
        library raises many kinds: no network, no such id, a wrong split, damaged files."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as failure:
            raise UserError(f"{self.name} cannot be loaded from the hub: "
                            f"{disk.hub_advice(failure, otherwise)} ({type(failure).__name__}: "
                            f"{one_line(failure)})") from None

    def texts(self, part):
        """The texts of a split."""
        column = self.column
        for table in self.tables(self.splits[part]):
            if column is None:
                texts = [field.name for field in table.schema if rows.is_text(field.type)]
                column = texts[0] if len(texts) == 1 else "text"
            if column not in table.column_names:
                raise wrong_column(self.name, table.column_names)
            for text in table[column].to_pylist():
                text = checked(self.name, column, text)
                if not is_empty(text):
                    yield text

    def tables(self, dataset):
        """The data set's rows as Arrow tables. Raises UserError, with the name of the data, for
        whatever goes wrong inside the reader."""
        # Arrow tables skip the library's conversion of each row to a dict (docs/LOG.md).
        with self.asking_hub("check the network, and that its files are whole"):
            yield from dataset.with_format("arrow").iter(batch_size=256)


def commit_of(path):
    """The commit of a data set on the hub, so that cached tokens do not outlive it. None where the
    hub does not say it."""
    import huggingface_hub  # as below
    try:
        return huggingface_hub.HfApi().dataset_info(path).sha
    except Exception:  # no network: what was loaded comes from the library's cache
        return None


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


# --------------------------------------------------------------------------------------------------
# Documents


def checksum(text):
    """CRC-32 of a document. It decides which documents are held out."""
    return zlib.crc32(text.encode("utf-8", "replace"))
