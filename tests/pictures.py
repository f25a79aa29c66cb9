"""Makes the pictures in the README from a real run on this machine: ``make pictures`` (needs Chromium).

The run's table and the timeline are taken from a real terminal, 110 columns wide; the page from a browser.
"""

import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.report.page.browser import opened
from tests.terminal import typed

COLUMNS = 110
PICTURES = Path(__file__).parents[1] / ".github" / "pictures"
RUN = "autotune run --layers 48 --stages 4 --record-timeline"


def picture(command: str, text: str, name: str) -> None:
    """The text as it stands on the terminal, as an SVG that fetches no font from anywhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(text))
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="autotune"), flags=re.DOTALL)
    (PICTURES / name).write_text(drawn, encoding="utf-8")


def main() -> None:
    """Runs, draws, takes the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, file in ((RUN, "run.svg"), ("autotune timeline report.json", "timeline.svg")):
            quiet = ["--quiet"] if command == RUN else []
            picture(command, typed([*command.split()[1:], *quiet], folder, COLUMNS), file)
        with opened(folder / "report.html") as (page, complaints, _):
            assert not complaints, complaints
            page.set_viewport_size({"width": 1200, "height": 1150})
            page.screenshot(path=PICTURES / "page.png")
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 1200, "height": 700})
            page.locator("h2", has_text="One step").evaluate("heading => heading.scrollIntoView()")
            page.wait_for_timeout(300)  # until the plots have taken the dark colours
            page.screenshot(path=PICTURES / "page-dark.png")


if __name__ == "__main__":
    main()
