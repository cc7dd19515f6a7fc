"""BERT's WordPiece tokenizers, by the library `tokenizers`: made, loaded, saved.

    tokenizer = load_tokenizer("bert-base-uncased")     # a file, a folder or a hub id
    vocabulary = vocabulary_of(tokenizer)               # its size, the ids of the special tokens

A folder's tokenizer is its tokenizer.json, or else its vocab.txt, which holds the words alone.
If its class is BERT's or PreTrainedTokenizerFast, it gives the ids that transformers' AutoTokenizer
gives for that folder; where it does not, a line says so. A vocab.txt of another class is refused. A
tokenizer.json of another class is taken as it stands, and a line says so.
"""
import json
from pathlib import Path
from typing import NamedTuple

from files import disk
from plumbing.cli import UserError, one_line, say_once

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The options of BERT's normalizer, and their names and defaults in tokenizer_config.json.
OPTIONS = {"lowercase": ("do_lower_case", True), "strip_accents": ("strip_accents", None),
           "handle_chinese_chars": ("tokenize_chinese_chars", True)}
# The settings of BERT's WordPiece: a tokenizer.json may have others, and BERT's own class has none.
SETTINGS = {"unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100}
# The special tokens' names in tokenizer_config.json: "pad_token", "unk_token", ...
NAMED = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}

# The classes that transformers opens as BERT's own, and the models whose own class that is.
OWN_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
OWN_MODELS = ("bert", "distilbert", "electra")
# The class of a tokenizer.json that transformers takes as it stands, by its old and its new name.
PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")  # without "Fast"


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
    disk.check_is_no_pointer(path)
    if path.suffix == ".txt":
        return tokenizer_of_words(path, name)
    tokenizer = tokenizer_from(disk.read_text(path), name)
    if is_berts_own(folder):
        return rebuilt(tokenizer, folder)
    say_what_differs(tokenizer, folder)
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
    if path.suffix == ".txt" or is_berts_own(folder):
        more = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
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


def class_of(folder):
    """(the class of a folder's tokenizer without its ending "Fast", the kind of the folder's
    model), each None where the files do not say it."""
    model = disk.optional_json(folder / "config.json")
    kind = config_of(folder).get("tokenizer_class") or model.get("tokenizer_class")
    if kind is not None:
        kind = str(kind).removesuffix("Fast")
    return kind, model.get("model_type")


def is_berts_own(folder):
    """Whether transformers opens a folder's tokenizer as BERT's own class, which takes the words of
    tokenizer.json, and the steps before and after them from tokenizer_config.json."""
    kind, model_type = class_of(folder)
    return model_type in OWN_MODELS if kind is None else kind in OWN_CLASSES


def check_class(folder, name):
    """Raises UserError where the vocab.txt of a folder belongs to a tokenizer that does not cut
    text as BERT's does, such as BertJapaneseTokenizer or RoBERTa's."""
    kind, model_type = class_of(folder)
    if kind is None and model_type not in (None, *OWN_MODELS):
        raise UserError(f"{name}: its vocab.txt belongs to a {str(model_type)[:40]!r} model, and "
                        "only BERT's is read here: give a tokenizer.json")
    if kind not in (None, *OWN_CLASSES, *PLAIN_CLASSES):
        raise UserError(f"{name}: its vocab.txt belongs to a {kind[:40]}, which cuts text in "
                        "another way than BERT's: give a tokenizer.json")


def config_of(folder):
    """A folder's tokenizer_config.json, or {}."""
    return disk.optional_json(folder / "tokenizer_config.json")


def normalizer_options(folder):
    """The options of BertNormalizer that a folder's tokenizer_config.json gives. Raises Damaged
    where one is neither true nor false."""
    config, options = config_of(folder), {}
    for option, (name, default) in OPTIONS.items():
        value = options[option] = config.get(name, default)
        if value is None and default is not None:
            raise UserError(f"{folder}/tokenizer_config.json: {name} is null, with which "
                            "transformers opens no tokenizer: write true or false")
        if value is not default and not isinstance(value, bool):
            raise disk.Damaged(f"{folder}/tokenizer_config.json is damaged: {name} = "
                               f"{str(value)[:40]}")
    return options


def rebuilt(tokenizer, folder):
    """The tokenizer that transformers makes of a tokenizer.json for BERT's own class. It takes the
    words, and everything else is BERT's or stands in the files beside it. A line says so where
    tokenizer.json says otherwise.

    Raises UserError where the words are no pieces of words."""
    model = type(tokenizer.model).__name__
    if model != "WordPiece":
        raise UserError(f"{folder}: tokenizer.json is a {model}, and the tokenizer's class is "
                        "BertTokenizer, which is a WordPiece: name its class in "
                        "tokenizer_config.json (PreTrainedTokenizerFast takes it as it stands)")
    options = normalizer_options(folder)
    is_same = has_options(tokenizer.normalizer, options) and all(
        getattr(tokenizer.model, name) == value for name, value in SETTINGS.items())
    if not is_same:
        words = [f"{name} = {options[option]}" for option, (name, _) in OPTIONS.items()]
        words += [f"{name} = {value}" for name, value in SETTINGS.items()]
        say_once(f"{folder}: the tokenizer is BertTokenizer's ({', '.join(words)}), as "
                 "transformers opens it, and tokenizer.json says otherwise")
    own = wordpiece(tokenizer.get_vocab(with_added_tokens=False), **options)
    add_words(own, folder, tokenizer.get_added_tokens_decoder())
    vocabulary_of(own, folder)
    return own


def say_what_differs(tokenizer, folder):
    """Says where a tokenizer.json, which is taken as it stands, may give other ids than in
    transformers."""
    kind, model_type = class_of(folder)
    if kind not in (None, *PLAIN_CLASSES) or kind is None and model_type is not None:
        say_once(f"{folder}: tokenizer.json is taken as it stands; transformers opens it as "
                 f"{kind or model_type}, which may give other ids")
    numbered, named = words_to_add(folder, {})
    own = tokenizer.get_added_tokens_decoder().values()
    with_options = {repr(word) for word in own}
    contents = {word.content for word in own}
    lacking = [word for word in numbered.values() if repr(word) not in with_options]
    lacking += [word for word in named if word.content not in contents]
    if lacking:
        examples = ", ".join(word.content[:40] for word in lacking[:4])
        say_once(f"{folder}: tokenizer.json is taken as it stands; it lacks {len(lacking)} words "
                 f"that transformers adds, or has them with other options ({examples})")


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
    check_class(path.parent, name)
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


# --------------------------------------------------------------------------------------------------
# Words that somebody has added


def add_words(tokenizer, folder, in_json=None):
    """Adds the words that the files of a folder add to its vocabulary. in_json: {id: AddedToken} of
    its tokenizer.json. Raises UserError where a word cannot have the id that the files give it, and
    where BERT's special tokens are called otherwise."""
    check_names(folder)
    numbered, named = words_to_add(folder, in_json or {})
    for i, word in sorted(numbered.items()):
        tokenizer.add_tokens([word])
        if tokenizer.token_to_id(word.content) != i:
            raise UserError(f"{folder}: the tokenizer's word {word.content[:40]!r} cannot have the "
                            f"id {i} that its files give it")
    known = {word.content for word in numbered.values()}
    tokenizer.add_tokens([word for word in named if word.content not in known])


def words_to_add(folder, in_json):
    """({id: AddedToken}, [AddedToken without an id]) of the words that transformers adds to a
    folder's vocabulary, the latter in its order. Raises Damaged where they are no words."""
    config = config_of_words(folder)
    more = config.get("extra_special_tokens", config.get("additional_special_tokens")) or []
    if isinstance(more, dict):
        more = list(more.values())
    try:
        named = [added_token(word) for word in [*named_words(config).values(), *more]]
        if "added_tokens_decoder" in config:
            entries = config["added_tokens_decoder"] or {}
            return {int(i): added_token(word) for i, word in entries.items()}, named
        special = {word.content for word in named}
        older = disk.optional_json(folder / "added_tokens.json")
        numbered = {int(i): older_token(word, word in special) for word, i in older.items()}
    except (AttributeError, TypeError, ValueError):
        raise disk.Damaged(f"{folder}: the added words of the tokenizer are damaged") from None
    return numbered | in_json, named


def config_of_words(folder):
    """A folder's tokenizer_config.json with the words of special_tokens_map.json, which
    transformers reads where the former does not number the added words."""
    config = config_of(folder)
    if "additional_special_tokens" in config and not config.get("extra_special_tokens"):
        config["extra_special_tokens"] = config.pop("additional_special_tokens")
    if "added_tokens_decoder" not in config:
        for name, word in disk.optional_json(folder / "special_tokens_map.json").items():
            config[name] = {**word, "special": True} if isinstance(word, dict) else word
    return config


def named_words(config):
    """{name: word} of the words that have a name of their own, like "bos_token", in transformers'
    order."""
    first = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
             "mask_token"]
    names = first + [name for name in config if name.endswith("_token") and name not in first]
    return {name: config[name] for name in names if isinstance(config.get(name), (str, dict))}


def check_names(folder):
    """Raises UserError where [CLS] or another of BERT's special tokens is called otherwise."""
    named = named_words(config_of_words(folder))
    for name in sorted(NAMED.keys() & named.keys()):
        word = named[name].get("content") if isinstance(named[name], dict) else named[name]
        if word != NAMED[name]:
            raise UserError(f"{folder}: the tokenizer's {name} is {str(word)[:40]!r}, and a BERT's "
                            f"is {NAMED[name]!r}")


def added_token(word):
    """The AddedToken of a word in a JSON file: a text, or an object with its options."""
    from tokenizers import AddedToken  # as above
    if isinstance(word, str):
        return AddedToken(word, special=True)
    return AddedToken(**{name: value for name, value in word.items() if name != "__type"})


def older_token(word, special):
    """The AddedToken of a word in added_tokens.json, as transformers makes it."""
    from tokenizers import AddedToken  # as above
    return AddedToken(word, normalized=not special, special=special)


# --------------------------------------------------------------------------------------------------
# Saving


def save_tokenizer(tokenizer, folder, longest):
    """Writes `tokenizer.json`, and a `tokenizer_config.json` so that transformers' AutoTokenizer
    opens it. longest: how many tokens the longest text may have that the model takes."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
              "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], **NAMED}
    disk.write_file(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    text = json.dumps(config, indent=2) + "\n"
    disk.write_file(Path(folder) / "tokenizer_config.json", text)
