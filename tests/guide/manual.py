"""The README and the guide as tests read them: their pages, their fenced blocks, and the commands in these."""

import re
import shlex
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "autotune" / "guide"
README = ROOT / "README.md"
PAGES = (README, *sorted(FOLDER.glob("*.md")))


class Typed(NamedTuple):
    """A command as a reader would type it: on which page, and its words after ``autotune``."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    fenced = re.findall(r"^```([a-z]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in fenced if language in languages]


def shell_lines(page: Path) -> list[str]:
    """Every line of a page's shell blocks, continued ones joined, without its comment."""
    text = "\n".join(blocks(page, "console", "bash", "")).replace("\\\n", " ")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()) if line]


def calls(line: str) -> list[tuple[str, ...]]:
    """The words after each ``autotune`` that a shell line calls, by its name or as a module."""
    found, lexer = [], shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split, lexer.commenters = True, ""
    for is_joint, part in groupby(lexer, lambda word: set(word) <= set("|&;>")):
        words = [] if is_joint else list(part)
        at = next((index for index, word in enumerate(words) if word == "autotune"), None)
        is_call = at is not None and (at == 0 or words[at - 1] == "-m")
        if is_call:
            found.append(tuple(words[at + 1 :]))
    return found


def typed() -> list[Typed]:
    """Every call of autotune in README and guide: in shell blocks, in those of YAML, and in the running text."""
    found = []
    for page in PAGES:
        lines = [*shell_lines(page), *yaml_lines(page), *examples(page), *inline(page)]
        found += [Typed(page.stem, words) for line in lines for words in calls(line)]
    return list(dict.fromkeys(found))


def yaml_lines(page: Path) -> list[str]:
    """Lines of YAML blocks that call autotune."""
    text = re.sub(r"\n\s+(?=-)(?!- )", " ", "\n".join(blocks(page, "yaml")))  # folded flags of a command
    lines = [re.search(r"autotune (?:run|check|worker) [^\"\]]*", line) for line in text.splitlines()]
    return [line[0] for line in lines if line]


def examples(page: Path) -> list[str]:
    """The examples under each command's help, on the page of options."""
    found = re.findall(r"^Examples?: (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.replace("HOST:29600", "10.0.0.1:29600") for line in found]


def inline(page: Path) -> list[str]:
    """Calls in the running text that are whole: those without a word that stands for something, such as REPORT."""
    found = re.findall(r"`(autotune [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    return [line for line in found if not re.search(r"\b[A-Z]{2,}\b", line) and "--help" not in line]
