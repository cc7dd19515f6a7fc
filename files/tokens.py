"""The cache of tokens: a text is tokenized once, into a folder outside the checkout.

    folder = cached(source, tokenizer)       # train.bin, validation.bin, info.json

A source has a `name`, a `key` that differs from every other source's, and `documents()`: pairs
(part, text), where the part is "train" or "validation".
"""
import itertools
import re
import shutil

from files import disk, wordpiece
from program import progress
from program.cli import UserError

import numpy as np

PIECE = 100_000  # characters; longer documents are tokenized piece by piece
BATCH = 512      # pieces that are tokenized at once
# As much as possible before white space. BERT takes control characters for nothing, not for space.
BEFORE_SPACE = re.compile(r"(?s:.+)(?=[^\S\x0b\x0c\x1c-\x1f\x85])")


def tokenized(documents, tokenizer, dtype):
    """(part, text) pairs -> (part, array of token ids) pairs. A [SEP] follows each document."""
    sep, all_pieces = tokenizer.token_to_id("[SEP]"), pieces(documents)
    while batch := list(itertools.islice(all_pieces, BATCH)):
        texts = [piece for _, piece, _ in batch]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = {"train": [], "validation": []}
        for encoding, (part, _, is_end) in zip(encodings, batch):
            ids[part] += encoding.ids
            if is_end:
                ids[part].append(sep)
        for part in ids:
            if ids[part]:
                yield part, np.array(ids[part], dtype=dtype)


def pieces(documents):
    """(part, text) pairs -> (part, piece, whether the document ends with it). A long document is
    cut at white space, since the encoding of one of gigabytes would not fit into memory."""
    for part, document in documents:
        start = 0
        while len(document) - start > PIECE:
            found = BEFORE_SPACE.match(document, start, start + PIECE)
            end = found.end() if found else start + PIECE
            yield part, document[start:end], False
            start = end
        yield part, document[start:], True


def cached(source, tokenizer):
    """The folder with the source's tokens, which is made on first use, under a lock, and renamed
    into place. Its name is a fingerprint of everything that the tokens depend on."""
    key = [3, source.key, getattr(source, "column", None), tokenizer.to_str()]
    folder = disk.cache_folder() / f"tokens-{disk.fingerprint(key)}"
    lock, building = folder.with_suffix(".lock"), folder.with_suffix(".tmp")
    with disk.sharing_cache(), disk.locked(lock, "tokenizes the same text"):
        if not is_whole(folder):
            if folder.exists():
                print(f"the cached tokens in {folder} are damaged: making them again", flush=True)
            for leftover in (building, folder):  # the first is of a process that died
                if leftover.exists():
                    shutil.rmtree(leftover)
            building.mkdir()
            try:
                build(source, tokenizer, building)
                building.rename(folder)
                disk.sync(folder.parent)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
    return folder


def build(source, tokenizer, folder):
    """Tokenizes the source into `folder`."""
    vocabulary = wordpiece.vocabulary_of(tokenizer)
    dtype = "uint16" if vocabulary.size <= 2 ** 16 else "uint32"
    info = {"source": source.name, "dtype": dtype, "tokens": {"train": 0, "validation": 0},
            "documents": {"train": 0, "validation": 0}, "words": 0, "unknown": 0}
    is_first = begins_words(tokenizer, vocabulary.size)

    def documents():
        for part, text in source.documents():
            info["documents"][part] += 1
            yield part, text

    files = {part: open(folder / f"{part}.bin", "wb") for part in info["tokens"]}
    bar = progress.bar(None, " tokens", f"tokenizing {source.name}", unit_scale=True,
                       disable=source.name == "stories")
    with bar, files["train"], files["validation"]:
        for part, ids in tokenized(documents(), tokenizer, dtype):
            files[part].write(ids.tobytes())
            info["tokens"][part] += len(ids)
            info["words"] += int(is_first[ids].sum())
            info["unknown"] += int((ids == vocabulary.unk).sum())
            bar.update(len(ids))
    info["words"] -= sum(info["documents"].values())  # the [SEP] at their ends
    check_amounts(info)
    for file in files.values():
        disk.sync(file.name)
    info["sha256"] = {part: disk.file_sha256(file.name) for part, file in files.items()}
    disk.write_json(folder / "info.json", info)


def begins_words(tokenizer, size):
    """(size,) whether the token of an id begins a word. Of others than WordPiece, each does."""
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    inner = [i for piece, i in tokenizer.get_vocab().items() if prefix and piece.startswith(prefix)]
    return ~np.isin(np.arange(size), inner)


def check_amounts(info):
    """Raises UserError where one part is empty, or the tokenizer does not know most words."""
    tokens, words, unknown = info["tokens"].values(), info["words"], info["unknown"]
    if min(tokens) == 0:
        amount = "a single document" if sum(tokens) else "no text"
        raise UserError(f"{info['source']} has {amount}: at least two different ones are needed, "
                        "as one is held out (lines, or paragraphs between empty lines)")
    if unknown > words / 2:
        raise UserError(f"{unknown / words:.0%} of the words of {info['source']} are unknown to "
                        "this tokenizer: choose another --tokenizer or teacher, or a larger "
                        "--vocab-size (WordPiece knows no word of more than 100 letters)")


def is_whole(folder):
    """Whether a folder of the cache holds what was written into it: files of the right size, older
    than info.json, which is written last. Of a newer one the checksum is compared."""
    try:
        info, written = disk.read_json(folder / "info.json"), (folder / "info.json").stat()
        width = np.dtype(info["dtype"]).itemsize
        for part, n in info["tokens"].items():
            path = folder / f"{part}.bin"
            is_newer = path.stat().st_mtime_ns > written.st_mtime_ns
            if path.stat().st_size != n * width or (
                    is_newer and disk.file_sha256(path) != info["sha256"][part]):
                return False
        return True
    except PermissionError:  # it is another user's, and may well be whole
        raise
    except (UserError, OSError, KeyError, AttributeError, TypeError):
        return False
