// A small store that outlives a reload; in memory alone where the browser keeps none. Closed at sign-out: what answers and
// timers of this page bring after that is not kept any more.
export class Shelf {
  constructor(storage, prefix) {
    this.storage = storage;
    this.prefix = prefix;
    this.memory = new Map();
    this.closed = false;
    window.addEventListener('signout', () => this.close());
  }

  close() {
    this.closed = true;
    this.memory.clear();
  }

  set(name, value) {
    if (this.closed) return;
    try {
      this.storage.setItem(this.prefix + name, value);
      this.memory.delete(name);
    } catch {
      this.memory.set(name, value);
    }
  }

  get(name) {
    if (this.memory.has(name)) return this.memory.get(name);
    try {
      return this.storage.getItem(this.prefix + name);
    } catch {
      return null;
    }
  }

  remove(name) {
    this.memory.delete(name);
    try {
      this.storage.removeItem(this.prefix + name);
    } catch { /* nothing was kept there */ }
  }

  /** Names in order. */
  names() {
    const found = new Set(this.memory.keys());
    try {
      for (let i = 0; i < this.storage.length; i += 1) {
        const key = this.storage.key(i);
        if (key.startsWith(this.prefix)) found.add(key.slice(this.prefix.length));
      }
    } catch { /* as above */ }
    return [...found].sort();
  }
}
