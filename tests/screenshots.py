"""Save pictures of the book for a person to look at:  python -m tests.screenshots FOLDER [PAGE ...]."""

import sys
from pathlib import Path

from tests.browser import SETTLED, chromium, serve, window
from tests.conftest import BOOK

PAGES = ["book/index.html", "book/chapters/01_attention.html"]


def main(folder: Path, pages: list[str]) -> None:
    """Save each page in light and dark, at the width of a desk and of a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    with serve(BOOK) as server, chromium() as browser:
        for theme in ("light", "dark"):
            for width in (1280, 390):
                with window(browser, theme, width) as context:
                    for path in pages:
                        page = context.new_page()
                        page.goto(f"{server}/{path}", wait_until="load")
                        page.wait_for_function(SETTLED)
                        name = f"{Path(path).stem}-{theme}-{width}.png"
                        page.screenshot(path=folder / name, full_page=True)
                        page.close()
                        print(folder / name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tests.screenshots FOLDER [PAGE ...]")
    main(Path(sys.argv[1]), sys.argv[2:] or PAGES)
