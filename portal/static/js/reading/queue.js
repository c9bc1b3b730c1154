// Acts on their way to the server: one after another, each under its own key, kept over a reload and a closed tab, sent
// again under the same key after a lost connection: nothing is lost, nothing happens twice. Tabs of one reader share the
// queue: one of them sends at a time and tells the others what came back.
import { post, Refused } from '../app.js';
import { Shelf } from './shelf.js';

const LONGEST_WAIT = 15000;
const LATER = new Set([408, 425, 429]);

export class Queue extends EventTarget {
  constructor(caseId, userId) {
    super();
    this.name = `hv-acts/${userId}/${caseId}/`;
    this.shelf = new Shelf(localStorage, this.name);
    this.sending = false;
    this.stopped = false;
    this.wait = 1000;
    this.timer = 0;
    this.stamp = 0;
    this.channel = 'BroadcastChannel' in window ? new BroadcastChannel(this.name) : null;
    this.channel?.addEventListener('message', ({ data }) => this.tell(data.kind, { ...data.detail, elsewhere: true }));
    window.addEventListener('online', () => this.send());
  }

  get entries() {
    // Another tab may have sent one between its name and its content.
    return this.shelf.names().map((id) => [id, this.shelf.get(id)]).filter(([, text]) => text)
      .map(([id, text]) => ({ id, ...JSON.parse(text) }));
  }

  /** How many acts wait, those aside that nobody sees (which groups were on screen). */
  get size() {
    return this.entries.filter((entry) => !entry.quiet).length;
  }

  /** `touches`: cells that must show this act until its answer has come; `words`: what it is, should it be refused. */
  add(url, fields, { touches = [], words = '', quiet = false } = {}) {
    const last = Number(this.shelf.names().at(-1)?.slice(0, 17) ?? 0);
    this.stamp = Math.max(Date.now() * 1000, this.stamp + 1, last + 1);
    const key = crypto.randomUUID();
    const entry = { url, fields: { ...fields, idempotency_key: key }, touches, words, quiet };
    this.shelf.set(`${String(this.stamp).padStart(17, '0')}-${key}`, JSON.stringify(entry));
    if (this.stopped) this.tell('expired');
    else if (!quiet) this.tell('sending');
    this.send();
  }

  async send() {
    if (this.sending || this.stopped) return;
    this.sending = true;
    clearTimeout(this.timer);
    await exclusively(this.name, () => this.drain());
    this.sending = false;
    if (this.stopped || this.timer) return;
    if (this.entries.length) this.send();
    else {
      this.tell('idle');
      window.dispatchEvent(new Event('allsaved')); // a sign-out may wait for it
    }
  }

  async drain() {
    const refused = [];
    this.timer = 0;
    for (let entry = this.entries[0]; entry; [entry] = this.entries) {
      try {
        const result = await post(entry.url, entry.fields);
        this.shelf.remove(entry.id);
        this.wait = 1000;
        this.answered(entry, result);
      } catch (error) {
        const status = error instanceof Refused ? error.status : 0;
        if (status === 401 || status === 403) {
          // The session has ended, or another one began: what waits is kept for after this person's sign-in.
          this.stopped = true;
          this.tell('expired');
          break;
        }
        if (!status || status >= 500 || LATER.has(status)) {
          this.timer = setTimeout(() => {
            this.timer = 0;
            this.send();
          }, this.wait);
          this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
          this.tell('waiting');
          break;
        }
        this.shelf.remove(entry.id);
        if (!entry.quiet) refused.push({ entry, message: error.message });
      }
    }
    if (refused.length) this.tell('refused', { refused });
  }

  answered(entry, result) {
    const pending = this.entries.flatMap((later) => later.touches);
    const kind = entry.quiet ? 'noted' : 'result';
    this.tell(kind, { result, pending, touches: entry.touches });
    this.channel?.postMessage({ kind, detail: { result, pending } });
  }

  /** Tell the other tabs something that they must not miss. */
  announce(kind, detail = {}) {
    this.channel?.postMessage({ kind, detail });
  }

  /** Resolves once everything is with the server. */
  settled() {
    if (!this.entries.length && !this.sending) return Promise.resolve();
    return new Promise((resolve) => {
      this.addEventListener('idle', resolve, { once: true });
      this.send(); // another tab may be at it, and does not tell this one that it is done
    });
  }

  tell(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

/** Run one tab at a time, where the browser has locks (a secure context); elsewhere the keys alone keep acts single. */
function exclusively(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}
