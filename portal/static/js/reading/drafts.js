// What is being written and no one has yet: whole forms but their passwords, kept over a closed tab and an ended session
// until the centre has them. Tabs of one case show the newest edit. `app.js` drops them all at sign-out. What was written
// over a text that the centre no longer has, or before a signature, is offered and never put in place by itself.
import { el } from '../elements.js';
import { Shelf } from './shelf.js';

const OPEN = ['available', 'claimed', 'in_review', 'ready'];

const BASES = 8;
const live = [];

export function shelfOf(store) {
  const shelf = new Shelf(localStorage, `hv-draft/${store.userId}/${store.case.case_id}/`);
  live.push(shelf);
  return shelf;
}

/** The case is signed: nothing that was meant for it is kept, nor what answers under way leave over. */
export function dropDrafts(store) {
  clear(shelfOf(store));
  for (const shelf of live) shelf.close();
}

export function dropWhereSigned(store) {
  if (!OPEN.includes(store.case.state)) clear(shelfOf(store));
}

function clear(shelf) {
  for (const name of shelf.names()) shelf.remove(name);
}

export class Draft {
  /** `filled` hears that fields were set from elsewhere, with the `note` that was kept beside them; `elsewhere` that they were sent there. */
  constructor(form, name, store, { filled = () => {}, note = () => null, elsewhere = () => {} } = {}) {
    Object.assign(this, { form, name, filled, note, elsewhere });
    this.shelf = shelfOf(store);
    this.report = store.case.report_id ?? null;
    this.touched = new Set();
    this.base = new Map(); // field → what the centre may have of it, the surest first
    this.at = 0;
    form.addEventListener('input', (event) => this.edited(event.target));
    window.addEventListener('storage', (event) => {
      if (event.key === this.shelf.prefix + name) this.heard(event.newValue);
    });
  }

  /** Whether this field was written in and the centre does not have it. */
  holds(name) {
    return this.touched.has(name);
  }

  edited(field) {
    const name = nameOf(field);
    if (!name) return;
    this.touched.add(name);
    if (!this.base.has(name)) this.base.set(name, [servedOf(field)]);
    this.at = Date.now();
    this.write();
  }

  /** What the centre may have of a field: it takes what was written over that, and nothing written over another text. */
  bases(name) {
    return this.base.get(name) ?? [servedOf(this.field(name))];
  }

  write() {
    if (!this.touched.size) return this.shelf.remove(this.name);
    const { at, report } = this;
    const base = Object.fromEntries([...this.touched].map((name) => [name, this.base.get(name)]));
    return this.shelf.set(this.name, JSON.stringify({ at, report, base, fields: this.fields(), note: this.note() }));
  }

  field(name) {
    return [...this.form.elements].find((field) => nameOf(field) === name);
  }

  /** What was touched, as it stands now. */
  fields() {
    return Object.fromEntries([...this.form.elements].filter((field) => this.touched.has(nameOf(field))).map((field) => [nameOf(field), valueOf(field)]));
  }

  /** Take what an earlier tab left, where this page still shows what it was written over; true where there was some. */
  restore() {
    const text = this.shelf.get(this.name);
    const left = text ? JSON.parse(text) : { fields: {} };
    const past = {};
    for (const [name, value] of Object.entries(left.fields)) {
      const field = this.field(name);
      if (field && left.report === this.report && left.base?.[name]?.some((one) => same(field, one, servedOf(field)))) continue;
      if (!field || !same(field, value, servedOf(field))) past[name] = value;
      delete left.fields[name];
    }
    if (Object.keys(past).length) this.shelf.set(`${this.name}/was-${left.at}`, JSON.stringify({ at: left.at, fields: past, note: left.note }));
    const taken = Object.keys(left.fields).length > 0;
    if (taken) this.fill(left);
    if (text) this.write();
    for (const name of this.shelf.names()) if (name.startsWith(`${this.name}/was-`)) this.offer(name);
    return taken;
  }

  /** Show what is not put in place by itself. */
  offer(key) {
    const { at, fields, note } = JSON.parse(this.shelf.get(key));
    const lines = Object.entries(fields).map(([name, value]) => wordsOf(this.field(name), value)).filter(Boolean);
    if (!lines.length) {
      this.shelf.remove(key);
      return;
    }
    const use = el('button', { type: 'button', class: 'btn' }, 'Use it');
    const drop = el('button', { type: 'button', class: 'btn quiet' }, 'Drop it');
    const when = new Date(at).toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
    const box = el('div', { class: 'notice warn was' }, el('strong', {}, `What you had written here on ${when}, before this case was changed`),
      ...lines.map((one) => el('p', {}, one)), el('div', { class: 'acts' }, use, drop));
    const done = () => {
      this.shelf.remove(key);
      box.remove();
    };
    use.addEventListener('click', () => {
      const set = this.put(fields);
      this.filled(note);
      for (const field of set) field.dispatchEvent(new Event('input', { bubbles: true })); // as if typed: kept, and sent
      done();
    });
    drop.addEventListener('click', done);
    const head = this.form.querySelector('h2')?.parentElement; // the title of a dialog stays first
    if (head && head !== this.form) head.after(box);
    else this.form.prepend(box);
  }

  heard(text) {
    const left = text && JSON.parse(text);
    if (!text) {
      // The centre has it: what both tabs show stays.
      for (const [name, value] of Object.entries(this.fields())) this.base.set(name, [value]);
      this.touched.clear();
      this.elsewhere();
    } else if (left.report === this.report && left.at >= this.at) {
      this.fill({ ...left, note: null });
    }
  }

  fill({ at, base, fields, note }) {
    this.at = at;
    this.touched = new Set(Object.keys(fields));
    for (const name of this.touched) this.base.set(name, base[name]);
    this.put(fields);
    this.filled(note);
  }

  /** Set fields; returns those that changed. */
  put(fields) {
    const changed = [...this.form.elements].filter((field) => ![undefined, valueOf(field)].includes(fields[nameOf(field)]));
    for (const field of changed) field[chosen(field) ? 'checked' : 'value'] = fields[nameOf(field)];
    return changed;
  }

  /** These `fields` are on their way: the centre may have them even if its answer is lost. */
  sending(fields) {
    for (const [name, value] of Object.entries(fields)) {
      const [first = value, ...more] = this.base.get(name) ?? [];
      this.base.set(name, [first, ...more, value].filter((one, i, all) => i === 0 || i > all.length - BASES));
    }
    this.write();
  }

  /** The centre has these `fields`; what was changed since stays here. */
  sent(fields) {
    const now = this.fields();
    for (const [name, value] of Object.entries(fields)) {
      const base = this.base.get(name) ?? [];
      this.base.set(name, [value, ...base.slice(base.lastIndexOf(value) + 1)]);
      if (now[name] === value) this.touched.delete(name);
    }
    this.write();
  }

  drop() {
    this.touched.clear();
    this.write();
  }
}

const chosen = (field) => ['checkbox', 'radio'].includes(field.type);
const valueOf = (field) => (chosen(field) ? field.checked : field.value);
/** What the centre had of a field when it sent this page. */
const servedOf = (field) => (chosen(field) ? field.defaultChecked : field.defaultValue ?? '');

/** Whether two values are one to the centre: it strips texts, and writes 61,50 as 61.5. */
function same(field, one, other) {
  const plain = (value) => String(value).trim().replaceAll('\r\n', '\n');
  const number = (value) => (plain(value) ? Number(plain(value).replace(',', '.')) : NaN);
  return plain(one) === plain(other) || (field.inputMode === 'decimal' && number(one) === number(other));
}

/** What a person reads of a value: a text with its label, the label alone of what was ticked. */
function wordsOf(field, value) {
  const label = field?.getAttribute('aria-label') ?? field?.labels?.[0]?.textContent.trim().replace(/\s+/g, ' ') ?? '';
  if (typeof value === 'boolean') return value ? label : '';
  const text = [...(field?.options ?? [])].find((one) => one.value === value)?.text ?? value.trim();
  return text && label ? `${label}: ${text}` : text;
}

function nameOf(field) {
  if (!field.name || ['password', 'hidden', 'submit', 'button'].includes(field.type)) return null;
  return field.id || (chosen(field) ? `${field.name}=${field.value}` : field.name);
}
