"""The pages of the code: equations typeset, links that stay inside, an order from page to page."""
import html.parser
import re
import sys
from pathlib import Path

from plumbing.cli import UserError

import pytest
from conftest import ROOT, run_main
from test_house import CONCEPTS, FOLDERS

from tools import pages

# --------------------------------------------------------------------------------------------------
# Equations


def words(page):
    """What a reader sees of HTML, with <sub>, <sup> and the root's line as _{}, ^{} and ()."""
    for tag, mark in (("sub", "_{"), ("sup", "^{")):
        page = page.replace(f"<{tag}>", mark).replace(f"</{tag}>", "}")
    page = page.replace('<span class="root">', "(").replace("</span>", ")")
    return html.unescape(re.sub("<[^>]*>", "", page))


@pytest.mark.parametrize("plain, typeset", [
    ("t^2 1/N sum_n -softmax(z_T / t)_nv", "t^{2} 1/N ∑_{n} −softmax(z_{T} / t)_{nv}"),
    ("sum_{m=0..L_S} MSE(H_m W, H'_g(m))", "∑_{m=0…L_{S}} MSE(H_{m} W, H′_{g(m)})"),
    ("X'_k X'_k^T / sqrt(d')", "X′_{k} X′_{k}^{T} / √(d′)"),
    ("sqrt((a + b) (c + d)) sqrt(n)", "√((a + b) (c + d)) √(n)"),
    ("2/3 cos^(df - 2)", "2/3 cos^{df − 2}"),
    ("W_P x_[CLS] + b_P", "W_{P} x_{[CLS]} + b_{P}"),
    ("KL(P || Q) <- p < q & r", "KL(P ‖ Q) ← p < q & r"),
    ("t_975(n - 1), kappa", "t_{975}(n − 1), κ")])
def test_an_equation_in_plain_characters_is_typeset(plain, typeset):
    assert words(pages.typeset(plain)) == typeset


def test_variables_are_italic_and_words_are_not():
    line = pages.typeset("x = softmax(z)_nv over positions that have a label, q's too")
    assert re.findall("<i>(.*?)</i>", line) == ["x", "z", "nv", "q"]


def test_equations_are_the_comments_that_begin_with_a_name_and_a_sign():
    source = '''def f(x):
    """L = in a docstring is none."""
    # L = a + b
    #     + c
    # with a = 1
    y = 2  # z = 3 stands behind code
    # The rest. L = 3 is prose.
    # p = 1 continues prose.
    y += x
    # (B, T) -> (T,)
    y.sum(0)
    # p(w | l, r) = 1
    return y
'''
    assert pages.equations(source) == [["L = a + b + c", "with a = 1"], ["p(w | l, r) = 1"]]


def test_prose_keeps_its_letters_and_code_keeps_its_characters():
    page = ("<p>a H_T of my_name, X^T -> P || Q -&gt; sqrt(d) <code>H_T^2 -&gt;</code></p>"
            "<pre><code>x^2</code> y^2</pre><a href='#x_y'>z^2</a>")
    assert pages.typeset_prose(page) == (
        '<p>a H<sub>T</sub> of my_name, X<sup>T</sup> → P ‖ Q → √<span class="root">d</span> '
        "<code>H_T^2 -&gt;</code></p><pre><code>x^2</code> y^2</pre><a href='#x_y'>z^2</a>")


# --------------------------------------------------------------------------------------------------
# Pages


class Page(html.parser.HTMLParser):
    """A page's links, scripts and anchors."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loads, self.anchors, self.turns = path, [], [], set(), {}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if "href" in attributes and tag == "a":
            self.links.append(attributes["href"])
            self.turns.setdefault(attributes.get("rel"), attributes["href"])
        elif {"href", "src"} & set(attributes):
            self.loads.append(attributes.get("src") or attributes["href"])

    def turn(self, direction):
        """The path of the previous or the next page, None where there is none."""
        link = self.turns.get(direction)
        return link and (self.path.parent / link).resolve()


def check_site(site):
    """What holds for all pages: their links lead to files of the site, they load nothing from a
    network, and by `next` each is reached once, and by `prev` the way back. -> the names of the
    pages in that order."""
    site = site.resolve()
    found = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in found.items():
        for link in page.links + page.loads:
            if re.match("https?:", link) and link in page.links or link.startswith("data:"):
                continue
            place, _, anchor = link.partition("#")
            goal = (path.parent / place).resolve() if place else path
            assert goal.is_file() and site in goal.parents, (path, link)
            assert not anchor or goal not in found or anchor in found[goal].anchors, (path, link)
    way = [site / "index.html"]
    while found[way[-1]].turn("next"):
        way.append(found[way[-1]].turn("next"))
        assert found[way[-1]].turn("prev") == way[-2]
    assert len(way) == len(found) and set(way) == set(found)
    return [path.relative_to(site).as_posix() for path in way]


def check_index(site):
    links = Page(site / "index.html").links
    assert {"TUTORIAL.html", "exercises/README.html", "docs/README.html", "docs/results.html",
            "docs/tasks.html#which-models-open"} <= set(links)
    assert (site / "results/stories/scores.png").read_bytes() == (
        ROOT / "results/stories/scores.png").read_bytes()


def test_the_documents_become_pages_whose_links_stay_inside(tmp_path):
    pages.make(tmp_path, ["plumbing.pairs", "plumbing.before_torch"])
    way = check_site(tmp_path)
    check_index(tmp_path)
    assert way[:5] == ["index.html", "TUTORIAL.html", "plumbing/pairs.html",
                       "plumbing/before_torch.html", "docs/README.html"]
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= set(way)


@pytest.mark.slow
def test_the_command_of_the_docs_makes_all_pages_in_reading_order(tmp_path):
    assert "python -m tools.pages\n" in (ROOT / "docs/README.md").read_text()
    status, out, err = run_main(pages.main, "pages.py", ["--out", tmp_path])
    assert (status, err) == (0, "") and str(tmp_path / "index.html") in out
    way = check_site(tmp_path)
    check_index(tmp_path)
    assert way[2:9] == [f"{name}.html" for name in CONCEPTS]
    folders = [Path(page).parent.name or Path(page).stem for page in way[9:]]
    assert tuple(dict.fromkeys(folders))[:len(FOLDERS)] == FOLDERS
    for path in [*ROOT.glob("*.py"), *(ROOT / "plumbing").glob("*.py")]:
        assert pages.page_of(path.relative_to(ROOT).as_posix()) in way
    # The loss of kd, below its docstring.
    section = (tmp_path / "distill.html").read_text().split('id="kd_loss"')[1].split("<section")[0]
    equation = re.search('(?s)<p class="equation">(.*?)</p>', section)[1]
    assert words(equation) == ("L = t^{2} 1/N ∑_{n} ∑_{v} −softmax(z_{T} / t)_{nv} "
                               "log softmax(z_{S} / t)_{nv}")


def test_a_document_with_a_dead_link_is_refused(tmp_path, monkeypatch):
    for name, text in (("README.md", "# a"), ("TUTORIAL.md", "# b"),
                       ("docs/README.md", '<a href="gone.md">')):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    with pytest.raises(UserError, match="docs/README.md links to gone.md, which is no file"):
        pages.documents(str)


def test_without_pdoc_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    status, out, err = run_main(pages.main, "pages.py", ["--out", tmp_path])
    assert (status, out) == (2, "") and "-r requirements-dev.txt" in err
