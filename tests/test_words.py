"""reporting/words.py: numbers are written as a report's reader expects them."""
import pytest

from reporting import words


@pytest.mark.parametrize("value, half, digits, text", [
    (9.57, 6.71, 1, "9.6 ± 6.7"), (9.57, None, 1, "9.6"), (1.23456, None, 3, "1.235"),
    (-0.04, 0.02, 1, "0.0 ± 0.0"),  # and not -0.0
    (-0.06, 0.0, 1, "-0.1 ± 0.0"), (None, None, 1, "")])
def test_a_number_has_its_interval_beside_it(value, half, digits, text):
    assert words.plus_minus(value, half, digits) == text


@pytest.mark.parametrize("several, text", [
    (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_the_last_word_of_a_list_follows_an_and(several, text):
    assert words.listed(several) == text


@pytest.mark.parametrize("n, text", [
    (10 ** 12, "10¹²"), (3 * 10 ** 12, "3·10¹²"), (2_500_000, "2.5·10⁶")])
def test_a_figure_writes_powers_of_ten(n, text):
    assert words.power_of_ten(n) == text


def test_a_number_is_spelled_out_where_its_short_form_would_be_another():
    assert words.spell(3 * 10 ** 12) == "3.00e12" and words.spell(3_001_000) == "3001000"
