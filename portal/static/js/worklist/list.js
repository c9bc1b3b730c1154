// The worklist's lines: replaced, put in and taken out one by one, so that focus, choice and scroll stay where they are.
import { get } from '../app.js';

const before = (a, b) => {
  for (let i = 0; i < a.length; i += 1) {
    if (a[i] !== b[i]) return a[i] < b[i];
  }
  return false;
};

export class List extends EventTarget {
  constructor(root, form) {
    super();
    this.root = root;
    this.form = form;
    this.table = root.querySelector('table');
    this.body = root.querySelector('tbody');
    this.more = root.dataset.more === 'yes';
    this.matching = this.body.rows.length;
    this.turn = 0;
  }

  get rows() {
    return [...this.body.rows];
  }

  get last() {
    return this.body.rows[this.body.rows.length - 1];
  }

  /** What the filters ask for, as an address's query. */
  query(further = {}) {
    const fields = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) if (value) fields.append(name, value);
    for (const [name, value] of Object.entries(further)) [value].flat().forEach((one) => fields.append(name, one));
    return fields.toString();
  }

  async get(path, further, headers = {}) {
    return get(`${path}?${this.query(further)}`, { headers: { Accept: 'application/json', ...headers } }).catch((problem) => {
      if (problem.status === 401) location.reload();
      throw problem;
    });
  }

  /** Other filters or another order: everything anew; `most`: nobody asked. Only the newest answer counts. */
  async reload(most) {
    const turn = (this.turn += 1);
    const told = await (most ? this.get('/worklist/rows', { most }, { 'X-Unasked': 'true' }) : this.get('/worklist/rows'));
    if (turn !== this.turn) return;
    this.more = told.more;
    const wanted = new Set(told.rows.map((row) => row.id));
    for (const row of this.rows) if (!wanted.has(row.dataset.case)) this.remove(row);
    told.rows.forEach((row, at) => {
      const made = this.replace(row);
      if (this.body.rows[at] !== made) this.body.insertBefore(made, this.body.rows[at] ?? null);
    });
    document.getElementById('none').innerHTML = told.empty;
    this.told(told);
  }

  /** The same list once more, as far as it is shown: after a lost connection, or without a live one. */
  refresh() {
    return this.reload(Math.min(1000, Math.max(100, this.body.rows.length)));
  }

  async next() {
    if (!this.more || this.loading) return;
    this.loading = true;
    const turn = this.turn;
    try {
      const told = await this.get('/worklist/rows', { after: this.last.dataset.case });
      if (turn !== this.turn) return void this.dispatchEvent(new Event('shown'));
      this.more = told.more;
      for (const row of told.rows) {
        const known = this.find(row.id);
        if (!known) this.body.append(this.made(row));
      }
      this.told(told);
    } finally {
      this.loading = false;
    }
  }

  /** Some lines have changed: they are put where they belong now, or go. */
  async changed(ids) {
    // As many as are told at once; of more, the list is read anew.
    if (ids.length > 200) return this.refresh();
    const turn = this.turn;
    const told = await this.get('/worklist/lines', { case_id: ids });
    if (turn !== this.turn) return;
    const found = new Set(told.rows.map((row) => row.id));
    for (const id of ids) if (!found.has(id)) this.remove(this.find(id));
    for (const row of told.rows) this.place(row);
    if (this.body.rows.length) document.getElementById('none').replaceChildren();
    this.told(told);
  }

  place(row) {
    const known = this.find(row.id);
    if (known && known.dataset.key === JSON.stringify(row.key)) {
      this.replace(row);
      return;
    }
    const down = this.form.elements.down.value === '1';
    const next = this.rows.find((other) => other !== known && (down ? before(JSON.parse(other.dataset.key), row.key) : before(row.key, JSON.parse(other.dataset.key))));
    if (!next && this.more) {
      // Behind what is shown: it comes when the list is read that far.
      this.remove(known);
      return;
    }
    const made = this.replace(row);
    if (made.nextElementSibling !== (next ?? null) || !made.parentElement) this.keepingFocus(made, () => this.body.insertBefore(made, next ?? null));
    if (!known) made.classList.add('new');
  }

  find(id) {
    return document.getElementById(`row-${id}`);
  }

  made(row) {
    const holder = document.createElement('template');
    holder.innerHTML = row.html.trim();
    const made = holder.content.firstElementChild;
    made.dataset.key = JSON.stringify(row.key);
    this.dispatchEvent(new CustomEvent('made', { detail: made }));
    return made;
  }

  /** Return the line as it is now; a line that is shown stays the same element, so that focus and pointer stay with it. */
  replace(row) {
    const known = this.find(row.id);
    const made = this.made(row);
    if (!known) return made;
    if (known.innerHTML !== made.innerHTML) {
      this.keepingFocus(known, () => known.replaceChildren(...made.childNodes));
      this.dispatchEvent(new CustomEvent('made', { detail: known }));
    }
    for (const name of ['key', 'got', 'due']) {
      if (made.dataset[name] === undefined) delete known.dataset[name];
      else known.dataset[name] = made.dataset[name];
    }
    return known;
  }

  keepingFocus(row, change) {
    const focused = row.contains(document.activeElement) ? document.activeElement.tagName : '';
    change();
    if (focused) row.querySelector(focused === 'INPUT' ? 'input' : 'a.row')?.focus({ preventScroll: true });
  }

  remove(row) {
    if (!row) return;
    if (row.contains(document.activeElement)) (row.nextElementSibling ?? row.previousElementSibling)?.querySelector('a.row')?.focus({ preventScroll: true });
    row.remove();
  }

  told(told) {
    this.matching = told.matching;
    document.getElementById('tally').innerHTML = told.tally;
    document.title = `${told.title} · Hematovision`;
    this.table.hidden = !this.body.rows.length;
    const shown = this.body.rows.length;
    document.getElementById('shown').textContent = `${shown} of ${String(Math.max(told.matching, shown)).replace(/\B(?=(\d{3})+$)/g, '\u202f')}`;
    document.querySelector('#more .btn').hidden = !this.more;
    this.dispatchEvent(new Event('shown'));
  }
}
