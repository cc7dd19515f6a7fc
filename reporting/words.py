"""How numbers are written in reports and in the names of cells."""
from program import cli


def spell(n):
    """'1.00e12' where that is exactly the number, else all its digits. Names and commands use it,
    since they must be exact."""
    return cli.flops(n) if float(cli.flops(n)) == n else str(n)


def data_setting(unique_tokens):
    """A data setting in words: how many distinct tokens there are to train on."""
    if unique_tokens is None:
        return "unlimited data"
    return f"{unique_tokens:,} distinct tokens"


def plus_minus(value, half, digits=1):
    """'9.6 ± 6.7', or '9.6' without a half width, or '' without a value."""
    if value is None:
        return ""
    value = round(value, digits) + 0.0  # -0.04 is no "-0.0"
    return f"{value:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def difference_words(row):
    """'9.6 ± 6.7': the difference of a row of reporting/findings.py, and its interval."""
    return plus_minus(row["difference"], row["difference_half"])


def listed(words, conjunction="and"):
    """'a', 'a and b', or 'a, b and c'."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def power_of_ten(n):
    """A number as a figure writes it: 10¹², or 3·10¹²."""
    digits, exponent = f"{n:.2e}".split("e")
    digits = f"{float(digits):g}"
    raised = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"
