"""The cache of tokens: a text is tokenized once, into a folder outside the checkout.

    folder = cached(source, tokenizer)       # train.bin, validation.bin, info.json

A source has a `name`, a `key` that differs from every other source's, and `documents()`, which
gives (part, text) pairs. The part is "train" or "validation".
"""
import hashlib
import itertools
import os
import shutil

from plumbing import disk, progress, wordpiece
from program.cli import UserError

import numpy as np

PIECE = 100_000  # characters; longer documents are tokenized piece by piece
BATCH = 512      # pieces that are tokenized at once


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
    cut at spaces, since the encoding of one of gigabytes would not fit into memory."""
    for part, document in documents:
        start = 0
        while len(document) - start > PIECE:
            end = document.rfind(" ", start + 1, start + PIECE)
            if end < 0:  # no space anywhere in it
                end = start + PIECE
            yield part, document[start:end], False
            start = end
        yield part, document[start:], True


def cached(source, tokenizer):
    """The folder with the source's tokens, which is made on first use.

    It is built under a lock, for which a second process waits, and renamed into place when it is
    whole. Its name is a fingerprint of everything that the tokens depend on."""
    key = [2, source.key, getattr(source, "column", None), tokenizer.to_str()]
    folder = disk.cache_folder() / f"tokens-{disk.fingerprint(key)}"
    with disk.locked(folder.with_suffix(".lock"), "tokenizes the same text"):
        if folder.exists() and is_whole(folder):
            return folder
        building = folder.with_suffix(".tmp")
        for leftover in (building, folder):  # the first of a process that died, the second damaged
            shutil.rmtree(leftover, ignore_errors=True)
        building.mkdir()
        try:
            build(source, tokenizer, building)
            os.rename(building, folder)
            disk.sync(folder.parent)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return folder


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
    unknown = 0
    files = {part: open(folder / f"{part}.bin", "wb") for part in tokens}
    digests = {part: hashlib.sha256() for part in tokens}
    with progress.bar(None, " tokens", f"tokenizing {source.name}", unit_scale=True,
                      disable=source.name == "stories") as bar:
        for part, ids in tokenized(source.documents(), tokenizer, dtype):
            files[part].write(ids.tobytes())
            digests[part].update(ids.tobytes())
            tokens[part] += len(ids)
            documents[part] += int((ids == vocabulary.sep).sum())  # it ends each document
            unknown += int((ids == vocabulary.unk).sum())
            bar.update(len(ids))
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
        file.close()
    check_amounts(source.name, tokens, documents, unknown)
    sha256 = {part: digest.hexdigest() for part, digest in digests.items()}
    disk.write_json(folder / "info.json", {"source": source.name, "dtype": dtype, "tokens": tokens,
                                           "documents": documents, "sha256": sha256})


def check_amounts(name, tokens, documents, unknown):
    """Raises UserError where one part is empty, or the tokenizer does not know most words."""
    total = sum(tokens.values())
    words = total - sum(documents.values())  # all but the [SEP] at the ends
    if min(tokens.values()) == 0:
        amount = "no text" if total == 0 else "a single document"
        raise UserError(f"{name} has {amount}: validation text is held out by document, so at "
                        "least two different ones are needed (lines, or paragraphs between empty "
                        "lines)")
    if unknown > words / 2:
        raise UserError(f"{unknown / words:.0%} of the words of {name} are unknown to this "
                        "tokenizer: choose another --tokenizer, or, where it is a teacher's, a "
                        "teacher that was trained on such text")


def is_whole(folder):
    """Whether a cache folder still holds what was written into it, by its files' checksums."""
    try:
        sums = disk.read_json(folder / "info.json")["sha256"]
        for part, expected in sums.items():
            if disk.file_sha256(folder / f"{part}.bin") != expected:
                raise UserError("checksum")
        return True
    except (UserError, OSError, KeyError, AttributeError):
        print(f"the cached tokens in {folder} are damaged: making them again", flush=True)
        return False
