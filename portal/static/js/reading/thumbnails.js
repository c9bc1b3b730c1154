// Pictures of cells, many in one answer: those near the screen, the first rows first.
const FIRST = 14;
const MOST = 48;
const NEAR = '2400px 0px';

export class Thumbnails {
  constructor(root, address) {
    this.address = address;
    this.names = new Map();
    this.waiting = [];
    this.size = FIRST;
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
    this.near.observe(image);
  }

  /** Two answers at a time: the second is made while the first is drawn. */
  next() {
    while (this.waiting.length && this.asked < 2) {
      this.fetch(this.waiting.splice(0, this.size));
      this.size = MOST;
    }
  }

  async fetch(images) {
    this.asked += 1;
    const parts = await this.parts(images.map((image) => this.names.get(image)));
    images.forEach((image, at) => {
      // What did not come is asked for by itself: the browser then says why.
      image.src = parts[at] ?? `${this.address}/blobs/${encodeURIComponent(this.names.get(image))}`;
    });
    this.asked -= 1;
    this.next();
  }

  async parts(names) {
    try {
      const answer = await fetch(`${this.address}/images?${new URLSearchParams(names.map((name) => ['name', name]))}`, { credentials: 'same-origin' });
      return answer.ok ? split(await answer.arrayBuffer()) : [];
    } catch {
      return [];
    }
  }
}

/** Addresses of the pictures in an answer: of each its length, then itself; none for an empty one. */
function split(buffer) {
  const found = [];
  for (let at = 0, view = new DataView(buffer); at < buffer.byteLength;) {
    const length = view.getUint32(at);
    const bytes = new Uint8Array(buffer, at + 4, length);
    found.push(length ? URL.createObjectURL(new Blob([bytes], { type: bytes[0] === 0x89 ? 'image/png' : 'image/jpeg' })) : undefined);
    at += 4 + length;
  }
  return found;
}
