"""Text that a script keeps up to date in a page: what stands between two marks."""

from pathlib import Path

import click

END = "<!-- end of output -->"


def put(page: Path, begin: str, text: str) -> None:
    """Replace what stands in `page` between the line `begin` and the next `END`.

    Raises:
        click.ClickException: the page lacks one of the marks.
    """
    before, found, rest = page.read_text().partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise click.ClickException(f"{page} lacks the marks {begin} and {END}")
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}")
