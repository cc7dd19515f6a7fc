"""docs.py: nothing of a file is lost on its page, equations become MathML, links lead somewhere."""
import html
import re
import xml.etree.ElementTree

import pytest

import docs


@pytest.mark.parametrize("name", docs.FILES)
def test_every_line_of_code_is_on_the_page_in_its_order(name):
    source = (docs.HERE / f"{name}.py").read_text(encoding="utf-8")
    parts = docs.parts_of(source)
    code = [line.strip() for part in parts for line in part.code.splitlines() if line.strip()]
    lines = [line.strip() for line in source.splitlines()]
    place = -1
    for line in code:
        place = lines.index(line, place + 1)  # in order, and none made up
    prose = " ".join(line.strip() for part in parts for line in part.prose)
    shown = set(code)
    for line in lines:
        words = re.sub(r"^# ?", "", line)
        assert not line or line in shown or words.strip('"') in prose or words in prose, line


def test_all_concept_files_have_a_page():
    assert set(docs.FILES) == {path.stem for path in docs.HERE.glob("*.py")}


def test_an_equation_is_typeset():
    found, tail = docs.equation("L = 1/N sum_n x_n^2, with N = 3")
    tree = xml.etree.ElementTree.fromstring(docs.mathml(found))
    assert [element.tag for element in tree.iter()].count("mfrac") == 1 and tree.find(".//munder")[0].text == "\u2211" and tree.find(".//msup") is not None
    assert tail == "with N = 3"
    assert docs.equation("T = 128 a laptop's whole budget can go by on it; the paper's") is None


def test_the_equations_of_the_losses_are_typeset():
    parts = docs.parts_of((docs.HERE / "distill.py").read_text(encoding="utf-8"))
    pages = "".join(docs.prose_html(part.prose, docs.FILES) for part in parts)
    assert pages.count('<div class="equation">') >= 5
    for page in re.findall(r'<div class="equation">.*?</div>', pages):
        xml.etree.ElementTree.fromstring(page)  # well-formed


def test_the_pages_need_no_network_and_their_links_exist(python, tmp_path):
    pytest.importorskip("pygments")
    done = python("docs.py", "--out", str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'<(?:a|link|img|script)\b[^>]*? (?:href|src)="([^"#]+)', text):
            assert (tmp_path / "site" / html.unescape(link)).exists(), (page.name, link)
    assert python("docs.py", "--out", str(tmp_path / "site")).returncode == 0  # over its own pages
    (tmp_path / "web").mkdir()
    for strange in (tmp_path / "web" / "index.html", tmp_path / "site" / "thesis.txt"):  # somebody's own page, somebody's own file
        strange.write_text("mine")
        again = python("docs.py", "--out", str(strange.parent))
        assert again.returncode == 2 and "holds other files" in again.stderr and strange.read_text() == "mine"
