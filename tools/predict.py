"""See a model predict: which words does it put at a [MASK], and how sure is it?

    python -m tools.predict runs/teacher "nora was pushed by leo. [MASK] was mean."
    python -m tools.predict runs/teacher                           words of a held-out story, hidden
    python -m tools.predict runs/teacher --compare runs/student    two models, side by side

A text may have several [MASK]s. The model reads all of them at once, and guesses each without
knowing what it guessed for the others. Where it does not guess a hidden word, that word comes last,
with its probability. Nothing is trained, and the CPU computes it in a moment. In a terminal a bar
stands beside each probability.

Shapes: T tokens of the text with [CLS] and [SEP], k [MASK]s, V words.
"""
import itertools
import re
import sys
import warnings
from typing import NamedTuple

from files import disk, text, wordpiece
from files.teachers import fetch_model
from program import cli
from program.cli import UserError

import torch

from data import generator
from model import Bert
from world.source import VALIDATION_SEED, StorySource

EXAMPLES = """examples:
  python -m tools.predict runs/teacher "nora was pushed by leo. [MASK] was mean."
  python -m tools.predict runs/teacher --compare runs/student --seed 3"""
HIDDEN_WORDS = 3         # of a held-out text
USUAL_LENGTH = 128       # tokens of a held-out text, where no run.json says how long blocks were
STORIES_BETWEEN = 1000   # two seeds begin so many stories apart
DOCUMENTS = 5            # held-out documents to choose from: the first may be a mere title
CHARACTERS = 10_000      # of a document, which may be a whole book
WIDTH = 30               # of a bar that stands for 100%


def arguments(argv=None):
    """The options. Raises UserError where they are wrong."""
    parser = cli.Parser(prog="-m tools.predict", usage="python -m tools.predict model [text] "
                        "[options]", description="Which words does a model put at a [MASK]?",
                        epilog=EXAMPLES)
    add = parser.add_argument
    add("model", help="a run's folder, a BERT's folder or a hub id")
    add("text", nargs="?", help="a text in quotes, with [MASK] for each word to guess (default: "
        "held-out text of what the run was trained on, with some words hidden)")
    add("--compare", metavar="MODEL", help="a second model that reads the same text")
    add("--top", type=cli.whole(1, 1000), default=5, metavar="N",
        help="how many words to print for each [MASK] (default: %(default)s)")
    add("--seed", type=cli.whole(0, 10 ** 6), default=0, metavar="n",
        help="without a text: which story, and which of its words (default: %(default)s)")
    # `model --compare model text`, too: parse_args would take the text before the option only.
    words = sys.argv[1:] if argv is None else argv
    parser.check_flags(words)
    return parser.parse_intermixed_args(words)


# --------------------------------------------------------------------------------------------------
# The model


class Predictor(NamedTuple):
    """A model that predicts words, and what belongs to it."""
    name: str
    bert: Bert
    tokenizer: object                  # tokenizers.Tokenizer
    vocabulary: wordpiece.Vocabulary
    settings: dict                     # of its run.json, {} where it has none

    @property
    def longest(self):
        """How many tokens a text of pretraining had. Later positions may be untrained."""
        return min(self.settings.get("seq_len", USUAL_LENGTH),
                   self.bert.config.max_position_embeddings)


def open_predictor(name):
    """The Predictor in a folder or at a hub id. Raises UserError where there is none, or where the
    model has no head that predicts words."""
    folder = fetch_model(name, option="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no head: the error below says what to do
        bert = Bert.from_pretrained(folder)
    if bert.mlm_head is None:
        raise UserError(f"{name} has no head that predicts words: a student of tinybert or minilm "
                        "gets one if it is trained with --mlm-finish 0.1")
    tokenizer = wordpiece.load_tokenizer(str(folder))
    vocabulary = wordpiece.vocabulary_of(tokenizer)
    if vocabulary.size > bert.config.vocab_size:
        raise UserError(f"{name} has {bert.config.vocab_size:,} word embeddings, and its tokenizer "
                        f"{vocabulary.size:,} words: they do not belong together")
    settings = disk.optional_json(folder / "run.json").get("settings", {})
    return Predictor(name, bert, tokenizer, vocabulary, settings)


# --------------------------------------------------------------------------------------------------
# The text


def with_masks(words):
    """A user's text, with every [mask] in capital letters, as tokenizers know it. Raises UserError
    where there is none, or where the text is not UTF-8."""
    masked = re.sub(r"\[mask\]", "[MASK]", words, flags=re.IGNORECASE)
    if "[MASK]" not in masked:
        raise UserError("the text has no [MASK]: write [MASK] in place of each word to guess")
    try:
        masked.encode()
    except UnicodeEncodeError:  # a terminal may send any bytes
        raise UserError("the text is not UTF-8: write it anew") from None
    return masked


def hide_words(document, predictor, longest, seed):
    """The beginning of a document with some words hidden -> (text with [MASK]s, the hidden words).

    Chosen are words of the predictor's vocabulary that are one token: a single [MASK] cannot stand
    for two. Raises UserError where there are none."""
    document = document[:CHARACTERS].replace("[MASK]", "mask")  # a document may speak of BERT
    encoding = predictor.tokenizer.encode(document, add_special_tokens=False)
    n = max(1, longest - 2)  # tokens: [CLS] and [SEP] come around them
    words, spans = encoding.word_ids[:n], encoding.offsets[:n]
    # A byte-level token begins with the space before its word, which [MASK] then stands for, too.
    written = [document[start:end] for start, end in spans]
    unknown = predictor.vocabulary.unk
    can_be_hidden = [i for i in range(len(words)) if encoding.word_ids.count(words[i]) == 1
                     and encoding.ids[i] != unknown and written[i].strip().isalpha()]
    if not can_be_hidden:
        raise UserError("the held-out text has no word to hide: give a text with a [MASK]")
    k = min(HIDDEN_WORDS, len(can_be_hidden))
    chosen = sorted(generator(seed).choice(can_be_hidden, k, replace=False))
    masked, end = "", 0
    for i in chosen:
        masked += document[end:spans[i][0]] + "[MASK]"
        end = spans[i][1]
    return masked + document[end:spans[-1][1]], [written[i] for i in chosen]


def held_out_document(predictor, seed):
    """A document that no run trains on: of the text that the predictor's run was trained on, or a
    story where it has no run.json.

    Raises UserError where that text is not at hand."""
    data = predictor.settings.get("data", ["stories"])
    if data == ["stories"]:
        first = seed * STORIES_BETWEEN
        return next(StorySource().stream(VALIDATION_SEED, first, "validation"))
    if not all(disk.path_of(entry).exists() for entry in data):
        raise UserError(f"{predictor.name} was trained on {', '.join(data)}, which is no file or "
                        "folder here: give a text with a [MASK]")
    source = text.open_source(data, predictor.settings.get("text_column"))
    if source.has_validation:
        documents = source.texts("validation")
    else:
        documents = (document for part, document in source.documents() if part == "validation")
    return max(itertools.islice(documents, DOCUMENTS), key=len, default="")


# --------------------------------------------------------------------------------------------------
# The prediction


class Guess(NamedTuple):
    """A word, and the probability that a model gives it at a [MASK]."""
    word: str
    probability: float


def encode(predictor, masked):
    """A text with [MASK]s as the predictor's tokenizer cuts it. Raises UserError where the model
    has too few positions for it."""
    encoding = predictor.tokenizer.encode(masked)
    T, positions = len(encoding.ids), predictor.bert.config.max_position_embeddings
    if T > positions:
        raise UserError(f"the text has {T:,} tokens, and {predictor.name} has {positions:,} "
                        "positions: shorten the text")
    if encoding.ids.count(predictor.vocabulary.mask) != masked.count("[MASK]"):
        raise UserError(f"the tokenizer of {predictor.name} does not read [MASK] as one token: "
                        "another tokenizer.json is needed")
    return encoding


def probabilities(predictor, encoding):
    """What the model expects at each [MASK] of an encoded text: (k, V), each row of sum 1."""
    ids = torch.tensor([encoding.ids])                                       # (1, T)
    positions = (ids == predictor.vocabulary.mask).flatten().nonzero()[:, 0]  # (k,)
    with torch.no_grad():
        z = predictor.bert(ids, positions=positions).logits                  # (k, V)
    # p_i = exp(z_i) / sum_j exp(z_j)
    return z.softmax(-1)


def best(predictor, p, top, hidden=None):
    """The likeliest words of p (V,), at most `top` of them, likeliest first -> [Guess]. Where the
    hidden word is one of the model's tokens and not among them, it comes last."""
    ids = p.topk(min(top, len(p))).indices.tolist()
    if hidden is not None:
        pieces = predictor.tokenizer.encode(hidden, add_special_tokens=False).ids
        if len(pieces) == 1 and pieces[0] not in [*ids, predictor.vocabulary.unk]:
            ids += pieces
    # The last word embeddings may be padding, which belongs to no word.
    words = [predictor.tokenizer.id_to_token(i) or f"(no word: {i})" for i in ids]
    return [Guess(word, p[i].item()) for word, i in zip(words, ids)]


# --------------------------------------------------------------------------------------------------
# What is printed


def remarks(predictor, encoding, masked):
    """Lines on what the predictor cannot read well in a text."""
    T, lines = len(encoding.ids), []
    spans = [span for i, span in zip(encoding.ids, encoding.offsets)
             if i == predictor.vocabulary.unk]
    if spans:
        words = dict.fromkeys(masked[start:end] for start, end in spans)
        lines += [f"{predictor.name} does not know {', '.join(words)}, and reads [UNK] instead"]
    if T > predictor.settings.get("seq_len", T):
        lines += [f"{predictor.name} was trained on blocks of {predictor.settings['seq_len']} "
                  f"tokens, and the text has {T}: it has not learned the positions beyond"]
    return lines


def column(guesses, has_bars):
    """Guesses as lines of text: word, probability, and perhaps a bar."""
    width = max(len(guess.word) for guess in guesses)
    lines = []
    for word, probability in guesses:
        bar = "#" * round(WIDTH * probability) if has_bars else ""
        lines += [f"{word:{width}}  {probability:6.1%}  {bar}".rstrip()]
    return lines


def side_by_side(columns):
    """Columns of lines -> the lines of all of them, each column as wide as its longest line."""
    widths = [max(map(len, lines)) for lines in columns]
    rows = itertools.zip_longest(*columns, fillvalue="")
    return ["  " + "    ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()
            for row in rows]


def table(guesses, hidden, has_bars):
    """What all models guess at all [MASK]s, as text. guesses: {model's name: [[Guess] of each
    [MASK]]}. hidden: the word that each [MASK] hides, or None."""
    lines = []
    for number, word in enumerate(hidden):
        heading = f"[MASK] {number + 1}" if len(hidden) > 1 else "[MASK]"
        if word is not None:
            heading += f" hides: {word.strip()}"
        columns = [column(of_model[number], has_bars) for of_model in guesses.values()]
        if len(guesses) > 1:
            columns = [[name, *rows] for name, rows in zip(guesses, columns)]
        lines += ["", heading, *side_by_side(columns)]
    return "\n".join(lines)


def main():
    args = arguments()
    words = args.text if args.text is None else with_masks(args.text)
    names = [args.model] if args.compare in (None, args.model) else [args.model, args.compare]
    predictors = [open_predictor(name) for name in names]
    if words is None:
        document = held_out_document(predictors[0], args.seed)
        longest = min(predictor.longest for predictor in predictors)
        words, hidden = hide_words(document, predictors[0], longest, args.seed)
    else:
        hidden = [None] * words.count("[MASK]")
    encodings = [encode(predictor, words) for predictor in predictors]
    cli.say(words)
    guesses = {}
    for predictor, encoding in zip(predictors, encodings):
        for line in remarks(predictor, encoding, words):
            cli.say(line)
        p = probabilities(predictor, encoding)  # (k, V)
        guesses[predictor.name] = [best(predictor, row, args.top, word)
                                   for row, word in zip(p, hidden)]
    cli.say(table(guesses, hidden, has_bars=sys.stdout.isatty()))


if __name__ == "__main__":
    cli.program(main)
