// Findings beside the differential: shown at once, sent by the queue like every act, taken back by a step of their own.
import { get, say, typing } from '../app.js';
import { el } from '../elements.js';

const PAUSE = 500;
const touch = (item) => `finding/${item}`;

/** What each form says: `value` (null clears it, undefined: nothing yet), `wait`: what is still missing. */
const FORMS = {
  schistocytes: {
    read(form) {
      const [counted, schistocytes] = [figure(form.counted), figure(form.schistocytes)];
      if (counted === null && schistocytes === null) return { value: null };
      if (counted === null || schistocytes === null) return { wait: 'Give both: red cells counted, and schistocytes among them.' };
      if (schistocytes > counted) return { wait: 'More schistocytes than red cells counted: count the schistocytes among them.' };
      return { value: { counted, schistocytes } };
    },
    show(form, value) {
      put(form.counted, value?.counted);
      put(form.schistocytes, value?.schistocytes);
    },
  },
  platelets: {
    read(form, before) {
      const [adequacy, platelets, fields] = [form.adequacy.value || null, figure(form.platelets), figure(form.fields)];
      const factor = before?.count?.factor ?? Number(form.closest('form').dataset.factor);
      const count = platelets === null || fields === null ? null : { platelets, fields, factor };
      const wait = (platelets === null) === (fields === null) ? '' : 'Give both: platelets counted, and in how many fields.';
      if (adequacy || count) return { value: { adequacy, count }, wait };
      return wait ? { wait } : { value: null };
    },
    show(form, value) {
      form.adequacy.value = value?.adequacy ?? '';
      if (!value?.adequacy) uncheck(form.adequacy);
      put(form.platelets, value?.count?.platelets);
      put(form.fields, value?.count?.fields);
    },
  },
  malaria: {
    read(form, _, store) {
      const presence = form.presence.value || null;
      if (!presence) return { value: null };
      if (presence !== 'seen') return { value: { presence, species: [], stages: [], parasitaemia: null } };
      const [species, stages] = [checked(form.species), checked(form.stages)];
      if (!species.length) return { wait: 'Say which species was seen, or that it is not determined.' };
      const [parasites, counted, white] = [figure(form.parasites), figure(form.counted), figure(form.white_cells)];
      const against = form.against.value;
      const thick = against === 'white_cells';
      if (against === 'red_cells' && parasites > counted) return { wait: 'More infected red cells than red cells counted.' };
      if (thick && parasites !== null && !white) return { wait: 'Give the white-cell count: parasites per µl are reckoned by it.' };
      const assumed = store.case.context.blood_count.wbc_10e9_l === null && white === Number(form.closest('form').dataset.assumed);
      const parasitaemia = parasites === null || counted === null ? null
        : { against, parasites, counted, white_cells_10e9_l: thick ? white : null, white_cells_assumed: thick && assumed };
      return { value: { presence, species, stages, parasitaemia }, wait: (parasites === null) === (counted === null) ? '' : 'Give both: parasites, and cells counted.' };
    },
    show(form, value, store) {
      form.presence.value = value?.presence ?? '';
      if (!value) uncheck(form.presence);
      for (const box of form.species) box.checked = value?.species.includes(box.value) ?? false;
      for (const box of form.stages) box.checked = value?.stages.includes(box.value) ?? false;
      const found = value?.parasitaemia;
      if (found) form.against.value = found.against;
      put(form.parasites, found?.parasites);
      put(form.counted, found?.counted);
      put(form.white_cells, found?.white_cells_10e9_l ?? store.case.context.blood_count.wbc_10e9_l ?? form.closest('form').dataset.assumed);
      this.reveal(form);
    },
    reveal(form) {
      form.closest('form').querySelector('[data-when-seen]').hidden = form.presence.value !== 'seen';
      form.closest('form').querySelector('[data-when-white]').hidden = form.against.value !== 'white_cells';
    },
  },
};

/** The controls of a form by name; `closest` and the rest are the form's own. */
const controls = (form) => new Proxy(form, { get: (target, name) => target.elements[name] ?? (name === 'closest' ? () => target : undefined) });
const figure = (input) => (input.value === '' || !input.checkValidity() ? null : Number(input.value));
const put = (input, value) => { input.value = value ?? ''; };
const uncheck = (radios) => { for (const radio of radios) radio.checked = false; };
const checked = (boxes) => [...boxes].filter((box) => box.checked).map((box) => box.value);

export class Findings {
  /** `out`: `back()` to the cells, `sign()`. */
  constructor(store, queue, address, view, out) {
    Object.assign(this, { store, queue, address, out });
    this.root = document.getElementById('beside');
    this.tabs = [...this.root.querySelectorAll('[role="tab"]')];
    this.rows = [...this.root.querySelectorAll('.grade-row')];
    this.forms = [...this.root.querySelectorAll('[data-form]')];
    this.texts = [...this.root.querySelectorAll('textarea[data-item]')];
    this.late = new Map();
    this.unfinished = new Set();
    this.take(view);
    this.root.addEventListener('click', (event) => this.click(event));
    this.root.addEventListener('keydown', (event) => this.key(event));
    this.root.addEventListener('input', (event) => this.changed(event.target));
    for (const left of ['change', 'focusout']) this.root.addEventListener(left, (event) => this.flush(event.target));
    this.root.addEventListener('submit', (event) => event.preventDefault());
    window.addEventListener('pagehide', () => this.flush());
    store.addEventListener('replaced', () => this.reload());
  }

  take(view) {
    this.view = view;
    this.items = new Map(Object.entries(view.items));
    this.draw();
  }

  /** The centre's answer; what `pending` names has later steps on their way and keeps what these show. */
  apply(view, pending) {
    const kept = [...this.items].filter(([item]) => pending.has(touch(item)));
    const gone = [...pending].filter((one) => one.startsWith('finding/') && !this.items.has(one.slice(8)));
    this.store.version = view.case_version;
    this.view = view;
    this.items = new Map([...Object.entries(view.items).filter(([item]) => !gone.includes(touch(item))), ...kept]);
    this.draw();
  }

  async reload() {
    // Without a connection: with the next answer.
    await get(`${this.address}/findings`).then((view) => this.take(view)).catch(() => {});
  }

  set(item, value, words) {
    if (!this.store.mine) {
      say('Claim the case first (c); then findings can be entered.');
      return;
    }
    if (value === null) this.items.delete(item);
    else this.items.set(item, value);
    this.draw();
    this.queue.add(`${this.address}/findings`, { item, value: value === null ? '' : JSON.stringify(value) }, { touches: [touch(item)], words });
  }

  undo() {
    if (!this.store.mine) return;
    this.flush();
    if (!this.view.can_undo && !this.queue.size) say('There is no entry of yours left to take back.', { seconds: 2 });
    else this.queue.add(`${this.address}/findings/undo`, {}, { words: 'the last finding taken back' });
  }

  /** A form or comment was touched: it is sent after a pause, or when it is left. */
  changed(target) {
    const box = target.closest('[data-form], textarea[data-item]');
    if (!box) return;
    if (box.dataset.form === 'malaria') FORMS.malaria.reveal(controls(box));
    clearTimeout(this.late.get(box));
    this.late.set(box, setTimeout(() => this.send(box), PAUSE));
  }

  /** Send what waits for its pause to end: all, or what holds `target`. */
  flush(target) {
    for (const box of [...this.late.keys()]) if (!target || box.contains(target)) this.send(box);
  }

  send(box) {
    clearTimeout(this.late.get(box));
    this.late.delete(box);
    if (box.matches('textarea')) {
      const text = box.value.trim();
      if (text !== (this.items.get(box.dataset.item) ?? '')) this.set(box.dataset.item, text || null, 'a comment');
      return;
    }
    const name = box.dataset.form;
    const { value, wait } = FORMS[name].read(controls(box), this.items.get(name), this.store);
    // What is half written stays as it stands until it is whole: an answer must not wipe it.
    if (wait) this.unfinished.add(box);
    else this.unfinished.delete(box);
    if (value !== undefined && JSON.stringify(value) !== JSON.stringify(this.items.get(name) ?? null)) this.set(name, value, name === 'schistocytes' ? 'the schistocyte count' : name);
    else this.draw();
    if (wait) box.querySelector('.says').textContent = wait;
  }

  draw() {
    const { items, view } = this;
    const said = new Map(view.statements.map((one) => [one.key, one]));
    for (const row of this.rows) {
      const grade = items.get(row.dataset.item);
      for (const button of row.querySelectorAll('[data-grade]')) button.setAttribute('aria-checked', String(Number(button.dataset.grade) === grade));
      const by = view.set_by[row.dataset.item];
      row.title = by && grade !== undefined ? `${by.name}, ${at(by.at)}` : '';
    }
    for (const form of this.forms) if (!this.late.has(form) && !this.unfinished.has(form)) FORMS[form.dataset.form].show(controls(form), items.get(form.dataset.form), this.store);
    for (const text of this.texts) if (!this.late.has(text) && text !== document.activeElement) text.value = items.get(text.dataset.item) ?? '';
    for (const line of this.root.querySelectorAll('[data-says]')) {
      if (this.unfinished.has(line.closest('form'))) continue;
      const found = line.dataset.says.split(' ').map((key) => said.get(key)).filter(Boolean);
      const words = found.flatMap((one) => [line.dataset.says === 'platelet-clumps' || one.key === 'platelet-adequacy' ? '' : one.words, one.remark]).filter(Boolean);
      line.replaceChildren(...words.map((one) => el('span', {}, one)));
      line.classList.toggle('minds', found.some((one) => one.remark));
    }
    for (const tab of this.tabs) {
      const count = tab.querySelector('[data-count]');
      if (count) count.textContent = view.statements.filter((one) => one.part === count.dataset.count).length || '';
    }
    for (const line of this.root.querySelectorAll('[data-last]')) {
      const inside = line.parentElement;
      const [last] = Object.entries(view.set_by).filter(([item]) => inside.querySelector(`[data-item="${item}"], [data-form="${item}"]`)).map(([, by]) => by).sort((a, b) => b.at.localeCompare(a.at));
      line.textContent = last ? `Last entered by ${last.name}, ${at(last.at)}` : '';
    }
    const list = document.getElementById('sign-findings');
    list?.replaceChildren(...view.statements.map((one) => el('li', { class: one.abnormal ? 'abnormal' : null }, el('b', {}, one.name[0].toUpperCase() + one.name.slice(1)), ` ${one.words}`)));
    if (list) list.parentElement.hidden = !view.statements.length;
    this.rove();
  }

  /** One stop for the tab key among a panel's lines: the one that had the focus last, else the first. */
  rove(row) {
    for (const panel of this.root.querySelectorAll('.finding-panel')) {
      const rows = this.rows.filter((one) => panel.contains(one));
      const here = rows.includes(row) ? row : rows.find((one) => one.contains(document.activeElement)) ?? rows.find((one) => one.querySelector('[tabindex="0"]')) ?? rows[0];
      for (const one of rows) for (const button of one.querySelectorAll('button')) button.tabIndex = one === here && button === stop(one) ? 0 : -1;
    }
  }

  click(event) {
    const tab = event.target.closest('[role="tab"]');
    if (tab) this.open(tab);
    const grade = event.target.closest('[data-grade]');
    if (grade) this.grade(grade.closest('.grade-row'), Number(grade.dataset.grade), true);
    const add = event.target.closest('[data-add]');
    if (add) this.tally(add);
    const clear = event.target.closest('[data-clear]');
    if (clear) {
      const form = clear.closest('form');
      clearTimeout(this.late.get(form));
      this.late.delete(form);
      this.unfinished.delete(form);
      if (this.items.has(form.dataset.form)) this.set(form.dataset.form, null, `${form.dataset.form} cleared`);
      else this.draw();
    }
  }

  tally(button) {
    const form = controls(button.closest('form'));
    const [cells, schistocytes] = button.dataset.add.split(' ').map(Number);
    form.counted.value = Number(form.counted.value) + cells;
    form.schistocytes.value = Number(form.schistocytes.value) + schistocytes;
    this.changed(button);
  }

  /** Pressing the grade that stands takes it away. */
  grade(row, grade, toggles) {
    const button = row.querySelector(`[data-grade="${grade}"]`);
    if (!button || button.disabled) return;
    if (button.getAttribute('aria-disabled') === 'true') {
      say(`${button.title}.`, { seconds: 3 });
      return;
    }
    const { item, name } = row.dataset;
    const stands = this.items.get(item) === grade;
    if (!stands || toggles) this.set(item, stands ? null : grade, `${name}: ${stands ? 'cleared' : button.title}`);
    this.rove(row);
    stop(row).focus();
  }

  open(tab, focus = false) {
    for (const one of this.tabs) {
      const on = one === tab;
      one.setAttribute('aria-selected', String(on));
      one.tabIndex = on ? 0 : -1;
      document.getElementById(one.getAttribute('aria-controls')).hidden = !on;
    }
    if (!focus) return;
    this.root.scrollIntoView({ block: 'start' });
    const panel = document.getElementById(tab.getAttribute('aria-controls'));
    (panel.querySelector('.grade-row [tabindex="0"], input:checked, input, [data-flag]') ?? tab).focus({ preventScroll: true });
  }

  /** The next group of findings, from the keyboard; after the last one the flags, then the red cells again. */
  next() {
    this.flush();
    const at = this.tabs.findIndex((tab) => tab.getAttribute('aria-selected') === 'true');
    const inside = this.root.contains(document.activeElement);
    this.open(this.tabs[inside || at === 0 || !this.store.mine ? (at + 1) % this.tabs.length : at], true);
  }

  key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === 'Enter') {
      this.flush();
      return this.done(event, () => this.out.sign());
    }
    const tab = event.target.closest('[role="tab"]');
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (tab && step) {
      const next = this.tabs[(this.tabs.indexOf(tab) + step + this.tabs.length) % this.tabs.length];
      this.open(next);
      return this.done(event, () => next.focus());
    }
    if (!event.target.closest('.finding-panel')) return undefined;
    if (event.key === 'Escape') {
      this.flush();
      return this.done(event, () => this.out.back());
    }
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || event.key === '?') return undefined;
    const row = event.target.closest('.grade-row');
    if (row && this.rowKey(event, row)) return this.done(event);
    if (event.key === 's') return this.done(event, () => this.next());
    if (event.key === 'u') return this.done(event, () => this.undo());
    event.stopPropagation(); // the keys of cells are not for here
    return undefined;
  }

  done(event, then) {
    event.preventDefault();
    event.stopPropagation();
    then?.();
  }

  rowKey(event, row) {
    if (/^[0-3]$/.test(event.key)) this.grade(row, Number(event.key), false);
    else if (event.key === 'Backspace' || event.key === 'Delete') {
      if (this.items.has(row.dataset.item)) this.set(row.dataset.item, null, `${row.dataset.name}: cleared`);
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp' || event.key === 'j' || event.key === 'k') {
      const rows = this.rows.filter((one) => row.parentElement.contains(one));
      const next = rows[rows.indexOf(row) + (event.key === 'ArrowDown' || event.key === 'j' ? 1 : -1)];
      if (next) {
        this.rove(next);
        stop(next).focus();
      }
    } else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      const buttons = [...row.querySelectorAll('button:not([aria-disabled="true"])')];
      buttons[Math.max(0, Math.min(buttons.length - 1, buttons.indexOf(event.target) + (event.key === 'ArrowRight' ? 1 : -1)))].focus();
    } else return false;
    return true;
  }
}

const at = (text) => `${new Date(text).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short', timeZone: 'UTC' })} UTC`;
const stop = (row) => row.querySelector('[aria-checked="true"]') ?? row.querySelector('button');
