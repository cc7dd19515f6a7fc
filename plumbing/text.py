"""Text: where documents come from, and the tokenizer that cuts them into word pieces.

    source = open_source(["stories"])               # or files, folders, a hub id; datasets.load_dataset reads them
    tokenizer = source.tokenizer(vocab_size=8192)   # made from the text, or load_tokenizer("bert-base-uncased")
    for part, text in source.documents(): ...       # part: "train" or "validation"

Validation text is held out by document, by a rule that reads nothing but the document: so a second copy of a held-out
document is held out too, and no text is on both sides.
"""
import contextlib
import re
import zlib
from pathlib import Path

from plumbing import disk, wordpiece
from plumbing.cli import UserError, one_line
from plumbing.disk import fingerprint
from plumbing.wordpiece import SPECIAL, tokenizer_from

LOADERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}  # .zst by the package zstandard


def open_source(data, text_column=None):
    """What `--data` names: ["stories"], files and folders, or a hub id. Raises UserError where it is nothing of these."""
    paths = [disk.path_of(entry) for entry in data]
    missing = [str(path) for path in paths if not path.exists()]
    if not missing:
        return FileSource(data, paths, text_column)
    is_id = len(data) == 1 and re.fullmatch(disk.HUB_ID + r"(:[\w.-]*){0,2}", data[0], re.ASCII)
    if not is_id or Path(data[0]).suffix in LOADERS.keys() | COMPRESSED:
        raise UserError(f"no such file or folder: {', '.join(missing)}")
    return HubSource(data[0], text_column)




class TextSource:
    """Documents that `datasets` streams, so that neither memory nor disk grows with the corpus."""
    held_out = 100  # one document in 100, where there is no validation split

    def __init__(self, name, text_column):
        self.name, self.column = name, text_column

    def load(self, *args, **options):
        try:
            import datasets
        except ImportError:
            raise UserError("reading text needs the package datasets: pip install -r requirements.txt") from None
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(*args, streaming=True, **options)
        except Exception as failure:  # the library has many: no network, no such id, wrong split, damaged files
            raise UserError(f"{self.name} cannot be loaded{self.hint} ({type(failure).__name__}: {one_line(failure)})") from None

    def texts(self, dataset):
        """The text column's values. Whatever goes wrong inside the reader becomes one line that names the data."""
        # As Arrow tables, which skips the library's conversion of each row to a dict (LOG.md).
        batches, column = iter(dataset.with_format("arrow").iter(batch_size=256)), self.column
        while True:
            try:
                batch = next(batches, None)
            except UnicodeDecodeError as failure:
                raise UserError(f"{self.name} is not UTF-8 text ({failure.reason}): convert it, or check that it is text") from None
            except Exception as failure:
                cause = failure.__cause__ or failure
                raise UserError(f"{self.name} cannot be read ({type(cause).__name__}: {one_line(cause)}): check that the file "
                                f"is what its name says") from None
            if batch is None:
                return
            if column is None:
                strings = [field.name for field in batch.schema if str(field.type) in ("string", "large_string")]
                column = "text" if "text" in batch.column_names else strings[0] if len(strings) == 1 else None
            if column not in batch.column_names:
                raise UserError(f"{self.name} has the columns {', '.join(batch.column_names)}: say which holds the text with --text-column")
            for text in batch[column].to_pylist():
                if text is not None and not isinstance(text, str):
                    raise UserError(f"the column {column} of {self.name} holds {type(text).__name__}, not text: "
                                    f"choose another with --text-column")
                if text and not text.isspace():
                    yield text

    def documents(self):
        train, validation = self.splits()
        if validation is not None:
            yield from (("train", text) for text in self.texts(train))
            yield from (("validation", text) for text in self.texts(validation))
            return
        # Without a validation split: one document in 100, and the first that differs from document 0, so that a text of two
        # documents has both parts.
        zero = chosen = None
        for text in self.texts(train):
            this = checksum(text)
            zero = this if zero is None else zero
            chosen = this if chosen is None and this != zero else chosen
            yield "validation" if this != zero and (this == chosen or this % self.held_out == 0) else "train", text

    def tokenizer(self, vocab_size=None):
        """A WordPiece vocabulary made from the first 100 MB of training text, kept in the cache."""
        vocab_size = 8192 if vocab_size is None else vocab_size
        if vocab_size <= len(SPECIAL):
            raise UserError(f"--vocab-size {vocab_size} leaves no room for a word beside the {len(SPECIAL)} special tokens: use 1000 or more")
        path = disk.cache_folder() / f"tokenizer-{fingerprint([self.key, self.column, vocab_size])}.json"
        with disk.locked(path.with_suffix(".lock"), "makes the same vocabulary"):
            with contextlib.suppress(FileNotFoundError, UserError, KeyError):  # none yet, or damaged: it is made again
                return tokenizer_from(disk.read_json(path)["tokenizer"])
            from tokenizers import trainers
            print(f"making a vocabulary of {vocab_size:,} word pieces from {self.name} ...", flush=True)
            tokenizer = wordpiece({piece: i for i, piece in enumerate(SPECIAL)})
            trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False,
                                                limit_alphabet=max(1, min(1000, (vocab_size - len(SPECIAL)) // 4)))
            # A word of a million letters would take the trainer hours; beyond 100 letters it is [UNK] anyway.
            texts = (re.sub(r"\w{10000,}", " ", text) for part, text in self.documents() if part == "train")
            tokenizer.train_from_iterator(first_characters(texts, 10 ** 8), trainer)
            # Numbered anew: the library orders pieces of equal frequency differently each time.
            pieces = SPECIAL + sorted(set(tokenizer.get_vocab()) - set(SPECIAL))
            made = wordpiece({piece: i for i, piece in enumerate(pieces)})
            disk.write_json(path, {"tokenizer": made.to_str()})
            return tokenizer_from(made.to_str())


class FileSource(TextSource):
    """Files, and folders of files: text, JSON lines, CSV or Parquet, compressed or not."""
    hint = ""

    def __init__(self, data, paths, text_column):
        super().__init__(", ".join(data), text_column)
        found = []
        for path in paths:
            if path.is_dir():
                inside = sorted(p for p in path.rglob("*") if p.is_file() and loader_of(p) and not p.name.startswith("."))
                if not inside:
                    raise UserError(f"{path} holds no text: wanted are files that end in {' '.join(LOADERS)}, compressed or not")
                found += inside
            elif loader_of(path):
                found.append(path)
            else:
                raise UserError(f"{path}: the name of a text should end in {' '.join(LOADERS)}, compressed or not")
        loaders = {loader_of(path) for path in found}
        if len(loaders) > 1:
            raise UserError(f"{self.name} mixes {' and '.join(sorted(loaders))} files: give those of one kind")
        for path in found:
            if path.stat().st_size == 0:
                raise UserError(f"{path} is empty")
        self.loader = loaders.pop()
        self.options = {"sample_by": paragraphs_or_lines(found[0])} if self.loader == "text" else {}
        is_validation = re.compile(r"(^|[-_.])(validation|valid|val|dev)([-_.]|$)")
        validation = [str(path) for path in found if is_validation.search(path.name)]
        train = [str(path) for path in found if str(path) not in validation]
        self.files = (train, validation) if train else (validation, [])
        self.key = ["files", [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ctime_ns] for path in found], self.options]

    def splits(self):
        return [self.load(self.loader, data_files=files, split="train", **self.options) if files else None for files in self.files]


class HubSource(TextSource):
    """A data set of the hub: `name`, `name:configuration` or `name:configuration:split`."""
    hint = " from the hub: check the id, the configuration and the network"

    def __init__(self, name, text_column):
        super().__init__(name, text_column)
        self.path, self.configuration, self.split = (name.split(":") + ["", ""])[:3]
        dataset = self.splits()[0]  # asks the hub: fails now, before anything is written
        self.key = ["hub", name, sorted((dataset.info.download_checksums or {}).keys()), str(dataset.info.version)]

    def splits(self):
        return self.load(self.path, self.configuration or None, split=self.split or "train"), None


def loader_of(path):
    """"text", "json", "csv", "parquet", or None where the name says none of them."""
    suffixes = path.suffixes[:-1] if path.suffix in COMPRESSED else path.suffixes
    return LOADERS.get(suffixes[-1]) if suffixes else None


def paragraphs_or_lines(path):
    """How text files are cut into documents: at empty lines where the first one's beginning has some, else each line is one."""
    import fsspec
    try:
        with fsspec.open(str(path), "rb", compression="infer") as file:
            beginning = file.read(2 ** 20)
    except Exception as failure:
        raise UserError(f"{path} cannot be read ({type(failure).__name__}: {one_line(failure)})") from None
    if b"\0" in beginning[:4096]:
        raise UserError(f"{path} is not text: it holds NUL bytes")
    return "paragraph" if re.search(rb"\S[ \t]*\r?\n\r?\n", beginning) else "line"


def checksum(text):
    return zlib.crc32(text.encode("utf-8", "replace"))




def first_characters(documents, limit):
    for text in documents:
        yield text
        limit -= len(text)
        if limit < 0:
            return




# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers











