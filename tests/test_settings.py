"""program/settings.py: a command line fills a frozen dataclass."""
import dataclasses

from program.cli import UserError, whole
from program.settings import option, parsed

import pytest


@dataclasses.dataclass(frozen=True)
class Settings:
    names: tuple = option((), "of files", nargs="*", positional=True)
    batch_size: int = option(32, "blocks in a step", whole(1, 100), "B")
    more: str = option("", "options of another program", verbatim=True)
    dry_run: bool = option(False, "stop")
    steps: int = 7  # no option: it follows from others


@pytest.mark.parametrize("words, values", [
    ("", ((), 32, "", False, 7)), ("a b --batch-size 8", (("a", "b"), 8, "", False, 7)),
    ("--more --paper --dry-run", ((), 32, "--paper", True, 7))])
def test_words_become_settings(words, values):
    assert dataclasses.astuple(parsed(Settings, "A program.", words.split())) == values


@pytest.mark.parametrize("words, message", [
    ("--batch-size 0", "'0' should be a whole number"), ("--steps 3", "there is no option --steps"),
    ("--batchsize 3", "did you mean --batch-size?")])
def test_wrong_words_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        parsed(Settings, "A program.", words.split())
