// Pictures of cells, many in one answer: those near the screen, the first rows first.
const FIRST = 14;
const MOST = 48;
const NEAR = '2400px 0px';

export class Thumbnails {
  constructor(root, address) {
    this.address = address;
    this.names = new Map();
    this.first = [];
    this.waiting = [];
    this.asked = 0;
    this.near = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        this.near.unobserve(target);
        this.waiting.push(target);
      }
      this.next();
    }, { root, rootMargin: NEAR });
  }

  show(image, name) {
    this.names.set(image, name);
    if (this.first) this.first.push(image);
    else this.near.observe(image);
  }

  /** All that the gallery begins with were told of: what stands first needs no look at where it stands. */
  async begin() {
    const { first } = this;
    this.first = null;
    for (const image of first.splice(FIRST)) this.near.observe(image);
    if (first.length) await this.fetch(first);
    await Promise.allSettled(first.map((image) => image.decode()));
  }

  /** Two answers at a time: the second is made while the first is drawn. */
  next() {
    while (this.waiting.length && this.asked < 2) this.fetch(this.waiting.splice(0, MOST));
  }

  async fetch(images) {
    this.asked += 1;
    const parts = await this.parts(images.map((image) => this.names.get(image)));
    images.forEach((image, at) => {
      // What did not come is asked for by itself: the browser then says why.
      image.src = parts[at] || `${this.address}/blobs/${encodeURIComponent(this.names.get(image))}`;
    });
    this.asked -= 1;
    this.next();
  }

  parts(names) {
    return fetch(`${this.address}/images?${new URLSearchParams(names.map((name) => ['name', name]))}`)
      .then(async (answer) => (answer.ok ? split(await answer.arrayBuffer()) : []))
      .catch(() => []);
  }
}

/** Addresses of the pictures in an answer: of each its length, then itself. */
function split(buffer) {
  const found = [];
  for (let at = 0, view = new DataView(buffer); at < buffer.byteLength;) {
    const length = view.getUint32(at);
    const bytes = new Uint8Array(buffer, at + 4, length);
    found.push(length && URL.createObjectURL(new Blob([bytes])));
    at += 4 + length;
  }
  return found;
}
