"""The HTML report in a real browser, on the screens of a phone and a desktop: complete, alive, nothing sticks out."""

import io

import pypdf
import pytest

import gm_lab
from gm_lab.analysis import mean_interval, read_results
from gm_lab.analysis.report import load, rendered

SCREENS = {"phone": 390, "desktop": 1280}
LOOK = """(() => {
    const page = document.documentElement, box = element => element.getBoundingClientRect();
    const pictures = [...document.images], drawings = [...document.querySelectorAll("svg:not([aria-hidden])")];
    return {pictures: pictures.length + drawings.length,
            broken: pictures.filter(i => !i.complete || !i.naturalWidth).length
                + drawings.filter(d => !box(d).width || !box(d).height).length,
            overflow: page.scrollWidth - page.clientWidth, width: page.clientWidth};
})()"""
# where LVC's mark is at a size of 4
MARK = """(() => {
    const marks = [...document.querySelectorAll(".touch .chart .mark-symbol path[aria-label]")];
    const mark = marks.find(mark => /^size: 4; .* lvc$/.test(mark.getAttribute("aria-label")));
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
})()"""
TOOLTIP = "document.querySelector('#vg-tooltip-element')?.innerText ?? ''"
CHOOSE = """(() => { const select = document.querySelectorAll(".touch select")[%d];
    select.value = [...select.options].find(option => option.textContent === %r).value;
    select.dispatchEvent(new Event("change")); })()"""


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("browsed") / ("a-run-whose-name-is-long-" * 6)
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--workers", "1", "--wandb", "disabled"]) == 0
    return path


@pytest.fixture(scope="module")
def page(run):
    """A report about one run twice."""
    report = run.parent / "report.html"
    report.write_text(rendered([load(run)] * 2, f"uv run apps/report.py {run}"))
    return report


def seen(tab):
    tab.settle()
    return tab.evaluate(LOOK)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_shows_every_figure_asks_for_nothing_and_fits(browser, page, screen, dark):
    with browser.open(page.as_uri(), screen, dark=dark) as tab:
        found = seen(tab)
        assert tab.requests == [page.as_uri()]
        assert tab.complaints == []
        assert (found["pictures"], found["broken"]) == (6, 0)  # two figures, two claims' comparisons, two charts
        assert found["overflow"] == 0
        assert abs(found["width"] - SCREENS[screen]) <= 20  # a scroll bar's width
        opened = tab.evaluate("document.querySelector('.contents details').open")
        assert opened == (screen == "desktop")


@pytest.mark.parametrize("screen", SCREENS)
def test_a_page_with_every_fault_is_found_out(browser, page, tmp_path, screen):
    faults = '<img src="missing.png"><svg width="0" height="0"></svg><pre style="width: 1500px">wide</pre>'
    bad = tmp_path / "bad.html"
    text, end, rest = page.read_text().rpartition("</body>")
    bad.write_text(f"{text}{faults}<script>window.ran = 1</script>{end}{rest}")
    with browser.open(bad.as_uri(), screen) as tab:
        found = seen(tab)
        assert tab.evaluate("window.ran ?? 0") == 0
        # the picture that isn't there, and the script that is not ours, are refused before anything is asked for
        refused = [complaint["entry"]["text"] for complaint in tab.complaints]
        assert len([text for text in refused if "Content Security Policy" in text]) == 2
        assert (found["pictures"], found["broken"]) == (8, 2)
        assert found["overflow"] > 0


def shown(value):
    """A number as the page has it: four digits of it are there, three are shown."""
    held = float(f"{value:.4g}")
    return f"{float(f'{held:.3g}'):.10g}".replace("-", "−")


@pytest.mark.parametrize("screen", SCREENS)
def test_a_mark_under_the_pointer_tells_what_results_have(browser, page, run, screen):
    frame = read_results(run / "results.csv")
    rows = frame[(frame["estimator"] == "lvc") & (frame["size"] == 4)]
    with browser.open(page.as_uri(), screen) as tab:
        for metric in ("bias", "accuracy"):
            tab.evaluate(CHOOSE % (0, metric))
            tab.settle()
            tab.evaluate(
                "document.querySelector('.touch .chart').scrollIntoView({block: 'center', behavior: 'instant'})"
            )
            tab.settle()
            x, y = tab.evaluate(MARK)
            tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            tab.settle()
            interval = mean_interval(rows[metric])
            expected = f"{shown(interval.mean)} [{shown(interval.low)}, {shown(interval.high)}]"
            told = tab.evaluate(TOOLTIP)
            assert expected in told
            assert {"size", "4", metric} <= set(told.split())
        assert tab.complaints == []


def test_names_choose_lines_and_a_dragged_chart_zooms(browser, page):
    with browser.open(page.as_uri(), "desktop") as tab:
        tab.settle()
        count = """new Set(Array.from(document.querySelector('.touch .chart').querySelectorAll('.mark-line path'),
            line => line.getAttribute('stroke'))).size"""
        first = "document.querySelector('.touch .chart .mark-line path').getAttribute('d')"
        assert tab.evaluate(count) == 3
        tab.evaluate("document.querySelector('.touch .names input').click()")
        tab.settle()
        assert tab.evaluate(count) == 2
        tab.evaluate("document.querySelector('.touch .chart').scrollIntoView({block: 'center', behavior: 'instant'})")
        before, (x, y) = tab.evaluate(first), tab.evaluate(MARK)
        wheel = {"type": "mouseWheel", "x": x, "y": y + 40, "deltaX": 0}
        tab.call("Input.dispatchMouseEvent", **wheel, deltaY=1)  # the page scrolls
        tab.settle()
        assert tab.evaluate(first) == before
        tab.call("Input.dispatchMouseEvent", **wheel, deltaY=-300, modifiers=8)
        tab.settle()
        assert tab.evaluate(first) != before
        assert tab.complaints == []


def test_the_head_of_a_column_sorts_the_rows(browser, page):
    click = "document.querySelectorAll('.sortable:not(.claims)')[0].querySelectorAll('th button')[%d].click()"
    column = (
        "[...document.querySelector('.sortable:not(.claims)').tBodies[0].rows].map(row => row.cells[%d].textContent)"
    )
    with browser.open(page.as_uri(), "desktop") as tab:
        for index, key in ((0, str), (1, float)):
            tab.evaluate(click % index)
            up = tab.evaluate(column % index)
            assert up == sorted(up, key=key)
            tab.evaluate(click % index)
            assert tab.evaluate(column % index) == up[::-1]
            state = "[...document.querySelectorAll('th[aria-sort]')].map(head => head.getAttribute('aria-sort'))"
            assert tab.evaluate(state) == ["descending"]


def test_the_contents_open_on_a_phone_and_lead_there(browser, page):
    with browser.open(page.as_uri(), "phone") as tab:
        tab.settle()
        tab.evaluate("document.querySelector('.contents summary').click()")
        assert tab.evaluate("document.querySelector('.contents details').open") is True
        links = tab.evaluate(
            "[...document.querySelectorAll('.contents a')].map(link => link.getAttribute('href').slice(1))"
        )
        assert tab.evaluate(f"{links}.every(id => document.getElementById(id))") is True
        tab.evaluate("document.querySelectorAll('.contents a')[3].click()")
        assert tab.evaluate("document.querySelector('.contents details').open") is False


def test_no_page_on_paper_is_empty_and_what_is_for_screens_is_left_out(browser, page):
    with browser.open(page.as_uri(), "desktop") as tab:
        tab.settle()
        printed = pypdf.PdfReader(io.BytesIO(tab.printed()))
    texts = [sheet.extract_text() for sheet in printed.pages]
    assert all(text.strip() or sheet.images for text, sheet in zip(texts, printed.pages, strict=True))
    assert 2 <= len(texts) <= 6  # two or so for each run
    whole = " ".join(texts)
    assert whole.count("Figures") == whole.count("How to reproduce") == 2
    assert "Contents" not in whole
    assert "Explore the numbers" not in whole


HOSTILE = ["</script><script>window.ran = 1</script>", '<img src=x onerror="window.ran = 1">']


def test_names_that_are_markup_are_text_wherever_they_are_shown(browser, toy, tmp_path):
    flags = ["--estimators", *HOSTILE, "lvc", "ad", "--run-dir", str(tmp_path / "run"), "--workers", "1"]
    assert gm_lab.main(toy.EXPERIMENT, [*flags, "--wandb", "disabled"]) == 0
    report = tmp_path / "report.html"
    report.write_text(rendered([load(tmp_path / "run")], "command"))
    with browser.open(report.as_uri(), "desktop") as tab:
        tab.settle()
        labels = "[...document.querySelectorAll('.touch .names label')].map(label => label.textContent)"
        assert set(tab.evaluate(labels)) == {*HOSTILE, "lvc", "ad"}
        tab.evaluate("document.querySelector('.touch .chart').scrollIntoView({block: 'center', behavior: 'instant'})")
        tab.settle()
        x, y = tab.evaluate(MARK.replace("lvc$", "onerror.*$"))
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        tab.settle()
        assert "accuracy" in tab.evaluate(TOOLTIP)
        assert tab.evaluate("window.ran ?? 0") == 0
        assert tab.complaints == []
        assert tab.requests == [report.as_uri()]
