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
from program.cli import UserError, one_line, say_once

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The options of BERT's normalizer, and their names and defaults in tokenizer_config.json.
OPTIONS = {"lowercase": ("do_lower_case", True), "strip_accents": ("strip_accents", None),
           "handle_chinese_chars": ("tokenize_chinese_chars", True)}
# The special tokens' names in tokenizer_config.json: "pad_token", "unk_token", ...
NAMED = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
# The named words that transformers adds before others, in its order.
FIRST = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
# The classes, without their ending "Fast", that transformers opens as BERT's own, the models whose
# own class that is, and the classes that take a tokenizer.json as it stands.
BERTS = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "bert", "distilbert",
         "electra")
PLAIN = (None, "PreTrainedTokenizer", "TokenizersBackend")


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
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    check_special(vocab, name)
    size = max(vocab.values()) + 1
    if size > 2 * len(vocab) + 1000:  # a few gaps are usual
        raise UserError(f"{name} numbers its {len(vocab):,} words up to {size:,}: it is damaged")
    return Vocabulary(size, *(vocab[token] for token in SPECIAL))


def check_special(vocab, name):
    """Raises UserError where a vocabulary {piece: id} lacks a special token."""
    missing = [token for token in SPECIAL if token not in vocab]
    if missing:
        raise UserError(f"{name} has no {' '.join(missing)}: it is not a BERT tokenizer")


# --------------------------------------------------------------------------------------------------
# Making


def wordpiece(vocab, **options):
    """BERT's WordPiece over a vocabulary {piece: id} (Devlin et al. 2018, section 3): uncased,
    unless `options` of the library's BertNormalizer say otherwise.

    Text is cleaned, cut at spaces and punctuation, and then into pieces. strip_accents=None takes
    accents off where the text is lowercased."""
    # Not at the top: the library takes a moment, and --help does without.
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    set_special_tokens(tokenizer)
    return tokenizer


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
        path = tokenizer_file(folder)
    if path is None:
        raise UserError(f"{name} has no tokenizer.json and no vocab.txt")
    text, kind = disk.read_text(path), class_of(folder)
    if path.suffix == ".json":
        return tokenizer_of_json(text, folder, name)
    if kind not in (*BERTS, *PLAIN):
        raise UserError(f"{name}: its vocab.txt belongs to a {kind[:40]}, which cuts text in "
                        "another way than BERT's: give a tokenizer.json")
    # Line n is the word of id n, counted from 0. Of a word's lines the last one counts.
    words = [line.rstrip() for line in text.split("\n")]
    vocab = {word: i for i, word in enumerate(words) if word}
    check_special(vocab, name)
    return berts_own(vocab, folder)


def tokenizer_of_json(text, folder, name):
    """The tokenizer that transformers makes of a tokenizer.json. For BERT's own class it takes the
    words, and everything else is BERT's or stands in the files beside it.

    Raises UserError where that class has words that are no pieces of words."""
    tokenizer, kind = tokenizer_from(text, name), class_of(folder)
    if kind not in BERTS:
        own = {word.content for word in tokenizer.get_added_tokens_decoder().values()}
        numbered, named = words_to_add(folder)
        lacks = [word.content for word in (*numbered.values(), *named) if word.content not in own]
        if kind not in PLAIN or lacks:
            more = f", and adds {', '.join(lacks[:4])[:200]}" if lacks else ""
            say_once(f"{folder}: tokenizer.json is taken as it stands; transformers opens it as "
                     f"{kind}{more}, which may give other ids")
        return tokenizer
    model = type(tokenizer.model).__name__
    if model != "WordPiece":
        raise UserError(f"{folder}: tokenizer.json is a {model}, and the tokenizer's class is "
                        "BertTokenizer, which is a WordPiece: name its class in "
                        "tokenizer_config.json (PreTrainedTokenizerFast takes it as it stands)")
    return berts_own(tokenizer.get_vocab(with_added_tokens=False), folder,
                     tokenizer.get_added_tokens_decoder())


def tokenizer_file(folder):
    """The path of a folder's tokenizer.json, or else of its vocab.txt, or None."""
    paths = (folder / "tokenizer.json", folder / "vocab.txt")
    return next((path for path in paths if path.exists()), None)


def tokenizer_files(folder):
    """The paths of the files that decide which ids a folder's tokenizer gives."""
    path = tokenizer_file(folder)
    if path is None:
        return []
    more = []
    if path.suffix == ".txt" or class_of(folder) in BERTS:
        more = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    return [path, *(folder / name for name in more if (folder / name).exists())]


def class_of(folder):
    """What transformers opens a folder's tokenizer as: its class without the ending "Fast", or else
    the kind of the folder's model. None where the files say neither."""
    model = disk.optional_json(folder / "config.json")
    kind = config_of(folder).get("tokenizer_class") or model.get("tokenizer_class")
    kind = kind or model.get("model_type")
    return str(kind).removesuffix("Fast") if kind else None


def config_of(folder):
    """A folder's tokenizer_config.json, or {}."""
    return disk.optional_json(folder / "tokenizer_config.json")


def tokenizer_from(text, name="the tokenizer"):
    """A tokenizers.Tokenizer from the text of a tokenizer.json. Raises UserError where the text is
    no tokenizer, or not a BERT tokenizer."""
    from tokenizers import Tokenizer  # as above
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()  # many files carry a limit of 512 tokens; documents are longer
        tokenizer.no_padding()
        # The snowman is a word that it may not know.
        a, b = (tokenizer.encode(word, add_special_tokens=False).ids for word in ("a \u2603", "b"))
        one, two = tokenizer.encode("a \u2603"), tokenizer.encode("a \u2603", "b")
    except Exception as failure:  # the library raises plain Exception
        raise UserError(f"{name} is not a tokenizer.json that cuts text into tokens "
                        f"({one_line(failure)})") from None
    vocabulary = vocabulary_of(tokenizer, name)
    first, second = [vocabulary.cls, *a, vocabulary.sep], [*b, vocabulary.sep]
    types = [0] * len(first) + [1] * len(second)
    if (one.ids, two.ids, two.type_ids) != (first, first + second, types):
        say_once(f"{name} does not put [CLS] and [SEP] around texts as BERT does: here it does")
        set_special_tokens(tokenizer)
    return tokenizer


# --------------------------------------------------------------------------------------------------
# What transformers reads beside the words


def berts_own(vocab, folder, in_json=None):
    """The tokenizer of BERT's own class for a vocabulary {piece: id}, with the options and the
    added words of the files in its folder. in_json: {id: AddedToken} of its tokenizer.json."""
    options = normalizer_options(folder)
    tokenizer = wordpiece(vocab, **options)
    add_words(tokenizer, folder, in_json or {})
    vocabulary_of(tokenizer, folder)
    cased = [word for word in vocab if word not in SPECIAL and word != word.lower()]
    if options["lowercase"] and len(cased) > len(vocab) / 10:
        say_once(f"{folder}: text is lowercased, as BertTokenizer does unless tokenizer_config.json"
                 f" says do_lower_case = false, but {len(cased):,} words have capital letters")
    return tokenizer


def normalizer_options(folder):
    """The options of BertNormalizer that a folder's tokenizer_config.json gives. Raises Damaged
    where one is neither true nor false."""
    config, options = config_of(folder), {}
    for option, (name, default) in OPTIONS.items():
        value = options[option] = config.get(name, default)
        if value is not default and not isinstance(value, bool):
            raise disk.Damaged(f"{folder}/tokenizer_config.json is damaged: {name} = "
                               f"{str(value)[:40]}: write true or false")
    return options


def add_words(tokenizer, folder, in_json):
    """Adds the words that the files of a folder add to its vocabulary. Raises UserError where a
    word cannot have the id that the files give it."""
    numbered, named = words_to_add(folder, in_json)
    for i, word in sorted(numbered.items()):
        tokenizer.add_tokens([word])
        if tokenizer.token_to_id(word.content) != i:
            raise UserError(f"{folder}: the tokenizer's word {word.content[:40]!r} cannot have the "
                            f"id {i} that its files give it")
    known = {word.content for word in numbered.values()}
    tokenizer.add_tokens([word for word in named if word.content not in known])


def words_to_add(folder, in_json=None):
    """({id: AddedToken}, [AddedToken without an id]) of the words that transformers adds to a
    folder's vocabulary, the latter in its order. in_json: {id: AddedToken} of its tokenizer.json.

    Raises UserError where they are no words, or BERT's special tokens are called otherwise."""
    config, numbered = config_of(folder), None
    if "added_tokens_decoder" in config:  # else transformers reads two older files
        numbered = config["added_tokens_decoder"] or {}
    else:
        config |= disk.optional_json(folder / "special_tokens_map.json")
    names = FIRST + [name for name in config if name.endswith("_token") and name not in FIRST]
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    try:
        named = {name: added_token(config[name]) for name in names
                 if isinstance(config.get(name), (str, dict))}
        for name in NAMED.keys() & named.keys():
            if named[name].content != NAMED[name]:
                raise UserError(f"{folder}: the tokenizer's {name} is "
                                f"{named[name].content[:40]!r}, and a BERT's is {NAMED[name]!r}")
        more = more.values() if isinstance(more, dict) else more
        named = [*named.values(), *(added_token(word) for word in more)]
        if numbered is not None:
            return {int(i): added_token(word) for i, word in numbered.items()}, named
        special = {word.content for word in named}
        older = {i: {"content": word, "special": word in special, "normalized": word not in special}
                 for word, i in disk.optional_json(folder / "added_tokens.json").items()}
        return {int(i): added_token(older[i]) for i in older} | (in_json or {}), named
    except (AttributeError, TypeError, ValueError):
        raise disk.Damaged(f"{folder}: the added words of the tokenizer are damaged") from None


def added_token(word):
    """The AddedToken of a word in a JSON file: a text, or an object with its options."""
    from tokenizers import AddedToken  # as above
    if isinstance(word, str):
        return AddedToken(word, special=True)
    return AddedToken(**{name: value for name, value in word.items() if name != "__type"})


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
