"""See a model predict: which words does it put at a [MASK], and how sure is it?

    python -m tools.predict runs/teacher "nora was pushed by leo. [MASK] was mean."
    python -m tools.predict runs/teacher "leo saw a [MASK]." --compare runs/student   side by side

A text may have several [MASK]s. The model reads all of them at once, and guesses each without
knowing what it guessed for the others. Nothing is trained, and the CPU computes it in a moment.

Shapes: T tokens of the text with [CLS] and [SEP], k [MASK]s, V words.
"""
import itertools
import re
import warnings
from typing import NamedTuple

from files import disk, wordpiece
from files.teachers import fetch_model
from program import cli
from program.cli import UserError

import torch

from model import Bert

WIDTH = 30  # of a bar that stands for 100%


def arguments(argv=None):
    """The options. Raises UserError where they are wrong."""
    parser = cli.Parser(prog="-m tools.predict", usage="python -m tools.predict model text "
                        "[options]", description="Which words does a model put at a [MASK]?",
                        epilog='example:\n  python -m tools.predict runs/a "leo saw a [MASK]."')
    add = parser.add_argument
    add("model", help="a run's folder, a BERT's folder or a hub id")
    add("text", help="a text in quotes, with [MASK] for each word to guess")
    add("--compare", metavar="MODEL", help="a second model that reads the same text")
    add("--top", type=cli.whole(1, 1000), default=5, metavar="N",
        help="how many words to print for each [MASK] (default: %(default)s)")
    return parser.parse_args(argv)


class Predictor(NamedTuple):
    """A model that predicts words, and what belongs to it."""
    name: str
    bert: Bert
    tokenizer: object                  # tokenizers.Tokenizer
    vocabulary: wordpiece.Vocabulary
    settings: dict                     # of its run.json, {} where it has none


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


def encode(predictor, masked):
    """A text with [MASK]s as the predictor's tokenizer cuts it. Raises UserError where it has none,
    or where the model has too few positions for it."""
    encoding = predictor.tokenizer.encode(masked)
    T, positions = len(encoding.ids), predictor.bert.config.max_position_embeddings
    if T > positions:
        raise UserError(f"the text has {T:,} tokens, and {predictor.name} has {positions:,} "
                        "positions: shorten the text")
    if predictor.vocabulary.mask not in encoding.ids:
        raise UserError("the text has no [MASK]: write [MASK] in place of each word to guess")
    return encoding


def probabilities(predictor, encoding):
    """What the model expects at each [MASK] of an encoded text: (k, V), each row of sum 1."""
    ids = torch.tensor([encoding.ids])                                       # (1, T)
    positions = (ids == predictor.vocabulary.mask).flatten().nonzero()[:, 0]  # (k,)
    with torch.no_grad():
        z = predictor.bert(ids, positions=positions).logits                  # (k, V)
    # p_i = exp(z_i) / sum_j exp(z_j)
    return z.softmax(-1)


def best(predictor, p, top):
    """[(word, probability)] of the likeliest words of p (V,), at most `top`, likeliest first."""
    values, ids = p.topk(min(top, len(p)))
    # The last word embeddings may be padding, which belongs to no word.
    words = [predictor.tokenizer.id_to_token(i) or f"(no word: {i})" for i in ids.tolist()]
    return list(zip(words, values.tolist()))


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


def guess_table(guesses):
    """What all models guess at all [MASK]s, side by side, as text. guesses: {model's name: [what
    `best` gives at each [MASK]]}."""
    lines, k = [], len(next(iter(guesses.values())))
    for number, at_mask in enumerate(zip(*guesses.values()), start=1):
        lines += ["", f"[MASK] {number}" if k > 1 else "[MASK]"]
        columns = []
        for name, pairs in zip(guesses, at_mask):
            width = max(len(word) for word, _ in pairs)
            rows = [f"{word:{width}}  {p:6.1%}  {'#' * round(WIDTH * p)}" for word, p in pairs]
            columns.append([name, *rows] if len(guesses) > 1 else rows)
        widths = [max(map(len, column)) for column in columns]
        for row in itertools.zip_longest(*columns, fillvalue=""):
            cells = [f"{cell:{width}}" for cell, width in zip(row, widths)]
            lines.append("  " + "    ".join(cells).rstrip())
    return "\n".join(lines)


def main():
    args = arguments()
    text = args.text.encode(errors="replace").decode()  # a terminal may send any bytes
    masked = re.sub(r"\[mask\]", "[MASK]", text, flags=re.IGNORECASE)
    names = dict.fromkeys([args.model, args.model if args.compare is None else args.compare])
    predictors = [open_predictor(name) for name in names]
    encodings = [encode(predictor, masked) for predictor in predictors]
    cli.say(masked)
    guesses = {}
    for predictor, encoding in zip(predictors, encodings):
        for line in remarks(predictor, encoding, masked):
            cli.say(line)
        rows = probabilities(predictor, encoding)  # (k, V)
        guesses[predictor.name] = [best(predictor, p, args.top) for p in rows]
    cli.say(guess_table(guesses))


if __name__ == "__main__":
    cli.program(main)
