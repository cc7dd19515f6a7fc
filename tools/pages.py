"""Make pages of the code: docstrings as prose, equations typeset, the source a click away.

    python -m tools.pages              into site/; open site/index.html

pdoc makes a page of each module, by the templates in docs/pdoc/. The documents (README.md,
TUTORIAL.md, exercises/, docs/) become pages beside them, so that every link stays inside. All pages
follow each other in the order in which they are read, and they need no network.

An equation stands in the code as a comment above the lines that compute it, in plain characters:

    # L = t^2 1/N sum_n sum_v -softmax(z_T / t)_nv log softmax(z_S / t)_nv

Its page shows it below the docstring, set apart. A comment is an equation where its first line
begins with a name and `=` or `<-`, such as `L =`, `p(w) =` or `x <-`.
"""
import html
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

from plumbing import cli, disk
from plumbing.cli import UserError

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("budget", "model", "distill", "data", "train", "glue", "compare",
           "plumbing", "files", "measure", "world", "reporting", "tools")
BEFORE_THE_CODE = ("README.md", "TUTORIAL.md")
TABLE_OF_DOCUMENTS = "docs/README.md"  # the documents that follow the code are those it leads to


# --------------------------------------------------------------------------------------------------
# Equations

EQUATION = re.compile(r"[\w^]+(\([^()]*\))? (=|<-) ")
SYMBOLS = {"<-": "←", "->": "→", "<=": "≤", "||": "‖", "...": "…", "..": "…",
           " - ": " − ", "alpha": "α", "kappa": "κ", "theta": "θ", "pi": "π", "Phi": "Φ"}


def equations(source):
    """The equations among the comments of a function's source, each a list of lines."""
    found, block = [], []
    for line in [*source.splitlines(), ""]:
        comment = re.fullmatch(r"\s*# ?(.*)", line)
        if comment:
            block.append(comment[1])
            continue
        if block and EQUATION.match(block[0]):
            # An indented line continues the one above.
            found.append(re.sub(r"\n +", " ", "\n".join(block)).split("\n"))
        block = []
    return found


def typeset(line):
    """A line of an equation in plain characters -> HTML with subscripts, superscripts, roots."""
    for plain, symbol in SYMBOLS.items():
        boundary = r"\b" if plain.isalpha() else ""
        line = re.sub(f"{boundary}{re.escape(plain)}{boundary}", symbol, line)
    line = re.sub(r"\bsum(?=_| (?!of|over))", "∑", line)
    line = re.sub(r"(?<![\w-])-(?=\w)", "−", line)
    line = re.sub(r"'(?!s\b)", "′", line)
    line = scripts(roots(html.escape(line, quote=False)))
    # Variables are single letters, or a few together that are indices. So is the article "a".
    return re.sub(r"(<[^>]*>|&\w+;|\ba(?= [a-z]{2})|'s\b)|(\b[A-Za-z]\b|(?<=<sub>)[a-z]{2,3}\b)",
                  lambda match: match[1] or f"<i>{match[2]}</i>", line)


def scripts(text, base="."):
    """Turns x_n, H_g(m), sum_{m=0..L} and x^2, x^(n - 2) into subscripts and superscripts. base: a
    regular expression for the one character that a subscript follows."""
    text = re.sub(r"\^(?:\(([^()]*)\)|(\w+))",
                  lambda match: f"<sup>{match[1] or match[2]}</sup>", text)
    return re.sub(rf"(?<={base})_(?:\{{([^{{}}]*)\}}|([a-z]\([a-z]\)|\[\w+\]|[^\W_]+))",
                  lambda match: f"<sub>{scripts(match[1] or match[2])}</sub>", text)


def roots(text):
    """Turns sqrt(...) into a root sign with a line above what it covers."""
    before, root, rest = text.partition("sqrt(")
    if not root:
        return text
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return f'{before}√<span class="root">{rest[:end - 1]}</span>{roots(rest[end:])}'


def equations_of(doc):
    """The equations of a pdoc.doc.Doc as HTML, nothing where it has none."""
    found = equations(doc.source) if doc.kind == "function" else []
    return "\n".join(f'<p class="equation">{"<br>".join(map(typeset, lines))}</p>'
                     for lines in found)


def typeset_prose(page):
    """The same for what stands among the words of a docstring or a document (HTML), outside code:
    X^T, H_T, sqrt(d) and arrows. Letters stay upright, since many of them are words."""
    def between(match):
        words = match[2]
        if words is None:
            return match[0]
        for plain, symbol in (("-&gt;", "→"), ("->", "→"), ("||", "‖"), ("alpha_", "α_")):
            words = words.replace(plain, symbol)
        return scripts(roots(words), base=r"\b\w")
    return re.sub(r"(?s)<(pre|code|a)\b.*?</\1>|<[^>]*>|([^<]+)", between, page)


# --------------------------------------------------------------------------------------------------
# Documents

LINK = re.compile(r'(href|src)="([^"#:]+)(#[^"]*)?"')  # inside the project: no http:, no mailto:
CODE_FILE = re.compile(r"<code>([\w/]+?)(\.py|/)</code>")


def page_of(path):
    """The page of a document or a module, by the path of its file: docs/tasks.md ->
    docs/tasks.html, README.md -> index.html, plumbing/cli.py -> plumbing/cli.html."""
    if path == "README.md":
        return "index.html"
    return re.sub(r"(/__init__)?\.(py|md)$", ".html", path)


def target(document, link):
    """The path of the file that a document's link leads to; of a folder, its README.md.

    Raises UserError where there is none."""
    path = (ROOT / document).parent / link
    path = path / "README.md" if path.is_dir() else path
    if not path.is_file() or ROOT not in path.resolve().parents:
        raise UserError(f"{document} links to {link}, which is no file of the project: mend the "
                        "link")
    return path.resolve().relative_to(ROOT).as_posix()


def documents(to_html):
    """{path: its HTML} of all documents, in the order in which the table of documents leads to
    them."""
    waiting, found = [*BEFORE_THE_CODE, TABLE_OF_DOCUMENTS], {}
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            # Markdown inside of <details>, which GitHub reads without being asked.
            text = disk.read_text(ROOT / path).replace("<details>", '<details markdown="1">')
            found[path] = to_html(text)
            if path not in BEFORE_THE_CODE:
                links = [target(path, match[2]) for match in LINK.finditer(found[path])]
                waiting += [link for link in links if link.endswith(".md")]
    return found


def relink(document, page, pages, out):
    """A document's HTML with links that work from its page. What they lead to, and is no page,
    such as a figure, is copied into the folder `out`."""
    start = Path(page_of(document)).parent

    def lead(match):
        path = target(document, match[2])
        if page_of(path) in pages:
            path = page_of(path)
        else:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, out / path)
        return f'{match[1]}="{os.path.relpath(path, start)}{match[3] or ""}"'

    def lead_to_code(match):
        page = f"{match[1]}.html"
        if page not in pages:
            return match[0]
        return f'<a href="{os.path.relpath(page, start)}">{match[0]}</a>'
    return CODE_FILE.sub(lead_to_code, LINK.sub(lead, page))


# --------------------------------------------------------------------------------------------------
# The pages


def reading_order(modules, texts):
    """{page: its title}, in the order in which the pages are read."""
    def titled(paths):
        titles = {path: html.unescape(re.sub("<[^>]*>", "", re.search("(?s)<h1.*?</h1>", page)[0]))
                  for path, page in texts.items()}
        return {page_of(path): titles[path] for path in paths}
    code = {f"{name.replace('.', '/')}.html": name for name in modules}
    after = [path for path in texts if path not in BEFORE_THE_CODE]
    return titled(BEFORE_THE_CODE) | code | titled(after)


def make(out, names=MODULES):
    """Writes the pages of the modules called `names`, and of all documents, into the folder `out`.
    -> how many.

    Raises UserError where pdoc is missing, or a document links to what is not there."""
    try:
        import pdoc  # only requirements-dev.txt has it
        from pdoc import extract, render, render_helpers
    except ImportError:
        raise UserError("pdoc makes the pages, and it is missing: python -m pip install "
                        "-r requirements-dev.txt") from None
    texts = documents(render_helpers.to_html)
    pages = reading_order(extract.walk_specs(names), texts)
    render.configure(template_directory=ROOT / "docs/pdoc")
    render.env.filters |= {"equations": equations_of, "typeset": typeset_prose}
    render.env.globals |= {"pages": pages}
    pdoc.pdoc(*names, output_directory=out)
    template = render.env.get_template("document.html.jinja2")
    for path, text in texts.items():
        page = page_of(path)
        (out / page).parent.mkdir(parents=True, exist_ok=True)
        # The search reads from the name of a module how deep its page lies.
        module = SimpleNamespace(modulename=page.removesuffix(".html").replace("/", "."))
        disk.write_file(out / page, template.render(
            page=page, module=module, contents=text.toc_html,
            text=typeset_prose(relink(path, text, pages, out))))
    return len(pages)


def main():
    parser = cli.Parser(prog="-m tools.pages", description="Make pages of the code.")
    parser.add_argument("--out", type=Path, default=Path("site"), metavar="FOLDER",
                        help="where to write them (default: %(default)s)")
    out = parser.parse_args().out
    pages = make(out)
    cli.say(f"{pages} pages: open {out / 'index.html'}")


if __name__ == "__main__":
    cli.program(main)
