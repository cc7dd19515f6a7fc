"""The cache of tokens: a text is tokenized once, into a folder outside the checkout.

    folder = cached(source, tokenizer)       # train.bin, validation.bin, info.json

A source has a `name`, a `key` that differs from every other source's, and `documents()`, which
gives (part, text) pairs. The part is "train" or "validation".
"""
import itertools
import os
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
    """(part, text) pairs -> (part, array of token ids) pairs, some hundred documents at a time.
    A [SEP] follows each document."""
    sep = tokenizer.token_to_id("[SEP]")
    all_pieces = pieces(documents)
    while batch := list(itertools.islice(all_pieces, BATCH)):
        # encode_batch_fast leaves out the offsets into the text, which nothing here reads.
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
    """The folder with the source's tokens, which is made on first use.

    It is built under a lock, for which a second process waits, and renamed into place when it is
    whole. Its name is a fingerprint of everything that the tokens depend on."""
    key = [3, source.key, getattr(source, "column", None), tokenizer.to_str()]
    folder = disk.cache_folder() / f"tokens-{disk.fingerprint(key)}"
    with disk.sharing_cache():
        if is_whole(folder):
            return folder
        with disk.locked(folder.with_suffix(".lock"), "tokenizes the same text"):
            if not is_whole(folder):  # another process may have made it meanwhile
                make(source, tokenizer, folder)
    return folder


def make(source, tokenizer, folder):
    """Tokenizes the source into `folder`, which is whole or absent afterwards."""
    building = folder.with_suffix(".tmp")
    if folder.exists():
        print(f"the cached tokens in {folder} are damaged: making them again", flush=True)
    for leftover in (building, folder):  # the first is of a process that died
        if leftover.exists():
            shutil.rmtree(leftover)
    building.mkdir()
    try:
        build(source, tokenizer, building)
        os.rename(building, folder)
        disk.sync(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def build(source, tokenizer, folder):
    """Tokenizes the source into `folder`. Raises UserError where there is too little text, or the
    tokenizer does not know its words."""
    # Stories know how many tokens they will be; of files nobody knows before they are read.
    wanted = getattr(source, "tokens", None) or 0
    if 2 * wanted > shutil.disk_usage(folder).free:
        raise UserError(f"--unique-tokens {wanted:,} would not fit on the disk of the cache: lower "
                        "it, or leave it out, for stories without end")
    vocabulary = wordpiece.vocabulary_of(tokenizer)
    dtype = "uint16" if vocabulary.size <= 2 ** 16 else "uint32"
    tokens, documents = {"train": 0, "validation": 0}, {"train": 0, "validation": 0}
    words = unknown = 0
    is_first = begins_words(tokenizer, vocabulary.size)
    files = {part: open(folder / f"{part}.bin", "wb") for part in tokens}
    with progress.bar(None, " tokens", f"tokenizing {source.name}", unit_scale=True,
                      disable=source.name == "stories") as bar:
        for part, ids in tokenized(counted(source, documents), tokenizer, dtype):
            files[part].write(ids.tobytes())
            tokens[part] += len(ids)
            words += int(is_first[ids].sum())
            unknown += int((ids == vocabulary.unk).sum())
            bar.update(len(ids))
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
        file.close()
    words -= sum(documents.values())  # the [SEP] at their ends
    check_amounts(source.name, tokens, words, unknown)
    sha256 = {part: disk.file_sha256(folder / f"{part}.bin") for part in tokens}
    disk.write_json(folder / "info.json", {"source": source.name, "dtype": dtype, "tokens": tokens,
                                           "documents": documents, "words": words,
                                           "unknown": unknown, "sha256": sha256})


def counted(source, documents):
    """The (part, text) pairs of a source. documents: {part: how many there were}, to be counted."""
    for part, text in source.documents():
        documents[part] += 1
        yield part, text


def begins_words(tokenizer, size):
    """(size,) whether the token of an id begins a word. Only WordPiece marks those that do not: of
    another tokenizer each token counts as a word."""
    is_first = np.ones(size, dtype=bool)
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    if prefix:
        inner = [i for piece, i in tokenizer.get_vocab().items() if piece.startswith(prefix)]
        is_first[inner] = False
    return is_first


def check_amounts(name, tokens, words, unknown):
    """Raises UserError where one part is empty, or the tokenizer does not know most words."""
    total = sum(tokens.values())
    if min(tokens.values()) == 0:
        amount = "no text" if total == 0 else "a single document"
        raise UserError(f"{name} has {amount}: validation text is held out by document, so at "
                        "least two different ones are needed (lines, or paragraphs between empty "
                        "lines)")
    if unknown > words / 2:
        raise UserError(f"{unknown / words:.0%} of the words of {name} are unknown to this "
                        "tokenizer: choose another --tokenizer, a larger --vocab-size, or a "
                        "teacher that was trained on such text. (WordPiece knows no word of more "
                        "than 100 letters: such text needs spaces, or a --tokenizer that cuts it)")


def is_whole(folder):
    """Whether a folder of the cache holds what was written into it. Files of the right size that
    are older than info.json, which is written last, are believed. Others may have been copied or
    edited, and are compared with their checksums: those of a large text take minutes."""
    try:
        info, info_path = disk.read_json(folder / "info.json"), folder / "info.json"
        for part, tokens in info["tokens"].items():
            path = folder / f"{part}.bin"
            if path.stat().st_size != tokens * np.dtype(info["dtype"]).itemsize:
                return False
            is_older = path.stat().st_mtime_ns <= info_path.stat().st_mtime_ns
            if not is_older and disk.file_sha256(path) != info["sha256"][part]:
                return False
        return True
    except PermissionError:  # it is another user's, and may well be whole
        raise
    except (UserError, OSError, KeyError, AttributeError, TypeError):
        return False
