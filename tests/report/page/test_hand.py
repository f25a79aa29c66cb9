"""The page in the hand: fingers, the wheel, the dark, a phone, paper, the clipboard, in a real browser."""

from importlib.util import find_spec

import pytest

from autotune.report.page.colours import PICK
from autotune.report.page.page import page
from tests.report.page.browser import CHROMIUM, opened
from tests.report.page.reports import recorded_report

pytestmark = [
    pytest.mark.slow,  # a browser
    pytest.mark.skipif(CHROMIUM is None or find_spec("playwright") is None, reason="needs Chromium and playwright"),
]
PHONE = {"viewport": {"width": 420, "height": 900}, "has_touch": True, "is_mobile": True}
SWIPE = 200  # pixels
PATIENCE = 40  # times 50 ms, until a slow machine has moved the page
TOOLBAR = """view => getComputedStyle(view.toolbar_panel.toolbar_view.el).visibility != "hidden"
    && !view.toolbar_panel.toolbar_view.el.classList.contains("bk-hidden")"""
SPANS = "charts().map(view => [view.model.x_range.start, view.model.x_range.end])"
CENTRE = """at => {
    const view = charts()[at];
    view.el.scrollIntoView({block: "center", behavior: "instant"});
    const box = view.el.getBoundingClientRect(), frame = view.frame.bbox;
    return [box.x + frame.x + frame.width / 2, box.y + frame.y + frame.height / 2];
}"""
# The strongest ink within two pixels of 20 points along each side of a chart's frame, and along the canvas's own edges.
FRAMES = """charts().map(view => {
    const {x, y, width, height} = view.frame.bbox, canvas = view.canvas_view.primary.canvas;
    const scale = canvas.width / view.bbox.width, ink = canvas.getContext("2d");
    const alpha = (x, y, w, h) => Math.max(
        ...ink.getImageData(Math.max(0, x * scale), Math.max(0, y * scale), w, h).data.filter((_, at) => at % 4 == 3));
    const along = Array.from({length: 20}, (_, at) => (at + 0.5) / 20);
    const sides = {
        left: along.map(share => alpha(x - 2, y + share * height, 4, 1)),
        right: along.map(share => alpha(x + width - 2, y + share * height, 4, 1)),
        top: along.map(share => alpha(x + share * width, y - 2, 1, 4)),
        bottom: along.map(share => alpha(x + share * width, y + height - 2, 1, 4)),
    };
    const edges = [
        ...along.map(share => alpha(share * view.bbox.width, 0, 1, 1)),
        ...along.map(share => alpha(0, share * view.bbox.height, 1, 1)),
    ];
    return [Object.values(sides).map(side => Math.min(...side)), edges];
})"""
INKED = """charts().flatMap(view => view.model.renderers.filter(one => one.tags.includes("ink")).map(
    one => (one.glyph.line_color ?? one.glyph.fill_color).value))"""
NUMBERS = """charts().map(view => view.model.renderers.filter(one => "text" in one.glyph).flatMap(
    one => [...one.data_source.data.text]).filter(text => text))"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(page(recorded_report(folder), folder / "report.json"))
    return folder / "report.html"


def timelines(browser):
    """The places of the timelines among the charts: those of the recorded candidate first."""
    named = browser.evaluate('charts().map(view => view.el.closest(".chart").ariaLabel)')
    return [at for at, name in enumerate(named) if ", predicted;" in name or ", measured;" in name]


def swiped(browser, at):
    """The pixels by which a finger that moves down over a chart scrolls the page."""
    touch = browser.context.new_cdp_session(browser)
    x, y = browser.evaluate(CENTRE, at)
    begun = browser.evaluate("scrollY")
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y + step * SWIPE / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        browser.wait_for_timeout(16)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    for _ in range(PATIENCE):
        if begun != browser.evaluate("scrollY"):
            break
        browser.wait_for_timeout(50)
    browser.wait_for_timeout(300)
    return begun - browser.evaluate("scrollY")


def test_a_swipe_over_a_chart_moves_the_page_and_not_the_chart(path):
    with opened(path, **PHONE) as (browser, complaints, _):
        before = browser.evaluate(SPANS)
        assert len(before) >= 7
        for at in range(len(before)):
            assert swiped(browser, at) > SWIPE / 2, f"chart {at} kept the swipe"
        assert browser.evaluate(SPANS) == before
        assert complaints == []
        browser.evaluate("charts()[0].model.toolbar.tools.find(tool => tool.type == 'PanTool').active = true")
        assert swiped(browser, 0) == 0  # as it was while a tool took what was a swipe


def test_two_fingers_zoom_a_timeline_along_time(path):
    with opened(path, **PHONE) as (browser, _, _):
        first, *_ = timelines(browser)
        x, y = browser.evaluate(CENTRE, first)
        begun, end = browser.evaluate(SPANS)[first]
        touch = browser.context.new_cdp_session(browser)
        pinch = {"x": x, "y": y, "scaleFactor": 2, "gestureSourceType": "touch"}
        touch.send("Input.synthesizePinchGesture", pinch)
        browser.wait_for_timeout(200)
        left, right = browser.evaluate(SPANS)[first]
        assert begun <= left < right <= end
        assert right - left < 0.9 * (end - begun)
        assert browser.evaluate("visualViewport.scale") == 1


def test_the_wheel_is_the_pages_and_zooms_time_with_ctrl_as_the_page_says(path):
    with opened(path) as (browser, _, _):
        assert "Ctrl with the wheel" in browser.inner_text("main")
        before = browser.evaluate(SPANS)
        for at in range(len(before)):
            browser.mouse.move(*browser.evaluate(CENTRE, at))
            begun = browser.evaluate("scrollY")
            browser.mouse.wheel(0, -SWIPE)
            browser.wait_for_function("begun => scrollY < begun", arg=begun, timeout=5000)
        assert browser.evaluate(SPANS) == before
        first, second, *_ = timelines(browser)
        few = len(browser.evaluate(NUMBERS)[first])
        browser.mouse.move(*browser.evaluate(CENTRE, first))
        begun = browser.evaluate("scrollY")
        browser.keyboard.down("Control")
        for _ in range(5):
            browser.mouse.wheel(0, -SWIPE)
        browser.keyboard.up("Control")
        browser.wait_for_function("([at, end]) => charts()[at].model.x_range.end < end", arg=[first, before[first][1]])
        browser.wait_for_timeout(300)
        after = browser.evaluate(SPANS)
        assert browser.evaluate("scrollY") == begun
        assert after[first] == after[second] != before[first]  # measured and predicted stay beside each other
        assert len(browser.evaluate(NUMBERS)[first]) >= few > 0


def test_actions_have_the_numbers_of_their_micro_batches(path):
    with opened(path) as (browser, _, _):
        first, *_ = timelines(browser)
        shown = browser.evaluate(NUMBERS)[first]
        assert set(shown) == {str(number) for number in range(8)}
        assert len(shown) == 2 * 4 * 8


def painted(browser, ink):
    """Wait until all that has the colour of the text has this one."""
    browser.wait_for_function(f"new Set({INKED}).size == 1 && {INKED}[0] == '{ink}'", timeout=5000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_frames_are_whole_and_lines_have_the_colour_of_the_text(path, scheme):
    with opened(path, color_scheme=scheme) as (browser, _, _):
        ink = {"light": "#1b1b1b", "dark": "#e8e8e8"}[scheme]
        painted(browser, ink)
        whole = "([sides, edges]) => Math.min(...sides) > 100 && Math.max(...edges) == 0"
        try:
            browser.wait_for_function(f"{FRAMES}.every({whole})", timeout=5000)
        finally:
            found = browser.evaluate(FRAMES)
            broken = [at for at, (sides, edges) in enumerate(found) if min(sides) <= 100 or max(edges) > 0]
            assert broken == [], f"frames of charts {broken}: {[found[at] for at in broken]}"


def test_the_colours_follow_while_the_page_is_open(path):
    with opened(path) as (browser, _, _):
        browser.emulate_media(color_scheme="dark")
        painted(browser, "#e8e8e8")


def test_the_star_is_where_the_pick_is(path):
    with opened(path) as (browser, _, _):
        red, green, blue, alpha = browser.evaluate(
            """() => {
                const view = charts()[0], star = view.model.renderers.find(one => one.glyph.marker?.value == "star");
                const {x, y} = star.data_source.data, {x_scale, y_scale} = view.frame;
                const canvas = view.canvas_view.primary.canvas, scale = canvas.width / view.bbox.width;
                const place = [x_scale.compute(x[0]) * scale, y_scale.compute(y[0]) * scale];
                return [...canvas.getContext("2d").getImageData(...place, 1, 1).data];
            }"""
        )
        assert (red, green, blue) == tuple(bytes.fromhex(PICK[1:]))
        assert alpha == 255


def test_a_phone_shows_wide_charts_and_no_toolbar(path):
    with opened(path, **PHONE) as (browser, _, _):
        assert browser.evaluate("document.documentElement.scrollWidth") <= 420
        assert min(browser.evaluate("charts().map(view => view.frame.bbox.width)")) > 0.7 * 420
        assert browser.evaluate("charts().every(view => view.model.legend === undefined)")
        assert not browser.evaluate(f"charts().some({TOOLBAR})")
        assert browser.locator("table").first.bounding_box()["y"] < 1200  # the table is in sight, not folded away


def test_a_toolbar_comes_when_it_is_wanted(path):
    shown = f"({TOOLBAR})(charts()[0])"
    with opened(path) as (browser, _, _):
        browser.mouse.move(1, 1)
        browser.wait_for_timeout(700)
        assert not browser.evaluate(shown)
        browser.mouse.move(*browser.evaluate(CENTRE, 0))
        browser.wait_for_function(shown, timeout=5000)


def test_paper_has_light_pictures_of_every_chart_and_nothing_to_press(path):
    with opened(path, color_scheme="dark") as (browser, _, _):
        count = browser.evaluate("charts().length")
        browser.evaluate(
            """() => addEventListener("beforeprint", () => {
                const pictures = [...document.querySelectorAll("canvas.printed")];
                window.atPrint = {
                    pictures: pictures.length,
                    drawn: pictures.every(one => one.getContext("2d").getImageData(0, 0, one.width, one.height).data
                        .some(value => value > 0)),
                    darkest: pictures.map(one => {
                        const {data} = one.getContext("2d").getImageData(0, 0, one.width, one.height);
                        const lines = charts()[pictures.indexOf(one)].model.renderers.some(
                            one => one.tags.includes("ink") && one.glyph.type != "VArea");
                        let black = 0, pale = 0;
                        for (let at = 0; at < data.length; at += 4) {
                            const least = Math.min(data[at], data[at + 1], data[at + 2]);
                            black += data[at + 3] > 200 && Math.max(data[at], data[at + 1], data[at + 2]) < 40;
                            pale += data[at + 3] > 200 && least > 225 && least < 245;
                        }
                        return lines ? [black, pale] : null;
                    }).filter(found => found),
                };
            })"""
        )
        assert browser.pdf().startswith(b"%PDF")
        found = browser.evaluate("window.atPrint")
        assert (found["pictures"], found["drawn"]) == (count, True)
        assert len(found["darkest"]) >= 3
        for black, pale in found["darkest"]:  # the colours of paper, not those of the dark screen
            assert black > 20 > pale
        painted(browser, "#e8e8e8")
        assert browser.locator("canvas.printed").count() == 0
        browser.emulate_media(media="print")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not browser.locator("button").is_visible()
        assert browser.locator("details").first.is_hidden()


def test_the_export_command_is_copied(path):
    with opened(path) as (browser, _, _):
        browser.context.grant_permissions(["clipboard-read", "clipboard-write"])
        browser.get_by_label("Launcher").select_option("deepspeed")
        browser.get_by_role("button", name="Copy").click()
        browser.get_by_text("Copied").wait_for(timeout=5000)
        expected = f"autotune export {path.with_name('report.json')} --to deepspeed"
        assert browser.evaluate("navigator.clipboard.readText()") == expected
