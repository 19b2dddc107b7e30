"""Makes the two pictures of the start page from the sample: as it is, and as RealESRGAN_x4plus enlarges it.

Both are packed to fit the first load of the page, the sizes are printed. Run it again after
scripts/draw_sample.py:  python scripts/draw_demo.py
"""

from __future__ import annotations

from pathlib import Path

import pyvips

import enlarger

WEB = Path(__file__).parent.parent / "src" / "enlarger" / "web"
BEFORE_QUALITY = 82
AFTER_QUALITY = 41


def main() -> None:
    sample = WEB / "sample.png"
    before, after = WEB / "demo-before.webp", WEB / "demo-after.avif"
    result = enlarger.upscale(sample, model="RealESRGAN_x4plus", scale=4)
    pyvips.Image.new_from_file(str(sample)).webpsave(
        str(before), Q=BEFORE_QUALITY, effort=6, smart_subsample=True, keep="none"
    )
    pyvips.Image.new_from_array(result.pixels, interpretation="srgb").heifsave(
        str(after), compression="av1", Q=AFTER_QUALITY, effort=9, keep="none"
    )
    for path in (before, after):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
