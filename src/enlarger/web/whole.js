// Whole: a small picture as it is, every pixel of the file itself; drawn like a Pyramid. Larger ones come as tiles.

const MAX_PIXELS = 16e6; // decoded: 64 MB
const SHOWN = /\.(png|jpe?g|webp|avif|gif)$/;

export function fitsWhole(width, height) {
  return width * height <= MAX_PIXELS;
}

export function browserShows(url) {
  return SHOWN.test(new URL(url, location.origin).pathname);
}

export class Whole {
  #bitmap;

  // blob: of the file. Rejects where the browser cannot read it.
  static async of(blob) {
    const whole = new Whole();
    whole.#bitmap = await createImageBitmap(blob);
    whole.width = whole.#bitmap.width;
    whole.height = whole.#bitmap.height;
    return whole;
  }

  get bitmap() { return this.#bitmap; }

  draw(context, part, place) {
    const from = place(0, 0);
    const to = place(this.width, this.height);
    const [x, y] = [Math.round(from.x), Math.round(from.y)];
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#bitmap, x, y, Math.round(to.x) - x, Math.round(to.y) - y);
  }

  close() { this.#bitmap.close(); }
}
