"""From text to masked batches: documents -> tokens on disk -> blocks of T -> inputs and labels.

    corpus = open_corpus(["stories"], seq_len=32, seed=0)            # or files, folders, a hub id
    blocks = corpus.blocks(step=7, batch_size=16)                     # (B, T), a function of (seed, step) alone
    inputs, positions, labels = mask_tokens(blocks, generator(0, 7), corpus.vocabulary)

Documents are joined by [SEP] and cut into blocks that begin with [CLS]: no padding in pretraining. A text is tokenized
once, into a cache outside the checkout. Stories are made while training runs, by a process of their own that is never more
than a shard ahead. Nothing here needs torch. Shapes: B sequences, T tokens, k masked tokens in each, N = B k.
"""
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import disk
import text
from budget import masked_positions
from cli import UserError

VALIDATION_TOKENS = 2 ** 15    # what a validation loss is measured on
SAMPLE_TOKENS = 2 ** 20        # of training text, to count words in (baselines.py)
SHARD_TOKENS = 2 ** 18         # stories are made in portions of this size
PIECE = 100_000                # characters: longer documents are tokenized piece by piece


# ---------------------------------------------------------------------------------------------------------------------
# Masking (Devlin et al. 2018, section 3.1)

def generator(*key):
    """The random numbers that belong to `key`, a few integers such as (seed, step)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def mask_tokens(blocks, rng, vocabulary):
    """blocks (B, T) -> inputs (B, T), positions (N,) in the flattened blocks, labels (N,), all int64.

    In each block k = int(0.15 T + 0.5) tokens are chosen, never special ones. Of the chosen, 80% become [MASK], 10% a
    random word, 10% stay as they are; the label is what stood there. Where a block holds fewer than k ordinary tokens, the
    rest of the k are special tokens that stay, with label -100: the loss ignores them, and the bill does not change."""
    B, T = blocks.shape
    k = masked_positions(T)
    # Choose k positions in each block: those of the smallest of T random keys, special tokens last.
    is_special = np.isin(blocks, vocabulary.special)
    keys = rng.random((B, T)) + is_special
    chosen = np.sort(np.argpartition(keys, k - 1, axis=1)[:, :k], axis=1)            # (B, k)
    positions = (chosen + np.arange(B)[:, None] * T).reshape(-1)                     # (B, k) -> (N,)
    labels = blocks.reshape(-1)[positions].astype(np.int64)
    ordinary = ~is_special.reshape(-1)[positions]

    # 80 / 10 / 10
    words = np.delete(np.arange(vocabulary.size), vocabulary.special)  # setdiff1d would sort them: 3 ms a step at 30,522
    fate = rng.random(B * k)
    random_words = words[(rng.random(B * k) * len(words)).astype(np.int64)]
    replaced = np.where(fate < 0.8, vocabulary.mask, np.where(fate < 0.9, random_words, labels))
    inputs = blocks.astype(np.int64)
    inputs.reshape(-1)[positions] = np.where(ordinary, replaced, labels)
    return inputs, positions, np.where(ordinary, labels, -100)


# ---------------------------------------------------------------------------------------------------------------------
# Order: a shuffle that needs no memory, whatever the size of the corpus

def shuffled(i, n, *key):
    """Where each index of i, all in 0..n-1, goes in the permutation of 0..n-1 that belongs to `key`.

    A Feistel network permutes 0..4^b-1 whatever its round function F is: (l, r) -> (r, l xor F(r)) can be undone. Values that
    land at n or above are sent through again until they land below ("cycle walking"): that permutes 0..n-1."""
    b = max(1, (int(n - 1).bit_length() + 1) // 2)
    half = np.uint64(2 ** b - 1)
    round_keys = generator(*key).integers(0, 2 ** 64, size=6, dtype=np.uint64)

    def once(x):
        l, r = x >> np.uint64(b), x & half
        for round_key in round_keys:
            # F: multiply and fold, twice, so that every bit of r and of the key moves every bit of the result.
            mixed = (r ^ round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            l, r = r, l ^ ((mixed >> np.uint64(32)) & half)
        return (l << np.uint64(b)) | r

    x = once(np.asarray(i).astype(np.uint64))
    while (outside := x >= n).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


# ---------------------------------------------------------------------------------------------------------------------
# Corpora

class Corpus:
    """Tokens in a cache folder as blocks of T, in an order that (seed, step) alone decides, and a fixed validation set.

    unique: distinct tokens to train on (None: without end); unique_tokens limits them, to a sample of the text's blocks."""

    def __init__(self, source, tokenizer, seq_len, seed, unique_tokens=None):
        self.name, self.tokenizer, self.T, self.seed = source.name, tokenizer, seq_len, seed
        self.vocabulary = text.vocabulary_of(tokenizer)
        self.folder = cached(source, tokenizer)
        self.info = disk.read_json(self.folder / "info.json")
        self.fingerprint = text.fingerprint(self.info["sha256"])  # of what is trained on, and of what is validated on
        self.available = self.n = self.info["tokens"]["train"] // (seq_len - 1)  # blocks: [CLS] and T - 1 tokens of the stream
        if unique_tokens is not None:
            if unique_tokens > self.n * seq_len:
                raise UserError(f"--unique-tokens is {unique_tokens:,}, and {self.name} has {self.n * seq_len:,} tokens: lower it")
            self.n = unique_tokens // seq_len
        self.unique = self.n * seq_len
        if self.info["tokens"]["validation"] < seq_len - 1:
            raise UserError(f"the held-out text of {self.name} has {self.info['tokens']['validation']:,} tokens, less than one "
                            f"block of --seq-len {seq_len}: give more text, in more documents, or shorter blocks")

    def check(self, batch_size):
        """Raises UserError where the text is smaller than one batch."""
        if self.unique is not None and batch_size > self.n:
            raise UserError(f"one batch of {batch_size} x {self.T} needs {batch_size * self.T:,} tokens, and there are "
                            f"{self.unique:,}: lower --batch-size or --seq-len, raise --unique-tokens, or give more text")

    def blocks(self, step, batch_size):
        """(B, T): the blocks of a step. Each epoch goes once through all blocks, in an order of its own."""
        number = np.arange(step * batch_size, (step + 1) * batch_size)
        epoch, place = number // self.n, number % self.n
        for e in np.unique(epoch):
            place[epoch == e] = shuffled(place[epoch == e], self.n, self.seed, int(e), 1)
        if self.n < self.available:  # a sample of the blocks; a larger sample of the same seed holds the smaller one
            place = shuffled(place, self.available, self.seed, 0, 2)
        return self.rows("train", place)

    def rows(self, part, numbers):
        """(len(numbers), T): blocks of a part's token stream by number."""
        # Mapped anew for each batch: the pages of an old map would stay, and memory grow to the size of the corpus.
        stream = np.memmap(self.folder / f"{part}.bin", dtype=self.info["dtype"], mode="r")
        out = np.full((len(numbers), self.T), self.vocabulary.cls, dtype=np.int64)
        for row, number in enumerate(numbers):
            out[row, 1:] = stream[number * (self.T - 1):(number + 1) * (self.T - 1)]
        return out

    def validation(self):
        """Held-out blocks (n, T), about VALIDATION_TOKENS of them from all over the held-out text, and their fixed masks:
        (blocks, (inputs, positions, labels))."""
        n = self.info["tokens"]["validation"] // (self.T - 1)
        blocks = self.rows("validation", np.linspace(0, n - 1, min(n, max(1, VALIDATION_TOKENS // self.T))).astype(np.int64))
        return blocks, mask_tokens(blocks, generator(20240419), self.vocabulary)

    def sample(self):
        """About SAMPLE_TOKENS of training text as blocks (n, T), to count words in."""
        n = min(self.available, max(1, SAMPLE_TOKENS // self.T))
        return self.rows("train", np.linspace(0, self.available - 1, n).astype(np.int64))

    def close(self):
        pass


class EndlessStories(Corpus):
    """Stories without end, no token seen twice. Shard j is a function of (seed, j), made by a process of its own, which
    waits until its pipe is read, so is never more than a shard ahead, and which ends when this process does, however it ends."""

    def __init__(self, source, tokenizer, seq_len, seed, makers=1):
        super().__init__(source, tokenizer, seq_len, seed)
        self.unique = None
        self.per_shard = SHARD_TOKENS // (seq_len - 1)  # blocks
        self.makers, self.processes, self.first, self.number, self.shard = makers, [], None, None, None

    def blocks(self, step, batch_size):
        number = np.arange(step * batch_size, (step + 1) * batch_size)
        out = np.full((batch_size, self.T), self.vocabulary.cls, dtype=np.int64)
        for j in np.unique(number // self.per_shard):
            here = number // self.per_shard == j
            out[here, 1:] = self.read(int(j))[number[here] % self.per_shard]
        return out

    def read(self, j):
        """Shard j, as (blocks, T - 1)."""
        if j == self.number:
            return self.shard
        if self.number is None or j != self.number + 1:  # the first, or a jump
            self.start(j)
        maker, dtype = self.processes[(j - self.first) % self.makers], np.dtype(self.info["dtype"])
        raw = maker.stdout.read(SHARD_TOKENS * dtype.itemsize)
        if len(raw) < SHARD_TOKENS * dtype.itemsize:
            raise UserError("the process that makes stories ended early: run the same command again to continue")
        self.shard = np.frombuffer(raw, dtype)[:self.per_shard * (self.T - 1)].reshape(self.per_shard, self.T - 1)
        self.number = j
        return self.shard

    def start(self, first):
        self.close()
        self.first = first
        for j in range(first, first + self.makers):
            # In a session of its own: Ctrl-C is meant for this process.
            maker = subprocess.Popen([sys.executable, "-c", "import data; data.make_shards()"], cwd=Path(__file__).parent,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            self.processes.append(maker)
            order = {"seed": self.seed, "first": j, "stride": self.makers, "dtype": self.info["dtype"], "tokenizer": self.tokenizer.to_str()}
            with contextlib.suppress(BrokenPipeError):  # where it died at once, `read` says so
                with maker.stdin:
                    maker.stdin.write(json.dumps(order).encode())

    def close(self):
        for maker in self.processes:
            maker.stdout.close()
            maker.kill()
            maker.wait()
        self.processes, self.number = [], None


def make_shards():
    """The program of such a process: shards first, first + stride, ... to stdout, until nobody reads them."""
    order = json.loads(sys.stdin.read())
    tokenizer = text.tokenizer_from(order["tokenizer"])
    for j in itertools.count(order["first"], order["stride"]):
        documents = (("train", story) for story in text.StorySource().stream(order["seed"], j * 2 ** 24, "train"))
        arrays, total = [], 0
        for part, ids in tokenized(documents, tokenizer, order["dtype"]):
            arrays.append(ids)
            total += len(ids)
            if total >= SHARD_TOKENS:
                break
        try:
            sys.stdout.buffer.write(np.concatenate(arrays)[:SHARD_TOKENS].tobytes())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(0)


def open_corpus(data, seq_len, seed, tokenizer=None, vocab_size=None, unique_tokens=None, text_column=None, makers=1):
    """The corpus that `data` names: ["stories"], files and folders, or a hub id. tokenizer: file, folder, hub id or a
    tokenizers.Tokenizer; without one it is made from the text. Raises UserError for whatever is wrong with any of them."""
    if seq_len < 4:
        raise UserError(f"--seq-len {seq_len} is too short: at least 4, to hold [CLS] and mask 15%")
    if tokenizer is not None and vocab_size is not None:
        raise UserError("--vocab-size is for a tokenizer that is made from the text: leave it out beside --tokenizer")
    source = text.open_source(data, text_column)
    if isinstance(tokenizer, str):
        tokenizer = text.load_tokenizer(tokenizer)
    elif tokenizer is None:
        tokenizer = source.tokenizer(vocab_size)
    if data != ["stories"]:
        return Corpus(source, tokenizer, seq_len, seed, unique_tokens)
    if unique_tokens is None:
        return EndlessStories(source, tokenizer, seq_len, seed, makers)
    return Corpus(text.StorySource(seed, tokens=unique_tokens + seq_len), tokenizer, seq_len, seed, unique_tokens)


# ---------------------------------------------------------------------------------------------------------------------
# The cache of tokens

def tokenized(documents, tokenizer, dtype):
    """(part, text) pairs -> (part, array of token ids with [SEP] after each document) pairs, some hundred documents a time."""
    sep = tokenizer.token_to_id("[SEP]")

    def pieces():
        for part, document in documents:
            start = 0
            while len(document) - start > PIECE:  # a document of gigabytes is cut at spaces
                end = document.rfind(" ", start + 1, start + PIECE)
                end = start + PIECE if end < 0 else end
                yield part, document[start:end], False
                start = end
            yield part, document[start:], True

    source = pieces()
    while batch := list(itertools.islice(source, 512)):
        # encode_batch_fast leaves out the offsets into the text, which nobody reads here.
        encoded = tokenizer.encode_batch_fast([piece for _, piece, _ in batch], add_special_tokens=False)
        for part in ("train", "validation"):
            ids = [encoding.ids + [sep] if ends else encoding.ids
                   for encoding, (of, _, ends) in zip(encoded, batch) if of == part]
            if ids:
                yield part, np.fromiter(itertools.chain.from_iterable(ids), dtype=dtype)


def cached(source, tokenizer):
    """The folder with the source's tokens: train.bin, validation.bin and info.json. Made on first use, under a lock (a second
    process waits), and renamed into place when it is whole. Its name holds everything that the tokens depend on."""
    folder = disk.cache_folder() / f"tokens-{text.fingerprint([1, source.key, getattr(source, 'column', None), tokenizer.to_str()])}"
    with disk.locked(folder.with_suffix(".lock"), "tokenizes the same text"):
        if folder.exists() and whole(folder):
            return folder
        building = folder.with_suffix(".tmp")
        for leftover in (building, folder):  # of a process that died, or damaged
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
    from tqdm import tqdm
    wanted = getattr(source, "tokens", None) or 0  # of stories: of files nobody knows before
    if 2 * wanted > shutil.disk_usage(folder).free:
        raise UserError(f"--unique-tokens {wanted:,} would not fit on the disk of the cache: lower it, or leave it out, for stories without end")
    vocabulary = text.vocabulary_of(tokenizer)
    dtype = "uint16" if vocabulary.size <= 2 ** 16 else "uint32"
    tokens, unknown = {"train": 0, "validation": 0}, 0
    files = {part: open(folder / f"{part}.bin", "wb") for part in tokens}
    digests = {part: hashlib.sha256() for part in tokens}
    with tqdm(desc=f"tokenizing {source.name}", unit=" tokens", unit_scale=True, disable=source.name == "stories") as bar:
        for part, ids in tokenized(source.documents(), tokenizer, dtype):
            files[part].write(ids.tobytes())
            digests[part].update(ids.tobytes())
            tokens[part] += len(ids)
            unknown += int((ids == vocabulary.unk).sum())
            bar.update(len(ids))
    for part, file in files.items():
        file.flush()
        os.fsync(file.fileno())
        file.close()
    total = sum(tokens.values())
    if min(tokens.values()) == 0:
        raise UserError(f"{source.name} has {'no text' if total == 0 else 'a single document'}: validation text is held out by "
                        f"document, so at least two different ones are needed (lines, or paragraphs between empty lines)")
    if unknown > total / 2:
        raise UserError(f"{unknown / total:.0%} of the words of {source.name} are unknown to this tokenizer: choose another --tokenizer, "
                        "or, where it is a teacher's, a teacher that was trained on such text")
    disk.write_json(folder / "info.json", {"source": source.name, "dtype": dtype, "tokens": tokens, "sha256":
                                             {part: digest.hexdigest() for part, digest in digests.items()}})


def whole(folder):
    """Whether a cache folder holds what was written into it: its files' checksums say."""
    try:
        sums = disk.read_json(folder / "info.json")["sha256"]
        for part, expected in sums.items():
            if disk.file_sha256(folder / f"{part}.bin") != expected:
                raise UserError("checksum")
        return True
    except (UserError, OSError, KeyError, AttributeError):
        print(f"the cached tokens in {folder} are damaged: making them again", flush=True)
        return False
