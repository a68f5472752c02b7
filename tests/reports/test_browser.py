"""The report in a real browser, from disk: it works, and class names run no script."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chromium import COMMAND, Page
from tests.reports.conftest import Made


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if COMMAND is None:
        pytest.skip("needs Chromium, which is not installed")
    with Page(made.path.as_uri(), tmp_path_factory.mktemp("chromium")) as page:
        yield page
        assert page.errors == []


def choose(page: Page, index: int) -> None:
    page.run(f"(() => {{ budget.value = {index}; budget.dispatchEvent(new Event('input')); }})()")


def shown(page: Page) -> list[str]:
    members = page.run("[...document.querySelectorAll('#members th')].map((cell) => cell.textContent)")
    assert isinstance(members, list)
    return members


def points(page: Page) -> list[dict[str, object]]:
    found = page.run("JSON.parse(document.getElementById('data').textContent).points")
    assert isinstance(found, list)
    return found


def test_the_slider_shows_another_ensemble_at_another_budget(page: Page) -> None:
    names = page.run("JSON.parse(document.getElementById('data').textContent).members.map((m) => m.id)")
    seen = []
    for index, point in enumerate(points(page)):
        choose(page, index)
        members = point["members"]
        assert isinstance(members, list)
        assert shown(page) == [names[m] for m in members]
        assert page.run("document.querySelectorAll('#chart .own').length") == len(members)
        seen.append(page.run("document.getElementById('budget-text').textContent"))
    assert len(set(seen)) == len(seen) > 3


def test_the_arrow_keys_move_the_slider(page: Page) -> None:
    choose(page, 0)
    page.run("budget.focus()")
    page.press("ArrowRight")
    assert page.run("budget.value") == "1"
    said = page.run("budget.getAttribute('aria-valuetext')")
    assert said == page.run("document.getElementById('budget-text').textContent")
    page.press("End")
    assert page.run("budget.value === budget.max")


def test_the_confusion_is_that_of_the_member_asked_for(page: Page) -> None:
    choose(page, len(points(page)) - 1)
    cells = "[...document.querySelectorAll('#confusion td')].map((cell) => cell.textContent).join()"
    together = page.run(cells)
    page.run("(() => { predictor.selectedIndex = 1; predictor.dispatchEvent(new Event('change')); })()")
    assert page.run(cells) != together
    name = page.run("document.getElementById('predictor-name').textContent")
    assert name == page.run("predictor.selectedOptions[0].textContent")
    page.run("(() => { predictor.selectedIndex = 0; predictor.dispatchEvent(new Event('change')); })()")
    assert page.run(cells) == together


def test_a_point_of_the_chart_can_be_clicked(page: Page) -> None:
    page.run("document.querySelectorAll('#chart .step')[0].dispatchEvent(new MouseEvent('click'))")
    assert page.run("budget.value") == "0"


def test_the_hardest_images_are_pictures_with_words_for_them(page: Page) -> None:
    choose(page, 1)
    images = "[...document.querySelectorAll('#hardest img')]"
    assert page.run(f"{images}.length") > 3
    page.run(f"{images}[0].scrollIntoView()")
    page.until(f"{images}[0].naturalWidth === 16")
    assert page.run(f"{images}.every((image) => image.alt.startsWith('sample '))")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wider_than_a_phone(page: Page, dark: bool) -> None:
    page.look(390, 844, dark)
    for index in (0, len(points(page)) - 1):
        choose(page, index)
        assert page.run("document.documentElement.scrollWidth") <= 390
    page.look(1200, 900)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_letters_stand_out_from_what_is_behind_them(page: Page, dark: bool) -> None:
    page.look(1200, 900, dark)
    names = ("--ink", "--dim", "--blue", "--orange", "--green", "--page", "--card")
    found = page.run(
        f"{list(names)!r}.map((n) => getComputedStyle(document.documentElement).getPropertyValue(n).trim())"
    )
    *letters, behind, card = found
    for colour in letters:
        assert contrast(colour, behind) >= 4.5, colour
        assert contrast(colour, card) >= 4.5, colour
    label = "getComputedStyle(document.querySelector('#plot-learning-curves text')).fill"
    assert page.run(label) == rgb(found[1]), "plots take the colours of the page"
    page.look(1200, 900)


def test_every_plot_has_words_and_every_control_a_name(page: Page) -> None:
    assert page.run("[...document.querySelectorAll('svg')].every((s) => s.getAttribute('aria-label'))")
    assert page.run("document.querySelectorAll('svg[role=img]').length") > 8
    assert page.run("[...document.querySelectorAll('input, select')].every((c) => c.labels.length === 1)")
    assert page.run("[...document.querySelectorAll('section')].every((s) => s.getAttribute('aria-labelledby'))")


def test_names_do_no_harm(page: Page) -> None:
    for index in range(len(points(page))):
        choose(page, index)
    assert page.run("window.harmed") is None
    assert page.run("document.querySelector('h1').textContent").startswith("<img")


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of the Web Content Accessibility Guidelines, 1 to 21."""
    lights = sorted(luminance(c) for c in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
