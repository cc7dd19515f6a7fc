"""A program's settings: a frozen dataclass that the command line fills.

    @dataclass(frozen=True)
    class Settings:
        flops: int = option(None, "the budget, like 1e13", cli.number, "C", required=True)

    settings = parsed(Settings, "Pretrain a BERT.", ["--flops", "1e13"])

They stand at the top of a program, each with its default and a line of help. Nothing writes into
them: where one setting follows from another, `dataclasses.replace` makes new ones.
"""
import dataclasses

from program import cli


def option(default, help, type=str, metavar=None, **more):
    """A field of a program's settings: its default, its line of help, how its text is read (`type`
    raises UserError), what stands for its value in --help, and what argparse needs besides, such as
    choices and nargs."""
    words = {"help": help, "type": type, "metavar": metavar, **more}
    return dataclasses.field(default=default, metadata=words)


def parsed(settings, description, argv=None, examples=""):
    """The settings, an instance of the dataclass `settings`, from the words of a command line
    (None: those of the running program). A field named a_b is the option --a-b. A field of the type
    bool is a flag without a value, one that is `positional` has no dashes, and the value of one
    that is `verbatim` may begin with dashes. Several values of one option become a tuple. A field
    that is no `option` keeps its default: it follows from the others.

    Raises UserError where the words are wrong."""
    fields = [field for field in dataclasses.fields(settings) if field.metadata]
    flags = {field.name: "--" + field.name.replace("_", "-") for field in fields}
    verbatim = [flags[field.name] for field in fields if field.metadata.get("verbatim")]
    parser = cli.Parser(verbatim, description=description, epilog=examples)
    for field in fields:
        words = {"default": field.default, **field.metadata}
        words.pop("verbatim", None)
        name = field.name if words.pop("positional", False) else flags[field.name]
        if field.type is bool:
            words = {"action": "store_true", "help": words["help"]}
        parser.add_argument(name, **words)
    values = vars(parser.parse_args(argv))
    return settings(**{name: tuple(value) if isinstance(value, list) else value
                       for name, value in values.items()})
