// When the centre did not take an act, the session ended, or another tab or reader was faster: said, and a way on.
import { get, say } from '../app.js';
import { el } from '../elements.js';

export class Trouble {
  constructor(store, queue, address) {
    this.store = store;
    this.queue = queue;
    this.address = address;
    this.conflict = document.getElementById('conflict');
    this.expired = document.getElementById('expired');
    this.refused = [];
    document.getElementById('conflict-again').addEventListener('click', () => this.again());
    this.conflict.addEventListener('close', () => { this.refused = []; });
    // Escape must not hide that nothing is saved any more.
    this.expired.addEventListener('cancel', (event) => event.preventDefault());
    queue.addEventListener('refused', (event) => this.onRefused(event.detail.refused));
    queue.addEventListener('expired', () => this.onExpired());
    queue.addEventListener('left', (event) => this.onLeft(event.detail));
  }

  /** Take the case as the centre has it; false where it does not answer. */
  async reload() {
    try {
      const view = await get(`${this.address}.json`);
      this.store.replace(view);
      this.held = view.claimed_by_id === this.store.userId;
      this.holder = view.claimed_by;
      this.until = view.lease_until;
      return true;
    } catch {
      return false;
    }
  }

  async onRefused(refused) {
    this.refused.push(...refused);
    await this.reload();
    const lines = this.refused.map(({ entry, message }) => el('li', {}, el('b', {}, entry.words || 'One act'), el('span', { class: 'muted' }, ` ${message}`)));
    document.getElementById('conflict-list').replaceChildren(...lines);
    const lost = this.held === false;
    document.getElementById('conflict-why').textContent = lost
      ? `${this.holder ?? 'Nobody'} holds the case now. What you see is what the centre has.`
      : 'The case was changed from elsewhere. What you see now is what the centre has.';
    document.getElementById('conflict-again').hidden = lost;
    document.getElementById('conflict-reload').hidden = !lost;
    if (!this.conflict.open) this.conflict.showModal();
  }

  again() {
    const { refused } = this;
    this.conflict.close();
    for (const { entry } of refused) {
      const { idempotency_key: _, ...fields } = entry.fields;
      this.queue.add(entry.url, fields, { touches: entry.touches, words: entry.words });
    }
  }

  onExpired() {
    const waiting = this.queue.size;
    document.getElementById('expired-what').textContent = waiting
      ? `${waiting} ${waiting === 1 ? 'change waits' : 'changes wait'} here and will be saved after you sign in.`
      : 'Everything was saved; your draft is kept.';
    if (!this.expired.open) this.expired.showModal();
  }

  onLeft({ how, to }) {
    say(how === 'signed' ? 'Signed in another tab.' : 'Given back in another tab.');
    setTimeout(() => location.assign(to ?? this.address), 800);
  }
}
