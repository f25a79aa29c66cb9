"""What ``autotune show`` prints, taken apart again: the table, and every figure that is stated around it.

``contradictions`` recomputes each figure from the table's rows as they are printed, with nothing but their rounding as
slack.
"""

import io
import re
from dataclasses import dataclass, field

from rich.console import Console

from autotune.report.bars import print_bars
from autotune.report.explain import explain
from autotune.report.table import print_report

WIDE = 500
SHARE_SLACK = 0.0016  # two rates of four digits, and one decimal of a percentage
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
ANSWER = re.compile(
    r"Sweet spot: (?:(?P<undecided>undecided[^;(]*?)(?: \((?P<sure>\S+) sure\))?; )?m = (?P<m>\d+) micro-batch(?:es)?"
    r" of (?P<b>\d+) under (?P<schedule>.+?), (?P<rate>[\d.]+) sequences/s(?P<speedup>.*?),? (?:is recommended )?"
    r"because (?P<reason>.*)\."
)
RAN = re.compile(r"(confirmed|stopped early), (?P<count>\d+) raw steps? (?P<median>[\d.]+)")


@dataclass
class Row:
    """A line of the table. ``peak``: bytes, and how far rounding may have moved them."""

    m: int
    b: str
    schedule: str
    predicted: str
    error: str
    estimate: str
    peak: tuple[float, float] | None
    status: str

    @property
    def name(self):
        return f"m = {self.m} {self.schedule}"

    @property
    def rate_text(self):
        """The figure that everything else is made from."""
        return self.predicted if self.estimate == "-" else self.estimate.split()[0]

    @property
    def rate(self):
        return float(self.rate_text)

    @property
    def ran(self):
        return RAN.search(self.status) is not None

    @property
    def may_win(self):
        out = ("over the memory limit", "may not win")
        return (self.ran and not any(words in self.status for words in out)) or self.status.endswith("not run")


@dataclass
class Printed:
    """The whole print. ``wrong``: what does not follow from the table."""

    text: str
    rows: list[Row]
    wrong: list[str] = field(default_factory=list)

    def expect(self, is_true, words):
        if not is_true:
            self.wrong.append(words)

    def named(self, name):
        return next(row for row in self.rows if row.name == name)

    def line(self, beginning):
        return next((line for line in self.text.splitlines() if line.startswith(beginning)), None)

    @property
    def contenders(self):
        """What ran and may win, the fastest first."""
        return sorted((row for row in self.rows if row.ran and row.may_win), key=lambda row: -row.rate)


def printed(report):
    """What ``autotune show`` writes."""
    out = io.StringIO()
    console = Console(file=out, width=WIDE, color_system=None)
    print_report(report, console)
    print_bars(report, console)
    return out.getvalue()


def size_of(text):
    """``153.2 MiB`` -> bytes, and half of its last digit."""
    number, unit = text.split()
    return float(number) * UNITS[unit], (0.05 if "." in number else 0.5) * UNITS[unit]


def taken_apart(text):
    """The rows of the table, with the text that is to be held against them."""
    lines = text.splitlines()
    begin = next(at for at, line in enumerate(lines) if set(line.strip()) == {"─"})
    rows = []
    for line in lines[begin + 1 :]:
        if not line.strip():
            break
        m, b, schedule, predicted, error, estimate, _, peak, status = re.split(r"\s{2,}", line.strip())
        size = size_of(peak) if peak != "-" else None
        rows.append(Row(int(m), b, schedule, predicted, error, estimate, size, status))
    return Printed(text, rows)


def contradictions(report):
    """Everything stated by ``autotune show``, with ``--explain`` of every m, that does not follow from its table."""
    found = taken_apart(printed(report))
    check_errors(found)
    if report.sweet_spot is None:
        return found.wrong
    answer = ANSWER.fullmatch(found.line("Sweet spot: "))
    assert answer, found.line("Sweet spot: ")
    pick = found.named(f"m = {answer['m']} {answer['schedule']}")
    found.expect(answer["rate"] == pick.rate_text, f"headline {answer['rate']}, table {pick.rate_text}")
    check_first_line(found, report, answer, pick)
    check_marks(found, report, answer, pick)
    check_speedup(found, answer["speedup"], pick)
    check_reason(found, answer["reason"], pick)
    check_ties(found, pick)
    check_knee(found, pick)
    check_front(found)
    check_bars(found, pick)
    for m in sorted({row.m for row in found.rows}):
        check_explanation(found, explain(report, m), pick)
    return found.wrong


def check_first_line(found, report, answer, pick):
    """The answer in a line: what the sentence below the table and the pick's row say."""
    first = found.text.splitlines()[0]
    said = re.fullmatch(
        r"m = (\d+), b = (\d+), (.+?): ([\d.]+) sequences/s(?:, ([\d.]+)x m = (\d+))?"
        r"(?:; ([\d.]+ \w+)(?: of [^;]+)? per rank)?"
        r"(?:; (undecided, )?(\S+) sure)?",
        first,
    )
    found.expect(said is not None, f"first line {first!r}")
    if said is None:
        return
    m, b, schedule, rate, times, against, peak, undecided, sure = said.groups()
    expected = (answer["m"], answer["b"], answer["schedule"], answer["rate"])
    found.expect((m, b, schedule, rate) == expected, f"first line {first!r}")
    found.expect((peak and size_of(peak)) == pick.peak, f"first line {first!r}, peak {pick.peak}")
    if times:
        found.expect(re.match(rf", {times}x (the naive )?m = {against}\b", answer["speedup"]), first)
    else:
        found.expect("x" not in answer["speedup"].split("m =")[0], first)
    if report.sweet_spot.certainty is not None:
        found.expect(sure == certainty(report.sweet_spot.certainty), first)
        found.expect(bool(undecided) == (answer["undecided"] is not None), first)


def check_errors(found):
    """The predicted step time against the median of the raw steps, which is the inverse of that of the rates."""
    for row in found.rows:
        said = RAN.search(row.status)
        found.expect((row.error != "-") == (said is not None), f"error of {row.name}: {row.error}")
        if said:
            share = float(said["median"]) / float(row.predicted) - 1
            found.expect(is_share(row.error.removesuffix("%"), share), f"error of {row.name}: {row.error}")


def check_marks(found, report, answer, pick):
    """The certainty, and who is marked as what."""
    spot = report.sweet_spot
    rivals = [row for row in found.rows if row.status.startswith("undecided, ")]
    is_undecided = answer["undecided"] is not None
    found.expect(pick.status.startswith("recommended but undecided" if is_undecided else "sweet spot, "), pick.status)
    found.expect("100%" not in found.text.split("raw step")[-1].split("Knee")[0], "a probability of 100%")
    if spot.certainty is not None:
        found.expect(is_undecided == (spot.certainty < 0.8), f"undecided at {spot.certainty}")
        said = re.search(r"with a probability of (\S+)\.", found.text)
        found.expect(said and said[1] == certainty(spot.certainty), f"certainty {said and said[1]}")
    if is_undecided and spot.undecided_with:
        names = [row for row in found.rows if row in rivals or row is pick]
        alike = len({row.schedule for row in names}) == 1
        for row in names:
            word = rf"\b{row.m}\b" if alike else re.escape(row.name)
            found.expect(re.search(word, answer["undecided"]), f"{row.name} is marked, and not named")
    else:
        found.expect(not rivals, "rivals of a pick that is sure")


def certainty(chance):
    """The words for a probability."""
    return ">99%" if chance > 0.99 else "<1%" if chance < 0.01 else f"{round(100 * chance + 1e-9):d}%"


def check_speedup(found, words, pick):
    """Against the smallest m that ran and may win, the fastest one with it."""
    least = min((row.m for row in found.contenders), default=None)
    if least is None or (least == pick.m and least > 1):
        found.expect(words == "", f"speed-up {words!r} over nothing")
        return
    naive = max((row for row in found.contenders if row.m == least), key=lambda row: row.rate)
    if naive is pick:
        found.expect(words == ", the naive m = 1 itself", words)
        return
    times, m = re.match(r", ([\d.]+)x (?:the naive )?m = (\d+)", words).groups()
    found.expect(int(m) == least, f"speed-up over m = {m}, the smallest that ran is {least}")
    found.expect(abs(float(times) - pick.rate / naive.rate) < 0.0051 + 0.001 * float(times), f"speed-up {times}")
    ones = [row for row in found.rows if row.m == 1]
    if "does not fit" in words:
        found.expect(all("does not fit" in row.status or "over the memory limit" in row.status for row in ones), words)
    if "was no candidate" in words:
        found.expect(not ones, words)


def is_share(stated, computed):
    """Whether ``15.4`` percent is the share, but for rounding."""
    return abs(float(stated) / 100 - computed) <= SHARE_SLACK * max(1.0, abs(computed))


def check_reason(found, reason, pick):
    """Each rule that may decide, in the words that ``recommend.reason`` has for it."""
    others = [row for row in found.contenders if row is not pick]
    top = max([pick, *others], key=lambda row: row.rate)
    if reason.startswith("it is the only candidate that was measured"):
        found.expect(not others, reason)
    elif said := re.fullmatch(r"it has the highest throughput, ([\d.]+)% above the next", reason):
        found.expect(top is pick and is_share(said[1], pick.rate / others[0].rate - 1), reason)
    elif said := re.match(r"it is tied with (.+) within (\d+)%(.*)", reason):
        allowed = float(said[2]) / 100 + SHARE_SLACK
        for name in said[1].split(", "):
            found.expect(found.named(name).rate >= top.rate * (1 - allowed), reason)
        found.expect(pick.rate >= top.rate * (1 - allowed), reason)
        check_saving(found, said[3], pick, [found.named(name) for name in said[1].split(", ")])
    elif said := re.match(
        r"it needs (.+?) less memory than (m = .+?), which is estimated to be ([\d.]+)% faster", reason
    ):
        other = found.named(said[2])
        found.expect(other is top and is_share(said[3], other.rate / pick.rate - 1), reason)
        check_saving(found, f" needs {said[1]} less", pick, [other])
    elif said := re.match(
        r"the search picked it, although by the figures in this table (.+) is ([\d.]+)% faster", reason
    ):
        found.expect(found.named(said[1]) is top and is_share(said[2], top.rate / pick.rate - 1), reason)
    else:
        said = re.search(
            r"of those within (\d+)% of the best.*is (?:the fastest|only ([\d.]+)% slower than (.+))", reason
        )
        assert said, f"a reason that the test does not know: {reason}"
        allowed = float(said[1]) / 100 + SHARE_SLACK
        found.expect(pick.rate >= top.rate * (1 - allowed), reason)
        if said[2]:
            found.expect(found.named(said[3]) is top and is_share(said[2], 1 - pick.rate / top.rate), reason)
        if "least memory" in reason:
            close = [row for row in others if row.rate >= top.rate * (1 - allowed + 2 * SHARE_SLACK)]
            found.expect(all(row.peak[0] + row.peak[1] >= pick.peak[0] - pick.peak[1] for row in close), reason)


def check_saving(found, words, pick, others):
    """``needs 4.0 MiB less memory than the next``: of the rows' peaks."""
    said = re.search(r"needs ([\d.]+ \w+) less", words)
    if said:
        stated, slack = size_of(said[1])
        least = min((row.peak for row in others if row.peak), key=lambda peak: peak[0])
        found.expect(abs(least[0] - pick.peak[0] - stated) <= slack + least[1] + pick.peak[1] + 1, words)


def check_ties(found, pick):
    """``m = 16 and m = 32 are within 1%; 16 needs 1.2 GiB less.``"""
    for line in found.text.splitlines():
        said = re.fullmatch(r"(m = .+?) and (m = .+?) are within (\d+)%(.*)\.", line)
        if said is None or "micro-batch" in line:
            continue
        name = said[2] if " " in said[2].removeprefix("m = ") else f"{said[2]} {pick.schedule}"
        other = found.named(name)
        gap = 1 - min(pick.rate, other.rate) / max(pick.rate, other.rate)
        found.expect(gap <= float(said[3]) / 100 + SHARE_SLACK, line)
        check_saving(found, said[4], pick, [other])


def curve_of(found, pick):
    """Under the pick's schedule, what may win, ascending in m; GPipe where m is too small for 1F1B."""
    rows = [row for row in found.rows if row.schedule == pick.schedule and (row.may_win or row is pick)]
    if pick.schedule == "1F1B":
        least = min(row.m for row in found.rows if row.schedule == pick.schedule and (row.may_win or row is pick))
        rows += [row for row in found.rows if row.schedule == "GPipe" and row.m < least and row.may_win]
    return sorted(rows, key=lambda row: row.m)


def check_knee(found, pick):
    """The smallest m within 1 % of its curve's best; its neighbours in m and what they lose."""
    line = found.line("Knee: ")
    curve = curve_of(found, pick)
    best = max(row.rate for row in curve)
    head, _, sides = line.removesuffix(".").partition("; ")
    at = int(re.match(r"Knee: m = (\d+) is the smallest m within 1% of the best under", head)[1])
    place = next(number for number, row in enumerate(curve) if row.m == at)
    found.expect(1 - curve[place].rate / best <= 0.01 + SHARE_SLACK, head)
    found.expect(all(1 - row.rate / best >= 0.01 - SHARE_SLACK for row in curve[:place]), head)
    stated = re.findall(r"m = (\d+) (?:loses ([\d.]+)%|is the best)( \(not run\))?", sides)
    around = curve[max(0, place - 1) : place] + curve[place + 1 : place + 2]
    found.expect([int(m) for m, _, _ in stated] == [row.m for row in around], line)
    for (_, loss, predicted), row in zip(stated, around, strict=False):
        found.expect(is_share(loss or "0", 1 - row.rate / best), line)
        found.expect(bool(predicted) != row.ran, line)


def check_front(found):
    """Every point is as the table has it, and nothing that may win beats one in both."""
    line = found.line("Less memory for less throughput: ")
    known = [row for row in found.rows if row.may_win and row.peak]
    if line is None:
        return
    points = re.findall(r"(m = \d+ [^,]+?) ([\d.]+)/s ([\d.]+ \w+)( \(not run\))?", line)
    shown = []
    for name, rate, peak, predicted in points:
        row = found.named(name)
        shown.append(row)
        found.expect((rate, size_of(peak)) == (row.rate_text, row.peak), line)
        found.expect(bool(predicted) != row.ran and row.may_win, line)
        better = [other for other in known if other.rate > row.rate and sum(other.peak) < row.peak[0] - row.peak[1]]
        found.expect(not better, f"{name} is beaten by {[other.name for other in better]}")
    for row in known:
        if row not in shown:
            beaten = [one for one in shown if one.rate >= row.rate and one.peak[0] <= row.peak[0] + 2 * row.peak[1]]
            found.expect(beaten, f"{row.name} is missing from the front")


def check_bars(found, pick):
    """A number and a length for each m of the curve."""
    bars = re.findall(r"^m = (\d+) +([█#]+) +([\d.]+) (estimated|not run|over limit)", found.text, re.MULTILINE)
    most = max(float(rate) for _, _, rate, _ in bars)
    longest = max(len(bar) for _, bar, _, _ in bars)
    for m, bar, rate, source in bars:
        rows = [row for row in found.rows if row.m == int(m) and row.schedule in (pick.schedule, "GPipe", "1F1B")]
        (row,) = rows if len(rows) == 1 else [row for row in rows if row.schedule == pick.schedule]
        found.expect(rate == row.rate_text, f"bar of m = {m}: {rate}, table {row.rate_text}")
        found.expect(abs(len(bar) - longest * float(rate) / most) <= 1, f"length of the bar of m = {m}")
        if source != "over limit":
            found.expect((source == "estimated") == row.ran, f"bar of m = {m} is {source}")


def check_explanation(found, lines, pick):
    """``--explain M``: the rate, the gap to the sweet spot, the difference of the peaks."""
    row = None
    for line in lines:
        if said := re.match(r"m = (\d+) under (.+?): (.*)", line):
            row = found.named(f"m = {said[1]} {said[2]}")
            rate = re.search(r"([\d.]+) sequences/s", said[3])
            found.expect(rate is None or rate[1] == row.rate_text, line)
            found.expect("never" not in line and "could not win" not in line, line)
        elif said := re.match(r"  It makes ([\d.]+)% (more|less) throughput than", line):
            sign = 1 if said[2] == "more" else -1
            found.expect(is_share(str(sign * float(said[1])), row.rate / pick.rate - 1), f"{row.name}: {line}")
        elif said := re.match(r"  Its fullest rank needs ([\d.]+ \w+), ([\d.]+ \w+) (more|less)", line):
            found.expect(size_of(said[1]) == row.peak, line)
            stated, slack = size_of(said[2])
            difference = (row.peak[0] - pick.peak[0]) * (1 if said[3] == "more" else -1)
            found.expect(abs(difference - stated) <= slack + row.peak[1] + pick.peak[1] + 1, f"{row.name}: {line}")
