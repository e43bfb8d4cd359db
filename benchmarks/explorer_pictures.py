"""The pictures of docs/explorer.md: the page in headless Chromium, desktop and phone.

    python benchmarks/explorer_pictures.py http://127.0.0.1:7860/

It needs a running `mirage explore`, Chromium, and playwright.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def keep(page: Page, name: str) -> None:
    """A screenshot as JPEG of less than 150 KB."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in range(88, 40, -6):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() < 150_000:
            break
    (IMAGES / name).write_bytes(file.getvalue())
    print(IMAGES / name, f"{file.tell() / 1000:.0f} KB")


def known(page: Page) -> int:
    """What the page says is known of the view, per cent."""
    return int(page.inner_text("#known").partition("%")[0])


def turn(page: Page, key: str, until: int) -> None:
    """Hold a key until so little of the view is known."""
    page.keyboard.down(key)
    while known(page) > until:
        page.wait_for_timeout(40)
    page.keyboard.up(key)


def imagined(page: Page, count: int) -> None:
    """Wait for so many chunks, and for the pictures of them."""
    page.wait_for_selector(f"#strip li:nth-child({count + 1}):not(.wait)", timeout=120_000)
    page.wait_for_selector("#busy", state="hidden", timeout=120_000)
    page.wait_for_timeout(2500)


def main() -> None:
    """Walk, and take pictures on the way."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=GL)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(sys.argv[1])
        page.wait_for_timeout(1500)
        page.evaluate("document.activeElement.blur()")
        keep(page, "explorer-start.jpg")
        page.click("[data-picture=parlour]")
        page.wait_for_selector("#known:not(:empty)")
        page.locator("#auto").uncheck()
        for count, (key, until) in enumerate((("KeyJ", 74), ("KeyJ", 80), ("KeyS", 90), ("KeyL", 99)), 1):
            turn(page, key, until)
            page.keyboard.press("KeyR")
            imagined(page, count)
        turn(page, "KeyL", 78)
        page.wait_for_timeout(800)
        keep(page, "explorer.jpg")

        phone = browser.new_page(
            viewport={"width": 390, "height": 800}, device_scale_factor=2, has_touch=True, is_mobile=True
        )
        phone.goto(page.url)
        phone.wait_for_selector("#known:not(:empty)")
        phone.wait_for_timeout(3000)
        keep(phone, "explorer-phone.jpg")
        browser.close()


if __name__ == "__main__":
    main()
