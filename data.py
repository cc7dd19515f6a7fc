"""From text to masked batches: blocks of T tokens, their order, their masks.

    corpus = open_corpus(Text(["stories"]), seq_len=32, seed=0)      # or files, folders, a hub id
    blocks = corpus.blocks(step=7, batch_size=16)                    # (B, T), by (seed, step) alone
    inputs, positions, labels = mask_tokens(blocks, generator(0, 7), corpus.vocabulary)

Documents are joined by [SEP] and cut into blocks that begin with [CLS], so that pretraining needs
no padding. A text is tokenized once, into a cache (files/tokens.py). Stories are made while
training runs, by processes of their own (world/source.py). Nothing here needs torch.

Shapes: B sequences, T tokens, k masked tokens in each, N = B k.
"""
from typing import NamedTuple, Optional, Sequence

from files import disk, tokens, wordpiece
from files import text as texts
from program.cli import UserError

import numpy as np

from budget import masked_positions
from world.source import SHARD_TOKENS, Shards, StorySource

VALIDATION_TOKENS = 2 ** 15    # what a validation loss is measured on
SAMPLE_TOKENS = 2 ** 20        # of training text, to count words in (measure/baselines.py)
VALIDATION_KEY = 20240419      # of the validation masks, which are the same for all runs


# ---- Masking (Devlin et al. 2018, section 3.1) ---------------------------------------------------

def generator(*key):
    """The random numbers that belong to `key`, a few integers such as (seed, step)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def mask_tokens(blocks, rng, vocabulary):
    """blocks (B, T) -> inputs (B, T), positions (N,) in the flattened blocks, labels (N,): int64.

    In each block k = int(0.15 T + 0.5) tokens are chosen, never special ones. Of the chosen ones
    80% become [MASK], 10% a random word, and 10% stay as they are; the label is what stood there.
    Where a block holds fewer than k ordinary tokens, special tokens fill up the k: they stay and
    have the label -100, so that the loss ignores them and the bill does not change."""
    B, T = blocks.shape
    k = masked_positions(T)
    # Choose k positions in each block: those of the smallest of T random keys, special tokens last.
    is_special = np.isin(blocks, vocabulary.special)
    keys = rng.random((B, T)) + is_special
    chosen = np.sort(np.argpartition(keys, k - 1, axis=1)[:, :k], axis=1)    # (B, k)
    positions = (chosen + np.arange(B)[:, None] * T).reshape(-1)             # (B, k) -> (N,)
    labels = blocks.reshape(-1)[positions].astype(np.int64)                  # (N,)
    is_ordinary = ~is_special.reshape(-1)[positions]

    # All ordinary words. (setdiff1d would sort them: 3 ms a step at V = 30,522.)
    words = np.delete(np.arange(vocabulary.size), vocabulary.special)
    # 80% [MASK], 10% a random word, 10% the same word
    chance = rng.random(B * k)
    random_words = words[(rng.random(B * k) * len(words)).astype(np.int64)]
    word_or_same = np.where(chance < 0.9, random_words, labels)
    replaced = np.where(chance < 0.8, vocabulary.mask, word_or_same)
    inputs = blocks.astype(np.int64)
    inputs.reshape(-1)[positions] = np.where(is_ordinary, replaced, labels)
    return inputs, positions, np.where(is_ordinary, labels, -100)


# ---- Order: a shuffle that needs no memory, whatever the size of the corpus ----------------------

def shuffled(i, n, *key):
    """Where a pseudo-random permutation of 0..n-1, chosen by `key`, sends the indices i.

    A Feistel network on 2b bits permutes 0..4^b-1 whatever its round function F is, because (l, r)
    -> (r, l xor F(r)) can be undone. Values that land at n or above are sent through again until
    they land below ("cycle walking"), and that permutes 0..n-1. Since n > 4^(b-1), four times are
    enough in the mean."""
    b = max(1, (int(n - 1).bit_length() + 1) // 2)
    half = np.uint64(2 ** b - 1)
    round_keys = generator(*key).integers(0, 2 ** 64, size=6, dtype=np.uint64)

    def once(x):
        l, r = x >> np.uint64(b), x & half
        for round_key in round_keys:
            # F multiplies by odd constants and folds, twice: every bit of r moves every bit.
            mixed = (r ^ round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            l, r = r, l ^ ((mixed >> np.uint64(32)) & half)
        return (l << np.uint64(b)) | r

    x = once(np.asarray(i).astype(np.uint64))
    while (outside := x >= n).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


# ---- Blocks --------------------------------------------------------------------------------------

class Corpus:
    """Cached tokens as blocks of T, in an order that (seed, step) alone decides, and a fixed
    validation set.

    unique: distinct tokens to train on (None: without end). unique_tokens limits them, to a sample
    of the text's blocks. Raises UserError where the text has fewer tokens than are asked for."""

    def __init__(self, source, tokenizer, seq_len, seed, unique_tokens=None):
        self.name, self.tokenizer, self.T, self.seed = source.name, tokenizer, seq_len, seed
        self.vocabulary = wordpiece.vocabulary_of(tokenizer)
        self.folder = tokens.cached(source, tokenizer)
        self.info = disk.read_json(self.folder / "info.json")
        self.fingerprint = disk.fingerprint(self.info["sha256"])  # of training and validation text
        # A block holds [CLS] and T - 1 tokens of the stream.
        self.available = self.n = self.info["tokens"]["train"] // (seq_len - 1)
        if unique_tokens is not None:
            if unique_tokens > self.n * seq_len:
                raise UserError(f"--unique-tokens is {unique_tokens:,}, and {self.name} has "
                                f"{self.n * seq_len:,} tokens: lower it")
            self.n = unique_tokens // seq_len
        self.unique = self.n * seq_len
        held_out = self.info["tokens"]["validation"]
        if held_out < seq_len - 1:
            raise UserError(f"the held-out text of {self.name} has {held_out:,} tokens, less than "
                            f"one block of --seq-len {seq_len}: give more text, in more documents, "
                            "or shorter blocks")

    def check(self, batch_size):
        """Raises UserError where the text is less than one batch, or no held-out word is known."""
        if self.unique is not None and batch_size > self.n:
            raise UserError(f"one batch needs {batch_size * self.T:,} tokens, and there are "
                            f"{self.unique:,}: lower --batch-size, or give more text")
        _, (_, _, labels) = self.validation()
        if labels.max() < 0:
            raise UserError(f"the held-out text of {self.name} has no word that this tokenizer "
                            "knows: give more text, in more documents, or another tokenizer")

    def blocks(self, step, batch_size):
        """(B, T): the blocks of a step. Each epoch goes once through all blocks, in an order of its
        own."""
        number = np.arange(step * batch_size, (step + 1) * batch_size)
        epoch, place = number // self.n, number % self.n
        for e in np.unique(epoch):
            place[epoch == e] = shuffled(place[epoch == e], self.n, self.seed, int(e), 1)
        if self.n < self.available:
            # A sample of the blocks. A larger sample of the same seed holds the smaller one.
            place = shuffled(place, self.available, self.seed, 0, 2)
        return self.rows("train", place)

    def rows(self, part, numbers):
        """(len(numbers), T): blocks of a part's token stream by number."""
        # Read, and not mapped into memory, which some file systems of a network cannot do.
        out, width, dtype = self.empty(len(numbers)), self.T - 1, np.dtype(self.info["dtype"])
        with open(self.folder / f"{part}.bin", "rb") as stream:
            for row, number in enumerate(numbers):
                stream.seek(int(number) * width * dtype.itemsize)
                out[row, 1:] = np.frombuffer(stream.read(width * dtype.itemsize), dtype)
        return out

    def empty(self, n):
        """(n, T) blocks to be filled from their second column on: [CLS] everywhere."""
        return np.full((n, self.T), self.vocabulary.cls, dtype=np.int64)

    def validation(self):
        """(blocks (n, T), (inputs, positions, labels)): about VALIDATION_TOKENS tokens from all
        over the held-out text, with fixed masks."""
        n = self.info["tokens"]["validation"] // (self.T - 1)
        wanted = min(n, max(1, VALIDATION_TOKENS // self.T))
        blocks = self.rows("validation", np.linspace(0, n - 1, wanted).astype(np.int64))
        return blocks, mask_tokens(blocks, generator(VALIDATION_KEY), self.vocabulary)

    def sample(self):
        """About SAMPLE_TOKENS of training text as blocks (n, T), to count words in."""
        n = min(self.available, max(1, SAMPLE_TOKENS // self.T))
        return self.rows("train", np.linspace(0, self.available - 1, n).astype(np.int64))

    def close(self):
        """Ends what works for this corpus."""


class EndlessStories(Corpus):
    """Stories without end, in which no token is seen twice."""

    def __init__(self, source, tokenizer, seq_len, seed, makers=1):
        super().__init__(source, tokenizer, seq_len, seed)
        self.unique = None
        self.per_shard = SHARD_TOKENS // (seq_len - 1)  # blocks
        self.shards = Shards(seed, tokenizer, self.info["dtype"], makers)

    def blocks(self, step, batch_size):
        """(B, T): the blocks of a step."""
        number = np.arange(step * batch_size, (step + 1) * batch_size)
        out, width = self.empty(batch_size), self.T - 1
        for j in np.unique(number // self.per_shard):
            in_shard = number // self.per_shard == j
            shard = self.shards.read(int(j))[:self.per_shard * width]
            blocks = shard.reshape(self.per_shard, width)       # (tokens,) -> (blocks, T - 1)
            out[in_shard, 1:] = blocks[number[in_shard] % self.per_shard]
        return out

    def close(self):
        """Ends the processes that make stories."""
        self.shards.close()


class Text(NamedTuple):
    """Which text, and how it becomes tokens."""
    data: Sequence = ("stories",)   # or files and folders, or a hub id
    column: Optional[str] = None    # that holds the text, in files of rows
    tokenizer: object = None        # a file, a folder, a hub id or a Tokenizer; None: made from it
    vocab_size: Optional[int] = None     # word pieces of a tokenizer that is made from the text
    unique_tokens: Optional[int] = None  # distinct tokens to train on (None: all)


def open_corpus(text, seq_len, seed, makers=1):
    """The corpus of a Text. makers: processes that make stories. Raises UserError."""
    is_stories, tokenizer = tuple(text.data) == ("stories",), text.tokenizer
    source = StorySource() if is_stories else texts.open_source(text.data, text.column)
    if isinstance(tokenizer, str):
        tokenizer = wordpiece.load_tokenizer(tokenizer)
    elif tokenizer is None:
        tokenizer = source.tokenizer(text.vocab_size)
    if is_stories and text.unique_tokens is None:
        return EndlessStories(source, tokenizer, seq_len, seed, makers)
    if is_stories:
        source = StorySource(seed, tokens=text.unique_tokens + seq_len)
    return Corpus(source, tokenizer, seq_len, seed, text.unique_tokens)
