"""The built site: no formula is broken, nothing is asked of a network, every public name has a page."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import markdown
import pytest

from hooks.flags import unbroken
from hooks.mathematics import NoFormulaIsEmphasis, mathml, with_mathml

ROOT = Path(__file__).parents[1]
QUIET = {"script", "style", "code", "pre", "math", "svg", "title"}  # where a dollar or a backslash is itself
WORDS = re.compile(r"[A-Za-zÀ-ÿ0-9][\w\s,.;:?!/()’'\"“”‑–&-]*")
ARITY = {"msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3, "mfrac": 2, "mroot": 2}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LATEX = re.compile(r"\\(?!n\b|x[0-9a-f]{2}|u[0-9a-f]{4})[A-Za-z]+")  # and no escape of Python's
LOOPS = ["own_loops/gymnasium", "own_loops/cases", "own_loops/torchopt", "own_loops/torchrl"]
FETCHED = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "icon", "manifest"}


@dataclass
class Emphasised:
    """One `em` or `strong` with the characters on both of its sides."""

    before: str
    text: str = ""
    after: str | None = None


@dataclass
class Page(HTMLParser):
    """What the tests ask of a page."""

    html: str
    prose: list[str] = field(default_factory=list)
    emphasised: list[Emphasised] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.inside, self.emphasis, self.last = [], [], ""
        self.feed(self.html)

    def __hash__(self):
        return id(self)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids.update(filter(None, [named.get("id")]))
        if tag == "link" and FETCHED & set((named.get("rel") or "").split()):
            self.asked.append(named["href"])
        if named.get(LOADED.get(tag, "")):
            self.asked.append(named[LOADED[tag]])
        if tag in ("em", "strong"):
            self.emphasis.append(Emphasised(self.last))
            self.emphasised.append(self.emphasis[-1])
        elif tag in QUIET:
            self.inside.append(tag)
        if tag not in ("em", "strong", "a", "code", "math"):
            self.last = ""

    def handle_endtag(self, tag):
        if tag in ("em", "strong") and self.emphasis:
            self.emphasis.pop()
        elif self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        for emphasis in self.emphasised:
            if emphasis.after is None and emphasis not in self.emphasis:
                emphasis.after = data[:1]
        if not self.inside:
            self.prose.append(data)
            for emphasis in self.emphasis:
                emphasis.text += data
        self.last = data[-1:]


def formulas(html):
    return re.findall(r"<math.*?</math>", html, re.DOTALL)


def broken_emphasis(page):
    """Emphasis that is not of whole words: a formula's asterisks or underscores."""
    return [
        e.text
        for e in page.emphasised
        if not WORDS.fullmatch(e.text.strip() or "a")
        or re.match(r"[\w^{}]", e.before)
        or re.match(r"[\w^{}]", e.after or "")
    ]


def broken_formulas(html):
    """Formulas that are not well-formed MathML, or that hold LaTeX which nothing has understood."""
    return [one for one in formulas(html) if not well_formed(one)]


def well_formed(one):
    try:
        math = ElementTree.fromstring(one)
    except ElementTree.ParseError:
        return False
    parts = list(math.iter())
    names = [part.tag.rpartition("}")[2] for part in parts]
    understood = "merror" not in names and "\\" not in "".join(math.itertext()) and "".join(math.itertext()).strip()
    return understood and all(
        len(part) == ARITY[name] for part, name in zip(parts, names, strict=True) if name in ARITY
    )


def raw_latex(page):
    return [text for text in page.prose if "$" in text or LATEX.search(text)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that `mkdocs build --strict` fills."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(found) > 50
    return found


def test_a_formula_that_markdown_has_eaten_is_seen():
    eaten = Page(
        "<p>Σ<em>t γ</em>t and <em>really</em> <strong>not supported</strong>, 2<em>x</em>y, <em>a = b</em></p>"
    )
    assert broken_emphasis(eaten) == ["t γ", "x", "a = b"]
    assert broken_formulas(r"<math><mi>\foo</mi></math> <math><msub><mi>x</mi></msub></math> <math><mi>x</math>") != []
    assert len(broken_formulas("<math><mi>x</mi></math> <math><mfrac><mi>a</mi><mi>b</mi></mfrac></math>")) == 0
    assert raw_latex(Page(r"<p>$x$ <code>$HOME</code> \alpha</p>")) == ["$x$ ", r" \alpha"]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Σ_s d(s) Σ_a ∇²π_t", "Σ_s d(s) Σ_a ∇²π_t"),
        (")_t and (_t, _x_ and __x__", ")_t and (_t, _x_ and __x__"),
        ("2*x*y, `*batch` and *batch", "2*x*y, <code>*batch</code> and *batch"),
        ("a * b * c", "a * b * c"),
        ("*a word* and **two words**, (*so*)", "<em>a word</em> and <strong>two words</strong>, (<em>so</em>)"),
        ("**a `c_d`**", "<strong>a <code>c_d</code></strong>"),
    ],
)
def test_emphasis_is_of_whole_words_between_asterisks(text, html):
    assert markdown.markdown(text, extensions=[NoFormulaIsEmphasis()]) == f"<p>{html}</p>"


def test_latex_becomes_mathml():
    assert well_formed(mathml(r"\frac{\hat\theta^K}{2} \le \lVert x \rVert_\infty", "block"))
    assert not well_formed(mathml(r"\nosuchcommand x", "inline"))
    inline = with_mathml(r'<p>a <span class="arithmatex">\(x &lt; y\)</span></p>')
    assert inline.startswith("<p>a <math")
    assert "&#x0003C;" in inline
    block = with_mathml('<div class="arithmatex">\\[\nx\n\\]</div>')
    assert block.startswith('<div class="formula"><math')
    assert 'display="block"' in block


def test_the_steps_of_contributing_keep_their_numbers(pages):
    """A list that a block of code cuts in two begins again at 1."""
    lists = re.findall(r"<ol>(.*?)</ol>", pages["contributing/index.html"].html, re.DOTALL)
    assert [one.count("<li>") for one in lists if one.count("<li>") < 2] == []
    source = (ROOT / "CONTRIBUTING.md").read_text()
    assert sum(one.count("<li>") for one in lists) == len(re.findall(r"^\d+\. ", source, re.MULTILINE)) > 5


def test_a_flag_in_a_line_of_text_is_not_broken():
    assert unbroken("<p><code>uv run a-b.py --top-k 2 -v</code> --no</p>") == (
        '<p><code>uv run a-b.py <span class="flag">--top-k</span> 2 <span class="flag">-v</span></code> --no</p>'
    )
    block = '<pre><code class="language-sh">uv run a.py --top-k</code></pre>'
    assert unbroken(block) == block


def numbered(text):
    """The claims that a sentence names, `A-1 to A-3` among them."""
    runs = re.findall(r"([A-Z]+)-(\d+)(?:\s+to\s+\1-(\d+))?", text)
    return [f"{name}-{number}" for name, low, high in runs for number in range(int(low), int(high or low) + 1)]


def test_a_figures_page_shows_the_claims_that_it_names(pages):
    checked = 0
    for name, page in pages.items():
        said = re.search(r"Here: (.*?)[;.]", page.html, re.DOTALL)
        if name.startswith("figures/") and said:
            assert re.findall(r"<td>([A-Z]+-\d+): ", page.html) == numbered(said[1]), name
            checked += 1
    assert checked == 8


def test_every_picture_is_told_in_words(pages):
    ours = {name: page.html for name, page in pages.items() if name != "explorer/page.html"}
    pictures = {name: re.findall(r"<img [^>]*>", html) for name, html in ours.items()}
    dumb = {
        name: found
        for name, every in pictures.items()
        if (found := [p for p in every if 'alt=""' in p or "alt=" not in p])
    }
    assert dumb == {}
    assert sum(map(len, pictures.values())) > 40


def test_no_page_has_a_formula_that_emphasis_has_eaten(pages):
    assert {name: found for name, page in pages.items() if (found := broken_emphasis(page))} == {}


def test_no_page_shows_latex(pages):
    assert {name: found for name, page in pages.items() if (found := raw_latex(page))} == {}


def test_every_formula_is_well_formed(pages):
    assert {name: found for name, page in pages.items() if (found := broken_formulas(page.html))} == {}


def test_every_formula_of_the_sources_is_there(pages):
    sources = {
        path.relative_to(ROOT / "docs"): CODE.sub("", path.read_text()) for path in (ROOT / "docs").rglob("*.md")
    }
    written = {page.with_suffix("").as_posix(): len(FORMULA.findall(text)) for page, text in sources.items()}
    shown = {
        name.removesuffix(".html").removesuffix("/index"): len(formulas(page.html)) for name, page in pages.items()
    }
    assert sum(written.values()) > 200
    assert {page: shown.get(page.removesuffix("/index")) for page, n in written.items() if n} == {
        page: n for page, n in written.items() if n
    }


def test_no_page_asks_another_machine_for_anything(pages, site):
    far = re.compile(r"(https?:)?//")
    assert {name: found for name, page in pages.items() if (found := [*filter(far.match, page.asked)])} == {}
    assert sum(len(page.asked) for page in pages.values()) > len(pages)
    texts = [*(page.html for page in pages.values()), *(path.read_text() for path in site.rglob("*.css"))]
    assert [
        found for text in texts if (found := re.findall(r"(?:url\(|@import)[\"' ]*(?:https?:)?//[^)]+", text))
    ] == []


def test_every_picture_and_every_page_of_the_site_is_there(pages, site):
    for name, page in pages.items():
        folder = site if name == "404.html" else (site / name).parent
        near = [asked.partition("?")[0] for asked in page.asked if not asked.startswith(("http", "data:", "/"))]
        assert [asked for asked in near if not (folder / asked).exists()] == [], name


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("browser", ROOT / "packages/gm-lab/tests/browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("name", ["own_problem", "cluster", "api/gm_exact/evaluation", "reading", *LOOPS])
def test_code_does_not_scroll_sideways_and_all_that_is_loaded_is_here(browser, site, name):
    with browser.open((site / name / "index.html").as_uri(), "desktop") as tab:
        assert tab.evaluate("document.querySelectorAll('pre').length") > 2
        assert [asked for asked in tab.requests if not asked.startswith("file:")] == []
        wider = (
            "[...document.querySelectorAll('pre, pre > code')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert tab.evaluate(wider) == 0
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


@pytest.mark.parametrize(
    "name", ["estimators", "figures", "figures/maml_fig5", "figures/lirpg", "speed", "theory", "own_loops"]
)
def test_no_table_is_cut_off(browser, site, name):
    with browser.open((site / name / "index.html").as_uri(), "desktop") as tab:
        wider = "[...document.querySelectorAll('table')].filter(e => e.offsetWidth > e.closest('article').clientWidth)"
        assert tab.evaluate("document.querySelectorAll('table').length") > 0
        assert tab.evaluate(f"{wider}.length") == 0


def test_the_explorer_is_as_dark_as_the_page_around_it(browser, site):
    with browser.open((site / "explorer" / "index.html").as_uri(), "desktop") as tab:
        tab.call("Emulation.setEmulatedMedia", features=[])  # which would hold for the frame, too
        tab.settle()
        for scheme in ("slate", "default"):
            tab.evaluate(f"document.body.dataset.mdColorScheme = {scheme!r}")
            style = "getComputedStyle(document.querySelector('iframe')).colorScheme"
            assert tab.evaluate(style) == {"slate": "dark", "default": "light"}[scheme]


def places_of(package, name):
    """Where a name may be shown: as what the package exports, or in the module that has it."""
    found = getattr(importlib.import_module(package), name)
    shown = {f"{key}.{name}" for key, module in sys.modules.items() if vars(module).get(name) is found}
    return {f"{package}.{name}"} | {place for place in shown if place.startswith(f"{package}.")}


@pytest.mark.parametrize("package", ["gm_estimators", "gm_exact", "gm_envs_tabular", "gm_envs_ipd"])
def test_every_public_name_has_a_place_in_the_api(pages, package):
    places = set().union(*(page.ids for name, page in pages.items() if name.startswith("api/")))
    module = importlib.import_module(package)
    rooms = {name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
    names = {(package, name) for name in set(module.__all__) - rooms}
    for room in rooms:
        names |= {(f"{package}.{room}", name) for name in getattr(module, room).__all__}
    missing = [name for of, name in names if not places & places_of(of, name)]
    assert missing == []
    assert len(names) >= 10
