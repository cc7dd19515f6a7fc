"""What the check needs to know of an exercise, and how a known mistake is written down."""
from functools import partial
from typing import Callable, NamedTuple, Optional

import torch


class Mistake(NamedTuple):
    """A known mistake, and what a student who made it is told."""
    name: str            # the diagnosis, a sentence
    function: Callable   # it makes the mistake, and gets the arguments of the exercise's function
    advice: str          # what to think of


def wrong_parts(function, right, rows):
    """The Mistakes of a `function` that is made of parts, with some of them exchanged.

    right: a NamedTuple of the parts that are right, which `function` takes as `parts`.
    rows: [({part: the wrong choice}, the mistake's name, advice)]."""
    return [Mistake(name, partial(function, parts=right._replace(**wrong)), advice)
            for wrong, name, advice in rows]


class Case(NamedTuple):
    """Arguments that the student's function gets."""
    name: str         # what is special about it: "no position has a label"
    arguments: tuple
    sizes: dict = {}  # of the tensors among them: {"N": 7, "V": 5}


class Exercise(NamedTuple):
    """An exercise as judge.py judges it.

    A student's function gets all cases. Where its numbers are wrong, and those of a known mistake
    in every case, that mistake is the diagnosis. Otherwise the diagnosis names the cases."""
    file: str                # what is handed out, and handed in
    function: str            # the name of the function to write
    right: Callable          # the project's own answer
    cases: Callable          # () -> [Case]
    mistakes: list           # of Mistake
    install: Callable        # puts a student's function in the place of the project's
    tests: tuple             # the project's own tests that the function must pass
    judge: Optional[Callable] = None         # for random answers: (function, *a case's arguments)
                                             # -> diagnosis or None
    learns: tuple = ()                       # the arguments that get a gradient, by their number
    hints: dict = {}                         # {words of an exception: a hint at its cause}
    parts: tuple = ()                        # the names of an answer's numbers, if it has several
    install_loop: Optional[Callable] = None  # instead of `install`, for training (--train)


def swap(module, name):
    """An `install` that makes the student's function `module.name`."""
    def install(student):
        setattr(module, name, student)
    return install


def draw(seed, *shape):
    """Normally distributed numbers in float64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
