"""The rows of a file, and the documents of a file of text.

    for place, row in rows(file): ...            # place: "books/a.jsonl, line 3"; row: a dict
    for place, text in documents(file): ...      # of a .txt or .md file

Each file is read for itself, from its first byte to its last. Nothing is guessed from other files,
nothing is cached, and a value keeps the type that it has in its file.
"""
import csv
import io
import itertools
import json
import re

from plumbing.files import readable
from program.cli import UserError, one_line

BEGINNING = 2 ** 20   # bytes, by which a file of text is judged
CHARACTERS = 2 ** 20  # that are read at once
LONGEST = 100         # lines of a paragraph, in the mean of a text
EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # of Arrow
ROWS = 1000            # of Parquet and Arrow, that are converted at once
FIRST_ROWS = 1000      # by which the columns of other files are judged


def rows(file, columns=None):
    """(place, row) pairs of a file, a files.File of rows. A row is a dict {column: value}.

    columns: those that are wanted, where the format can leave out the others. Raises UserError,
    which names the file and the line, for whatever is wrong with it."""
    with readable(file):
        if file.kind == "json":
            yield from json_rows(file)
        elif file.kind in ("csv", "tsv"):
            yield from separated_rows(file, columns)
        elif file.kind == "parquet":
            yield from parquet_rows(file, columns)
        elif file.kind == "arrow":
            yield from arrow_rows(file, columns)


def columns_of(file):
    """{column: whether its values are text}, by the types in a Parquet or Arrow file, and by the
    first rows of any other."""
    with readable(file):
        if file.kind in ("parquet", "arrow"):
            return {field.name: is_text(field.type) for field in schema_of(file)}
        values = {}
        for _, row in itertools.islice(rows(file), FIRST_ROWS):
            for column, value in row.items():
                values.setdefault(column, []).append(value)
    texts = {column: [value for value in found if value is not None]
             for column, found in values.items()}
    return {column: all(isinstance(value, str) for value in found) and bool(found)
            for column, found in texts.items()}


def check_once(place, names, wanted):
    """Raises UserError, which names the `place`, where a wanted column is twice among the names."""
    for column in wanted:
        if names.count(column) > 1:
            raise UserError(f"{place}: the column {column!r} is there twice")


def has_half_character(text):
    """Whether a text holds half of a pair of surrogates. Only JSON can spell one: \\ud83d."""
    try:
        text.encode()
        return False
    except UnicodeEncodeError:
        return True


def schema_of(file):
    """The Arrow schema of a Parquet or Arrow file."""
    from pyarrow import parquet  # here: it takes a moment, and few files need it
    with file.open() as stream:
        if file.kind == "parquet":
            return parquet.ParquetFile(seekable(stream)).schema_arrow
        with arrow_reader(stream) as reader:
            return reader.schema


def is_text(arrow_type):
    """Whether an Arrow type is that of text."""
    return str(arrow_type).removeprefix("dictionary<values=").startswith(
        ("string", "large_string", "string_view"))


# --------------------------------------------------------------------------------------------------
# JSON


def json_rows(file):
    """The rows of JSON lines, or of one JSON array of objects."""
    with file.open() as stream:
        beginning = stream.read(BEGINNING).lstrip(b"\xef\xbb\xbf \t\r\n")
    with file.open() as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
        if beginning.startswith(b"["):
            values = enumerate(parsed(lines.read(), file, "it"), start=1)
            where = "row"
        else:
            values = ((n, parsed(line, file, f"line {n}")) for n, line in enumerate(lines, start=1)
                      if not line.isspace())
            where = "line"
        for n, value in values:
            if not isinstance(value, dict):
                raise UserError(f"{file}, {where} {n} is {type_of(value)}, and a row is an object "
                                'like {"text": "..."}')
            yield f"{file}, {where} {n}", value


def parsed(text, file, where):
    """The value that a JSON text spells."""
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as failure:
        raise UserError(f"{file} cannot be read: {where} is not JSON ({one_line(failure)}); wanted "
                        'are lines like {"text": "..."}, or one array of such objects') from None


def object_of(pairs):
    """A JSON object. Raises ValueError where a key is there twice: one of its values would be
    lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key of an object is there twice")
    return value


def type_of(value):
    """What a value is, in JSON's words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number",
             str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


# --------------------------------------------------------------------------------------------------
# Columns with a separator


def separated_rows(file, columns):
    """The rows of a .csv or .tsv file with a header. A field may stand in quotes, in which a quote
    is doubled and lines may end (RFC 4180)."""
    separator = "\t" if file.kind == "tsv" else ","
    csv.field_size_limit(2 ** 31 - 1)
    with file.open() as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            header = next(reader, [])
            check_header(file, header, columns)
            for fields in reader:
                if fields:  # no empty line
                    place = f"{file}, line {reader.line_num}"
                    yield place, dict(zip(header, checked_fields(place, fields, header)))
        except csv.Error as failure:
            raise UserError(f"{file}, line {reader.line_num}: {failure}; a field that holds a "
                            "quote stands in quotes, with that quote doubled") from None


def check_header(file, header, columns):
    """Raises UserError where the first line of a .csv or .tsv is no header, or one whose columns
    have another separator. columns: those that the user named, or None."""
    check_once(f"{file}, line 1", header, header)
    if len(header) != 1 or header[0] in (columns or ()):
        return
    other = next((separator for separator in ",;\t|" if separator in header[0]), None)
    if other:
        raise UserError(f"{file}, line 1: the header {header[0][:60]!r} is one column, and it "
                        f"holds {other!r}: save the file as .csv with commas, or as .tsv with tabs")
    if len(header[0].split()) != 1:
        raise UserError(f"{file}, line 1: the header should name the columns, and it is "
                        f"{header[0][:60]!r}: add a line with the name text, or name the file .txt")


def checked_fields(place, fields, header):
    """The fields of a line, as many as the header has. Empty ones at its end may be too many: many
    programs end each line with a separator."""
    extra = fields[len(header):]
    if len(fields) < len(header) or any(extra):
        raise UserError(f"{place}: {len(fields)} fields, where the header has {len(header)}: a "
                        "field that holds the separator must stand in quotes")
    return fields[:len(header)]


# --------------------------------------------------------------------------------------------------
# Parquet and Arrow


def parquet_rows(file, columns):
    """The rows of a Parquet file, of the columns that are wanted."""
    from pyarrow import parquet  # here: it takes a moment, and few files need it
    with file.open() as stream:
        table = parquet.ParquetFile(seekable(stream))
        wanted = wanted_names(file, table.schema_arrow.names, columns)
        yield from numbered(file, table.iter_batches(ROWS, columns=wanted))


def arrow_rows(file, columns):
    """The rows of an Arrow file, such as save_to_disk of the library `datasets` writes."""
    with file.open() as stream, arrow_reader(stream) as reader:
        if hasattr(reader, "num_record_batches"):  # the format that is read from its end
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = iter(reader)
        wanted = wanted_names(file, reader.schema.names, columns)
        yield from numbered(file, (batch.select(wanted) for batch in batches))


def wanted_names(file, names, columns):
    """The names of a table's columns that are wanted. Raises UserError where one is there twice."""
    wanted = [name for name in names if columns is None or name in columns]
    check_once(str(file), names, wanted)
    return wanted


def arrow_reader(stream):
    """pyarrow's reader of an Arrow stream, or of an Arrow file, which begins with a mark."""
    from pyarrow import ipc  # as above
    stream = seekable(stream)
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(-len(END_OF_STREAM), io.SEEK_END)
    is_whole = stream.read() == END_OF_STREAM
    stream.seek(0)
    if is_file:
        return ipc.open_file(stream)
    if not is_whole:  # the reader would end there as if all were well
        raise EOFError("the file was cut short")
    return ipc.open_stream(stream)


def seekable(stream):
    """The stream, or a copy in memory where it cannot be read from its end."""
    is_plain = isinstance(stream, io.BufferedReader) and stream.seekable()
    return stream if is_plain else io.BytesIO(stream.read())


def numbered(name, batches):
    """(place, row) pairs of Arrow's batches. Rows count from 0, as whoever opens the table counts
    them; lines of text count from 1, as an editor does."""
    n = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            for row in batch.slice(start, ROWS).to_pylist():
                yield f"{name}, row {n} counted from 0", row
                n += 1


# --------------------------------------------------------------------------------------------------
# Text


def documents(file):
    """The documents of a file of text: paragraphs where has_paragraphs says so, else lines. Raises
    UserError where it is not text."""
    with readable(file):
        with file.open() as stream:
            beginning = stream.read(BEGINNING)
        if b"\0" in beginning[:4096]:
            raise UserError(f"{file} is not text: it holds NUL bytes (text is read as UTF-8)")
        with file.open() as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
            if has_paragraphs(beginning):
                yield from paragraphs(lines)
            else:
                for line in lines:
                    yield line.rstrip("\n")


def has_paragraphs(beginning):
    """Whether the documents of a text are what stands between empty lines, and not its lines.

    They are where an empty line follows at least one in LONGEST lines. A text of many lines, each a
    document, may so have an empty line somewhere, and any text at its end."""
    text = re.sub(r"\r\n?", "\n", beginning.decode("utf-8", "ignore")).strip()
    lines = [bool(line.strip()) for line in text.split("\n")]
    ends = sum(line and not following for line, following in zip(lines, lines[1:]))
    return ends > 0 and LONGEST * ends >= sum(lines)


def paragraphs(lines):
    """What stands between empty lines, a few characters at a time: a text may be larger than
    memory. A line of white space is empty, too."""
    rest = ""
    while characters := lines.read(CHARACTERS):
        *whole, rest = EMPTY_LINE.split(rest + characters)
        yield from whole
    yield rest
