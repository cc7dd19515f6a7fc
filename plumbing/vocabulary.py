"""A WordPiece vocabulary that is made from text, the same on every machine.

The library `tokenizers` trains it, by byte-pair merges (Schuster and Nakajima 2012; Devlin et al.
2018, section 3). Which of several equally frequent pairs it merges first depends on the numbers
that it gave to the letters, and it numbers the letters inside words, "##a" to "##z", in the order
of a hash table that differs in each process. So here the letters are counted first, and the trainer
is given both the letters that it keeps and their order.
"""
import collections
import re

from plumbing import wordpiece
from plumbing.wordpiece import SPECIAL

VOCABULARY_CHARACTERS = 10 ** 8  # of training text, from which a vocabulary is made
MOST_LETTERS = 1000


def train_wordpiece(texts, vocab_size):
    """A tokenizer of `vocab_size` pieces at most. texts(): the documents, from the first one on;
    they are read twice."""
    from tokenizers import trainers  # only here: a tokenizer is rarely made
    tokenizer = wordpiece.wordpiece({piece: i for i, piece in enumerate(SPECIAL)})
    room = max(1, min(MOST_LETTERS, (vocab_size - len(SPECIAL)) // 4))
    letters = most_frequent_letters(beginning(texts()), tokenizer.normalizer, room)
    inner = [f"##{letter}" for letter in letters if continues_word(letter, tokenizer)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, show_progress=False, limit_alphabet=len(letters),
        initial_alphabet=letters, special_tokens=SPECIAL + inner)
    tokenizer.train_from_iterator(beginning(texts()), trainer)
    # In alphabetical order, whatever the order of the merges was.
    pieces = SPECIAL + sorted(set(tokenizer.get_vocab()) - set(SPECIAL))
    return wordpiece.wordpiece({piece: i for i, piece in enumerate(pieces)})


def beginning(texts):
    """The first documents, until they have more than VOCABULARY_CHARACTERS characters."""
    left = VOCABULARY_CHARACTERS
    for text in texts:
        # The trainer would take hours for a word of a million letters. WordPiece makes every word
        # beyond 100 letters [UNK] anyway.
        yield re.sub(r"\w{10000,}", " ", text)
        left -= len(text)
        if left < 0:
            return


def most_frequent_letters(texts, normalizer, n):
    """The n most frequent characters of the texts, in the order of their code points. Of equally
    frequent ones, the lowest code points are taken."""
    counts = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    letters = [letter for letter in counts if not letter.isspace()]
    letters.sort(key=lambda letter: (-counts[letter], letter))
    return sorted(letters[:n])


def continues_word(letter, tokenizer):
    """Whether a letter can stand inside a word. Punctuation and Chinese characters are words of
    their own."""
    normalized = tokenizer.normalizer.normalize_str("a" + letter)
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(normalized)) == 1
