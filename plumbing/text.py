"""Text: where documents come from, and how a text gets a vocabulary of its own.

    source = open_source(["books/"])                # files, folders or a hub id
    tokenizer = source.tokenizer(vocab_size=8192)   # made from the text
    for part, text in source.documents(): ...       # part: "train" or "validation"

The library `datasets` reads the files. Validation text is held out by document, and the rule reads
nothing but the document. So a second copy of a held-out document is held out too, and no text is in
both parts.
"""
import contextlib
import re
import zlib
from pathlib import Path

from plumbing import disk, wordpiece
from plumbing.cli import UserError, one_line
from plumbing.wordpiece import SPECIAL, tokenizer_from

LOADERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}  # .zst by the package zstandard
VALIDATION_NAME = re.compile(r"(^|[-_.])(validation|valid|val|dev)([-_.]|$)")
VOCABULARY_CHARACTERS = 10 ** 8  # of training text, from which a vocabulary is made


def open_source(data, text_column=None):
    """The source that `--data` names: files and folders, or a hub id.

    Raises UserError where `data` names neither."""
    paths = [disk.path_of(entry) for entry in data]
    missing = [str(path) for path in paths if not path.exists()]
    if not missing:
        return FileSource(data, paths, text_column)
    pattern = disk.HUB_ID + r"(:[\w.-]*){0,2}"
    is_id = len(data) == 1 and re.fullmatch(pattern, data[0], re.ASCII)
    if not is_id or Path(data[0]).suffix in LOADERS.keys() | COMPRESSED:
        raise UserError(f"no such file or folder: {', '.join(missing)}")
    return HubSource(data[0], text_column)


class TextSource:
    """Documents that `datasets` streams, so that neither memory nor disk grows with the corpus."""
    held_out = 100  # one document in 100, where there is no validation split
    advice = ""     # what an error line adds where the data cannot be loaded

    def __init__(self, name, text_column):
        self.name, self.column = name, text_column

    def load(self, *args, **options):
        """A streamed data set. Raises UserError where it cannot be loaded."""
        try:
            import datasets  # takes a second, and stories do without it
        except ImportError:
            raise UserError("reading text needs the package datasets: "
                            "pip install -r requirements.txt") from None
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(*args, streaming=True, **options)
        # The library raises many kinds: no network, no such id, a wrong split, damaged files.
        except Exception as failure:
            raise UserError(f"{self.name} cannot be loaded{self.advice} "
                            f"({type(failure).__name__}: {one_line(failure)})") from None

    def batches(self, dataset):
        """The data set's rows as Arrow tables. Raises UserError, with the name of the data, for
        whatever goes wrong inside the reader."""
        # Arrow tables skip the library's conversion of each row to a dict (docs/LOG.md).
        batches = iter(dataset.with_format("arrow").iter(batch_size=256))
        while True:
            try:
                batch = next(batches, None)
            except UnicodeDecodeError as failure:
                raise UserError(f"{self.name} is not UTF-8 text ({failure.reason}): convert it, or "
                                "check that it is text") from None
            except Exception as failure:
                cause = failure.__cause__ or failure
                raise UserError(f"{self.name} cannot be read ({type(cause).__name__}: "
                                f"{one_line(cause)}): check that the file is what its name "
                                "says") from None
            if batch is None:
                return
            yield batch

    def texts(self, dataset):
        """The values of the text column. Empty ones are left out."""
        column = self.column
        for batch in self.batches(dataset):
            if column is None:
                column = text_column_of(batch)
            if column not in batch.column_names:
                raise UserError(f"{self.name} has the columns {', '.join(batch.column_names)}: say "
                                "which holds the text with --text-column")
            for text in batch[column].to_pylist():
                if text is not None and not isinstance(text, str):
                    raise UserError(f"the column {column} of {self.name} holds "
                                    f"{type(text).__name__}, not text: choose another with "
                                    "--text-column")
                if text and not text.isspace():
                    yield text

    def documents(self):
        """(part, text) pairs, where the part is "train" or "validation"."""
        train, validation = self.splits()
        if validation is None:
            yield from self.hold_out(self.texts(train))
            return
        for part, dataset in (("train", train), ("validation", validation)):
            for text in self.texts(dataset):
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
        key = disk.fingerprint([self.key, self.column, vocab_size])
        path = disk.cache_folder() / f"tokenizer-{key}.json"
        with disk.locked(path.with_suffix(".lock"), "makes the same vocabulary"):
            # Where there is none yet, or it is damaged, it is made again.
            with contextlib.suppress(FileNotFoundError, UserError, KeyError):
                return tokenizer_from(disk.read_json(path)["tokenizer"])
            print(f"making a vocabulary of {vocab_size:,} word pieces from {self.name} ...",
                  flush=True)
            tokenizer = self.train_tokenizer(vocab_size)
            disk.write_json(path, {"tokenizer": tokenizer.to_str()})
            return tokenizer_from(tokenizer.to_str())

    def train_tokenizer(self, vocab_size):
        """Makes the vocabulary.

        Pieces are in alphabetical order. Which of several equally frequent pieces is the last to
        be taken, the library leaves open, so two trainings on one text may differ in a few."""
        from tokenizers import trainers  # only here: a tokenizer is rarely made
        tokenizer = wordpiece.wordpiece({piece: i for i, piece in enumerate(SPECIAL)})
        letters = max(1, min(1000, (vocab_size - len(SPECIAL)) // 4))
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIAL,
                                            show_progress=False, limit_alphabet=letters)
        # The trainer would take hours for a word of a million letters. WordPiece makes every word
        # beyond 100 letters [UNK] anyway.
        texts = (re.sub(r"\w{10000,}", " ", text)
                 for part, text in self.documents() if part == "train")
        tokenizer.train_from_iterator(first_characters(texts, VOCABULARY_CHARACTERS), trainer)
        # Sorted, since the library orders pieces of equal frequency differently each time.
        pieces = SPECIAL + sorted(set(tokenizer.get_vocab()) - set(SPECIAL))
        return wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})


class FileSource(TextSource):
    """Files, and folders of files: text, JSON lines, CSV or Parquet, compressed or not."""

    def __init__(self, data, paths, text_column):
        super().__init__(", ".join(data), text_column)
        files = [file for path in paths for file in files_of(path)]
        loaders = {loader_of(file) for file in files}
        if len(loaders) > 1:
            raise UserError(f"{self.name} mixes {' and '.join(sorted(loaders))} files: give those "
                            "of one kind")
        for file in files:
            if file.stat().st_size == 0:
                raise UserError(f"{file} is empty")
        self.loader, self.options = loaders.pop(), {}
        if self.loader == "text":
            self.options["sample_by"] = paragraphs_or_lines(files[0])
        validation = [str(file) for file in files if VALIDATION_NAME.search(file.name)]
        train = [str(file) for file in files if not VALIDATION_NAME.search(file.name)]
        self.train_files, self.validation_files = train, validation
        if not train:  # all are called validation: then the name says nothing
            self.train_files, self.validation_files = validation, []
        self.key = ["files", [identity(file) for file in files], self.options]

    def splits(self):
        """(training data set, validation data set or None)."""
        train, validation = self.train_files, self.validation_files
        return self.load_files(train), self.load_files(validation) if validation else None

    def load_files(self, files):
        return self.load(self.loader, data_files=files, split="train", **self.options)


class HubSource(TextSource):
    """A data set of the hub: `name`, `name:configuration` or `name:configuration:split`."""
    advice = " from the hub: check the id, the configuration and the network"

    def __init__(self, name, text_column):
        super().__init__(name, text_column)
        self.path, self.configuration, self.split = (name.split(":") + ["", ""])[:3]
        # This asks the hub: what is wrong is said now, before anything is written.
        info = self.splits()[0].info
        self.key = ["hub", name, sorted((info.download_checksums or {}).keys()), str(info.version)]

    def splits(self):
        """(training data set, None)."""
        return self.load(self.path, self.configuration or None, split=self.split or "train"), None


# --------------------------------------------------------------------------------------------------
# Files


def files_of(path):
    """The files of text at a path, which is a file or a folder. Raises UserError where it holds
    none."""
    endings = " ".join(LOADERS)
    if not path.is_dir():
        if not loader_of(path):
            raise UserError(f"{path}: the name of a text should end in {endings}, compressed or "
                            "not")
        return [path]
    files = [file for file in sorted(path.rglob("*"))
             if file.is_file() and loader_of(file) and not file.name.startswith(".")]
    if not files:
        raise UserError(f"{path} holds no text: wanted are files that end in {endings}, compressed "
                        "or not")
    return files


def identity(file):
    """What changes when a file does: its place, its size and its times."""
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def loader_of(path):
    """"text", "json", "csv" or "parquet", by the name. None where the name says none of them."""
    suffixes = path.suffixes
    if path.suffix in COMPRESSED:
        suffixes = suffixes[:-1]
    return LOADERS.get(suffixes[-1]) if suffixes else None


def text_column_of(batch):
    """The column that holds the text: "text", or the only column of strings. None where neither
    exists."""
    if "text" in batch.column_names:
        return "text"
    strings = [field.name for field in batch.schema
               if str(field.type) in ("string", "large_string")]
    return strings[0] if len(strings) == 1 else None


def paragraphs_or_lines(path):
    """How a text file is cut into documents: "paragraph" (at empty lines) where its beginning has
    empty lines, else "line". Raises UserError where it is not text."""
    import fsspec  # comes with datasets, and only files of text need it
    try:
        with fsspec.open(str(path), "rb", compression="infer") as file:
            beginning = file.read(2 ** 20)
    except Exception as failure:  # each kind of compression has exceptions of its own
        raise UserError(f"{path} cannot be read "
                        f"({type(failure).__name__}: {one_line(failure)})") from None
    if b"\0" in beginning[:4096]:
        raise UserError(f"{path} is not text: it holds NUL bytes")
    return "paragraph" if re.search(rb"\S[ \t]*\r?\n\r?\n", beginning) else "line"


# --------------------------------------------------------------------------------------------------
# Documents


def checksum(text):
    """CRC-32 of a document. It decides which documents are held out."""
    return zlib.crc32(text.encode("utf-8", "replace"))


def first_characters(documents, limit):
    """The first documents, until they have more than `limit` characters."""
    for text in documents:
        yield text
        limit -= len(text)
        if limit < 0:
            return
