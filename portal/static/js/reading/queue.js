// Changes on their way to the server: one after another, each with its own key, kept over a reload, sent again with
// the same key after a lost connection, so that nothing is lost and nothing happens twice.
import { post, Refused } from '../app.js';

export class Queue extends EventTarget {
  constructor(caseId) {
    super();
    this.name = `hv-queue-${caseId}`;
    this.entries = JSON.parse(sessionStorage.getItem(this.name) || '[]');
    this.sending = false;
    this.wait = 1000;
    window.addEventListener('online', () => this.send());
  }

  get size() {
    return this.entries.length;
  }

  add(url, fields) {
    this.entries.push({ url, fields: { ...fields, idempotency_key: crypto.randomUUID() } });
    this.keep();
    this.send();
  }

  keep() {
    if (this.entries.length) sessionStorage.setItem(this.name, JSON.stringify(this.entries));
    else sessionStorage.removeItem(this.name);
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    while (this.entries.length) {
      const [entry] = this.entries;
      this.tell('sending');
      try {
        const result = await post(entry.url, entry.fields);
        this.entries.shift();
        this.keep();
        this.wait = 1000;
        this.tell('result', { result, pending: new Set(this.entries.flatMap((later) => later.fields.cell_id ?? [])) });
      } catch (error) {
        if (error instanceof Refused && error.status < 500) {
          this.entries = [];
          this.keep();
          this.tell('refused', { error });
        } else {
          this.sending = false;
          this.tell('waiting');
          setTimeout(() => this.send(), this.wait);
          this.wait = Math.min(this.wait * 2, 15000);
          return;
        }
      }
    }
    this.sending = false;
    this.tell('idle');
  }

  /** Resolves once everything is with the server. */
  settled() {
    if (!this.entries.length && !this.sending) return Promise.resolve();
    return new Promise((resolve) => this.addEventListener('idle', resolve, { once: true }));
  }

  tell(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
