"""BERT's WordPiece tokenizers, by the library `tokenizers`: made, loaded, saved.

    tokenizer = load_tokenizer("bert-base-uncased")     # a tokenizer.json, a folder or a hub id
    vocabulary = vocabulary_of(tokenizer)               # its size, the ids of the special tokens
"""
import json
from pathlib import Path
from typing import NamedTuple

from plumbing import disk
from plumbing.cli import UserError, one_line

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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


def wordpiece(vocab):
    """BERT's uncased WordPiece over a vocabulary {piece: id} (Devlin et al. 2018, section 3)."""
    # Not at the top: the library takes a moment, and --help does without.
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]),
                                                         ("[CLS]", vocab["[CLS]"]))
    return tokenizer


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
    except Exception as failure:
        raise UserError(f"{name} cannot cut text into tokens ({one_line(failure)})") from None
    return tokenizer


def load_tokenizer(name):
    """A tokenizer from a tokenizer.json, a folder that holds one, or a hub id. Raises UserError
    where there is none."""
    path = disk.path_of(name)
    if path.is_file():
        disk.fetch(path.parent, [path.name])  # compares a run's tokenizer with the run's checksum
    else:
        path = disk.fetch(name, ["tokenizer.json"]) / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{name} has no tokenizer.json")
    return tokenizer_from(disk.read_text(path), name)


def save_tokenizer(tokenizer, folder, longest):
    """Writes `tokenizer.json`, and a `tokenizer_config.json` so that transformers' AutoTokenizer
    opens it. longest: how many tokens the longest text may have that the model takes."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
              "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
              **{f"{token[1:-1].lower()}_token": token for token in SPECIAL}}  # "mask_token", ...
    disk.write_file(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    text = json.dumps(config, indent=2) + "\n"
    disk.write_file(Path(folder) / "tokenizer_config.json", text)
