"""plumbing/wordpiece.py: text is cut as transformers' BERT cuts it, and only its kind is taken."""
from plumbing import wordpiece
from plumbing.cli import UserError

import pytest
import tokenizers
import transformers

WORDS = ["the", "quick", "fox", "jump", "##s", "dog", "caf", "##e", "42", "w", "##or", "##ds",
         ",", "!", "-", "a", "b", "c"]
VOCABULARY = {piece: i for i, piece in enumerate([*wordpiece.SPECIAL, *WORDS])}
PAIRS = [("The quick FOX!", "caf\u00e9, 42 unheard-of w\u00f6rds"), ("[MASK] jumps", "a\tb\u00a0c"),
         ("", "dog")]


# --------------------------------------------------------------------------------------------------
# Against transformers

def test_transformers_bert_cuts_text_as_our_wordpiece_does(tmp_path):
    ours = wordpiece.wordpiece(VOCABULARY)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in VOCABULARY))
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    for one, two in PAIRS:
        encoding, expected = ours.encode(one, two), theirs(one, two)
        assert encoding.ids == expected["input_ids"]
        assert encoding.type_ids == expected["token_type_ids"]


def test_transformers_opens_what_was_saved(tmp_path):
    ours = wordpiece.wordpiece(VOCABULARY)
    wordpiece.save_tokenizer(ours, tmp_path, longest=128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for one, two in PAIRS:
        encoding, expected = ours.encode(one, two), theirs(one, two)
        assert encoding.ids == expected["input_ids"]
        assert encoding.type_ids == expected["token_type_ids"]
    special = (theirs.pad_token, theirs.unk_token, theirs.cls_token, theirs.sep_token,
               theirs.mask_token)
    assert list(special) == wordpiece.SPECIAL
    assert theirs.model_max_length == 128
    assert theirs("x" * 1000)["input_ids"][0] == theirs.cls_token_id


# --------------------------------------------------------------------------------------------------
# Saving and loading

def test_what_was_saved_is_loaded_by_the_folders_or_the_files_name(tmp_path):
    saved = wordpiece.wordpiece(VOCABULARY)
    wordpiece.save_tokenizer(saved, tmp_path, longest=128)
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = wordpiece.load_tokenizer(str(name))
        assert loaded.encode("the quick fox").ids == saved.encode("the quick fox").ids


def test_a_limit_of_length_that_the_file_carries_is_taken_off(tmp_path):
    limited = wordpiece.wordpiece(VOCABULARY)
    limited.enable_truncation(8)
    limited.enable_padding(length=8)
    loaded = wordpiece.tokenizer_from(limited.to_str())
    assert len(loaded.encode("the dog " * 50).ids) == 102 and len(loaded.encode("dog").ids) == 3


def test_a_vocabulary_is_its_size_and_the_special_tokens_ids():
    vocabulary = wordpiece.vocabulary_of(wordpiece.wordpiece(VOCABULARY))
    assert vocabulary == (len(VOCABULARY), 0, 1, 2, 3, 4)
    assert vocabulary.special == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------------------------------------
# What is refused

@pytest.mark.parametrize("content, message", [
    (b"not json", "not a tokenizer.json"), (b"\xff\xfe", "not UTF-8"),
    (b"{}", "not a tokenizer.json")])
def test_a_file_that_is_no_tokenizer_is_said(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        wordpiece.load_tokenizer(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_said(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer.json"):
        wordpiece.load_tokenizer(str(tmp_path))


def test_a_tokenizer_whose_numbers_have_no_end_is_refused():
    vocab = {word: 10 ** 7 * i for i, word in enumerate([*wordpiece.SPECIAL, "cat"])}
    with pytest.raises(UserError, match="numbers its 6 words up to 50,000,001"):
        wordpiece.tokenizer_from(wordpiece.wordpiece(vocab).to_str())


def test_a_tokenizer_without_mask_is_not_berts(tmp_path):
    model = tokenizers.models.WordPiece({"[UNK]": 0, "[CLS]": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no \[PAD\] \[SEP\] \[MASK\]"):
        wordpiece.load_tokenizer(str(tmp_path / "tokenizer.json"))
