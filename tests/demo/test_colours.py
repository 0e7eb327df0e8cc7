"""The colours of names in the room, from the numbers of its style sheet."""

import re
from colorsys import hls_to_rgb

import pytest

from ..support.servers import ROOT

CSS = (ROOT / "project" / "demo" / "static" / "demo" / "demo.css").read_text()
LIGHT, DARK = re.findall(r":root \{(.+?)\}", CSS, re.S)
LEAST = 4.5  # WCAG 2, 1.4.3: of text that is not large


def luminance(*channels: float) -> float:
    """What WCAG calls the relative luminance, of red, green and blue from 0 to 255."""
    parts = [channel / 255 for channel in channels]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    """The ratio of two luminances, from 1 to 21."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("bubble", ["bubble", "bubble-own"])
def test_a_name_of_any_hue_can_be_read(theme: str, bubble: str) -> None:
    numbers = re.search(r"color: hsl\(var\(--hue\) (\d+)% var\(--name-lightness\)\)", CSS)
    lightness = re.search(r"--name-lightness: (\d+)%;", theme)
    background = re.search(rf"--{bubble}: #(\w{{6}});", theme)
    assert numbers is not None
    assert lightness is not None
    assert background is not None
    below = luminance(*bytes.fromhex(background[1]))
    saturation, light = int(numbers[1]) / 100, int(lightness[1]) / 100
    found = {}
    for hue in range(360):
        name = (round(255 * c) for c in hls_to_rgb(hue / 360, light, saturation))
        found[hue] = contrast(luminance(*name), below)
    assert {hue: ratio for hue, ratio in found.items() if ratio < LEAST} == {}
