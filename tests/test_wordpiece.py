"""files/wordpiece.py: text is cut as transformers' BERT cuts it, and only its kind is taken."""
import json
import re

from files import wordpiece
from program.cli import UserError

import pytest
import tokenizers
import transformers

# Accents, Chinese, special tokens inside words, control characters, Greek and Turkish capitals.
TEXTS = ["The quick FOX!", "caf\u00e9, CAF\u00c9, cafe\u0301 w\u00f6rds \u00df 42 unheard-of",
         "a \u4e2d\u6587b \u4e2d", "[MASK] jumps [mask] [MASKED] x[SEP]y", "the [E1] a[E1]foxes",
         "a\x00\x07b\ufffd\u200bc\t\r\n d\u00a0e", "\u03a3\u0130I", "don't... 42%", "", " ",
         "w" * 101, "\U0001f600 a\u0300\u0301", "[E2] [e1] [MASK]  [E1]"]
MANY = [*wordpiece.SPECIAL, "the", "quick", "fox", "jump", "##s", "dog", "caf", "##e", "42", "w",
        "##or", "##ds", ",", "!", "-", "a", "b", "c", "The", "FOX", "##OX", "F", "Caf", "caf\u00e9",
        "\u4e2d", "\u6587", "##b", "##\u6587", "o", "##o", "##r", "##x", "don", "'", "t", "%", ".",
        "[", "]", "mask", "x", "y", "e", "d", "\u03c3", "i", "##i"]


def write_folder(folder, config=None, words=MANY, model={"model_type": "bert"}, **files):
    """Writes a vocab.txt, or a tokenizer.json where `files` holds one, a tokenizer_config.json, and
    the config.json by which transformers knows a BERT. files: {name without .json: its content}."""
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    contents = {"config": model, "tokenizer_config": config, **files}
    for name, content in contents.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{name}.json").write_text(text)
    return folder


def json_of(normalizer=None, **parts):
    """The text of a tokenizer.json, of which some parts are other ones."""
    tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(MANY)})
    tokenizer.normalizer = normalizer or tokenizer.normalizer
    return json.dumps(json.loads(tokenizer.to_str()) | parts)


def cuts_like_transformers(folder):
    """Asserts that the folder's tokenizer gives the ids and types of transformers' AutoTokenizer,
    for single texts and for pairs."""
    ours = wordpiece.load_tokenizer(str(folder))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for one, two in zip(TEXTS, reversed(TEXTS)):
        assert ours.encode(one).ids == theirs(one)["input_ids"], one
        if two:  # transformers takes an empty second text for none
            pair, expected = ours.encode(one, two), theirs(one, two)
            assert pair.ids == expected["input_ids"], (one, two)
            assert pair.type_ids == expected.get("token_type_ids", pair.type_ids)  # DistilBERT
    return ours


def test_transformers_opens_what_was_saved_and_so_do_we_by_the_folders_or_the_files_name(tmp_path):
    saved = wordpiece.wordpiece({word: i for i, word in enumerate(MANY)})
    wordpiece.save_tokenizer(saved, tmp_path, longest=128)
    by_folder = cuts_like_transformers(tmp_path)
    by_file = wordpiece.load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert saved.to_str() == by_folder.to_str() == by_file.to_str()
    saved.enable_truncation(8)  # a limit of length that a file carries is taken off
    assert len(wordpiece.tokenizer_from(saved.to_str()).encode("the dog " * 50).ids) == 102
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert wordpiece.vocabulary_of(saved) == (
        len(MANY), theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id,
        theirs.sep_token_id, theirs.mask_token_id) and theirs.model_max_length == 128


FLAGS = [{}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": False},
         {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}]
# The classes of tokenizers whose vocab.txt is BERT's, by the folder's own word or by its model's.
KINDS = [*({"config": {"tokenizer_class": kind}, "model": {}}
           for kind in ("BertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer")),
         *({"model": {"model_type": kind}} for kind in ("distilbert", "electra"))]


@pytest.mark.parametrize("files", [{}, *({"config": config} for config in FLAGS), *KINDS])
def test_a_vocab_txt_cuts_text_as_transformers_bert_does(tmp_path, files):
    cuts_like_transformers(write_folder(tmp_path, **files))


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"), lambda text: text + "the\ndog\n",
    lambda text: text.replace("dog\n", "\ndog\n"), lambda text: text + "a\u2028b\nc\u3000 \n"])
def test_lines_end_and_repeat_as_in_transformers(tmp_path, change):
    path = write_folder(tmp_path) / "vocab.txt"
    path.write_bytes(change(path.read_text()).encode())
    cuts_like_transformers(tmp_path)


E1 = {"content": "[E1]", "special": True, "normalized": False, "lstrip": False, "rstrip": False,
      "single_word": False}
MASK = {**E1, "content": "[MASK]", "lstrip": True}
# Each way in which a folder's files may add words.
ADDED = [{"config": {"additional_special_tokens": ["[E1]", "fox"]}},
         {"config": {"extra_special_tokens": ["[E1]", "fox"]}},
         {"config": {"eos_token": "[E2]", "bos_token": "[E1]", "x_token": "fox"}},
         {"config": {"added_tokens_decoder": {str(len(MANY)): E1, "4": MASK}}},
         {"special_tokens_map": {"bos_token": {**E1, "lstrip": True}, "mask_token": MASK}},
         {"added_tokens": {"[E1]": len(MANY)}}]


@pytest.mark.parametrize("text", [None, json_of()])
@pytest.mark.parametrize("files", ADDED)
def test_words_that_any_file_adds_are_words_as_in_transformers(tmp_path, text, files):
    config = {"tokenizer_class": "BertTokenizer", **files.get("config", {})}
    write_folder(tmp_path, **{**files, "config": config, "tokenizer": text})
    ours = cuts_like_transformers(tmp_path)
    assert len(MANY) in ours.encode("the [E1] dog").ids
    paths = wordpiece.tokenizer_files(tmp_path)
    assert {path.stem for path in paths} >= files.keys() - {"config"}


@pytest.mark.parametrize("kind", [{}, {"tokenizer_class": "PreTrainedTokenizerFast"}])
@pytest.mark.parametrize("normalizer", [tokenizers.normalizers.BertNormalizer(lowercase=False),
                                        tokenizers.normalizers.NFKC()])
def test_a_config_that_contradicts_tokenizer_json_is_obeyed_where_transformers_obeys(
        tmp_path, normalizer, kind):
    for flags in FLAGS[:3]:
        write_folder(tmp_path, {**kind, **flags}, tokenizer=json_of(normalizer=normalizer))
        cuts_like_transformers(tmp_path)


@pytest.mark.parametrize("files, said", [
    ({"config": {"tokenizer_class": "MPNetTokenizer"}, "tokenizer": json_of()},
     "transformers opens tokenizer.json as MPNetTokenizer, which may give other ids"),
    ({"tokenizer": json_of()}, ""),
    ({"words": MANY[:9] + [word.capitalize() for word in MANY[5:]]}, "do_lower_case = false")])
def test_what_may_be_a_surprise_is_said(tmp_path, capsys, files, said):
    wordpiece.load_tokenizer(str(write_folder(tmp_path, **files)))
    out = capsys.readouterr().out
    assert said in out and bool(out) == bool(said)


@pytest.mark.parametrize("processor, is_berts", [
    (None, False),
    (tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), True),
    (tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]), False)])
def test_texts_begin_with_cls_and_end_with_sep_whatever_the_file_says(
        tmp_path, capsys, processor, is_berts):
    text = json_of(post_processor=processor and json.loads(processor.__getstate__()))
    pair = wordpiece.tokenizer_from(text, tmp_path).encode("the fox", "dog")
    assert ("[CLS] and [SEP]" in capsys.readouterr().out) == (not is_berts)
    assert pair.tokens == ["[CLS]", "the", "fox", "[SEP]", "dog", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]


NO_MASK = wordpiece.wordpiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}).to_str()
HUGE = wordpiece.wordpiece({word: 10 ** 7 * i for i, word in enumerate(MANY[:6])}).to_str()
WORD_LEVEL = json_of(model={"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0}})


@pytest.mark.parametrize("files, message", [
    ({"config": {"cls_token": {"content": "<s>"}}}, "cls_token is '<s>', and a BERT's is '[CLS]'"),
    ({"added_tokens": {"[E1]": len(MANY) + 5}}, "cannot have the id"),
    ({"added_tokens": {"[E1]": "x"}}, "added words of the tokenizer are damaged"),
    ({"config": {"tokenizer_class": "RobertaTokenizer"}}, "a RobertaTokenizer, which cuts"),
    ({"model": {"tokenizer_class": "BertJapaneseTokenizer"}}, "a BertJapaneseTokenizer, which"),
    ({"config": {"do_lower_case": "true"}}, "options or the added words of the tokenizer are da"),
    ({"tokenizer": WORD_LEVEL}, "tokenizer.json is no WordPiece"),
    ({"tokenizer": NO_MASK}, "no [PAD] [MASK]: it is not a BERT tokenizer"),
    ({"tokenizer": HUGE}, "numbers its 6 words up to 50,000,001"),
    ({"tokenizer": "{}"}, "not a tokenizer.json"),
    ({"words": ["\ufeff[PAD]", *MANY[1:]]}, "has no [PAD]:")])
def test_what_is_no_berts_tokenizer_is_refused_by_folder_and_by_file(tmp_path, files, message):
    write_folder(tmp_path, **files)
    for path in (tmp_path, wordpiece.tokenizer_file(tmp_path)):
        with pytest.raises(UserError, match=re.escape(message)):
            wordpiece.load_tokenizer(str(path))


def test_a_file_that_is_not_utf_8_and_a_folder_without_any_are_told(tmp_path):
    for message in ("has no tokenizer.json and no vocab.txt", "not UTF-8"):
        with pytest.raises(UserError, match=message):
            wordpiece.load_tokenizer(str(tmp_path))
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
