"""Stories as a source of text: some of them for the cache of tokens, or shards of them without end.

A shard is a function of (seed, j). Shards are made by processes of their own. Each waits until its
pipe is read, so that it is never more than a shard ahead, and ends when the reader does, however
that ends.
"""
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

from plumbing import wordpiece
from plumbing.cli import UserError
from plumbing.text import checksum
from plumbing.tokens import tokenized

import numpy as np

from world import stories

SHARD_TOKENS = 2 ** 18


class StorySource:
    """Stories of one stream, as many as hold `tokens` tokens, and the held-out ones of a stream
    that no run trains on."""
    name = "stories"
    held_out = 16  # one story in 16: they are short and without end

    def __init__(self, seed=2 ** 32, tokens=2 ** 20, validation_tokens=2 ** 16):
        self.seed, self.tokens, self.validation_tokens = seed, tokens, validation_tokens
        world = hashlib.sha256(Path(stories.__file__).read_bytes()).hexdigest()
        self.key = ["stories", world, seed, tokens, validation_tokens]

    def tokenizer(self, vocab_size=None):
        """Whole words: the world's own, which are few."""
        pieces = wordpiece.SPECIAL + list(stories.WORDS)
        if vocab_size not in (None, len(pieces)):
            raise UserError(f"stories have a vocabulary of {len(pieces)} whole words: leave "
                            "--vocab-size out, or give a --tokenizer")
        return wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})

    def stream(self, seed, first, part):
        """The stories of a part, from a stream's story number `first` on, without end."""
        for story in stories.stories(seed, first):
            is_held_out = checksum(story) % self.held_out == 0
            if is_held_out == (part == "validation"):
                yield story

    def documents(self):
        """(part, story) pairs, until both parts have the tokens that are wanted."""
        wanted = (("train", self.seed, self.tokens),
                  ("validation", 2 ** 32 + 1, self.validation_tokens))
        for part, seed, tokens in wanted:
            for story in self.stream(seed, 0, part):
                yield part, story
                tokens -= len(story.split())  # a word is at least one token
                if tokens <= 0:
                    break


class Shards:
    """Shards of tokens, read in rising order: `read(j)` gives SHARD_TOKENS token ids."""

    def __init__(self, seed, tokenizer, dtype, makers=1):
        self.seed, self.tokenizer, self.dtype, self.makers = seed, tokenizer, dtype, makers
        self.processes, self.first, self.number, self.shard = [], None, None, None

    def read(self, j):
        """Shard j. Raises UserError where the process that makes it has ended."""
        if j == self.number:
            return self.shard
        if self.number is None or j != self.number + 1:  # the first, or a jump
            self.start(j)
        maker, size = self.processes[(j - self.first) % self.makers], np.dtype(self.dtype).itemsize
        raw = maker.stdout.read(SHARD_TOKENS * size)
        if len(raw) < SHARD_TOKENS * size:
            raise UserError("the process that makes stories ended early: run the same command "
                            "again to continue")
        self.shard, self.number = np.frombuffer(raw, self.dtype), j
        return self.shard

    def start(self, first):
        """Starts the makers. Maker i makes shards first + i, first + i + makers, and so on."""
        self.close()
        self.first = first
        for j in range(first, first + self.makers):
            # In a session of its own: Ctrl-C is meant for this process.
            maker = subprocess.Popen(
                [sys.executable, "-c", "from world.source import make_shards; make_shards()"],
                cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True)
            self.processes.append(maker)
            order = {"seed": self.seed, "first": j, "stride": self.makers, "dtype": self.dtype,
                     "tokenizer": self.tokenizer.to_str()}
            with contextlib.suppress(BrokenPipeError):  # where it died at once, `read` says so
                with maker.stdin:
                    maker.stdin.write(json.dumps(order).encode())

    def close(self):
        """Ends the makers."""
        for maker in self.processes:
            maker.stdout.close()
            maker.kill()
            maker.wait()
        self.processes, self.number = [], None


def make_shards():
    """The program of a maker: writes its shards to stdout until nobody reads them."""
    order = json.loads(sys.stdin.read())
    tokenizer = wordpiece.tokenizer_from(order["tokenizer"])
    for j in itertools.count(order["first"], order["stride"]):
        stream = StorySource().stream(order["seed"], j * 2 ** 24, "train")
        documents = (("train", story) for story in stream)
        arrays, total = [], 0
        for _, ids in tokenized(documents, tokenizer, order["dtype"]):
            arrays.append(ids)
            total += len(ids)
            if total >= SHARD_TOKENS:
                break
        try:
            sys.stdout.buffer.write(np.concatenate(arrays)[:SHARD_TOKENS].tobytes())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(0)
