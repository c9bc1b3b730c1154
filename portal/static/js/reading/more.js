// "Count 100 more": what was asked of the hospital's node, what came, and when.
import { get, post, say } from '../app.js';
import { el } from '../elements.js';

const clock = (text) => new Date(text).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
const cells = (count) => `${count} ${count === 1 ? 'cell' : 'cells'} more`;
const OPEN = ['asked', 'taken', 'sent'];

export class More {
  /** `came` is called once further cells have joined the case. */
  constructor(address, came) {
    this.address = address;
    this.came = came;
    this.box = document.getElementById('more-cells');
    this.button = this.box.querySelector('button');
    this.load();
    // Notes such as "not heard since" come with time alone.
    setInterval(() => this.waiting && this.load(), 30_000);
  }

  get waiting() {
    return this.requests?.some((one) => OPEN.includes(one.state));
  }

  async load() {
    // Without a connection: the stream tells again.
    await get(`${this.address}/more`).then((told) => this.show(told)).catch(() => {});
  }

  async ask() {
    if (!this.button || this.button.disabled) return;
    this.button.disabled = true;
    try {
      this.show(await post(`${this.address}/more`));
    } catch (problem) {
      this.button.disabled = false;
      say(problem instanceof TypeError ? 'No connection to the centre: nothing was asked for.' : problem.message);
    }
  }

  show(requests) {
    const before = new Map((this.requests ?? []).map((one) => [one.request_id, one.state]));
    const news = this.requests && requests.some((one) => one.state === 'came' && before.get(one.request_id) !== 'came');
    this.requests = requests;
    if (this.button) this.button.disabled = Boolean(this.waiting);
    this.box.querySelector('ol').replaceChildren(...requests.map((one) => this.line(one)));
    if (news) this.came(requests.find((one) => one.state === 'came'));
  }

  line(one) {
    const words = {
      asked: '',
      taken: ' · the node looks further',
      sent: ' · sent, being checked',
      came: ` · came ${clock(one.changed_at)} · ${cells(one.cells)}`,
      refused: ` · ${clock(one.changed_at)} not sent`,
      failed: ` · ${clock(one.changed_at)} not taken in`,
    }[one.state];
    const parts = [el('span', {}, `asked ${clock(one.asked_at)}${words}`)];
    const why = one.reason || one.note;
    if (why) parts.push(el('span', { class: 'why' }, why));
    return el('li', { class: one.state, title: `Asked by ${one.asked_by}` }, ...parts);
  }
}
