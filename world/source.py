"""Stories as training text: a limited number of them as documents, or tokens without end.

`StorySource` is a source for the cache of tokens (files/tokens.py), as a text in files is.
`Shards` gives tokens without end, made while a run trains. Shard j of a seed is always the same
SHARD_TOKENS tokens, and does not need the shards before it, so that a run can continue anywhere.

The makers of shards are processes of their own. A maker writes its shards into a pipe, and waits
until the reader has taken them. When the reader ends, in whatever way, the pipe breaks, and the
maker ends too.
"""
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

from files import wordpiece
from files.text import checksum
from files.tokens import tokenized
from program.cli import UserError

import numpy as np

from world import stories

SHARD_TOKENS = 2 ** 18
SHARD_STORIES = 2 ** 24  # shard j begins with story number j * 2 ** 24: more than a shard can hold

# The streams that no run trains on: a run's seed is smaller.
SAMPLE_SEED = 2 ** 32
VALIDATION_SEED = 2 ** 32 + 1


class StorySource:
    """The first stories of a stream, and validation stories of another stream.

    seed: the stream for training. tokens, validation_tokens: at least so many of each part."""
    name = "stories"
    held_out = 16  # one story in 16 is for validation; there are enough of them

    def __init__(self, seed=SAMPLE_SEED, tokens=2 ** 20, validation_tokens=2 ** 16):
        self.seed = seed
        self.tokens = tokens
        self.validation_tokens = validation_tokens
        # Another world would give other stories: the cache of tokens must not mistake them.
        world = hashlib.sha256(Path(stories.__file__).read_bytes()).hexdigest()
        self.key = ["stories", world, seed, tokens, validation_tokens]

    def tokenizer(self, vocab_size=None):
        """The tokenizer of the world's own words, each of which is one token.

        Raises UserError if another vocabulary size is asked for."""
        pieces = wordpiece.SPECIAL + list(stories.WORDS)
        if vocab_size not in (None, len(pieces)):
            raise UserError(f"stories have a vocabulary of {len(pieces)} whole words: leave "
                            "--vocab-size out, or give a --tokenizer")
        return wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})

    def stream(self, seed, first, part):
        """Yields the stories of a part, from story number `first` of a stream on, without end.

        The part depends on the story's text alone. So if the same story comes twice, both are in
        the same part, and no story that a model trains on is in the validation set."""
        for story in stories.stories(seed, first):
            if (checksum(story) % self.held_out == 0) == (part == "validation"):
                yield story

    def documents(self):
        """Yields (part, story), until both parts have as many tokens as are wanted."""
        for part, seed, tokens in (("train", self.seed, self.tokens),
                                   ("validation", VALIDATION_SEED, self.validation_tokens)):
            for story in self.stream(seed, 0, part):
                yield part, story
                tokens -= len(story.split())  # a word is at least one token
                if tokens <= 0:
                    break


class Shards:
    """Shards of tokens, to be read in rising order. dtype: of the token ids, "uint16" or "uint32".
    makers: the number of processes that make shards. The shards do not depend on it."""

    def __init__(self, seed, tokenizer, dtype, makers=1):
        self.seed, self.tokenizer, self.dtype, self.makers = seed, tokenizer, dtype, makers
        self.processes = []
        self.j = self.shard = None  # the number of the shard that was read last, and this shard

    def read(self, j):
        """Shard j: (SHARD_TOKENS,) token ids. The same shard again costs nothing, the next one is
        mostly ready, and any other starts the makers anew.

        Raises UserError if the process that makes the shard has ended."""
        if j == self.j:
            return self.shard
        if self.j is None or j != self.j + 1:
            self.start(j)
        maker = self.processes.pop(0)  # the one whose turn it is
        self.processes.append(maker)
        raw = maker.stdout.read(SHARD_TOKENS * np.dtype(self.dtype).itemsize)
        if len(raw) < SHARD_TOKENS * np.dtype(self.dtype).itemsize:
            raise UserError("the process that makes stories ended early: run the same command "
                            "again to continue")
        self.shard, self.j = np.frombuffer(raw, self.dtype), j
        return self.shard

    def start(self, first):
        """Starts the makers. Maker i makes the shards first + i, first + i + makers, and so on."""
        self.close()
        # The path is for PYTHONSAFEPATH, which leaves the current folder out.
        program = ("import sys; sys.path.insert(0, ''); from world.source import make_shards; "
                   "make_shards()")
        for j in range(first, first + self.makers):
            # In a session of its own, so that Ctrl-C reaches this process only.
            maker = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     start_new_session=True)
            self.processes.append(maker)
            request = [self.seed, j, self.makers, self.dtype, self.tokenizer.to_str()]
            with contextlib.suppress(BrokenPipeError), maker.stdin:  # if it died, `read` says so
                maker.stdin.write(json.dumps(request).encode())

    def close(self):
        """Ends the makers."""
        for maker in self.processes:
            maker.stdout.close()
            maker.kill()
            maker.wait()
        self.processes, self.j = [], None


def make_shards():
    """The program of a maker: it reads a request from stdin, and writes shards to stdout until
    nobody reads them."""
    seed, first, stride, dtype, tokenizer = json.load(sys.stdin)
    tokenizer = wordpiece.tokenizer_from(tokenizer)
    for j in itertools.count(first, stride):
        stream = StorySource().stream(seed, j * SHARD_STORIES, "train")
        arrays, total = [], 0
        for _, ids in tokenized((("train", story) for story in stream), tokenizer, dtype):
            arrays.append(ids)
            total += len(ids)
            if total >= SHARD_TOKENS:
                break
        try:
            sys.stdout.buffer.write(np.concatenate(arrays)[:SHARD_TOKENS].tobytes())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(0)
