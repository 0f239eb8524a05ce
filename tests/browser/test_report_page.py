"""The report in a real browser."""

import pytest
from screens import DESKTOP, PHONE

from pipeline.report.report import report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    report(run.folder, out)
    return out.as_uri()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_opens_without_an_error_a_request_or_a_barrier(open_page, address, size, dark):
    watched = open_page(address, size, dark)
    for part in watched.page.locator("details").all():
        part.locator("summary").click()
    watched.check_quiet(address)
    watched.check_fits()
    watched.check_accessible()


def test_every_picture_is_shown_and_every_figure_has_a_size(open_page, address):
    page = open_page(address).page
    assert page.locator("figure svg").count() == 5
    for figure in page.locator("figure svg").all():
        box = figure.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 120
    broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
    assert broken == 0


def test_dark_and_light_differ_and_the_figures_with_them(open_page, address):
    colours = [
        open_page(address, DESKTOP, dark).page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
        for dark in (False, True)
    ]
    assert colours[0] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert colours[1] == ["rgb(20, 23, 27)", "rgb(232, 234, 237)"]


def test_it_prints(open_page, address):
    page = open_page(address).page
    assert len(page.pdf()) > 20_000
