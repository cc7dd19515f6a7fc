"""How numbers are written in reports and in the names of cells."""
from plumbing import cli


def spell(n):
    """'1.00e12' where that is exactly the number, else all its digits: names and commands must be
    exact."""
    return cli.flops(n) if float(cli.flops(n)) == n else str(n)


def setting(unique_tokens):
    """A data setting in words."""
    if unique_tokens is None:
        return "unlimited data"
    return f"{cli.flops(unique_tokens)} distinct tokens"


def pm(value, half, digits=1):
    """'9.6 +- 6.7'; without the half where there is none, and nothing where there is no value."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if half is None else f" +- {half:.{digits}f}")
