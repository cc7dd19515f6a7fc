"""Exercise 3: masking. Answers are random, so that what is checked are their properties.

The check knows no mistakes by their numbers here. The mistakes below show that each of its
properties is looked at: the name of a mistake is a part of what the check says of it.
"""
import math
from typing import Callable, NamedTuple

import numpy as np

import data
from budget import masked_positions

from .exercise import Case, Exercise, swap, wrong_parts

# --------------------------------------------------------------------------------------------------
# The properties


class Words(NamedTuple):
    """A vocabulary. The special tokens are bert-base-uncased's, which are not the first five."""
    size: int = 1000
    mask: int = 103
    special: list = [0, 100, 101, 102, 103]

    def ordinary(self):
        """The ids of all words that are no special token."""
        return np.setdiff1d(np.arange(self.size), self.special)


class Masked(NamedTuple):
    """What a mask_tokens made of `before`, blocks of (B, T) tokens."""
    before: np.ndarray     # (B, T)
    words: Words
    inputs: np.ndarray     # (B, T)
    positions: np.ndarray  # (N,)
    labels: np.ndarray     # (N,)

    def stood(self):
        """The words that stood at the positions: (N,)."""
        return self.before.reshape(-1)[self.positions]

    def seen(self):
        """What the inputs show at the positions: (N,)."""
        return self.inputs.reshape(-1)[self.positions]

    def random_words(self):
        """The words that are neither [MASK] nor what stood there."""
        seen = self.seen()
        return seen[(seen != self.words.mask) & (seen != self.stood())]


def cases():
    return [Case("blocks of 32 tokens", (32, Words(), 1)),
            Case("blocks of 30 tokens, in which half of the words never come", (30, Words(), 2)),
            Case("blocks of 128 tokens, and a vocabulary of 112 words", (128, Words(112), 1))]


def judge(student, T, words, part):
    """What is wrong with the student's mask_tokens, or None. The blocks have words of the first
    1/part of the vocabulary."""
    ordinary = words.ordinary()
    blocks = some_blocks(1024, T, ordinary[:len(ordinary) // part])
    before = blocks.copy()
    answer = student(blocks, data.generator(1), words)
    parts = answer if isinstance(answer, tuple) else ()
    if len(parts) != 3 or not all(isinstance(part, np.ndarray) for part in parts):
        return ("wrong form: wanted are three numpy arrays, inputs (B, T), positions (N,) and "
                "labels (N,)")
    if not np.array_equal(blocks, before):
        return ("The given blocks are changed. Work on a copy, since the next epoch reads them "
                "again.")
    masked = Masked(before, words, *answer)
    problems = (check(masked) for check in CHECKS)
    return (next(filter(None, problems), None) or check_generator(masked, student)
            or check_evenness(masked))


def some_blocks(B, T, ordinary):
    """(B, T) of ordinary words: each block begins with [CLS], about each seventh token is [SEP],
    and each second block ends with [PAD]."""
    rng = data.generator(T)
    blocks = rng.choice(ordinary, (B, T))
    ends = smallest(rng.random((B, T)), T // 7)  # of sentences, in each block at other places
    blocks[ends] = 102
    blocks[:, 0] = 101
    blocks[::2, -1] = 0
    return blocks


def check_shapes(masked):
    B, T = masked.before.shape
    positions, labels = masked.positions.shape, masked.labels.shape
    if masked.inputs.shape != (B, T):
        return f"wrong shape: inputs are {masked.inputs.shape}, and (B, T) = {(B, T)} is wanted"
    if labels in ((B, T), (B * T,)):
        return ("There are labels at all positions. Wanted are those of the N = B k chosen "
                "positions only, so that the head computes 15% of the logits.")
    if len(positions) != 1 or positions != labels:
        return f"wrong shape: positions are {positions}, labels {labels}, and both should be (N,)"
    return None


def check_positions(masked):
    B, T = masked.before.shape
    positions = masked.positions
    if len(positions) and positions.max() < T:
        return ("The positions are columns. Wanted are places in the flattened blocks, where row "
                "b, column t is b T + t.")
    dtypes = [part.dtype for part in (masked.inputs, positions, masked.labels)]
    if any(dtype != np.int64 for dtype in dtypes):
        return f"wrong dtype: {', '.join(map(str, dtypes))}, and int64 is wanted for all three"
    if not len(positions) or positions.min() < 0 or positions.max() >= B * T:
        return "The positions lie outside of the flattened blocks: row b, column t is b T + t."
    return None


def check_labels(masked):
    if not np.array_equal(masked.labels, masked.stood()):
        if np.array_equal(masked.labels, masked.seen()):
            return "The labels are what the inputs show. Wanted is what stood there."
        return ("The labels are not the words that stood at the positions: row b, column t of the "
                "blocks is position b T + t.")
    if np.isin(masked.stood(), masked.words.special).any():
        return ("Special tokens are masked. [CLS] and [SEP] are never chosen (vocabulary.special "
                "holds their ids).")
    return None


def check_number(masked):
    """Are there k positions in each block, all different and in rising order?"""
    B, T = masked.before.shape
    positions, k = masked.positions, masked_positions(T)
    in_block = np.bincount(positions // T, minlength=B)
    if len(set(in_block)) > 1:
        return ("The blocks differ in the number of their masked words. Always k ordinary words "
                "are wanted, so that all steps cost the same. A chance of 15% for each token does "
                "not give that, and neither does choosing k of all tokens and leaving out the "
                "special ones.")
    if in_block[0] != k:
        reason = "Reread how many are wanted."
        if in_block[0] == int(0.15 * T):
            reason = ("0.15 T is cut off, or the special tokens are left out of T. Round half up: "
                      "int(0.15 T + 0.5).")
        elif in_block[0] == math.ceil(0.15 * T):
            reason = "0.15 T is rounded up. Round half up: int(0.15 T + 0.5)."
        return f"{in_block[0]} of {T} tokens are masked, and {k} are wanted. {reason}"
    if len(set(positions.tolist())) < len(positions):
        return "A position is chosen twice. Choose without replacement."
    if (np.diff(positions) < 0).any():
        return "The positions are not in rising order. Sort them."
    return None


def check_replacement(masked):
    """Do 80% become [MASK], and do 10% stay, wherever they stand?"""
    B, T = masked.before.shape
    rest = np.delete(np.arange(masked.before.size), masked.positions)
    if not np.array_equal(masked.inputs.reshape(-1)[rest], masked.before.reshape(-1)[rest]):
        return "Words that were not chosen are changed, too."
    is_mask = masked.seen() == masked.words.mask
    become_mask, become_random = is_mask.mean(), len(masked.random_words()) / len(is_mask)
    if become_mask > 0.99:
        return ("All chosen words become [MASK]. Only 80% should; 10% become a random word and 10% "
                "stay, since in fine-tuning there is no [MASK].")
    another = 0.1 - 0.1 / len(masked.words.ordinary())  # the random word may be the same one
    if is_far(become_mask, 0.8, len(is_mask)) or is_far(become_random, another, len(is_mask)):
        return (f"{become_mask:.0%} of the chosen words become [MASK], {become_random:.0%} a "
                f"random word, and {1 - become_mask - become_random:.0%} stay. The shares should "
                "be 80, 10 and 10%.")
    half, column = len(is_mask) // 2, masked.positions % T
    parts = (is_mask[:half], is_mask[half:], is_mask[column < T // 2], is_mask[column >= T // 2])
    if any(abs(part.mean() - 0.8) > 0.07 for part in parts):
        return ("What becomes of a word depends on its place. Let chance decide for each chosen "
                "word, and not its number in the row.")
    all_mask = is_mask.reshape(B, -1).all(axis=1).mean()  # of the blocks
    if is_far(all_mask, 0.8 ** masked_positions(T), B):
        return ("What becomes of a word depends on the other words of its block. Let chance decide "
                "for each chosen word.")
    return None


def is_far(share, probability, n):
    """Whether a share of n draws is further from its probability than chance brings it, but once in
    a million times."""
    return abs(share - probability) > 5 * math.sqrt(probability * (1 - probability) / n)


def check_random_words(masked):
    V, ordinary, random_words = masked.words.size, masked.words.ordinary(), masked.random_words()
    if np.isin(random_words, masked.words.special).any():
        return ("A random word is a special token. Draw from the other words only, whatever their "
                "ids are.")
    different = np.unique(random_words)
    upper_half = (random_words > V // 2).mean() - (ordinary > V // 2).mean()
    if len(different) < 0.5 * min(len(random_words), len(ordinary)) or abs(upper_half) > 0.12:
        return ("The random words are few. Each chosen word needs one of its own, which is drawn "
                "from the whole vocabulary.")
    return None


def check_generator(masked, student):
    """Does the same generator give the same masks, and another one others, and as many [MASK] as
    chance has it?"""
    again, other, *more = [
        Masked(masked.before, masked.words,
               *student(masked.before.copy(), data.generator(seed), masked.words))
        for seed in (1, 2, 3, 4, 5)]
    repeats = (np.array_equal(again.positions, masked.positions)
               and np.array_equal(again.inputs, masked.inputs))
    same_positions = np.array_equal(other.positions, masked.positions)
    mask = masked.words.mask
    same_replacement = np.array_equal(other.seen() == mask, masked.seen() == mask)
    if not repeats or same_positions or same_replacement:
        return ("The randomness is not drawn from rng. The same generator must give the same "
                "masks, and another one must give others.")
    # Chance gives 80% to the word in four batches once in 100,000 times.
    expected = 0.8 * len(other.positions)
    if all(abs((batch.seen() == mask).sum() - expected) <= 1 for batch in (other, *more)):
        return ("Exactly 80% of the chosen words become [MASK], in every batch. What becomes of a "
                "word is independent of the other words: draw for each of them.")
    return None


def check_evenness(masked):
    """Are other places chosen in each block, and each ordinary word equally often?"""
    B, T = masked.before.shape
    columns = masked.positions % T
    if len(np.unique(columns.reshape(B, -1), axis=0)) < B / 2:
        return ("Many blocks have their masked words in the same places. Choose the positions of "
                "each block anew.")
    ordinary = ~np.isin(masked.before, masked.words.special)            # (B, T)
    chances = masked_positions(T) * ordinary / ordinary.sum(1, keepdims=True)
    expected = chances.sum(axis=0)[1:]                                  # (T - 1,), without [CLS]
    chosen = np.bincount(columns, minlength=T)[1:]
    if (abs(chosen - expected) > 6 * np.sqrt(expected)).any():
        return ("Some positions are chosen more often than others. Every ordinary word should have "
                "the same chance.")
    return None


CHECKS = (check_shapes, check_positions, check_labels, check_number, check_replacement,
          check_random_words)


# --------------------------------------------------------------------------------------------------
# Known mistakes, to show that each property is looked at


def smallest(keys, k):
    """(B, T) keys -> (B, T) booleans, true at the k smallest keys of each row."""
    chosen = np.zeros(keys.shape, bool)
    np.put_along_axis(chosen, np.argsort(keys, axis=1)[:, :k], True, axis=1)
    return chosen


def choose(blocks, rng, special, k=masked_positions):
    """(B, T) booleans: k ordinary tokens of each block."""
    return smallest(rng.random(blocks.shape) + np.isin(blocks, special), k(blocks.shape[1]))


class Parts(NamedTuple):
    """What the answer is made of. With these parts it is right.

    Where a word's `chance` is below the first share it becomes [MASK]; where it is below the second
    one it becomes one of `words`."""
    choose: Callable = choose
    chance: Callable = lambda chosen, rng: rng.random(chosen.sum())
    shares: tuple = (0.8, 0.9)
    words: Callable = lambda blocks, vocabulary: vocabulary.ordinary()
    change: Callable = lambda inputs, positions, labels: (inputs, positions, labels)


def mask_tokens(blocks, rng, vocabulary, parts=Parts()):
    chosen = parts.choose(blocks, rng, vocabulary.special)
    positions = np.flatnonzero(chosen)
    labels = blocks.reshape(-1)[positions]
    chance = parts.chance(chosen, rng)
    random_words = rng.choice(parts.words(blocks, vocabulary), len(positions))
    word_or_same = np.where(chance < parts.shares[1], random_words, labels)
    inputs = blocks.copy()
    is_mask = chance < parts.shares[0]
    inputs.reshape(-1)[positions] = np.where(is_mask, vocabulary.mask, word_or_same)
    return parts.change(inputs, positions, labels)


def one_choice_for_all(blocks, rng, special):
    keys = np.tile(rng.random(blocks.shape[1]), (len(blocks), 1)) + np.isin(blocks, special)
    return smallest(keys, masked_positions(blocks.shape[1]))


def rather_at_the_beginning(blocks, rng, special):
    B, T = blocks.shape
    keys = rng.random((B, T)) * (1 + np.arange(T) / T) + 2 * np.isin(blocks, special)
    return smallest(keys, masked_positions(T))


# (the part, a piece of what the check says, no advice of its own)
ROWS = [(wrong, words, "") for wrong, words in (
    (dict(choose=lambda *given: choose(*given, lambda T: int(0.15 * T))), "0.15 T is cut off"),
    (dict(choose=lambda *given: choose(*given, lambda T: round(0.15 * T))),  # 4.5 becomes 4
     "0.15 T is cut off"),
    (dict(choose=lambda *given: choose(*given, lambda T: math.ceil(0.15 * T))),
     "0.15 T is rounded up"),
    (dict(choose=lambda blocks, rng, special: (
        (rng.random(blocks.shape) < 0.15) & ~np.isin(blocks, special))),
     "A chance of 15% for each token does not give that"),
    (dict(choose=lambda blocks, rng, special: choose(blocks, rng, []) & ~np.isin(blocks, special)),
     "neither does choosing k of all tokens and leaving out the special ones."),
    (dict(choose=lambda blocks, rng, special: choose(blocks, rng, [])),
     "Special tokens are masked."),
    (dict(choose=one_choice_for_all), "Many blocks have their masked words in the same places."),
    (dict(choose=rather_at_the_beginning), "Some positions are chosen more often than others."),
    (dict(shares=(1, 1)), "All chosen words become [MASK]."),
    (dict(shares=(0.8, 1)), "The shares should be 80, 10 and 10%."),
    (dict(words=lambda blocks, vocabulary: np.arange(5, vocabulary.size)),
     "A random word is a special token."),
    (dict(words=lambda blocks, vocabulary: vocabulary.ordinary()[:vocabulary.size // 2]),
     "The random words are few."),
    (dict(words=lambda blocks, vocabulary: np.setdiff1d(blocks, vocabulary.special)),
     "The random words are few."),
    (dict(chance=lambda chosen, rng: np.arange(chosen.sum()) / chosen.sum()),
     "What becomes of a word depends on its place."),
    (dict(chance=lambda chosen, rng: rng.random(len(chosen)).repeat(chosen.sum() // len(chosen))),
     "What becomes of a word depends on the other words of its block."),
    (dict(chance=lambda chosen, rng: rng.permutation(chosen.sum()) / chosen.sum()),
     "Exactly 80% of the chosen words become [MASK]"),
    (dict(chance=lambda chosen, rng: np.random.default_rng(0).random(chosen.sum())),
     "The randomness is not drawn from rng."),
    (dict(change=lambda inputs, positions, labels: (
        inputs, positions, inputs.reshape(-1)[positions])),
     "The labels are what the inputs show."),
    (dict(change=lambda inputs, positions, labels: (inputs, positions.astype(np.int32), labels)),
     "wrong dtype"),
    (dict(change=lambda inputs, positions, labels: (inputs, positions % inputs.shape[1], labels)),
     "The positions are columns."),
    (dict(change=lambda inputs, positions, labels: (inputs, positions[::-1], labels[::-1])),
     "The positions are not in rising order."))]

MASKING = Exercise(
    file="3_masking.py", function="mask_tokens", right=data.mask_tokens, cases=cases,
    mistakes=wrong_parts(mask_tokens, Parts(), ROWS), install=swap(data, "mask_tokens"),
    judge=judge, tests=(
        "test_data.py::test_each_block_has_exactly_k_masked_positions",
        "test_data.py::test_labels_are_the_words_that_stood_there_and_other_words_stay",
        "test_data.py::test_80_percent_become_mask_10_a_random_word_10_stay",
        "test_data.py::test_special_tokens_are_never_masked_and_never_the_random_word",
        "test_data.py::test_every_word_is_masked_equally_often"))
