"""Which files a text or a data set consists of, and how they are opened.

    chosen = choose([Path("books")])        # Chosen: the files, and a line on what was left out
    for file in chosen.files:               # each real file once, in alphabetical order
        with file.open() as stream: ...     # its bytes, decompressed
        file.kind, file.part                # ("text", "train")

The files are listed here one by one, and each one is opened by its own name. So a name that holds
`[`, `*` or `?` means that file and no other.
"""
import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple, Optional

from program.cli import UserError, one_line

KINDS = {".txt": "text", ".md": "text", ".jsonl": "json", ".json": "json", ".csv": "csv",
         ".tsv": "tsv", ".parquet": "parquet", ".arrow": "arrow"}
COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # and .zst, see `decompressed`
ENDINGS = " ".join(KINDS)
# What the library `datasets` leaves beside its data. Nobody means it as text, or misses it.
RECORDS = re.compile(r"dataset_infos?\.json|state\.json|dataset_dict\.json|cache-.*\.arrow")
# Part 2 of 10, say: train-00001-of-00010.parquet
SHARD = re.compile(r"(?P<stem>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?!\d)")

# The words in a name that say to which part of a data set a file belongs (as on the hub).
WORDS = {"train": "train", "training": "train",
         "validation": "validation", "valid": "validation", "val": "validation",
         "dev": "validation", "test": "test", "testing": "test", "eval": "test",
         "evaluation": "test"}


class File(NamedTuple):
    """A file of text or of rows, on the disk or inside a .zip.

    kind: "text", "json", "csv", "tsv", "parquet" or "arrow" (of save_to_disk). part: "train",
    "validation", "test", or None where no name says it."""
    path: Path
    kind: str
    part: Optional[str]
    member: Optional[str] = None  # the name inside the .zip

    def __str__(self):
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def key(self):
        """What changes when the file does: its place, its size and its times."""
        status = self.path.stat()
        return [str(self.path.resolve()), self.member, self.kind, status.st_size,
                status.st_mtime_ns, status.st_ctime_ns]

    @contextlib.contextmanager
    def open(self):
        """A stream of the file's bytes, decompressed. Raises UserError where it cannot be read."""
        with readable(self), contextlib.ExitStack() as stack:
            if self.member:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                stream = stack.enter_context(archive.open(self.member))
            else:
                stream = stack.enter_context(open(self.path, "rb"))
            yield stack.enter_context(decompressed(stream, self.member or self.path.name))


@contextlib.contextmanager
def readable(file):
    """Turns whatever goes wrong while a file is read into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as failure:
        raise UserError(f"{file} is not UTF-8 text ({failure.reason}): convert it, or check that "
                        "it is text") from None
    except MemoryError:
        raise
    except Exception as failure:  # every format and every compression has classes of its own
        raise UserError(f"{file} cannot be read ({type(failure).__name__}: {one_line(failure)}): "
                        "check that the file is whole, and what its name says") from None


def decompressed(stream, name):
    """The stream behind a compressed one, by the name's last ending."""
    suffix = Path(name.lower()).suffix
    if suffix in COMPRESSED:
        return COMPRESSED[suffix](stream, "rb")
    if suffix == ".zst":
        return io.BufferedReader(ZstdStream(stream))
    return contextlib.nullcontext(stream)


class ZstdStream(io.RawIOBase):
    """The bytes of a .zst stream. Raises EOFError where it was cut short, as the readers of other
    compressions do; the package's own reader would end there as if all were well."""

    def __init__(self, stream):
        import zstandard  # here: it is seldom needed
        self.new_frame = zstandard.ZstdDecompressor().decompressobj
        self.stream, self.frame = stream, None
        self.rest, self.ready = b"", b""  # compressed, and decompressed

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.ready:
            self.rest = self.rest or self.stream.read(2 ** 16)
            if not self.rest:
                if self.frame is not None:
                    raise EOFError("the file was cut short")
                return 0
            self.frame = self.frame or self.new_frame()
            self.ready, self.rest = self.frame.decompress(self.rest), b""
            if self.frame.eof:  # another frame may follow
                self.rest, self.frame = self.frame.unused_data, None
        n = min(len(buffer), len(self.ready))
        buffer[:n], self.ready = self.ready[:n], self.ready[n:]
        return n


def kind_of(name):
    """The kind of a file by its name, such as "text" (see File). None where the name says none."""
    return KINDS.get(without_compression(Path(str(name).lower())).suffix)


def is_text(name):
    """Whether a file is read, by its name: one of text or of rows, or a .zip of such files."""
    return kind_of(name) is not None or str(name).lower().endswith(".zip")


def is_about(name):
    """Whether a file in a folder is about the others. Whoever means it as text names it."""
    return name.lower() == "readme.md"


# --------------------------------------------------------------------------------------------------
# Parts


def word_of_part(name):
    """"train", "validation" or "test", by the first word of a file's or folder's name that says
    it: test-00000-of-00001.parquet, books_valid.txt. None where no word does."""
    for word in re.split(r"[-_. \d]+", name.lower()):
        if word in WORDS:
            return WORDS[word]
    return None


def part_of(names):
    """The part that a path's names say: the file's own name first, then its folders', from the
    nearest to the farthest."""
    for name in reversed(names):
        if part := word_of_part(name):
            return part
    return None


# --------------------------------------------------------------------------------------------------
# Listing


class Chosen(NamedTuple):
    """The files that are read, and what else was there."""
    files: list      # [File]
    left_out: list   # in words: ["3 hidden", "1 of another kind (cover.png)"]


def choose(paths):
    """The Chosen files at some paths, each a file or a folder. Each real file is taken once.

    Raises UserError where a path is a file of another kind, is empty, or is a folder without
    text."""
    listing, root = Listing(), common_folder(paths)
    for path in paths:
        before = listing.count
        names = Path(os.path.abspath(path)).relative_to(root).parts
        if path.is_dir():
            listing.add_folder(path, names)
        else:
            listing.add_named(path, names)
        if listing.count == before:
            others = f", but {', '.join(listing.others[:3])}" if listing.others else ""
            raise UserError(f"{path} holds no text{others}: wanted are files that end in {ENDINGS} "
                            "or .zip, compressed or not")
    if not listing.files:
        raise UserError(f"{', '.join(map(str, paths))} is empty")
    check_copies(listing.files)
    return Chosen(listing.files, listing.remarks())


def check_copies(files):
    """Raises UserError where one text is there twice: compressed, or in a .zip, and as it is. By
    their names: a.txt and a.txt.gz; b.txt, or a/b.txt, beside an a.zip that holds b.txt."""
    met = {}
    for file in sorted(files, key=lambda file: file.member is not None):  # .zip come last
        places = [file.path]
        if file.member is not None:
            places = [file.path.parent / file.member, file.path.with_suffix("") / file.member]
        for place in places:
            name = without_compression(place)
            other = met.get(name)
            if other and (file.member is None or other.member is None):
                raise UserError(f"{other} and {file} look like one text in two files, which would "
                                "be read twice: remove one of them, or rename it if it is another "
                                "text")
        met.setdefault(without_compression(places[0]), file)


def without_compression(path):
    """A path without the ending that says how the file is compressed: a.txt.gz is a.txt."""
    return path.with_suffix("") if path.suffix.lower() in (*COMPRESSED, ".zst") else path


def common_folder(paths):
    """The folder below which the paths' names say the part: a folder that is named alone, or the
    one that all paths have in common. So p/train p/test mean the same as p."""
    parents = [os.path.abspath(path if path.is_dir() and len(paths) == 1 else path.parent)
               for path in paths]
    return os.path.commonpath(parents)


def check_shards(paths):
    """Raises UserError where a folder lacks one of its numbered files, or has those of two saves:
    train-00000-of-00002 and train-00000-of-00003."""
    shards = {}
    for path in paths:
        if match := SHARD.match(path.name):
            of_stem = shards.setdefault((path.parent, match["stem"], path.suffix), {})
            of_stem.setdefault(int(match["total"]), set()).add(int(match["number"]))
    for (folder, stem, _), by_total in shards.items():
        if len(by_total) > 1:
            totals = " and ".join(map(str, sorted(by_total)))
            raise UserError(f"{folder} holds {stem}... of {totals} files, from two saves: remove "
                            "one of them, or name the files one by one")
        [(total, numbers)] = by_total.items()
        if len(numbers) < total:
            raise UserError(f"{folder} holds {len(numbers)} of the {total} files {stem}...: the "
                            "others are missing; name the files one by one if you mean just these")


class Listing:
    """Collects files, and counts what it leaves out."""

    def __init__(self):
        self.files, self.others, self.empty = [], [], []
        self.hidden = self.repeated = 0
        self.seen = set()  # the identities of files

    @property
    def count(self):
        """Files of text that were met, those that are not taken included."""
        return len(self.files) + len(self.empty) + self.repeated

    def add_named(self, path, names):
        """A file that the user named. names: its own and those of its folders that say its part."""
        if not path.is_file():
            raise UserError(f"{path} is no ordinary file: save the text as one")
        if not is_text(path.name):
            raise UserError(f"{path}: the name of a text should end in {ENDINGS} or .zip, "
                            "compressed (.gz .bz2 .xz .zst) or not")
        self.add_text(path, names)

    def add_folder(self, root, names):
        """All files below a folder. Hidden ones are left out, and links are followed. names: of the
        folder itself, where they say its part."""
        found = []
        walked = {identity(root)}  # a linked folder may lead back to where it stands
        for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
            self.hidden += sum(name.startswith(".") for name in folders)
            folders[:] = [name for name in folders if not name.startswith(".")
                          and is_new(Path(folder, name), walked)]
            found += [Path(folder, name) for name in files]
        check_shards(found)
        for path in sorted(found):
            self.add_found(path, (*names, *path.relative_to(root).parts))

    def add_found(self, path, names):
        """A file that was met in a folder. names: its own name and its folders' below the root."""
        if path.name.startswith("."):
            self.hidden += 1
        elif is_text(path.name) and path.is_file() and not is_about(path.name):
            if not RECORDS.fullmatch(path.name):
                self.add_text(path, names)
        else:
            self.others.append(path.name)

    def add_text(self, path, names):
        """A file of text, or a .zip of such files."""
        if not is_new(path, self.seen):
            self.repeated += 1
        elif path.stat().st_size == 0:
            self.empty.append(path.name)
        elif path.suffix.lower() == ".zip":
            self.add_archive(path, names)
        else:
            self.files.append(File(path, kind_of(path.name), part_of(names)))

    def add_archive(self, path, names):
        """The files in a .zip."""
        with readable(path), zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            sizes = {info.filename: info.file_size for info in infos}
            if len(sizes) < len(infos):
                raise UserError(f"{path} holds two files of one name: unpack it, and name them")
        for member in sorted(sizes):
            inside = tuple(member.split("/"))
            if any(name.startswith((".", "__MACOSX")) for name in inside):
                self.hidden += 1
            elif sizes[member] == 0:
                self.empty.append(inside[-1])
            elif kind_of(member) and not is_about(inside[-1]):
                part = part_of(names + inside)
                self.files.append(File(path, kind_of(member), part, member))
            else:
                self.others.append(inside[-1])

    def remarks(self):
        """What was left out, in words."""
        remarks = []
        for n, what in ((self.hidden, "hidden"), (self.repeated, "given twice")):
            if n:
                remarks.append(f"{n} {what}")
        for names, what in ((self.empty, "empty"), (self.others, "of other kinds")):
            if names:
                more = ", ..." if len(names) > 3 else ""
                remarks.append(f"{len(names)} {what} ({', '.join(names[:3])}{more})")
        return remarks


def refuse(failure):
    """Raises UserError for a folder that cannot be listed: os.walk would pass over it."""
    raise UserError(f"{failure.filename} cannot be read: {failure.strerror}")


def identity(path):
    """What two links to one file or folder have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino


def is_new(path, seen):
    """Whether a file or folder was not met before, under whatever name. It is noted in `seen`."""
    own = identity(path)
    is_first = own not in seen
    seen.add(own)
    return is_first
