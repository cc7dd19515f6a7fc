"""BERT's WordPiece tokenizers, by the library `tokenizers`: made, loaded, saved.

    tokenizer = load_tokenizer("bert-base-uncased")     # a file, a folder or a hub id
    vocabulary = vocabulary_of(tokenizer)               # its size, the ids of the special tokens

A folder's tokenizer is its tokenizer.json, or else its vocab.txt, which holds the words alone.
If its class is BERT's or PreTrainedTokenizerFast, it gives the ids that transformers' AutoTokenizer
gives for that folder. Of another class a vocab.txt is refused, a tokenizer.json taken as it stands.
"""
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
# Classes (without "Fast") and models that transformers opens as BERT's own class, and the classes
# that take a tokenizer.json as it stands.
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
    """The Vocabulary of a tokenizer. Raises UserError where it is none of a BERT."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    check_special(vocab, name)
    size = max(vocab.values()) + 1
    if size > 2 * len(vocab) + 1000:  # a few gaps are usual
        raise UserError(f"{name} numbers its {len(vocab):,} words up to {size:,}: it is damaged")
    return Vocabulary(size, *(vocab[token] for token in SPECIAL))


def check_special(vocab, name):
    """Raises UserError where a vocabulary {piece: id} lacks a special token."""
    if missing := [token for token in SPECIAL if token not in vocab]:
        raise UserError(f"{name} has no {' '.join(missing)}: it is not a BERT tokenizer")


def wordpiece(vocab, **options):
    """BERT's WordPiece over a vocabulary {piece: id} (Devlin et al. 2018, section 3): uncased,
    unless `options` of the library's BertNormalizer say otherwise.

    strip_accents=None takes accents off where the text is lowercased."""
    # Not at the top: the library takes a moment, and --help does without.
    from tokenizers import BertWordPieceTokenizer
    return BertWordPieceTokenizer(vocab, **options)._tokenizer  # without the library's wrapper


# ---- Loading -------------------------------------------------------------------------------------

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
        tokenizer = tokenizer_from(text, name)
        if kind in BERTS:  # which takes the words of the file, and everything else is BERT's
            return berts_own(tokenizer.get_vocab(with_added_tokens=False), folder, tokenizer)
        if kind not in PLAIN:
            say_once(f"{folder}: transformers opens tokenizer.json as {kind}, which may give other "
                     "ids than the file as it stands")
        return tokenizer
    if kind not in (*BERTS, *PLAIN):
        raise UserError(f"{name}: its vocab.txt belongs to a {kind[:40]}, which cuts text in "
                        "another way than BERT's: give a tokenizer.json")
    # Line n, counted from 0, is the word of id n. Of a word's lines the last one counts.
    words = [line.rstrip() for line in text.split("\n")]
    vocab = {word: i for i, word in enumerate(words) if word}
    check_special(vocab, name)
    return berts_own(vocab, folder)


def tokenizer_file(folder):
    """The path of a folder's tokenizer.json, or else of its vocab.txt, or None."""
    paths = folder / "tokenizer.json", folder / "vocab.txt"
    return next(filter(Path.exists, paths), None)


def tokenizer_files(folder):
    """The paths of the files that decide which ids a folder's tokenizer gives."""
    paths = [tokenizer_file(folder)]
    if paths[0] and (paths[0].suffix == ".txt" or class_of(folder) in BERTS):
        more = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
        paths += [folder / name for name in more]
    return [path for path in paths if path and path.exists()]


def class_of(folder):
    """What transformers opens a folder's tokenizer as: its class without the ending "Fast", or else
    the kind of the folder's model. None where the files say neither."""
    model = disk.optional_json(folder / "config.json")
    config = disk.optional_json(folder / "tokenizer_config.json")
    kind = config.get("tokenizer_class") or model.get("tokenizer_class") or model.get("model_type")
    return str(kind).removesuffix("Fast") if kind else None


def tokenizer_from(text, name="the tokenizer"):
    """A tokenizers.Tokenizer from the text of a tokenizer.json. Raises UserError where the text is
    no tokenizer, or not a BERT tokenizer."""
    from tokenizers import Tokenizer, processors  # as above
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()  # many files carry a limit of 512 tokens; documents are longer
        tokenizer.no_padding()
        texts = "a \u2603", "b"  # the snowman is a word that it may not know
        a, b = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
        one, two = tokenizer.encode(texts[0]), tokenizer.encode(*texts)
    except Exception as failure:  # the library raises plain Exception
        raise UserError(f"{name} is not a tokenizer.json that cuts text into tokens "
                        f"({one_line(failure)})") from None
    vocabulary = vocabulary_of(tokenizer, name)
    first, second = [vocabulary.cls, *a, vocabulary.sep], [*b, vocabulary.sep]
    types = [0] * len(first) + [1] * len(second)
    if (one.ids, two.ids, two.type_ids) != (first, first + second, types):
        say_once(f"{name} does not put [CLS] and [SEP] around texts as BERT does: here it does")
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary.sep), ("[CLS]", vocabulary.cls))
    return tokenizer


# ---- What transformers reads beside the words ----------------------------------------------------

def berts_own(vocab, folder, from_json=None):
    """The tokenizer of BERT's own class for a vocabulary {piece: id}, with the options and the
    added words of the files in its folder. from_json: the tokenizer of its tokenizer.json.

    Raises UserError where the files contradict one another."""
    if from_json and type(from_json.model).__name__ != "WordPiece":
        raise UserError(f"{folder}: tokenizer.json is no WordPiece, as its class BertTokenizer is: "
                        "name another in tokenizer_config.json, such as PreTrainedTokenizerFast")
    config = disk.optional_json(folder / "tokenizer_config.json")
    options = {option: config.get(name, default) for option, (name, default) in OPTIONS.items()}
    try:
        tokenizer = wordpiece(vocab, **options)
        add_words(tokenizer, folder, from_json.get_added_tokens_decoder() if from_json else {})
    except (AttributeError, TypeError, ValueError) as failure:
        raise disk.Damaged(f"{folder}: the options or the added words of the tokenizer are damaged "
                           f"({one_line(failure)})") from None
    vocabulary_of(tokenizer, folder)
    cased = [word for word in vocab if word not in SPECIAL and word != word.lower()]
    if options["lowercase"] and len(cased) > len(vocab) / 10:
        say_once(f"{folder}: text is lowercased, as BertTokenizer does unless tokenizer_config.json"
                 f" says do_lower_case = false, but {len(cased):,} words have capital letters")
    return tokenizer


def add_words(tokenizer, folder, in_json):
    """Adds the words that the files of a folder add to its vocabulary, as transformers does: those
    with an id, and then others. in_json: {id: AddedToken} of its tokenizer.json.

    Raises UserError where a word cannot have its id, or BERT's tokens are called otherwise."""
    config = disk.optional_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # then transformers reads two older files
        config |= disk.optional_json(folder / "special_tokens_map.json")
    config = {"bos_token": None, "eos_token": None, **config}  # whose words are added first
    named = {name: added_token(word) for name, word in config.items()
             if name.endswith("_token") and isinstance(word, (str, dict))}
    for name in NAMED.keys() & named.keys():
        if named[name].content != NAMED[name]:
            raise UserError(f"{folder}: the tokenizer's {name} is {named[name].content[:40]!r}, "
                            f"and a BERT's is {NAMED[name]!r}")
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    more = more.values() if isinstance(more, dict) else more
    special = {word.content: word for word in (*named.values(), *map(added_token, more))}
    if "added_tokens_decoder" in config:
        words = config["added_tokens_decoder"] or {}
        numbered = {int(i): added_token(word) for i, word in words.items()}
    else:
        older = disk.optional_json(folder / "added_tokens.json")
        numbered = {int(i): special.get(word) or added_token({"content": word})
                    for word, i in older.items()}
        numbered |= in_json
    for i, word in sorted(numbered.items()):
        tokenizer.add_tokens([word])
        if tokenizer.token_to_id(word.content) != i:
            raise UserError(f"{folder}: the tokenizer's word {word.content[:40]!r} cannot have the "
                            f"id {i} that its files give it")
        special.pop(word.content, None)
    tokenizer.add_tokens(list(special.values()))


def added_token(word):
    """The AddedToken of a word in a JSON file: a text, or an object with its options."""
    from tokenizers import AddedToken  # as above
    options = {"content": word, "special": True} if isinstance(word, str) else word
    return AddedToken(**{name: value for name, value in options.items() if name != "__type"})


def save_tokenizer(tokenizer, folder, longest):
    """Writes `tokenizer.json`, and a `tokenizer_config.json` so that transformers' AutoTokenizer
    opens it. longest: how many tokens a text may have."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
              "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], **NAMED}
    disk.write_file(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    disk.write_json(Path(folder) / "tokenizer_config.json", config)
