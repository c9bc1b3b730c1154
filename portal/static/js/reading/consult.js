// Questions to colleagues: a drawer with the case's threads, and the form for a new one.
import { get, post, say } from '../app.js';
import { el } from '../elements.js';
import { Draft, shelfOf } from './drafts.js';
import { Mentions } from './mentions.js';

const when = (text) => new Date(text).toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

export class Consult {
  constructor(store, viewer, address, people) {
    Object.assign(this, { store, viewer, address, people });
    this.drawer = document.getElementById('consult');
    this.opener = document.getElementById('open-consult');
    this.list = document.getElementById('threads');
    this.form = document.getElementById('consult-ask');
    this.threads = [];
    this.opener.addEventListener('click', () => this.toggle());
    document.getElementById('consult-close').addEventListener('click', () => this.close());
    this.drawer.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && !event.defaultPrevented) this.close();
      else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) event.target.closest('form')?.requestSubmit();
      else return;
      event.stopPropagation();
    });
    this.form?.addEventListener('submit', (event) => this.ask(event));
    this.shelf = shelfOf(store);
    if (this.form) {
      new Mentions(this.form.querySelector('.mentions'), people);
      // A question on a cell must not come back as one on another.
      this.draft = new Draft(this.form, 'question', store, {
        note: () => store.focus,
        elsewhere: () => this.clear(),
        filled: (cell) => cell && this.form.elements.about.value === 'cell' && store.select(cell, { from: 'consult' }),
      });
      this.draft.restore();
    }
    store.addEventListener('select', () => {
      this.name();
      if (this.draft?.touched.size) this.draft.write();
    });
    this.load().then(() => {
      if (location.hash === '#consult') this.open(false);
    });
  }

  toggle() {
    if (this.drawer.hidden) this.open();
    else this.close();
  }

  open(focus = true) {
    this.back = document.activeElement;
    this.drawer.hidden = false;
    this.opener.setAttribute('aria-expanded', 'true');
    this.name();
    if (focus) (this.form?.elements.people ?? document.getElementById('consult-close')).focus();
    this.saw();
  }

  close() {
    this.drawer.hidden = true;
    this.opener.setAttribute('aria-expanded', 'false');
    this.viewer.point(null);
    this.back?.focus?.({ preventScroll: true });
  }

  name() {
    const cell = this.store.cells.get(this.store.focus);
    const words = document.getElementById('about-cell');
    if (words) words.textContent = cell ? `cell ${cell.number}, ${this.store.name(cell.current_class)}` : 'this cell';
  }

  async load() {
    // Without a connection: the stream tells again.
    await get(`${this.address}/consult`).then((told) => this.show(told)).catch(() => {});
  }

  async saw() {
    if (this.drawer.hidden || document.hidden || !this.form || !this.threads.some((thread) => thread.unread)) return;
    await post(`${this.address}/consult/seen`).then(() => this.opener.classList.remove('unread'), () => {});
  }

  /** Others have written: what is being typed stays. */
  async heard() {
    const before = this.threads.flatMap((thread) => thread.messages).length;
    await this.load();
    const all = this.threads.flatMap((thread) => thread.messages);
    const last = all.reduce((a, b) => (a && a.at > b.at ? a : b), null);
    if (this.drawer.hidden && all.length > before && last.author_id !== this.store.userId) say(`${last.author} has written about this case (shift C).`);
    this.saw();
  }

  show(threads) {
    const drafts = new Map([...this.list.querySelectorAll('.thread')].map((one) => [one.dataset.thread, one.querySelector('textarea')?.value]));
    const focused = document.activeElement.closest?.('.thread')?.dataset.thread;
    const caret = focused && document.activeElement.selectionStart;
    this.threads = threads;
    this.list.replaceChildren(...threads.map((thread) => this.thread(thread, drafts.get(thread.id))));
    if (focused) {
      const field = this.list.querySelector(`[data-thread="${focused}"] textarea`);
      field?.focus();
      if (caret !== null && caret !== undefined) field?.setSelectionRange(caret, caret);
    }
    document.getElementById('consult-none').hidden = threads.length > 0;
    const open = threads.filter((thread) => !thread.resolved).length;
    const unread = threads.some((thread) => thread.unread);
    this.opener.classList.toggle('unread', unread);
    this.opener.querySelector('.count').textContent = open || '';
    this.opener.setAttribute('aria-label', `Questions: ${open} open${unread ? ', something new' : ''}`);
  }

  thread(thread, draft = '') {
    const where = el('button', { type: 'button', class: 'where' }, this.where(thread));
    where.addEventListener('click', () => this.point(thread));
    const header = el('header', {}, where, ...(thread.unread ? [el('span', { class: 'new' }, 'new')] : []), el('span', { class: 'push' }));
    if (this.form) {
      const state = el('button', { type: 'button', class: 'btn quiet' }, thread.resolved ? 'Open again' : 'Resolve');
      state.addEventListener('click', () => this.send(`${thread.id}/state`, { resolved: !thread.resolved }));
      header.append(state);
    }
    const item = el('li', { class: `thread${thread.resolved ? ' resolved' : ''}`, 'data-thread': thread.id }, header, ...thread.messages.map((message) => this.message(message)));
    if (this.form && !thread.resolved) item.append(this.answer(thread, draft));
    return item;
  }

  where({ about, number }) {
    if (about.cell_id) {
      const cell = this.store.cells.get(about.cell_id);
      return `cell ${number}` + (cell ? `, ${this.store.name(cell.current_class)}` : '');
    }
    return about.box ? `region of field ${about.field + 1}` : 'the case';
  }

  message({ author, author_id, at, kind, text }) {
    if (kind !== 'said') return el('div', { class: 'done-line' }, `${author} ${kind === 'resolved' ? 'resolved this' : 'opened this again'} ${when(at)}`);
    return el('div', { class: `said${author_id === this.store.userId ? ' mine' : ''}` },
      el('div', { class: 'by' }, el('b', {}, author), el('time', { datetime: at }, when(at))), el('p', {}, ...this.marked(text)));
  }

  /** The text with its mentions told apart; never as markup. */
  marked(text) {
    const names = this.people.map((person) => `@${person.name}`).filter((name) => text.includes(name));
    if (!names.length) return [text];
    const cut = new RegExp(`(${names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`);
    return text.split(cut).map((part) => (names.includes(part) ? el('span', { class: 'at' }, part) : part));
  }

  answer(thread, draft) {
    const field = el('textarea', { rows: 1, maxlength: 4000, placeholder: 'Answer (ctrl enter)', 'aria-label': `Answer on ${this.where(thread)}` });
    const kept = `answer-${thread.id}`;
    field.value = draft || this.shelf.get(kept) || '';
    field.addEventListener('input', () => this.shelf.set(kept, field.value));
    const box = el('div', { class: 'mentions' }, field);
    const form = el('form', { class: 'answer' }, box, el('p', { class: 'error', role: 'alert', hidden: true }));
    new Mentions(box, this.people);
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (!text) return;
      // Kept until the centre has it; what was changed since stays. The threads may have been drawn anew meanwhile.
      await this.send(`${thread.id}/messages`, { text, people: this.named(text) }, form, () => {
        const now = this.list.querySelector(`[data-thread="${thread.id}"] textarea`);
        if (now?.value.trim() === text) now.value = '';
        if (this.shelf.get(kept)?.trim() === text) this.shelf.remove(kept);
      });
    });
    return form;
  }

  named(text) {
    return this.people.filter((person) => text.includes(`@${person.name}`)).map((person) => person.id);
  }

  async ask(event) {
    event.preventDefault();
    const { about, people, text } = this.form.elements;
    const fields = { text: text.value, people: [people.value, ...this.named(text.value)] };
    if (about.value === 'cell' && this.store.focus) fields.cell_id = this.store.focus;
    if (about.value === 'region') {
      const shown = this.viewer.visible();
      if (!shown) {
        this.tell(this.form, 'No field is on show: choose a cell of a field first.');
        return;
      }
      Object.assign(fields, shown);
    }
    if (await this.send('', fields, this.form)) {
      this.draft.drop();
      this.clear();
      this.list.querySelector('.thread')?.scrollIntoView({ block: 'nearest' });
    }
  }

  /** The question was sent, from here or from another tab: nobody shall send it twice. */
  clear() {
    this.form.elements.text.value = '';
    this.form.elements.people.value = '';
  }

  /** `sent` is called before the threads are drawn anew. */
  async send(path, fields, form, sent = () => {}) {
    this.tell(form, '');
    // The same act keeps its key until the centre has answered: sent twice it is one.
    const key = (this.keys ??= new Map()).get(path + JSON.stringify(fields)) ?? crypto.randomUUID?.() ?? String(Math.random()).slice(2) + Date.now();
    this.keys.set(path + JSON.stringify(fields), key);
    try {
      const threads = await post(`${this.address}/consult${path && '/'}${path}`, { ...fields, idempotency_key: key });
      sent();
      this.show(threads);
      this.keys.delete(path + JSON.stringify(fields));
      return true;
    } catch (problem) {
      this.tell(form, problem instanceof TypeError ? 'No connection to the centre; what you wrote is kept. Send it again.' : problem.message);
      return false;
    }
  }

  tell(form, text) {
    const line = form?.querySelector('.error');
    if (line) [line.textContent, line.hidden] = [text, !text];
    else if (text) say(text);
  }

  point({ about }) {
    if (about.cell_id) this.store.select(about.cell_id, { from: 'consult' });
    else if (about.box) this.viewer.point(about.field, about.box);
  }
}
