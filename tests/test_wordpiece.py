"""plumbing/wordpiece.py: text is cut as transformers' BERT cuts it, and only its kind is taken."""
import json

from files import wordpiece
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
# vocab.txt

# Accents, Chinese, special tokens inside words, control characters, Greek and Turkish capitals.
TEXTS = ["The quick FOX!", "caf\u00e9, CAF\u00c9, cafe\u0301 w\u00f6rds \u00df",
         "a \u4e2d\u6587b \u4e2d", "[MASK] jumps [mask] [MASKED] x[SEP]y",
         "a\x00\x07b\ufffd\u200bc\t\r\n d\u00a0e", "\u03a3\u0130I", "don't... 42%", "", " ",
         "w" * 101, "\U0001f600 a\u0300\u0301"]
MANY = [*wordpiece.SPECIAL, *WORDS, "The", "FOX", "##OX", "F", "Caf", "caf\u00e9", "\u4e2d",
        "\u6587", "\u4e2d\u6587", "##b", "##\u6587", "o", "##o", "##r", "##x", "don", "'", "t",
        "%", ".", "[", "]", "mask", "x", "y", "e", "d", "\u03c3", "i", "##i"]


def words_folder(folder, config=None, words=MANY):
    """Writes a vocab.txt, a tokenizer_config.json, and the config.json by which transformers knows
    a BERT."""
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


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


FLAGS = [{}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": False},
         {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False},
         {"strip_accents": None}]


@pytest.mark.parametrize("config", [None, *FLAGS])
def test_a_vocab_txt_cuts_text_as_transformers_bert_does(tmp_path, config):
    cuts_like_transformers(words_folder(tmp_path, config))


def test_a_vocab_txt_may_be_named_itself_and_obeys_the_options_beside_it(tmp_path):
    words_folder(tmp_path, {"do_lower_case": False})
    by_file = wordpiece.load_tokenizer(str(tmp_path / "vocab.txt"))
    by_folder = wordpiece.load_tokenizer(str(tmp_path))
    assert by_file.encode("The FOX").tokens == by_folder.encode("The FOX").tokens == [
        "[CLS]", "The", "FOX", "[SEP]"]


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"), lambda text: text.rstrip("\n"),
    lambda text: text + "\n", lambda text: text + "the\ndog\n", lambda text: text + "a b  \n",
    lambda text: text.replace("dog\n", "\ndog\n"), lambda text: text + "a\u2028b\nc\u3000\n"])
def test_lines_end_and_repeat_as_in_transformers(tmp_path, change):
    path = words_folder(tmp_path) / "vocab.txt"
    path.write_bytes(change(path.read_text()).encode())
    cuts_like_transformers(tmp_path)


def test_words_that_were_added_to_a_vocab_txt_are_known(tmp_path):
    words_folder(tmp_path, {"tokenizer_class": "BertTokenizer", "added_tokens_decoder": {
        str(len(MANY)): {"content": "[E1]", "special": True, "normalized": False,
                         "lstrip": False, "rstrip": False, "single_word": False}}})
    ours = wordpiece.load_tokenizer(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode("the [E1] dog").ids == theirs("the [E1] dog")["input_ids"]
    assert len(MANY) in ours.encode("the [E1] dog").ids
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[E1]": len(MANY)}))
    ours = wordpiece.load_tokenizer(str(tmp_path))
    assert ours.encode("the [E1] dog").ids == theirs("the [E1] dog")["input_ids"]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[E1]": len(MANY) + 5}))
    with pytest.raises(UserError, match="cannot have the id"):
        wordpiece.load_tokenizer(str(tmp_path))


# Each way in which a folder's files may add words, and what they name them in.
ADDED = [("tokenizer_config.json", {"additional_special_tokens": ["[E1]", "fox"]}),
         ("tokenizer_config.json", {"extra_special_tokens": ["[E1]", "fox"]}),
         ("tokenizer_config.json", {"extra_special_tokens": {"e": "[E1]"}}),
         ("tokenizer_config.json", {"eos_token": "[E2]", "bos_token": "[E1]", "x_token": "fox"}),
         ("special_tokens_map.json", {"additional_special_tokens": ["[E1]", "[E2]"]}),
         ("special_tokens_map.json", {"bos_token": {"content": "[E1]", "lstrip": True}}),
         ("added_tokens.json", {"[E1]": len(MANY)})]


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("file, words", ADDED)
def test_words_that_any_file_adds_are_words_as_in_transformers(tmp_path, kind, file, words):
    words_folder(tmp_path, {"tokenizer_class": "BertTokenizer"})
    if kind == "tokenizer.json":
        tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(MANY)})
        tokenizer.save(str(tmp_path / kind))
    path = tmp_path / file
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **words}))
    ours = wordpiece.load_tokenizer(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the [E1] dog", "a[E1]foxes", "[E2] [e1] [MASK]  [E1]"):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    assert len(MANY) in ours.encode("the [E1] dog").ids
    assert path in wordpiece.files_of(tmp_path)


def test_a_word_that_tokenizer_json_lacks_is_said_where_it_is_taken_as_it_stands(tmp_path, capsys):
    words_folder(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "[E1]"})
    wordpiece.wordpiece(VOCABULARY).save(str(tmp_path / "tokenizer.json"))
    wordpiece.load_tokenizer(str(tmp_path))
    assert "it lacks 1 words" in capsys.readouterr().out
    mask = {"content": "[MASK]", "lstrip": True, "special": True, "normalized": False}
    words_folder(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast",
                            "added_tokens_decoder": {"4": mask}})
    wordpiece.load_tokenizer(str(tmp_path))
    assert "with other options ([MASK])" in capsys.readouterr().out
    mask["lstrip"] = False
    words_folder(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast",
                            "added_tokens_decoder": {"4": mask}})
    wordpiece.load_tokenizer(str(tmp_path))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("word", ["<s>", {"content": "<s>"}])
def test_special_tokens_that_are_called_otherwise_are_refused(tmp_path, word):
    words_folder(tmp_path, {"cls_token": word})
    with pytest.raises(UserError, match=r"cls_token is '<s>', and a BERT's is '\[CLS\]'"):
        wordpiece.load_tokenizer(str(tmp_path))


# The classes of tokenizers whose vocab.txt is BERT's, and those whose vocab.txt is not.
@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizerFast",
                                  "ElectraTokenizer", "ElectraTokenizerFast"])
def test_a_vocab_txt_of_berts_classes_opens_whatever_the_model_is_called(tmp_path, kind):
    cuts_like_transformers(words_folder(tmp_path, {"tokenizer_class": kind}))
    (tmp_path / "config.json").write_text("{}")
    cuts_like_transformers(tmp_path)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra"])
def test_a_vocab_txt_without_a_class_is_its_models(tmp_path, model_type):
    words_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    cuts_like_transformers(tmp_path)


@pytest.mark.parametrize("config, model, message", [
    ({"tokenizer_class": "RobertaTokenizer"}, {"model_type": "bert"}, "a RobertaTokenizer, which"),
    ({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}, {},
     "a BertJapaneseTokenizer, which"),
    ({}, {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"},
     "a BertJapaneseTokenizer, which"),
    ({}, {"model_type": "gpt2"}, "a 'gpt2' model")])
def test_a_vocab_txt_of_another_class_is_refused(tmp_path, config, model, message):
    words_folder(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(model))
    for name in (tmp_path, tmp_path / "vocab.txt"):
        with pytest.raises(UserError, match=message):
            wordpiece.load_tokenizer(str(name))


@pytest.mark.parametrize("model", [{}, {"model_type": None}])
def test_a_vocab_txt_alone_is_taken_for_a_berts(tmp_path, model):
    words_folder(tmp_path)
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path)("the dog jumps")["input_ids"]
    (tmp_path / "config.json").write_text(json.dumps(model))
    assert wordpiece.load_tokenizer(str(tmp_path)).encode("the dog jumps").ids == expected


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_so(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n"
                                 "oid sha256:" + "0" * 64 + "\nsize 231508\n")
    with pytest.raises(UserError, match=f"{name} is a pointer of git-lfs.*git lfs pull"):
        wordpiece.load_tokenizer(str(tmp_path))


def test_words_with_capital_letters_that_are_never_found_are_said(tmp_path, capsys):
    words = [*MANY, *(word.capitalize() for word in MANY if word.isalpha())]
    wordpiece.load_tokenizer(str(words_folder(tmp_path, words=dict.fromkeys(words))))
    assert "do_lower_case = false" in capsys.readouterr().out


@pytest.mark.parametrize("content, message", [
    (b"", r"has no \[PAD\]"), (b"the\ndog\n", r"has no \[PAD\]"), (b"\xff\xfe", "not UTF-8"),
    (b"\xef\xbb\xbf[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", r"has no \[PAD\]")])
def test_a_vocab_txt_that_is_not_a_berts_is_refused(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        wordpiece.load_tokenizer(str(tmp_path))


# --------------------------------------------------------------------------------------------------
# tokenizer_config.json beside tokenizer.json

NORMALIZERS = [tokenizers.normalizers.BertNormalizer(lowercase=True),
               tokenizers.normalizers.BertNormalizer(lowercase=False),
               tokenizers.normalizers.NFKC()]
CLASSES = [{}, {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": "BertTokenizerFast"},
           {"tokenizer_class": "DistilBertTokenizer"},
           {"tokenizer_class": "PreTrainedTokenizerFast"}]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_config_that_contradicts_tokenizer_json_is_obeyed_where_transformers_obeys(
        tmp_path, normalizer, kind):
    words_folder(tmp_path)
    tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(MANY)})
    tokenizer.normalizer = normalizer
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for flags in FLAGS[:3]:
        config = json.dumps({**kind, **flags})
        (tmp_path / "tokenizer_config.json").write_text(config)
        cuts_like_transformers(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    cuts_like_transformers(tmp_path)


def test_a_contradiction_is_said_and_agreement_is_not(tmp_path, capsys):
    words_folder(tmp_path, {"do_lower_case": True})
    tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(MANY)})
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    wordpiece.load_tokenizer(str(tmp_path))
    assert capsys.readouterr().out == ""
    tokenizer.normalizer = NORMALIZERS[1]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    wordpiece.load_tokenizer(str(tmp_path))
    assert "do_lower_case = True" in capsys.readouterr().out


@pytest.mark.parametrize("setting", [
    {"max_input_chars_per_word": 3}, {"continuing_subword_prefix": "@@"}, {"unk_token": "[MASK]"}])
def test_other_settings_of_wordpiece_are_berts_where_transformers_rebuilds(
        tmp_path, capsys, setting):
    words_folder(tmp_path)
    raw = json.loads(wordpiece.wordpiece({word: i for i, word in enumerate(MANY)}).to_str())
    raw["model"].update(setting)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    cuts_like_transformers(tmp_path)
    assert "tokenizer.json says otherwise" in capsys.readouterr().out
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(CLASSES[-1]))
    cuts_like_transformers(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_tokenizer_json_of_another_class_is_taken_as_it_stands_and_a_line_says_so(
        tmp_path, capsys):
    words_folder(tmp_path, {"tokenizer_class": "MPNetTokenizer"})
    wordpiece.wordpiece(VOCABULARY).save(str(tmp_path / "tokenizer.json"))
    assert wordpiece.load_tokenizer(str(tmp_path)).encode("the dog").ids == [2, 5, 10, 3]
    assert "transformers opens it as MPNetTokenizer" in capsys.readouterr().out


def test_berts_own_class_with_words_that_are_no_pieces_is_refused(tmp_path):
    words_folder(tmp_path)
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(MANY)}, "[UNK]")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="tokenizer.json is a WordLevel"):
        wordpiece.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["do_lower_case", "tokenize_chinese_chars"])
def test_an_option_that_is_null_is_refused_as_in_transformers(tmp_path, name):
    words_folder(tmp_path, {name: None})
    with pytest.raises(TypeError):
        transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"{name} is null.*write true or false"):
        wordpiece.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("value", ["true", 1, [], {}])
def test_an_option_that_is_neither_true_nor_false_is_damage(tmp_path, value):
    words_folder(tmp_path, {"do_lower_case": value})
    with pytest.raises(UserError, match="do_lower_case"):
        wordpiece.load_tokenizer(str(tmp_path))


# --------------------------------------------------------------------------------------------------
# [CLS] and [SEP]

TEMPLATE = tokenizers.processors.TemplateProcessing
IDS = [("[CLS]", 2), ("[SEP]", 3)]


@pytest.mark.parametrize("processor, is_berts", [
    (None, False),
    (tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), True),
    (TEMPLATE("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", IDS), True),
    (TEMPLATE("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", IDS), False),      # all of type 0
    (TEMPLATE("$A [SEP]", "$A [SEP] $B:1 [SEP]:1", IDS), False),
    (TEMPLATE("[CLS] $A [SEP]", None, IDS), False),
    (TEMPLATE("$A", "$A $B:1", []), False),
    (tokenizers.processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)), False)])
def test_texts_begin_with_cls_and_end_with_sep_whatever_the_file_says(
        tmp_path, capsys, processor, is_berts):
    tokenizer = wordpiece.wordpiece(VOCABULARY)
    if processor is None:  # the library sets none, but reads none
        raw = json.loads(tokenizer.to_str())
        (tmp_path / "tokenizer.json").write_text(json.dumps({**raw, "post_processor": None}))
    else:
        tokenizer.post_processor = processor
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = wordpiece.load_tokenizer(str(tmp_path))
    assert ("[CLS] and [SEP]" in capsys.readouterr().out) == (not is_berts)
    pair = loaded.encode("the fox", "dog")
    assert pair.tokens == ["[CLS]", "the", "fox", "[SEP]", "dog", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]
    assert loaded.encode("dog").tokens == ["[CLS]", "dog", "[SEP]"]
    assert loaded.encode("the fox", add_special_tokens=False).tokens == ["the", "fox"]


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
    with pytest.raises(UserError, match="has no tokenizer.json and no vocab.txt"):
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
