// What is being written and no one has yet: whole forms but their passwords, kept over a closed tab and an ended session
// until the centre has them. Tabs of one case show the newest edit. `app.js` drops them all at sign-out.
import { Shelf } from './shelf.js';

const OPEN = ['available', 'claimed', 'in_review', 'ready'];

export const shelfOf = (store) => new Shelf(localStorage, `hv-draft/${store.userId}/${store.case.case_id}/`);

/** The case is signed: nothing that was meant for it is kept. */
export function dropDrafts(store) {
  const shelf = shelfOf(store);
  for (const name of shelf.names()) shelf.remove(name);
}

export function dropWhereSigned(store) {
  if (!OPEN.includes(store.case.state)) dropDrafts(store);
}

export class Draft {
  /** `filled` hears that fields were set from elsewhere; `note` is kept beside them. */
  constructor(form, name, store, { filled = () => {}, note = () => null } = {}) {
    Object.assign(this, { form, name, filled, note });
    this.shelf = shelfOf(store);
    this.touched = new Set();
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
    this.at = Date.now();
    this.write();
  }

  write() {
    if (this.touched.size) this.shelf.set(this.name, JSON.stringify({ at: this.at, fields: this.fields(), note: this.note() }));
    else this.shelf.remove(this.name);
  }

  /** What was touched, as it stands now. */
  fields() {
    return Object.fromEntries([...this.form.elements].filter((field) => this.touched.has(nameOf(field))).map((field) => [nameOf(field), valueOf(field)]));
  }

  /** Take what an earlier tab left; returns its note, or undefined where it left nothing. */
  restore() {
    const text = this.shelf.get(this.name);
    return text ? this.fill(text) : undefined;
  }

  heard(text) {
    if (!text) this.touched.clear(); // the centre has it: what both tabs show stays
    else if (JSON.parse(text).at >= this.at) this.fill(text);
  }

  fill(text) {
    const { at, fields, note } = JSON.parse(text);
    this.at = at;
    this.touched = new Set(Object.keys(fields));
    for (const field of this.form.elements) {
      const value = fields[nameOf(field)];
      if (value === undefined || value === valueOf(field)) continue;
      if (typeof value === 'boolean') field.checked = value;
      else field.value = value;
    }
    this.filled();
    return note;
  }

  /** The centre has these `fields`; what was changed since stays here. */
  sent(fields) {
    const now = this.fields();
    for (const [name, value] of Object.entries(fields)) if (now[name] === value) this.touched.delete(name);
    this.write();
  }

  drop() {
    this.touched.clear();
    this.write();
  }
}

const chosen = (field) => ['checkbox', 'radio'].includes(field.type);
const valueOf = (field) => (chosen(field) ? field.checked : field.value);

function nameOf(field) {
  if (!field.name || ['password', 'hidden', 'submit', 'button'].includes(field.type)) return null;
  return field.id || (chosen(field) ? `${field.name}=${field.value}` : field.name);
}
