"""How numbers are written in reports and in the names of cells."""
from plumbing import cli


def spell(n):
    """'1.00e12' where that is exactly the number, else all its digits. Names and commands use it,
    since they must be exact."""
    return cli.flops(n) if float(cli.flops(n)) == n else str(n)


def data_setting(unique_tokens):
    """A data setting in words: how many distinct tokens there are to train on."""
    if unique_tokens is None:
        return "unlimited data"
    return f"{cli.flops(unique_tokens)} distinct tokens"


def plus_minus(value, half, digits=1):
    """'9.6 +- 6.7', or '9.6' without a half width, or '' without a value."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if half is None else f" +- {half:.{digits}f}")
