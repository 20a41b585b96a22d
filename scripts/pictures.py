"""Takes the pictures of the pages that README and the documents show: `backbeat explain`, driven as a person would.

python scripts/pictures.py        # writes docs/images/explain.png; needs Chromium (make browser)
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STEPS = ("Epoch", "Update", "Update", "Example", "Example", "Phase", "Phase")  # to the middle of a batch
LESSON = "problem=clouds&every=8&learning_rate=0.1"


def explained(address: str, chromium: str) -> bytes:
    """Returns a picture of the explanation in the middle of a batch, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        page.goto(f"{address}#{LESSON}")
        for step in STEPS:
            page.get_by_role("button", name=step, exact=True).click(timeout=120_000)  # waits until it is enabled
            page.wait_for_timeout(400)
        bottom = page.evaluate("document.querySelector('.columns').getBoundingClientRect().bottom + scrollY + 14")
        picture = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1440, "height": bottom})
        browser.close()
    return picture


def main() -> None:
    """Writes the pictures."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        sys.exit("There is no Chromium: `make browser` installs it, or CHROMIUM names one.")
    command = [sys.executable, "-m", "backbeat", "explain", "--no-open", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            picture = explained(server.stdout.readline().strip(), chromium)
        finally:
            server.terminate()
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    smaller = whole.resize((960, round(whole.height * 960 / whole.width)), Image.Resampling.LANCZOS)
    smaller.save(IMAGES / "explain.png", optimize=True)
    print(f"docs/images/explain.png: {(IMAGES / 'explain.png').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
