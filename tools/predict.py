"""See a model predict: which words does it put at a [MASK], and how sure is it?

    python -m tools.predict runs/teacher "nora was pushed by leo. [MASK] was mean."
    python -m tools.predict runs/teacher                           words of a held-out story, hidden
    python -m tools.predict runs/teacher --compare runs/student    two models, side by side

A text may have several [MASK]s. The model reads all of them at once, and guesses each without
knowing what it guessed for the others. Where it does not guess a hidden word, that word comes last,
with its probability. Nothing is trained, and the CPU computes it in a moment.

Shapes: T tokens of the text with [CLS] and [SEP], k [MASK]s, V words.
"""
import itertools
import re
import sys
import warnings
from typing import NamedTuple

from files import disk, wordpiece
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
HIDDEN_WORDS = 3         # of a held-out story
USUAL_LENGTH = 128       # tokens of a held-out story, where no run.json says how long blocks were
WIDTH = 30               # of a bar that stands for 100%


def arguments(argv=None):
    """The options. Raises UserError where they are wrong."""
    parser = cli.Parser(prog="-m tools.predict", usage="python -m tools.predict model [text] "
                        "[options]", description="Which words does a model put at a [MASK]?",
                        epilog=EXAMPLES)
    add = parser.add_argument
    add("model", help="a run's folder, a BERT's folder or a hub id")
    add("text", nargs="?", help="a text in quotes, with [MASK] for each word to guess (default: "
        "a held-out story with some words hidden)")
    add("--compare", metavar="MODEL", help="a second model that reads the same text")
    add("--top", type=cli.whole(1, 1000), default=5, metavar="N",
        help="how many words to print for each [MASK] (default: %(default)s)")
    add("--seed", type=cli.whole(0, 10 ** 6), default=0, metavar="n",
        help="without a text: which story, and which of its words (default: %(default)s)")
    # `model --compare model text`, too: parse_args would take the text before the option only.
    words = sys.argv[1:] if argv is None else argv
    parser.check_flags(words)
    return parser.parse_intermixed_args(words)


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


def hide_words(story, predictor, longest, seed):
    """The beginning of a story with some words hidden -> (text with [MASK]s, the hidden words).

    Chosen are words of the predictor's vocabulary that are one token: a single [MASK] cannot stand
    for two. Raises UserError where there are none."""
    encoding = predictor.tokenizer.encode(story, add_special_tokens=False)
    n = max(1, longest - 2)  # tokens: [CLS] and [SEP] come around them
    words, spans = encoding.word_ids[:n], encoding.offsets[:n]
    # A byte-level token begins with the space before its word, which [MASK] then stands for, too.
    written = [story[start:end] for start, end in spans]
    known = [i for i, word in enumerate(encoding.ids[:n]) if word != predictor.vocabulary.unk]
    can_be_hidden = [i for i in known if encoding.word_ids.count(words[i]) == 1
                     and written[i].strip().isalpha()]
    if not can_be_hidden:
        raise UserError("the held-out story has no word to hide: give a text with a [MASK]")
    k = min(HIDDEN_WORDS, len(can_be_hidden))
    chosen = sorted(generator(seed).choice(can_be_hidden, k, replace=False))
    masked, end = "", 0
    for i in chosen:
        masked += story[end:spans[i][0]] + "[MASK]"
        end = spans[i][1]
    return masked + story[end:spans[-1][1]], [written[i] for i in chosen]


# --------------------------------------------------------------------------------------------------
# The prediction


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
    """[(word, probability)] of the likeliest words of p (V,), at most `top` of them, likeliest
    first. Where the hidden word is one of the model's tokens and not among them, it comes last."""
    ids = p.topk(min(top, len(p))).indices.tolist()
    if hidden is not None:
        pieces = predictor.tokenizer.encode(hidden, add_special_tokens=False).ids
        if len(pieces) == 1 and pieces[0] not in [*ids, predictor.vocabulary.unk]:
            ids += pieces
    # The last word embeddings may be padding, which belongs to no word.
    words = [predictor.tokenizer.id_to_token(i) or f"(no word: {i})" for i in ids]
    return [(word, p[i].item()) for word, i in zip(words, ids)]


# --------------------------------------------------------------------------------------------------
# What is printed


def remarks(predictor, encoding, masked):
    """Lines on what the predictor cannot read well in a text."""
    T, trained = len(encoding.ids), predictor.settings.get("seq_len", len(encoding.ids))
    unknown = [masked[start:end] for i, (start, end) in zip(encoding.ids, encoding.offsets)
               if i == predictor.vocabulary.unk]
    if unknown:
        yield (f"{predictor.name} does not know {', '.join(dict.fromkeys(unknown))}, and reads "
               "[UNK] instead")
    if T > trained:
        yield (f"{predictor.name} was trained on blocks of {trained} tokens, and the text has {T}: "
               "it has not learned the positions beyond")


def guess_table(guesses, hidden):
    """What all models guess at all [MASK]s, side by side, as text. guesses: {model's name: [what
    `best` gives at each [MASK]]}. hidden: the word that each [MASK] hides, or None."""
    lines = []
    for number, word in enumerate(hidden):
        heading = f"[MASK] {number + 1}" if len(hidden) > 1 else "[MASK]"
        lines += ["", heading + ("" if word is None else f" hides: {word.strip()}")]
        columns = []
        for name, of_model in guesses.items():
            width = max(len(guess) for guess, _ in of_model[number])
            rows = [f"{guess:{width}}  {p:6.1%}  {'#' * round(WIDTH * p)}".rstrip()
                    for guess, p in of_model[number]]
            columns.append([name, *rows] if len(guesses) > 1 else rows)
        widths = [max(map(len, column)) for column in columns]
        for row in itertools.zip_longest(*columns, fillvalue=""):
            cells = [f"{cell:{width}}" for cell, width in zip(row, widths)]
            lines.append("  " + "    ".join(cells).rstrip())
    return "\n".join(lines)


def main():
    args = arguments()
    words = args.text if args.text is None else with_masks(args.text)
    names = [args.model] if args.compare in (None, args.model) else [args.model, args.compare]
    predictors = [open_predictor(name) for name in names]
    if words is None:
        data = predictors[0].settings.get("data", ["stories"])
        if data != ["stories"]:
            raise UserError(f"{args.model} was trained on {', '.join(data)}, and not on stories: "
                            "give a text with a [MASK]")
        # No run trains on it, whatever its seed: the text alone decides its part.
        story = next(StorySource().stream(VALIDATION_SEED, args.seed * 1000, "validation"))
        longest = min(predictor.longest for predictor in predictors)
        words, hidden = hide_words(story, predictors[0], longest, args.seed)
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
    cli.say(guess_table(guesses, hidden))


if __name__ == "__main__":
    cli.program(main)
