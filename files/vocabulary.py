"""A WordPiece vocabulary that is made from text, the same on every machine.

The library `tokenizers` trains it, by byte-pair merges (Schuster and Nakajima 2012; Devlin et al.
2018, section 3). Which of several equally frequent pairs it merges first depends on the numbers
that it gave to the letters, and it numbers the letters inside words, "##a" to "##z", in the order
of a hash table that differs in each process. So here the letters are counted first, and the trainer
is given both the letters that it keeps and their order.
"""
import collections
import re

from files import wordpiece
from files.wordpiece import SPECIAL

VOCABULARY_CHARACTERS = 10 ** 8  # of training text, from which a vocabulary is made
MAKER = 2              # the version of the rules by which a text becomes a vocabulary
COMMON_LETTERS = 1000  # so many letters get places, however rare they are, and further ones
COVERED = 0.9995       # until so much of the text is made of them


def train_wordpiece(texts, vocab_size):
    """A tokenizer of `vocab_size` pieces at most. texts(): the documents, from the first one on;
    they are read twice."""
    from tokenizers import trainers  # only here: a tokenizer is rarely made
    tokenizer = without_words()
    counts = letter_counts(beginning(texts()), tokenizer.normalizer)
    # Where a letter continues words, it needs a second piece for that.
    pieces_of = {letter: [letter] + [f"##{letter}"] * continues_word(letter, tokenizer)
                 for letter in counts}
    letters = kept_letters(counts, pieces_of, (vocab_size - len(SPECIAL)) // 2)
    inner = [piece for letter in letters for piece in pieces_of[letter][1:]]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, show_progress=False, limit_alphabet=len(letters),
        initial_alphabet=letters, special_tokens=SPECIAL + inner)
    tokenizer.train_from_iterator(beginning(texts()), trainer)
    made = set(tokenizer.get_vocab())
    # Chinese characters make no longer pieces. The places that are left go to more letters.
    more = [piece for letter in counts if letter not in made for piece in pieces_of[letter]]
    made.update(more[:max(0, vocab_size - len(made))])
    # In alphabetical order, whatever the order of the merges was.
    pieces = SPECIAL + sorted(made - set(SPECIAL))
    return wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})


def without_words():
    """BERT's tokenizer before it has learned any word."""
    return wordpiece.wordpiece({piece: i for i, piece in enumerate(SPECIAL)})


def beginning(texts):
    """The first documents, until they have more than VOCABULARY_CHARACTERS characters, without
    words of 10,000 letters.

    The trainer would take hours for a word of a million letters. WordPiece makes every word beyond
    100 letters [UNK] anyway."""
    # The tokenizer that is being trained is locked meanwhile, so that it cannot cut anything.
    tokenizer = without_words()

    def shorter_words(run):
        # A run of Chinese characters, or of letters and "_", is many words.
        normalized = tokenizer.normalizer.normalize_str(run[0])
        words = tokenizer.pre_tokenizer.pre_tokenize_str(normalized)
        return " ".join(word for word, _ in words if len(word) < 10_000) or " "

    left = VOCABULARY_CHARACTERS
    for text in texts:
        yield re.sub(r"\w{10000,}", shorter_words, text)
        left -= len(text)
        if left < 0:
            return


def letter_counts(texts, normalizer):
    """{character: how often the texts have it} without white space, the most frequent first. Of
    equally frequent ones, the lowest code point comes first."""
    counts = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    letters = [letter for letter in counts if not letter.isspace()]
    letters.sort(key=lambda letter: (-counts[letter], letter))
    return {letter: counts[letter] for letter in letters}


def kept_letters(counts, pieces_of, room):
    """The letters whose pieces get places in the vocabulary, in the order of their code points: the
    most frequent ones, and at least one. room: places for them."""
    kept, covered, total = [], 0, sum(counts.values())
    for letter, count in counts.items():
        room -= len(pieces_of[letter])
        is_enough = len(kept) >= COMMON_LETTERS and covered >= COVERED * total
        if kept and (room < 0 or is_enough):
            break
        kept.append(letter)
        covered += count
    return sorted(kept)


def continues_word(letter, tokenizer):
    """Whether a letter can stand inside a word. Punctuation and Chinese characters are words of
    their own."""
    normalized = tokenizer.normalizer.normalize_str("a" + letter)
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(normalized)) == 1
