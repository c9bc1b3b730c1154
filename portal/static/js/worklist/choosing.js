// Cases chosen in the list, by keys and by mouse, and given to a colleague.
import { post, say } from '../app.js';
import { el } from '../elements.js';

export class Choice {
  constructor(list) {
    this.list = list;
    this.ids = new Set();
    this.bar = document.getElementById('chosen');
    this.all = document.getElementById('pick-all');
    list.body.addEventListener('click', (event) => this.click(event));
    list.addEventListener('made', ({ detail: row }) => this.mark(row));
    list.addEventListener('shown', () => this.show());
    this.all?.addEventListener('change', () => this.set(this.all.checked ? list.rows.map((row) => row.dataset.case) : []));
    document.getElementById('choose-none')?.addEventListener('click', () => this.set([]));
  }

  click(event) {
    const row = event.target.closest('tr');
    const box = event.target.closest('.pick');
    if (!row || !(box || event.shiftKey || event.ctrlKey || event.metaKey)) return;
    if (event.target.tagName !== 'INPUT') event.preventDefault();
    if (event.shiftKey) this.range(row);
    else this.toggle(row);
    row.querySelector('a.row').focus({ preventScroll: true });
  }

  toggle(row) {
    const id = row.dataset.case;
    if (!this.ids.delete(id)) this.ids.add(id);
    this.from = id;
    this.show();
  }

  /** From the case chosen last to this one. */
  range(row) {
    const rows = this.list.rows;
    const [from, to] = [rows.findIndex((one) => one.dataset.case === this.from), rows.indexOf(row)].sort((a, b) => a - b);
    rows.slice(Math.max(0, from), to + 1).forEach((one) => this.ids.add(one.dataset.case));
    this.from = row.dataset.case;
    this.show();
  }

  set(ids) {
    this.ids = new Set(ids);
    this.show();
  }

  mark(row) {
    const on = this.ids.has(row.dataset.case);
    row.classList.toggle('picked', on);
    const box = row.querySelector('.pick input');
    if (box) box.checked = on;
  }

  show() {
    if (!this.bar) return;
    // What has left the list is chosen no more: nobody would see what is done to it.
    for (const id of this.ids) if (!this.list.find(id)) this.ids.delete(id);
    this.list.rows.forEach((row) => this.mark(row));
    const count = this.ids.size;
    this.bar.hidden = !count;
    document.getElementById('chosen-count').textContent = count === 1 ? '1 case chosen' : `${count} cases chosen`;
    this.all.checked = count > 0 && count === this.list.rows.length;
    this.all.indeterminate = count > 0 && !this.all.checked;
  }
}

const cases = (count) => (count === 1 ? '1 case' : `${count} cases`);

export class Assigning {
  constructor(list, choice) {
    [this.list, this.choice] = [list, choice];
    this.dialog = document.getElementById('assign');
    if (!this.dialog) return;
    this.input = document.getElementById('find-person');
    this.people = [...this.dialog.querySelectorAll('[data-person]')];
    this.error = document.getElementById('assign-error');
    this.input.addEventListener('input', () => this.filter());
    this.input.addEventListener('keydown', (event) => this.key(event));
    this.dialog.addEventListener('click', (event) => {
      const person = event.target.closest('[data-person]');
      if (person) this.give(person.dataset.person);
    });
    document.getElementById('open-assign').addEventListener('click', () => this.open());
    document.getElementById('unassign').addEventListener('click', () => this.give(''));
  }

  open() {
    if (!this.dialog || !this.choice.ids.size) return;
    this.input.value = '';
    this.error.hidden = true;
    document.getElementById('assign-title').textContent = `Who is to read ${cases(this.choice.ids.size)}?`;
    this.filter();
    this.dialog.showModal();
    this.input.focus();
  }

  get shown() {
    return this.people.filter((person) => !person.hidden);
  }

  filter() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const person of this.people) person.hidden = !words.every((word) => person.dataset.name.toLowerCase().includes(word));
    this.point(0);
  }

  point(at) {
    this.at = at;
    this.shown.forEach((person, i) => {
      person.setAttribute('aria-selected', String(i === at));
      if (i === at) {
        this.input.setAttribute('aria-activedescendant', person.id);
        person.scrollIntoView({ block: 'nearest' });
      }
    });
  }

  key(event) {
    const count = this.shown.length;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') this.point((this.at + (event.key === 'ArrowDown' ? 1 : count - 1)) % Math.max(1, count));
    else if (event.key === 'Enter' && count) this.give(this.shown[this.at].dataset.person);
    else return;
    event.preventDefault();
  }

  async give(to) {
    const ids = [...this.choice.ids];
    try {
      const result = await post('/worklist/assign', { case_id: ids, to });
      this.dialog.close();
      this.told(result);
      await this.list.changed(ids).catch(() => {});
    } catch (problem) {
      const text = problem instanceof TypeError ? 'No connection to the centre. Nothing was changed; try again.' : problem.message;
      if (this.dialog.open) {
        this.error.textContent = text;
        this.error.hidden = false;
      } else say(text);
    }
  }

  told({ to, done, failed }) {
    const what = to ? `${cases(done.length)} assigned to ${to.name}` : `${cases(done.length)} assigned to nobody now`;
    this.choice.set(failed.map((one) => one.case_id));
    if (!failed.length) {
      say(what);
      return;
    }
    document.getElementById('assigned-done').textContent = done.length ? `${what}. These are as they were, and still chosen:` : 'Nothing was changed:';
    document.getElementById('assigned-failed').replaceChildren(...failed.map((one) => el('li', {}, el('b', { class: 'mono' }, one.case_id), ` ${one.reason}`)));
    document.getElementById('assigned').showModal();
  }
}
