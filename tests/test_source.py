"""world/source.py: stories as documents, and as shards of tokens that come from other processes."""
import itertools
import os
import subprocess
import sys
import time

from files import wordpiece
from program.cli import UserError

import numpy as np
import pytest
from conftest import ROOT

from world import stories
from world.source import SHARD_TOKENS, Shards, StorySource

# --------------------------------------------------------------------------------------------------
# Stories as documents

def documents_of(**options):
    """{part: its stories}"""
    parts = {"train": [], "validation": []}
    for part, story in StorySource(**options).documents():
        parts[part].append(story)
    return parts


SMALL = {"tokens": 20_000, "validation_tokens": 2_000}


def test_no_story_is_in_both_parts_and_each_part_has_the_tokens_that_are_wanted():
    parts = documents_of(**SMALL)
    assert min(map(len, parts.values())) > 20
    assert not set(parts["train"]) & set(parts["validation"])
    for part, tokens in (("train", 20_000), ("validation", 2_000)):
        counts = [len(story.split()) for story in parts[part]]
        assert sum(counts[:-1]) < tokens <= sum(counts)  # and not one story more


def test_the_validation_stories_are_the_same_for_every_training_seed():
    one, other = documents_of(seed=0, **SMALL), documents_of(seed=1, **SMALL)
    assert one["validation"] == other["validation"] and one["train"] != other["train"]


def test_each_story_of_a_stream_is_in_one_part_and_about_one_in_16_is_for_validation():
    """Whatever story the stream begins with: the text alone decides."""
    streams = {part: StorySource().stream(5, 100, part) for part in ("train", "validation")}
    next_story = {part: next(stream) for part, stream in streams.items()}
    counts = {"train": 0, "validation": 0}
    for story in itertools.islice(stories.stories(5, 100), 3200):
        [part] = [part for part in streams if next_story[part] == story]
        counts[part] += 1
        next_story[part] = next(streams[part])
    assert abs(counts["validation"] - 200) < 42  # three standard deviations


def test_another_vocabulary_size_than_the_worlds_is_refused():
    size = len(wordpiece.SPECIAL) + len(stories.WORDS)
    assert StorySource().tokenizer(size).get_vocab_size() == size
    message = f"a vocabulary of {size} whole words: leave --vocab-size out"
    with pytest.raises(UserError, match=message):
        StorySource().tokenizer(size + 1)


def test_the_key_of_the_cache_tells_all_apart_that_gives_other_stories():
    options = ({}, {"seed": 1}, {"tokens": 10}, {"validation_tokens": 10})
    assert len({tuple(StorySource(**each).key) for each in options}) == 4


# --------------------------------------------------------------------------------------------------
# Shards

@pytest.fixture
def shards():
    """shards(makers=2) -> Shards of seed 0, closed after the test."""
    made = []

    def make(**options):
        made.append(Shards(0, StorySource().tokenizer(), "uint16", **options))
        return made[-1]
    yield make
    for each in made:
        each.close()


def by_hand(j):
    """The token ids of shard j as the docstring of world/source.py defines them: story after story,
    a [SEP] after each."""
    ids = {piece: i for i, piece in enumerate(wordpiece.SPECIAL + stories.WORDS)}
    shard = []
    for story in StorySource().stream(0, j * 2 ** 24, "train"):
        for mark in ".,":
            story = story.replace(mark, f" {mark}")
        shard += [ids[word] for word in story.split()] + [ids["[SEP]"]]
        if len(shard) >= SHARD_TOKENS:
            return shard[:SHARD_TOKENS]


def test_a_shard_is_the_training_stories_with_sep_after_each(shards):
    assert shards().read(1).tolist() == by_hand(1)


def test_a_shard_depends_neither_on_the_ones_before_nor_on_the_number_of_makers(shards):
    one, two = shards(), shards(makers=2)
    in_order = [one.read(j) for j in range(2)]
    assert not np.array_equal(*in_order)
    for j in (1, 0, 1):  # a jump, a jump back, and one shard after another
        shard = two.read(j)
        assert np.array_equal(shard, in_order[j]) and two.read(j) is shard  # not made again


def test_a_maker_that_died_is_an_error_in_one_line(shards):
    reader = shards()
    reader.read(0)
    reader.processes[0].kill()
    reader.processes[0].wait()
    with pytest.raises(UserError, match="ended early: run the same command again to continue"):
        for j in range(1, 4):  # what was in the pipe is read first
            reader.read(j)


def is_running(pid):
    """Whether a process runs. One that has ended is a zombie (Z) until its parent takes note."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="asks /proc who is running")
def test_the_maker_ends_when_its_reader_is_killed():
    program = ("import time\n"
               "from world.source import Shards, StorySource\n"
               "shards = Shards(0, StorySource().tokenizer(), 'uint16')\n"
               "shards.read(0)\n"
               "print(shards.processes[0].pid, flush=True)\n"
               "time.sleep(60)")
    reader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                              cwd=ROOT)
    with reader:
        maker = int(reader.stdout.readline())
        assert is_running(maker)
        reader.kill()
    end = time.monotonic() + 20
    while is_running(maker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_running(maker), "the maker outlived its reader by 20 seconds"
