"""A WordPiece vocabulary that is made from text, the same on every machine.

The library `tokenizers` trains it, by byte-pair merges (Schuster and Nakajima 2012). Which of
several equally frequent pairs it merges first depends on the numbers of the letters, and it numbers
those inside words, "##a" to "##z", in the order of a hash table that differs in each process. So
here the letters are counted first, and the trainer is given those that it keeps, in their order.
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
    """A tokenizer of `vocab_size` pieces at most. texts() gives the documents, twice."""
    from tokenizers import trainers  # only here: a tokenizer is rarely made
    tokenizer = tokenizer_of([])
    counts = letter_counts(beginning(texts()), tokenizer.normalizer)
    # A letter that can stand inside a word has a piece for that, too. Punctuation cannot.
    pieces_of = {letter: [letter] + [f"##{letter}"] * (len(words_of("a" + letter, tokenizer)) == 1)
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
    return tokenizer_of(sorted(made - set(SPECIAL)))


def tokenizer_of(words):
    """BERT's tokenizer of the special tokens and some words."""
    return wordpiece.wordpiece({piece: i for i, piece in enumerate([*SPECIAL, *words])})


def words_of(text, tokenizer):
    """The words of a text, as BERT cuts it at spaces and punctuation."""
    text = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def beginning(texts):
    """The first documents, until they have more than VOCABULARY_CHARACTERS characters, without
    words of 10,000 letters: the trainer would take hours, and WordPiece makes them [UNK] anyway."""
    tokenizer = tokenizer_of([])  # the one that is being trained is locked meanwhile

    def shorter_words(run):
        # A run of Chinese characters, or of letters and "_", is many words.
        return " ".join(word for word in words_of(run[0], tokenizer) if len(word) < 10_000) or " "

    characters = 0
    for text in texts:
        yield re.sub(r"\w{10000,}", shorter_words, text)
        if (characters := characters + len(text)) > VOCABULARY_CHARACTERS:
            return


def letter_counts(texts, normalizer):
    """{character: how often the texts have it} without white space, sorted by that, and by code."""
    counts = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    return {letter: count for letter, count in rows if not letter.isspace()}


def kept_letters(counts, pieces_of, room):
    """The letters whose pieces get places in the vocabulary, sorted: the most frequent ones, and at
    least one. room: places for them."""
    kept, covered, total = [], 0, sum(counts.values())
    for letter, count in counts.items():
        room -= len(pieces_of[letter])
        is_enough = len(kept) >= COMMON_LETTERS and covered >= COVERED * total
        if kept and (room < 0 or is_enough):
            break
        kept.append(letter)
        covered += count
    return sorted(kept)
