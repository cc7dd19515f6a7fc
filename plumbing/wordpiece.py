"""BERT's WordPiece tokenizers, by the library `tokenizers`: made, loaded, saved.

    tokenizer = load_tokenizer("bert-base-uncased")     # a file, a folder or a hub id
    vocabulary = vocabulary_of(tokenizer)               # its size, the ids of the special tokens

A folder's tokenizer is its tokenizer.json, or else its vocab.txt, which holds the words alone. It
gives the ids that transformers' AutoTokenizer gives for that folder.
"""
import json
from pathlib import Path
from typing import NamedTuple

from plumbing import disk
from plumbing.cli import UserError, one_line, say_once

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The options of BERT's normalizer, and their names and defaults in tokenizer_config.json.
OPTIONS = {"lowercase": ("do_lower_case", True), "strip_accents": ("strip_accents", None),
           "handle_chinese_chars": ("tokenize_chinese_chars", True)}


class Vocabulary(NamedTuple):
    """What masking needs to know of a tokenizer: its size and the ids of the special tokens."""
    size: int  # the highest id plus one
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int

    @property
    def special(self):
        """The ids of the special tokens."""
        return list(self[1:])


def vocabulary_of(tokenizer, name="the tokenizer"):
    """The Vocabulary of a tokenizer. Raises UserError where it is not a BERT tokenizer."""
    ids = [tokenizer.token_to_id(token) for token in SPECIAL]
    missing = [token for token, i in zip(SPECIAL, ids) if i is None]
    if missing:
        raise UserError(f"{name} has no {' '.join(missing)}: it is not a BERT tokenizer")
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    size = max(vocab.values()) + 1
    if size > 2 * len(vocab) + 1000:  # a few gaps are usual
        raise UserError(f"{name} numbers its {len(vocab):,} words up to {size:,}: it is damaged")
    return Vocabulary(size, *ids)


# --------------------------------------------------------------------------------------------------
# Making


def wordpiece(vocab, **options):
    """BERT's WordPiece over a vocabulary {piece: id} (Devlin et al. 2018, section 3): uncased,
    unless `options` of the library's BertNormalizer say otherwise.

    strip_accents=None takes accents off where the text is lowercased."""
    # Not at the top: the library takes a moment, and --help does without.
    from tokenizers import Tokenizer, decoders, models
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.decoder = decoders.WordPiece()
    set_berts_steps(tokenizer, options)
    set_special_tokens(tokenizer)
    return tokenizer


def set_berts_steps(tokenizer, options):
    """Gives a tokenizer BERT's first two steps: text is cleaned, then cut at spaces and
    punctuation."""
    from tokenizers import normalizers, pre_tokenizers  # as above
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def set_special_tokens(tokenizer):
    """Gives a tokenizer BERT's last step: [CLS] a [SEP] b [SEP], the second text of type 1."""
    from tokenizers import processors  # as above
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)


# --------------------------------------------------------------------------------------------------
# Loading


def load_tokenizer(name):
    """A tokenizer from a tokenizer.json or a vocab.txt, from a folder that holds one, or from a hub
    id. Raises UserError where there is none."""
    path = disk.path_of(name)
    if path.is_file():
        folder = disk.fetch(path.parent, [path.name])  # compares a run's file with its checksum
    else:
        folder = disk.fetch(name, ["config.json", *disk.TOKENIZER_FILES])
        path = file_of(folder)
    if path is None:
        raise UserError(f"{name} has no tokenizer.json and no vocab.txt")
    if path.suffix == ".txt":
        return tokenizer_of_words(path, name)
    tokenizer = tokenizer_from(disk.read_text(path), name)
    if is_berts_own(folder):
        obey_config(tokenizer, folder)
    return tokenizer


def file_of(folder):
    """The path of a folder's tokenizer.json, or else of its vocab.txt, or None."""
    paths = (folder / "tokenizer.json", folder / "vocab.txt")
    return next((path for path in paths if path.exists()), None)


def files_of(folder):
    """The paths of the files that decide which ids a folder's tokenizer gives."""
    path = file_of(folder)
    if path is None:
        return []
    more = []
    if path.suffix == ".txt":
        more = ["tokenizer_config.json", "added_tokens.json"]
    elif is_berts_own(folder):
        more = ["tokenizer_config.json"]
    return [path, *(folder / name for name in more if (folder / name).exists())]


def tokenizer_from(text, name="the tokenizer"):
    """A tokenizers.Tokenizer from the text of a tokenizer.json. Raises UserError where the text is
    no tokenizer, or not a BERT tokenizer."""
    from tokenizers import Tokenizer  # as above
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as failure:  # the library raises plain Exception
        raise UserError(f"{name} is not a tokenizer.json ({one_line(failure)})") from None
    tokenizer.no_truncation()  # many files carry a limit of 512 tokens, and documents are longer
    tokenizer.no_padding()
    vocabulary_of(tokenizer, name)
    try:
        tokenizer.encode("a \u2603")  # the snowman is a word that it may not know
        marks_texts = has_special_tokens(tokenizer)
    except Exception as failure:
        raise UserError(f"{name} cannot cut text into tokens ({one_line(failure)})") from None
    if not marks_texts:
        say_once(f"{name} does not put [CLS] and [SEP] around texts as BERT does: here it does")
        set_special_tokens(tokenizer)
    return tokenizer


def has_special_tokens(tokenizer):
    """Whether a tokenizer makes [CLS] a [SEP] of a text and [CLS] a [SEP] b [SEP] of two, with type
    0 for the first and 1 for the second."""
    cls, sep = map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))
    a, b = (tokenizer.encode(word, add_special_tokens=False).ids for word in "ab")
    one, two = tokenizer.encode("a"), tokenizer.encode("a", "b")
    first, second = [cls, *a, sep], [*b, sep]
    types = [0] * len(first) + [1] * len(second)
    return one.ids == first and two.ids == first + second and two.type_ids == types


# --------------------------------------------------------------------------------------------------
# What transformers reads beside the words


def is_berts_own(folder):
    """Whether transformers opens a folder's tokenizer as BERT's own class, which takes the words of
    tokenizer.json, and the steps before and after them from tokenizer_config.json."""
    config = config_of(folder)
    model = disk.read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    kind = config.get("tokenizer_class") or model.get("tokenizer_class")
    if kind is None:
        return model.get("model_type") in ("bert", "distilbert")
    return str(kind).removesuffix("Fast") in ("BertTokenizer", "DistilBertTokenizer")


def config_of(folder):
    """A folder's tokenizer_config.json, or {}."""
    path = folder / "tokenizer_config.json"
    return disk.read_json(path) if path.exists() else {}


def normalizer_options(folder):
    """The options of BertNormalizer that a folder's tokenizer_config.json gives. Raises Damaged
    where one is neither true nor false."""
    config, options = config_of(folder), {}
    for option, (name, default) in OPTIONS.items():
        value = options[option] = config.get(name, default)
        if value is not default and not isinstance(value, bool):
            raise disk.Damaged(f"{folder}/tokenizer_config.json is damaged: {name} = "
                               f"{str(value)[:40]}")
    return options


def obey_config(tokenizer, folder):
    """Replaces the steps of a tokenizer.json by those of its folder's tokenizer_config.json, as
    transformers does for BERT's own class, and says so where they differ."""
    if type(tokenizer.model).__name__ != "WordPiece":
        return
    options = normalizer_options(folder)
    if not has_options(tokenizer.normalizer, options):
        words = ", ".join(f"{name} = {options[option]}" for option, (name, _) in OPTIONS.items())
        say_once(f"{folder}: the tokenizer is BertTokenizer's ({words}), as transformers opens it, "
                 "and tokenizer.json says otherwise")
    set_berts_steps(tokenizer, options)


def has_options(normalizer, options):
    """Whether a normalizer is BERT's with these options."""
    strips = options["lowercase"] if options["strip_accents"] is None else options["strip_accents"]
    expected = {"clean_text": True, **options, "strip_accents": strips}
    own = {name: getattr(normalizer, name, "missing") for name in expected}
    if own["strip_accents"] is None:
        own["strip_accents"] = own["lowercase"]
    return own == expected


# --------------------------------------------------------------------------------------------------
# vocab.txt


def tokenizer_of_words(path, name):
    """The tokenizer of a vocab.txt, whose line n is the word of id n (counted from 0), with the
    options of the tokenizer_config.json beside it."""
    words = [line.rstrip() for line in disk.read_text(path).split("\n")]
    vocab = {word: i for i, word in enumerate(words) if word}  # of a word's lines the last counts
    missing = [token for token in SPECIAL if token not in vocab]
    if missing:
        raise UserError(f"{name} has no {' '.join(missing)}: it is not the vocabulary of a BERT")
    options = normalizer_options(path.parent)
    tokenizer = wordpiece(vocab, **options)
    add_words(tokenizer, path.parent)
    vocabulary_of(tokenizer, name)
    cased = [word for word in vocab if word not in SPECIAL and word != word.lower()]
    if options["lowercase"] and len(cased) > len(vocab) / 10:
        say_once(f"{name}: text is lowercased, as BertTokenizer does unless tokenizer_config.json "
                 f"says do_lower_case = false, but {len(cased):,} words have capital letters")
    return tokenizer


def add_words(tokenizer, folder):
    """Adds the words that somebody has added to those of vocab.txt. Raises UserError where their
    ids do not follow those of vocab.txt."""
    from tokenizers import AddedToken  # as above
    path = folder / "added_tokens.json"
    numbered = disk.read_json(path) if path.exists() else {}
    entries = config_of(folder).get("added_tokens_decoder") or {}
    try:
        words = {int(i): AddedToken(word, normalized=False) for word, i in numbered.items()}
        words |= {int(i): AddedToken(**entry) for i, entry in entries.items()}
    except (AttributeError, TypeError, ValueError):
        raise disk.Damaged(f"{folder}: the added words of the tokenizer are damaged") from None
    for i, word in sorted(words.items()):
        if tokenizer.token_to_id(word.content) is None:
            tokenizer.add_tokens([word])
        if tokenizer.token_to_id(word.content) != i:
            raise UserError(f"{folder}: the tokenizer's word {word.content[:40]!r} cannot have the "
                            f"id {i} that its files give it")


# --------------------------------------------------------------------------------------------------
# Saving


def save_tokenizer(tokenizer, folder, longest):
    """Writes `tokenizer.json`, and a `tokenizer_config.json` so that transformers' AutoTokenizer
    opens it. longest: how many tokens the longest text may have that the model takes."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
              "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
              **{f"{token[1:-1].lower()}_token": token for token in SPECIAL}}  # "mask_token", ...
    disk.write_file(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    text = json.dumps(config, indent=2) + "\n"
    disk.write_file(Path(folder) / "tokenizer_config.json", text)
