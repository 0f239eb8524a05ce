"""A headless Chromium, and pages that tell what they did."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from screens import DESKTOP
from small_runs import SmallRun, make_run

from pipeline.weights.weights_file import publish_weights, random_weights


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or another one on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        # Without a sandbox: as root, Chromium has none; it sees pages of this project only.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Watched:
    """A page, and what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: object) -> None:
        # Chromium itself reports each refused upload, which the page then explains.
        if message.type in ("error", "warning") and "status of 422" not in message.text:
            self.errors.append(message.text)

    def check_quiet(self, own: str) -> None:
        """No error on the console, and no request but to one's own address."""
        assert self.errors == []
        foreign = [url for url in self.requests if not url.startswith((own, "data:", "blob:"))]
        assert foreign == []

    def check_accessible(self) -> None:
        """No serious finding of axe."""
        found = Axe().run(self.page).response["violations"]
        serious = [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []

    def check_fits(self) -> None:
        """Nothing has to be scrolled sideways."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0


@pytest.fixture
def open_page(browser):
    """Opens watched pages: `open_page(address, size, dark)`."""
    contexts = []

    def opened(address: str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Watched:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(address)
        return watched

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A whole run on small images. Only to be read."""
    weights = tmp_path_factory.mktemp("weights") / "random.safetensors"
    publish_weights(random_weights(0), weights)
    return make_run(tmp_path_factory.mktemp("run") / "demo run", weights)
