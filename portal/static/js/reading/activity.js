// That somebody is at work, in counts only: how often keys and pointer were used, never which key or where.
import { csrf } from '../app.js';

const EVERY = 15000;

export class Activity {
  constructor(store, address) {
    this.url = `${address}/activity`;
    this.keys = 0;
    this.clicks = 0;
    if (!store.mine) return;
    document.addEventListener('keydown', (event) => {
      if (!event.repeat && !['Shift', 'Control', 'Alt', 'Meta', 'AltGraph'].includes(event.key)) this.keys += 1;
    }, true);
    document.addEventListener('pointerdown', () => {
      this.clicks += 1;
    }, true);
    // Looking around is work too: whoever scrolls or moves the field is there.
    for (const kind of ['wheel', 'pointermove']) document.addEventListener(kind, () => { this.moved = true; }, { capture: true, passive: true });
    setInterval(() => this.tell(), EVERY);
    window.addEventListener('pagehide', () => this.tell());
  }

  take() {
    const counts = { keys: this.keys, clicks: this.clicks };
    [this.keys, this.clicks, this.moved] = [0, 0, false];
    return counts;
  }

  tell() {
    if (!this.keys && !this.clicks && !this.moved) return;
    navigator.sendBeacon(this.url, new URLSearchParams({ ...this.take(), csrf_token: csrf() }));
  }

  /** Let a form take the last counts along, so that the act that ends a reading knows them. */
  joins(form) {
    form?.addEventListener('formdata', ({ formData }) => {
      for (const [name, count] of Object.entries(this.take())) formData.set(name, count);
    });
  }
}
