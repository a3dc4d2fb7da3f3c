"""How the page looks: in a narrow window, and in the light and the dark."""

from __future__ import annotations

import pytest

from tests.control_center.web.browser import NARROW, Browser
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.host import Host

pytestmark = pytest.mark.real

VIEWS = ("services", "services/cart", "operations", "nodes", "nodes/web-1", "decisions", "events")
# Relative luminance as WCAG 2.2 defines it, and the contrast of every text with what is behind it.
CONTRASTS = """
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = parse(getComputedStyle(each).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!says || !element.checkVisibility() || element.disabled) continue;
  const [one, two] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.className}: ${element.textContent.slice(0, 40)}`);
}
return found;
"""


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_has_to_be_scrolled_sideways_in_a_narrow_window(
    page: Browser, center: Center, host: Host, view: str
) -> None:
    page.size(*NARROW)
    page.go(f"{center.url}/#/{view}")
    page.wait("h1")
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    needed, there = page.run(wide)
    assert needed <= there, f"{view} needs {needed} of {there} pixels"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_the_light_and_in_the_dark(page: Browser, center: Center, scheme: str) -> None:
    page.scheme(scheme)
    for view in VIEWS:
        page.go(f"{center.url}/#/{view}")
        page.wait("h1")
        assert page.run(CONTRASTS) == [], view
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgba()").split(",")[:3]) / 3
    assert (brightness > 128) is (scheme == "light")


def test_the_choice_of_a_person_overrules_the_system(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.sees("Services")
    look = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(look)
    page.press("Light or dark")
    page.until("it is dark", lambda: page.run(look) != light)
    dark = page.run(look)
    page.driver.refresh()
    page.sees("Services")
    assert page.run(look) == dark
