"""The documents as data: pages, fenced blocks, code in the text, the product's commands in shell lines."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from fraudstream.cli import root
from tests.conftest import REPOSITORY

PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
)
GUIDES = [page for page in PAGES if page.parent.name != "adr"]

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OURS = re.compile(r"(.*/)?(fraudstream|make)")
SEPARATORS = {"&", "&&", "||", "|", ">", ";"}
GRAMMAR = {"until", "while", "do", "if", "then"}


def name_of(page: Path) -> str:
    """Return the path of a page in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def prose(page: Path) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def fences(page: Path, title: str) -> list[str]:
    """Return the bodies of the fenced blocks with this title (the words behind the backticks)."""
    return [body for found, body in FENCE.findall(page.read_text()) if found.strip() == title]


def spans(page: Path) -> list[str]:
    """Return the code in the running text."""
    return SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of the links in the running text."""
    return LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def section(page: Path, heading: str) -> str:
    """Return the text below a heading of the second level, up to the next one."""
    _, found, rest = page.read_text().partition(f"\n## {heading}\n")
    assert found, f"{name_of(page)} has no section {heading}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the tables in `text`: the other cells, by each code word of the first."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {
        name: [cell.strip() for cell in rest]
        for first, *rest in cells
        for name in SPAN.findall(first)
    }


def shell_lines(page: Path) -> Iterator[str]:
    """Yield the lines of the blocks marked as sh or console, and of others what begins like a command."""
    for title in ("sh", "console"):
        for body in fences(page, title):
            yield from body.splitlines()
    for body in fences(page, ""):
        yield from (line for line in body.splitlines() if re.match(r"(fraudstream|make) ", line))


def commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell line that is ours, leading variables included."""
    own: list[str] = []
    for word in [*shlex.split(line.replace(";", " ; "), comments=True), ";"]:
        if word not in SEPARATORS:
            own.append(word)
            continue
        while own and own[0] in GRAMMAR:
            own.pop(0)
        if any(OURS.fullmatch(each) for each in own):
            yield own
        own = []


def leaf(arguments: list[str]) -> click.Command:
    """Return the command of the product that the arguments lead to; `--set` may come first."""
    found: click.Command = root
    context = click.Context(found, info_name="fraudstream")
    words = iter(arguments)
    for word in words:
        if word == "--set":
            next(words)
            continue
        if not isinstance(found, click.Group) or word.startswith("-"):
            break
        below = found.get_command(context, word)
        assert below is not None, f"no command {word}"
        found = below
    return found


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """Yield the command lines that one with `up|down` stands for; what follows `...` is left out."""
    words = words[: words.index("...")] if "..." in words else words
    several = next((i for i, word in enumerate(words) if "|" in word), None)
    if several is None:
        yield words
        return
    for one in words[several].split("|"):
        yield [*words[:several], one, *words[several + 1 :]]
