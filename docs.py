"""The code as pages: prose on the left, code on the right, equations typeset, links between the files.

    python docs.py                  writes site/: open site/index.html in a browser, no network needed

Docstrings and comments on lines of their own are the prose; what follows them is the code. A comment like `# L = 1/N sum_n ...` is an
equation: `mathml` below turns it into MathML, which browsers typeset themselves. Colours follow the reader's light or dark setting.
Pygments colours the code (pip install -r requirements-dev.txt).
"""
import ast
import html
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import cli
import disk
import runs
from cli import UserError

HERE = Path(__file__).parent
# In the order in which README.md reads them
FILES = ("budget", "model", "huggingface", "distill", "learner", "stories", "text", "data", "baselines", "glue", "taskdata", "tasks", "metrics", "gate", "compare",
         "collect", "report", "parallel", "machine", "bench", "disk", "runs", "train", "card", "cli", "docs")


# ---------------------------------------------------------------------------------------------------------------------
# Equations: the ASCII of our comments -> MathML

TOKEN = re.compile(r"\s+|(?P<op><-|->|<=|>=|\|\||\.\.\.|[-+*/=,;:|<>~])|(?P<open>[(\[])|(?P<close>[)\]])|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z]+)|"
                   r"(?P<post>[_^](?:\{[^}]*\}|[A-Za-z0-9]+'?(?:\([a-z]\))?)|')")
SIGNS = {"<-": "←", "->": "→", "<=": "≤", ">=": "≥", "||": "∥", "...": "…", "-": "−", "*": "·"}
GREEK = {"kappa": "κ", "alpha": "α", "sigma": "σ", "Phi": "Φ"}


def mathml(text):
    """`"L = 1/N sum_n x_n^2"` -> a <math> element."""
    lines = [text]
    if len(text) > 60 and text.count(" = ") > 1:  # a line for each step
        first, second, *rest = text.split(" = ")
        lines = [f"{first} = {second}", *(f"= {step}" for step in rest)]
    made = []
    for line in lines:
        tokens = [(match.lastgroup, match[0], match.start() > 0 and line[match.start() - 1] == " ") for match in TOKEN.finditer(line) if match.lastgroup]
        atoms, _ = row(tokens, 0)
        made.append(f'<math display="block"><mrow>{"".join(atoms)}</mrow></math>')
    return f'<div class="equation">{"".join(made)}</div>'


def name_of(text):
    if text in GREEK:
        return f"<mi>{GREEK[text]}</mi>"
    if len(text) > 1 and text.islower() and len(text) <= 3 and text not in ("log", "exp", "max"):
        return "".join(f"<mi>{letter}</mi>" for letter in text)  # indices, written side by side
    return f"<mi>{text}</mi>"


def attached(post):
    """What stands behind `_` or `^`, as MathML."""
    inner = post[1:].strip("{}")
    atoms, _ = row([(match.lastgroup, match[0], False) for match in TOKEN.finditer(inner) if match.lastgroup], 0)
    return f"<mrow>{''.join(atoms)}</mrow>"


def row(tokens, i):
    """([MathML of each atom], where it ended): up to the bracket that closes it."""
    atoms = []
    while i < len(tokens):
        kind, text, spaced = tokens[i]
        i += 1
        if kind == "close":
            return atoms, i
        if kind == "open":
            inner, i = row(tokens, i)
            close = {"(": ")", "[": "]"}[text]
            if atoms and atoms[-1] == "sqrt":
                atoms[-1] = f"<msqrt><mrow>{''.join(inner)}</mrow></msqrt>"
            else:
                atoms.append(f'<mrow><mo stretchy="false">{text}</mo>{"".join(inner)}<mo stretchy="false">{close}</mo></mrow>')
        elif kind == "post" and atoms:
            base = atoms.pop()
            if text == "'":
                atoms.append(base[:-5] + "′</mi>" if base.endswith("</mi>") else f"<msup>{base}<mo>′</mo></msup>")
            elif "∑" in base and text[0] == "_":
                atoms.append(f"<munder>{base}{attached(text)}</munder>")
            else:
                tag = "msub" if text[0] == "_" else "msup"
                atoms.append(f"<{tag}>{base}{attached(text)}</{tag}>")
        elif kind == "name":
            if spaced and atoms and atoms[-1] != "sqrt" and not atoms[-1].startswith("<mo>"):
                atoms.append('<mspace width="0.2em"></mspace>')  # log softmax, Q K
            atoms.append("sqrt" if text == "sqrt" else "<mo>∑</mo>" if text == "sum" else name_of(text))
        elif kind == "number":
            atoms.append(f"<mn>{text}</mn>")
        elif text == "/" and not spaced and atoms and i < len(tokens):  # 1/N: a fraction; z / t stays in the line
            top = atoms.pop()
            if tokens[i][0] == "open":
                inner, i = row(tokens, i + 1)
                bottom = "".join(inner)
            else:
                bottom, i = "".join(row(tokens[i:i + 1], 0)[0]), i + 1
            atoms.append(f"<mfrac><mrow>{top}</mrow><mrow>{bottom}</mrow></mfrac>")
        else:
            atoms.append(f"<mo>{html.escape(SIGNS.get(text, text))}</mo>")
    return ["<mi>sqrt</mi>" if atom == "sqrt" else atom for atom in atoms], i


EQUATION = re.compile(r"^(?P<left>[A-Za-z][A-Za-z0-9_']*(?:\([A-Za-z, |']+\))?) (?P<sign>=|<-) (?P<right>.*)$")
TAIL = re.compile(r"(, (?:with|in each|around|over|the same|for|L_VR)\b.*|; .*|: .*|   .*)$")


def equation(line):
    """(the equation of a comment line, the words behind it), or None where it is prose."""
    match = EQUATION.match(line)
    if not match:
        return None
    tail = TAIL.search(line)
    body = line[:tail.start()] if tail else line
    words = [word for word in re.findall(r"[a-z]{4,}", body) if word not in ("softmax", "sqrt", "kappa", "logits", "pooled", "alpha")]
    if words or not re.search(r"[\^/_(+]", body):
        return None
    return body, tail[0].lstrip(", ") if tail else ""


# ---------------------------------------------------------------------------------------------------------------------
# A file as pairs of prose and code

class Part(NamedTuple):
    prose: list   # lines
    code: str
    anchor: str = ""


def parts_of(source):
    """A file's text -> [Part]: each docstring, and each block of comment lines, begins one."""
    lines, role, anchors = source.splitlines(), {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.strip().startswith("#"):
            role[token.start[0]] = "comment"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            for number in range(docstring.lineno, docstring.end_lineno + 1):
                role[number] = "docstring"
                lines[number - 1] = lines[number - 1][docstring.col_offset if lines[number - 1][:docstring.col_offset].isspace() else 0:]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.col_offset == 0:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            anchors[first] = node.name
            role.setdefault(first, "definition")
    parts, prose, code, anchor = [], [], [], ""

    def flush():
        nonlocal prose, code, anchor
        if prose or any(line.strip() for line in code):
            parts.append(Part(prose, "\n".join(code).strip("\n"), anchor))
        prose, code, anchor = [], [], ""
    pending = []  # a definition's own line, whose docstring is still to come
    for number, line in enumerate(lines, start=1):
        kind = role.get(number)
        if kind == "comment":
            if code and any(line.strip() for line in code):
                flush()
            prose.append(re.sub(r"^# ?", "", line.strip()))
        elif kind == "docstring":
            if code and prose and role.get(number - 1) != "docstring" and not pending:
                flush()
            prose.append(line)
        else:
            if number in anchors:
                if not (prose and not any(line.strip() for line in code)):
                    flush()
                anchor, pending = anchor or anchors[number], [line]
            code.append(line)
            if line.strip() and number not in anchors:
                pending = []
    flush()
    return parts


def prose_html(lines, names):
    """Prose lines -> HTML: a rule of dashes makes the next line a heading, indented lines stay as they are, equations are typeset."""
    text = "\n".join(lines).replace('"""', "")
    first = text.split("\n", 1)
    text = first[0].strip() + ("\n" + cleaned(first[1]) if len(first) > 1 else "")
    out, heading, items = [], False, []  # items: [the last one's indentation, its text], until it is complete
    for block in re.split(r"\n\s*\n", text):
        rows = block.split("\n")
        plain = []

        def finish():
            if plain:
                out.append(f"<p>{linked(' '.join(plain), names)}</p>")
                plain.clear()
            if items:
                out.append(f"<p class='item'>{linked(items[1], names)}</p>")
                items.clear()
        preformatted = all(row.startswith("    ") for row in rows if row.strip()) and any(row.strip() for row in rows)
        if preformatted:
            out.append(f"<pre class='told'>{html.escape(cleaned(block))}</pre>")
            continue
        for row_ in rows:
            indentation = len(row_) - len(row_.lstrip())
            if items and indentation > items[0]:  # the item goes on
                items[1] += f" {row_.strip()}"
                continue
            row_ = row_.strip() if not row_.startswith("    ") else row_.rstrip()
            if set(row_) == {"-"}:
                finish()
                heading = True
            elif heading and row_:
                out.append(f"<h2>{linked(row_, names)}</h2>")
                heading = False
            elif found := equation(row_):
                finish()
                out.append(mathml(found[0]) + (f"<p>{linked(found[1], names)}</p>" if found[1] else ""))
            elif row_.startswith("    ") or re.match(r" ?\d\. ", row_) or row_.startswith("- "):
                finish()
                items[:] = [indentation, row_.strip()]
            elif row_:
                plain.append(row_)
        finish()
    return "".join(out)


def cleaned(text):
    import textwrap
    return textwrap.dedent(text)


def linked(text, names):
    """Escaped, `code` as code, and the names of files as links."""
    text = html.escape(text, quote=False).replace("-&gt;", "→")
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\b(\w+)\.py\b", lambda match: f'<a href="{match[1]}.html">{match[0]}</a>' if match[1] in names else match[0], text)


# ---------------------------------------------------------------------------------------------------------------------
# Pages

MARK = "/* written by isoflop's docs.py: what carries this line may be written again */\n"
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5c5c5c; --paper: #fdfdfb; --code: #f4f3ee; --line: #dcdad2; --link: #0b5fa5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e2dc; --soft: #a3a09a; --paper: #17181a; --code: #202225; --line: #34363a; --link: #7db8ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 Georgia, 'Times New Roman', serif; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
nav { padding: .7rem 1.2rem; border-bottom: 1px solid var(--line); font: 14px/1.8 system-ui, sans-serif; }
nav a { margin-right: .8em; white-space: nowrap; } nav a.here { font-weight: 700; color: var(--ink); }
.part { display: grid; grid-template-columns: minmax(18rem, 34rem) minmax(0, 1fr); }
.prose { padding: .6rem 1.4rem; overflow-wrap: break-word; min-width: 0; }
.code { background: var(--code); border-left: 1px solid var(--line); padding: .6rem 1.2rem; min-width: 0; }
.prose p { margin: .5em 0; } .prose h1 { font-size: 1.7rem; margin: .6em 0 .2em; } .prose h2 { font-size: 1.25rem; margin: 1em 0 .3em; }
.item { padding-left: 1.2em; text-indent: -1.2em; }
pre, code { font: 13px/1.5 ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; } .code pre { margin: 0; overflow-x: auto; }
pre.told { background: var(--code); border: 1px solid var(--line); border-radius: 4px; padding: .5em .8em; overflow-x: auto; }
.equation { overflow-x: auto; overflow-y: hidden; padding: .3em 0; } math { font-size: 1.05rem; margin: .5em 0; } math[display=block] { text-align: left; }
main.index { max-width: 46rem; margin: 0 auto; padding: 1rem 1.4rem; }
table { border-collapse: collapse; width: 100%; } td { padding: .3em .8em .3em 0; border-bottom: 1px solid var(--line); vertical-align: top; }
footer { padding: 1rem 1.4rem; color: var(--soft); border-top: 1px solid var(--line); font: 14px system-ui, sans-serif; }
@media (max-width: 60rem) { .part { grid-template-columns: minmax(0, 1fr); }
  .code { border-left: 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); padding: .4rem .8rem; }
  .prose { padding: .5rem .9rem; } pre, code { font-size: 12px; } .code:empty { display: none; } }
"""


def page(title, body):
    return '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">' \
           f'<title>{title}</title>' \
           f'<link rel="stylesheet" href="style.css"></head><body>{body}</body></html>\n'


def navigation(names, here=""):
    links = [f'<a href="{name}.html"{" class=here" if name == here else ""}>{name}.py</a>' for name in names]
    return '<nav><a href="index.html">isoflop</a> ' + " ".join(links) + "</nav>"


def file_page(name, names, highlight):
    body = [navigation(names, name)]
    for number, part in enumerate(parts_of((HERE / f"{name}.py").read_text(encoding="utf-8"))):
        anchor = f' id="{part.anchor}"' if part.anchor else ""
        title = f"<h1>{name}.py</h1>" if number == 0 else ""
        body.append(f'<section class="part"{anchor}><div class="prose">{title}{prose_html(part.prose, names)}</div>'
                    f'<div class="code">{highlight(part.code) if part.code else ""}</div></section>')
    at = names.index(name)
    following = f' · next: <a href="{names[at + 1]}.html">{names[at + 1]}.py</a>' if at + 1 < len(names) else ""
    return page(f"{name}.py", "".join(body) + f'<footer><a href="index.html">all files</a>{following}</footer>')


def index_page(names):
    rows = []
    for name in names:
        docstring = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))).split("\n\n")[0].replace("\n", " ")
        rows.append(f'<tr><td><a href="{name}.html">{name}.py</a></td><td>{linked(docstring, names)}</td></tr>')
    return page("isoflop", navigation(names) + f'<main class="index"><h1>isoflop</h1>'
                '<p>From scratch or distilled, at equal compute: the code, file by file, in the order in which it is best read.</p>'
                f'<table>{"".join(rows)}</table></main>')


def main():
    parser = cli.Parser(description="Renders the code as web pages.", epilog="example:\n  python docs.py --out site")
    parser.add_argument("--out", default="site", metavar="FOLDER", help="default: %(default)s")
    out = Path(parser.parse_args().out)
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        raise UserError("the pages need the package pygments: pip install -r requirements-dev.txt") from None
    runs.check_writable(out)
    ours = {"index.html", "style.css", *(f"{name}.html" for name in FILES)}
    there, style = {path.name for path in out.iterdir()} if out.is_dir() else set(), out / "style.css"
    if there - ours or (there and not (style.exists() and style.read_text(errors="replace").startswith(MARK))):
        raise UserError(f"{out} holds other files: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    light, dark = HtmlFormatter(style="default"), HtmlFormatter(style="github-dark")

    def coloured(code):
        text = highlight(code, PythonLexer(stripnl=False), HtmlFormatter())
        return re.sub(r'<span class="nn">(\w+)</span>', lambda match: f'<a href="{match[1]}.html">{match[0]}</a>' if match[1] in FILES else match[0], text)
    in_the_dark = "\n@media (prefers-color-scheme: dark) {\n" + dark.get_style_defs(".highlight") + "\n}\n"
    disk.write_file(style, MARK + light.get_style_defs(".highlight") + in_the_dark + STYLE + ".highlight { background: none !important; }\n")
    for name in FILES:
        disk.write_file(out / f"{name}.html", file_page(name, FILES, coloured))
    disk.write_file(out / "index.html", index_page(FILES))
    cli.say(f"{len(FILES) + 1} pages: open {out / 'index.html'}")


if __name__ == "__main__":
    cli.program(main)
