"""What the check needs to know of an exercise, and how a known mistake is written down."""
from typing import Callable, NamedTuple, Optional

import torch


class Mistake(NamedTuple):
    """A known mistake, and what a student who made it is told."""
    name: str            # the diagnosis, a sentence
    function: Callable   # it makes the mistake, and gets the arguments of the exercise's function
    advice: str          # what to think of


class Mistakes(list):
    """The known mistakes of an exercise, in the order in which the check compares with them.

    `@mistakes.add` adds a function. The first paragraph of its docstring is the mistake's name, and
    the second one is the advice."""

    def add(self, function):
        name, _, advice = function.__doc__.partition("\n\n")
        self.append(Mistake(" ".join(name.split()), function, " ".join(advice.split())))
        return function


class Exercise(NamedTuple):
    """An exercise as judge.py judges it.

    A student's function gets all cases. Where its numbers are wrong, and those of a known mistake
    in every case, that mistake is the diagnosis."""
    file: str                # what is handed out, and handed in
    function: str            # the name of the function to write
    right: Callable          # the project's own answer
    cases: Callable          # () -> [(names of sizes such as {"B": 2}, the arguments)]
    mistakes: list           # of Mistake
    install: Callable        # puts a student's function in the place of the project's
    tests: tuple             # the project's own tests that the function must pass
    judge: Optional[Callable] = None         # for random answers: function -> diagnosis or None
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
