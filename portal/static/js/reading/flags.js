// Flags and image quality, and what the signature says of them: the server draws these, and again once the hospital has
// sent more of the smear. A flag that fired meanwhile must be seen before anything is signed.
import { dialogOpen, say } from '../app.js';

// Each with its severity and evidence, which can change under the same id.
const said = (flags) => flags.map((flag) => flag.shown).sort().join(' ');

export class Flags {
  constructor(store, queue, address) {
    Object.assign(this, { store, queue, address });
    this.known = said(store.case.flags);
    this.stale = false;
    store.addEventListener('flags', () => {
      this.stale = true;
      this.renew();
    });
    queue.addEventListener('idle', () => this.renew());
    // What is open is not changed under a reader's hands; that it closed does not bubble.
    document.addEventListener('close', () => this.renew(), true);
    window.addEventListener('online', () => this.renew());
  }

  /** Take them anew, if they are old; true where a flag came, went or says something else. What is chosen, typed and dismissed stays. */
  async renew() {
    if (!this.stale || this.queue.size || dialogOpen()) return false;
    this.asked ??= this.fetch().finally(() => { this.asked = null; });
    return this.asked;
  }

  /** Whether they are as the centre has them, renewed where need be: nothing is signed over old ones. */
  async ready() {
    await this.renew();
    return !this.stale;
  }

  async fetch() {
    // Nobody asked for it; without a connection: once it is back.
    const answer = await fetch(this.address, { headers: { 'X-Unasked': 'true' } }).catch(() => null);
    if (!answer?.ok) return false;
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const data = page.getElementById('room-data');
    if (!data || this.queue.size || dialogOpen()) return false;
    this.stale = false;
    this.show(page, JSON.parse(data.textContent));
    const now = said(this.store.case.flags);
    const changed = now !== this.known;
    this.known = now;
    if (changed) say('More cells came and changed the flags: look at them before you sign.', { seconds: 0 });
    return changed;
  }

  show(page, { case: { flags, quality }, limits }) {
    Object.assign(this.store.case, { flags, quality });
    this.store.limits = limits;
    const pressed = document.querySelector('[data-flag][aria-pressed="true"]')?.dataset.flag;
    const focused = document.activeElement?.dataset.flag;
    const shown = (one) => one.querySelector('[name=shown]').value;
    const decided = new Map([...document.querySelectorAll('#sign-flags .decide')].map((one) => [shown(one), one]));
    for (const id of ['tab-flags', 'panel-flags', 'sign-flags']) {
      const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
      if (old && fresh) old.replaceChildren(...fresh.childNodes);
    }
    for (const one of document.querySelectorAll('#sign-flags .decide')) {
      const before = decided.get(shown(one));
      if (!before) continue;
      for (const name of ['dismissed', 'reason']) one.querySelector(`[name=${name}]`).replaceWith(before.querySelector(`[name=${name}]`));
    }
    const form = document.getElementById('sign-flags');
    if (form) form.hidden = !flags.length;
    const impression = document.getElementById('impression');
    const proposal = page.getElementById('impression')?.dataset.proposal ?? '';
    if (impression.value && impression.value === impression.dataset.proposal) impression.value = proposal;
    impression.dataset.proposal = proposal;
    this.again(pressed, focused);
  }

  /** The evidence that was on show stays on show, as far as there is some. */
  again(pressed, focused) {
    const flag = this.store.case.flags.find((one) => one.id === pressed);
    const button = (id) => document.querySelector(`[data-flag="${id}"]`);
    if (flag) button(flag.id)?.setAttribute('aria-pressed', 'true');
    this.store.evidence = new Set(flag?.evidence.cells ?? []);
    this.store.emit('evidence');
    if (focused) (button(focused) ?? document.getElementById('tab-flags')).focus({ preventScroll: true });
    this.store.emit('cells', { moved: [] }); // limits are drawn beside the differential
  }
}
