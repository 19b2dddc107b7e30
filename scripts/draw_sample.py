"""Draws the sample picture of the README and the playground: a harbour at dusk, 192 × 128, from arithmetic.

It holds what an upscaler is judged by: a smooth gradient, fine texture, thin ropes, round shapes, writing.
Run it again and the same bytes come out:  python scripts/draw_sample.py
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyvips

WIDTH, HEIGHT = 192, 128
SUPERSAMPLING = 4
TARGET = Path(__file__).parent.parent / "src" / "enlarger" / "web" / "sample.png"

Plane = npt.NDArray[np.float64]
Colour = tuple[float, float, float]


class Canvas:
    """RGB light in [0, 1] on a grid of SUPERSAMPLING² points a pixel; coordinates are final pixels."""

    def __init__(self) -> None:
        rows, columns = np.mgrid[0 : HEIGHT * SUPERSAMPLING, 0 : WIDTH * SUPERSAMPLING]
        self.x: Plane = (columns + 0.5) / SUPERSAMPLING
        self.y: Plane = (rows + 0.5) / SUPERSAMPLING
        self.rgb: Plane = np.zeros((*self.x.shape, 3))

    def lay(self, cover: Plane | npt.NDArray[np.bool_], colour: Colour | Plane) -> None:
        """Paint `colour` where `cover` is 1, mixed in between."""
        weight = np.asarray(cover, dtype=np.float64)[..., None]
        self.rgb += (np.asarray(colour) - self.rgb) * weight

    def stroke(self, points: list[tuple[float, float]], width: float) -> npt.NDArray[np.bool_]:
        """Where a pen of `width` pixels, drawn through `points`, leaves ink."""
        ink = np.zeros(self.x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in pairwise(points):
            length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
            along = np.clip(((self.x - x0) * (x1 - x0) + (self.y - y0) * (y1 - y0)) / length, 0, 1)
            ink |= np.hypot(self.x - x0 - along * (x1 - x0), self.y - y0 - along * (y1 - y0)) <= width / 2
        return ink

    def disc(self, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
        return np.hypot(self.x - x, self.y - y) <= radius

    def pixels(self) -> npt.NDArray[np.uint8]:
        grid = self.rgb.reshape(HEIGHT, SUPERSAMPLING, WIDTH, SUPERSAMPLING, 3).mean(axis=(1, 3))
        return np.floor(np.clip(grid, 0, 1) * 255 + 0.5).astype(np.uint8)


def ramp(at: Plane, stops: list[tuple[float, Colour]]) -> Plane:
    """Colours between stops, linear."""
    places = [place for place, _ in stops]
    return np.stack(
        [np.interp(at, places, [colour[band] for _, colour in stops]) for band in range(3)], axis=-1
    )


def noise(canvas: Canvas, cell: float, seed: int, stretch: float = 1.0) -> Plane:
    """Smooth random values in [0, 1] whose grains are `cell` pixels high and `cell * stretch` wide."""
    lattice = np.random.default_rng(seed).random((512, 512))
    u, v = canvas.x / (cell * stretch), canvas.y / cell
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    s, t = ((u - i) ** 2 * (3 - 2 * (u - i))), ((v - j) ** 2 * (3 - 2 * (v - j)))
    upper = lattice[j, i] * (1 - s) + lattice[j, i + 1] * s
    lower = lattice[j + 1, i] * (1 - s) + lattice[j + 1, i + 1] * s
    return upper * (1 - t) + lower * t


HORIZON = 70.0


def sky(canvas: Canvas) -> None:
    height = canvas.y / HORIZON
    canvas.lay(
        np.ones_like(height),
        ramp(
            height,
            [
                (0.0, (0.13, 0.19, 0.40)),
                (0.45, (0.42, 0.38, 0.58)),
                (0.75, (0.88, 0.55, 0.48)),
                (1.0, (1.0, 0.80, 0.52)),
            ],
        ),
    )
    glow = np.exp(-(np.hypot(canvas.x - 62, canvas.y - 55) ** 2) / 900)
    canvas.lay(0.55 * glow, (1.0, 0.88, 0.62))
    canvas.lay(canvas.disc(62, 55, 9), (1.0, 0.95, 0.80))
    clouds = 0.6 * noise(canvas, 7, 1, stretch=5) + 0.4 * noise(canvas, 3, 2, stretch=6)
    band = np.clip((clouds - 0.48) * 4, 0, 1) * np.clip(1.1 - height, 0, 1)
    canvas.lay(0.55 * band, (1.0, 0.72, 0.66))
    for x, y, radius in np.random.default_rng(3).uniform((2, 2, 0.25), (190, 26, 0.55), (22, 3)):
        canvas.lay(0.9 * canvas.disc(x, y, radius), (1.0, 0.98, 0.90))


def hills(canvas: Canvas) -> None:
    for base, swing, seed, colour in ((60, 14, 4, (0.47, 0.36, 0.50)), (65, 11, 5, (0.28, 0.24, 0.38))):
        ridge = base - swing * (noise(canvas, 1e6, seed, stretch=2.4e-5) - 0.35)
        trees = 1.6 * noise(canvas, 1e6, seed + 10, stretch=1.5e-6)
        canvas.lay((canvas.y > ridge - trees) & (canvas.y < HORIZON + 1), colour)


def sea(canvas: Canvas) -> None:
    depth = np.clip((canvas.y - HORIZON) / (HEIGHT - HORIZON), 0, 1)
    below = canvas.y >= HORIZON
    canvas.lay(
        below, ramp(depth, [(0, (0.86, 0.60, 0.50)), (0.35, (0.42, 0.37, 0.52)), (1, (0.09, 0.15, 0.29))])
    )
    ripples = np.sin(np.maximum(canvas.y - HORIZON + 6, 0) ** 0.75 * 5.5 + 5 * noise(canvas, 6, 6, stretch=3))
    canvas.lay(below * 0.20 * np.clip(ripples, 0, 1), (1.0, 0.84, 0.68))
    canvas.lay(below * 0.22 * np.clip(-ripples, 0, 1), (0.05, 0.09, 0.22))
    path = np.exp(-(((canvas.x - 62) / (6 + 22 * depth)) ** 2)) * (ripples > 0.15)
    canvas.lay(below * 0.75 * path, (1.0, 0.90, 0.66))


def lighthouse(canvas: Canvas) -> None:
    rock = 84 - 18 * np.exp(-(((canvas.x - 160) / 24) ** 2)) + 3 * noise(canvas, 3, 7)
    stone = (canvas.y > rock) & (canvas.y < 82 + 3 * noise(canvas, 4, 8))
    grain = noise(canvas, 1.6, 9)
    canvas.lay(stone, ramp(grain, [(0, (0.10, 0.09, 0.14)), (1, (0.40, 0.33, 0.36))]))
    half = 5.2 + (canvas.y - 24) * 0.065
    tower = (np.abs(canvas.x - 158) < half) & (canvas.y > 24) & (canvas.y < 69)
    side = np.clip((canvas.x - 158) / half, -1, 1)
    stripe = np.mod(np.floor((canvas.y - 24 + 0.8 * np.sqrt(1 - side**2)) / 9), 2) == 0
    paint = np.where(stripe[..., None], (0.93, 0.90, 0.86), (0.80, 0.20, 0.20))
    canvas.lay(tower, paint * (0.72 - 0.34 * side)[..., None])
    canvas.lay((np.abs(canvas.x - 158) < 7.5) & (np.abs(canvas.y - 23.5) < 1.2), (0.16, 0.14, 0.20))
    canvas.lay((np.abs(canvas.x - 158) < 3.8) & (np.abs(canvas.y - 18.5) < 4.2), (1.0, 0.93, 0.60))
    for x in (154.2, 158.0, 161.8):
        canvas.lay(canvas.stroke([(x, 14), (x, 23)], 0.7), (0.16, 0.14, 0.20))
    canvas.lay((canvas.y < 14.5) & (canvas.disc(158, 15, 5.2)), (0.62, 0.14, 0.16))
    canvas.lay(canvas.stroke([(158, 10), (158, 5)], 0.8), (0.16, 0.14, 0.20))
    angle = np.abs(canvas.y - 18.5 - 0.10 * (154 - canvas.x))
    beam = np.clip(1 - angle / (1.5 + 0.13 * (154 - canvas.x)), 0, 1) * (canvas.x < 154)
    canvas.lay(0.42 * beam * np.exp((canvas.x - 154) / 60), (1.0, 0.95, 0.70))
    for y in (36, 53):
        canvas.lay(canvas.stroke([(158, y), (158, y + 3)], 2.2), (0.14, 0.12, 0.18))


def boat(canvas: Canvas) -> None:
    swell = canvas.x - 84
    hull = (canvas.y > 98 - 0.0020 * swell**2) & (canvas.y < 112 - 0.0062 * swell**2)
    planks = 0.5 + 0.5 * np.sin((canvas.y + 0.004 * swell**2) * 2.6)
    canvas.lay(hull, ramp(planks, [(0, (0.16, 0.25, 0.33)), (1, (0.26, 0.42, 0.48))]))
    rim = [(84.0 + d, 98 - 0.0020 * d**2) for d in range(-56, 58, 4)]
    canvas.lay(canvas.stroke(rim, 1.7), (0.93, 0.86, 0.72))
    mast, keel = (86.0, 34.0), (86.0, 98.0)
    for spar in ([mast, keel], [(86.0, 92.0), (118.0, 91.5)]):
        canvas.lay(canvas.stroke(spar, 1.6), (0.30, 0.19, 0.14))
    leech = 86 + 30 * np.sqrt(np.clip((canvas.y - 37) / 54, 0, 1))
    main = (canvas.x > 87.4) & (canvas.x < leech) & (canvas.y > 37) & (canvas.y < 91)
    weave = 0.5 + 0.25 * np.sin(canvas.x * 3.1) + 0.25 * np.sin(canvas.y * 3.1)
    shade = 0.90 - 0.010 * (canvas.x - 87) + 0.05 * weave
    canvas.lay(main, np.asarray((1.0, 0.94, 0.83)) * shade[..., None])
    for y in (50, 63, 77):
        reach = 86 + 30 * ((y - 37) / 54) ** 0.5
        canvas.lay(canvas.stroke([(87.6, y), (reach, y - 1.5)], 0.5), (0.62, 0.52, 0.46))
    luff = 84.6 - 26 * np.clip((canvas.y - 42) / 48, 0, 1) ** 1.15
    jib = (canvas.x < 84.4) & (canvas.x > luff) & (canvas.y > 42) & (canvas.y < 88)
    canvas.lay(jib, np.asarray((0.90, 0.42, 0.28)) * (0.78 + 0.008 * (84 - canvas.x))[..., None])
    for foot in ((40.0, 94.0), (128.0, 94.0)):
        canvas.lay(canvas.stroke([mast, foot], 0.45), (0.14, 0.11, 0.16))
    canvas.lay(canvas.stroke([(86, 34), (86, 29)], 0.7), (0.30, 0.19, 0.14))
    flag = (canvas.x > 86) & (canvas.x < 97) & (np.abs(canvas.y - 31.2 - np.sin(canvas.x * 0.7)) < 1.8)
    canvas.lay(flag, (0.97, 0.78, 0.22))
    name(canvas, 63, 101.3)


def name(canvas: Canvas, x: float, y: float) -> None:
    """ENLARGE in strokes on the bow: letters 4 wide, 6 high."""
    letters = {
        "E": [[(4, 0), (0, 0), (0, 6), (4, 6)], [(0, 3), (3, 3)]],
        "N": [[(0, 6), (0, 0), (4, 6), (4, 0)]],
        "L": [[(0, 0), (0, 6), (4, 6)]],
        "A": [[(0, 6), (2, 0), (4, 6)], [(1, 4), (3, 4)]],
        "R": [[(0, 6), (0, 0), (3.4, 0.4), (3.4, 2.6), (0, 3), (4, 6)]],
        "G": [[(4, 1), (2, 0), (0, 2), (0, 4), (2, 6), (4, 5), (4, 3.2), (2.4, 3.2)]],
    }
    for index, letter in enumerate("ENLARGE"):
        for line in letters[letter]:
            points = [(x + index * 6.2 + 0.9 * u, y + 0.9 * v) for u, v in line]
            canvas.lay(canvas.stroke(points, 0.85), (0.98, 0.92, 0.76))


def main() -> None:
    canvas = Canvas()
    for paint in (sky, hills, sea, lighthouse, boat):
        paint(canvas)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    image = pyvips.Image.new_from_array(canvas.pixels(), interpretation="srgb")
    image.write_to_file(str(TARGET), compression=9, strip=True)
    print(f"{TARGET.name}: {WIDTH} × {HEIGHT}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
