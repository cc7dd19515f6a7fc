"""Exercise 3: masking. Answers are random, so that what is checked are their properties.

The check knows no mistakes by their numbers here. The mistakes below show that each of its
properties is looked at: the name of a mistake is a part of what the check says of it.
"""
import math
from typing import NamedTuple

import numpy as np

import data
from budget import masked_positions

from .exercise import Case, Exercise, Mistakes, swap

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
    two_words = Words(106, special=list(range(104)))
    return [Case("blocks of 32 tokens", (32, Words(), 1)),
            Case("blocks of 30 tokens, in which half of the words never come", (30, Words(), 2)),
            Case("blocks of 128 tokens, and a vocabulary of 112 words", (128, Words(112), 1)),
            Case("a vocabulary with two ordinary words", (32, two_words, 1))]


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
    become_mask, stay = is_mask.mean(), (masked.seen() == masked.stood()).mean()
    if become_mask > 0.99:
        return ("All chosen words become [MASK]. Only 80% should; 10% become a random word and 10% "
                "stay, since in fine-tuning there is no [MASK].")
    also_stay = 0.1 + 0.1 / len(masked.words.ordinary())  # the random word may be the same
    if is_far(become_mask, 0.8, len(is_mask)) or is_far(stay, also_stay, len(is_mask)):
        become_random = len(masked.random_words()) / len(is_mask)
        return (f"{become_mask:.0%} of the chosen words become [MASK], {stay:.0%} stay and "
                f"{become_random:.0%} become a random word. The shares should be 80, 10 and 10%.")
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
    if V < 200 and len(different) < len(ordinary):  # of few words each must come up
        absent = np.setdiff1d(ordinary, random_words)[0]
        return (f"The word {absent} of {V} never comes as a random one. All words from 0 to V - 1 "
                "that are no special tokens should have the same chance.")
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
# Known mistakes. Each is made in one of the two parts: which tokens are chosen, or what they become


def smallest(keys, k):
    """(B, T) keys -> (B, T) booleans, true at the k smallest keys of each row."""
    chosen = np.zeros(keys.shape, bool)
    np.put_along_axis(chosen, np.argsort(keys, axis=1)[:, :k], True, axis=1)
    return chosen


def choose(blocks, rng, vocabulary, k=None):
    """(B, T) booleans: k ordinary tokens of each block."""
    keys = rng.random(blocks.shape) + np.isin(blocks, vocabulary.special)
    return smallest(keys, masked_positions(blocks.shape[1]) if k is None else k)


def replace(blocks, chosen, rng, vocabulary, shares=(0.8, 0.9), words=None, chance=None):
    """blocks (B, T), chosen (B, T) -> the answer of mask_tokens.

    Where a word's `chance` is below the first share it becomes [MASK]; where it is below the second
    one it becomes one of `words`."""
    positions = np.flatnonzero(chosen)
    labels = blocks.reshape(-1)[positions]
    words = vocabulary.ordinary() if words is None else words
    chance = rng.random(len(positions)) if chance is None else chance
    random_words = rng.choice(words, len(positions))
    word_or_same = np.where(chance < shares[1], random_words, labels)
    inputs = blocks.copy()
    inputs.reshape(-1)[positions] = np.where(chance < shares[0], vocabulary.mask, word_or_same)
    return inputs, positions, labels


mistakes = Mistakes()
OWN_GENERATOR = np.random.default_rng(0)


@mistakes.add
def cut_off(blocks, rng, vocabulary):
    """0.15 T is cut off"""
    k = int(0.15 * blocks.shape[1])
    return replace(blocks, choose(blocks, rng, vocabulary, k), rng, vocabulary)


@mistakes.add
def a_chance_for_each(blocks, rng, vocabulary):
    """A chance of 15% for each token does not give that"""
    chosen = (rng.random(blocks.shape) < 0.15) & ~np.isin(blocks, vocabulary.special)
    return replace(blocks, chosen, rng, vocabulary)


@mistakes.add
def special_ones_left_out_afterwards(blocks, rng, vocabulary):
    """neither does choosing k of all tokens and leaving out the special ones."""
    chosen = smallest(rng.random(blocks.shape), masked_positions(blocks.shape[1]))
    return replace(blocks, chosen & ~np.isin(blocks, vocabulary.special), rng, vocabulary)


@mistakes.add
def special_ones_masked(blocks, rng, vocabulary):
    """Special tokens are masked."""
    chosen = smallest(rng.random(blocks.shape), masked_positions(blocks.shape[1]))
    return replace(blocks, chosen, rng, vocabulary)


@mistakes.add
def all_become_mask(blocks, rng, vocabulary):
    """All chosen words become [MASK]."""
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, shares=(1, 1))


@mistakes.add
def none_stays(blocks, rng, vocabulary):
    """The shares should be 80, 10 and 10%."""
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, shares=(0.8, 1))


@mistakes.add
def labels_of_the_inputs(blocks, rng, vocabulary):
    """The labels are what the inputs show."""
    chosen = choose(blocks, rng, vocabulary)
    inputs, positions, _ = replace(blocks, chosen, rng, vocabulary)
    return inputs, positions, inputs.reshape(-1)[positions]


@mistakes.add
def first_five_taken_for_special(blocks, rng, vocabulary):
    """A random word is a special token."""
    words = np.arange(5, vocabulary.size)
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, words=words)


@mistakes.add
def by_number_in_the_row(blocks, rng, vocabulary):
    """What becomes of a word depends on its place."""
    chosen = choose(blocks, rng, vocabulary)
    N = chosen.sum()
    return replace(blocks, chosen, rng, vocabulary, chance=np.arange(N) / N)


@mistakes.add
def generator_of_ones_own(blocks, rng, vocabulary):
    """The randomness is not drawn from rng."""
    return replace(blocks, choose(blocks, rng, vocabulary), OWN_GENERATOR, vocabulary)


@mistakes.add
def generator_with_a_fixed_seed(blocks, rng, vocabulary):
    """The randomness is not drawn from rng."""
    chosen = choose(blocks, rng, vocabulary)
    return replace(blocks, chosen, np.random.default_rng(0), vocabulary)


@mistakes.add
def int32(blocks, rng, vocabulary):
    """wrong dtype"""
    chosen = choose(blocks, rng, vocabulary)
    inputs, positions, labels = replace(blocks, chosen, rng, vocabulary)
    return inputs, positions.astype(np.int32), labels


@mistakes.add
def half_of_the_vocabulary(blocks, rng, vocabulary):
    """The random words are few."""
    words = vocabulary.ordinary()
    words = words[:len(words) // 2]
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, words=words)


@mistakes.add
def without_the_last_word(blocks, rng, vocabulary):
    """never comes as a random one."""
    words = vocabulary.ordinary()
    words = words[:round(0.992 * len(words))]
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, words=words)


@mistakes.add
def rounded_half_to_even(blocks, rng, vocabulary):
    """0.15 T is cut off"""
    k = round(0.15 * blocks.shape[1])  # Python rounds 4.5 to 4
    return replace(blocks, choose(blocks, rng, vocabulary, k), rng, vocabulary)


@mistakes.add
def columns(blocks, rng, vocabulary):
    """The positions are columns."""
    chosen = choose(blocks, rng, vocabulary)
    inputs, positions, labels = replace(blocks, chosen, rng, vocabulary)
    return inputs, positions % blocks.shape[1], labels


@mistakes.add
def one_choice_for_all(blocks, rng, vocabulary):
    """Many blocks have their masked words in the same places."""
    keys = np.tile(rng.random(blocks.shape[1]), (len(blocks), 1))
    keys += np.isin(blocks, vocabulary.special)
    return replace(blocks, smallest(keys, masked_positions(blocks.shape[1])), rng, vocabulary)


@mistakes.add
def one_draw_for_a_block(blocks, rng, vocabulary):
    """What becomes of a word depends on the other words of its block."""
    chosen = choose(blocks, rng, vocabulary)
    k = masked_positions(blocks.shape[1])
    return replace(blocks, chosen, rng, vocabulary, chance=rng.random(len(blocks)).repeat(k))


@mistakes.add
def mask_among_the_random_words(blocks, rng, vocabulary):
    """The shares should be 80, 10 and 10%."""
    words = np.append(vocabulary.ordinary(), vocabulary.mask)
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, words=words)


@mistakes.add
def special_ones_of_the_first_block(blocks, rng, vocabulary):
    """Special tokens are masked."""
    keys = rng.random(blocks.shape) + np.isin(blocks[0], vocabulary.special)
    return replace(blocks, smallest(keys, masked_positions(blocks.shape[1])), rng, vocabulary)


@mistakes.add
def rather_at_the_beginning(blocks, rng, vocabulary):
    """Some positions are chosen more often than others."""
    T = blocks.shape[1]
    keys = rng.random(blocks.shape) * (1 + np.arange(T) / T)
    keys += 2 * np.isin(blocks, vocabulary.special)
    return replace(blocks, smallest(keys, masked_positions(T)), rng, vocabulary)


@mistakes.add
def exactly_80_percent(blocks, rng, vocabulary):
    """Exactly 80% of the chosen words become [MASK]"""
    chosen = choose(blocks, rng, vocabulary)
    N = chosen.sum()
    return replace(blocks, chosen, rng, vocabulary, chance=rng.permutation(N) / N)


@mistakes.add
def words_of_the_blocks(blocks, rng, vocabulary):
    """The random words are few."""
    words = np.setdiff1d(blocks, vocabulary.special)
    return replace(blocks, choose(blocks, rng, vocabulary), rng, vocabulary, words=words)


MASKING = Exercise(
    file="3_masking.py", function="mask_tokens", right=data.mask_tokens, cases=cases,
    mistakes=mistakes, install=swap(data, "mask_tokens"), judge=judge, tests=(
        "test_data.py::test_each_block_has_exactly_k_masked_positions",
        "test_data.py::test_labels_are_the_words_that_stood_there_and_other_words_stay",
        "test_data.py::test_80_percent_become_mask_10_a_random_word_10_stay",
        "test_data.py::test_special_tokens_are_never_masked_and_never_the_random_word",
        "test_data.py::test_every_word_is_masked_equally_often"))
