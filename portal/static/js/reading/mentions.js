// After an @ the names of colleagues, to choose by arrows and enter or by mouse.
import { el } from '../elements.js';

export class Mentions {
  constructor(box, people) {
    this.field = box.querySelector('textarea');
    this.people = people;
    this.list = el('ul', { role: 'listbox', 'aria-label': 'Colleagues to mention', hidden: true });
    box.append(this.list);
    this.field.addEventListener('input', () => this.look());
    this.field.addEventListener('keydown', (event) => this.key(event));
    this.field.addEventListener('blur', () => { this.list.hidden = true; });
    this.list.addEventListener('mousedown', (event) => {
      event.preventDefault();
      const item = event.target.closest('li');
      if (item) this.take(item.textContent);
    });
  }

  look() {
    const before = this.field.value.slice(0, this.field.selectionStart);
    this.word = /(?:^|\s)@([^@\n]{0,30})$/.exec(before)?.[1];
    const wanted = this.word?.toLowerCase();
    const found = wanted === undefined ? [] : this.people.filter(({ name }) => name.toLowerCase().includes(wanted) && name.toLowerCase() !== wanted).slice(0, 6);
    this.list.replaceChildren(...found.map(({ name }, at) => el('li', { role: 'option', 'aria-selected': String(at === 0) }, name)));
    this.list.hidden = !found.length;
  }

  key(event) {
    if (this.list.hidden) return;
    const items = [...this.list.children];
    const at = items.findIndex((item) => item.getAttribute('aria-selected') === 'true');
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const to = (at + (event.key === 'ArrowDown' ? 1 : items.length - 1)) % items.length;
      items.forEach((item, i) => item.setAttribute('aria-selected', String(i === to)));
    } else if ((event.key === 'Enter' && !event.ctrlKey) || event.key === 'Tab') this.take(items[at].textContent);
    else if (event.key === 'Escape') this.list.hidden = true;
    else return;
    event.preventDefault();
  }

  take(name) {
    const at = this.field.selectionStart;
    const from = at - this.word.length;
    this.field.setRangeText(`${name} `, from, at, 'end');
    this.list.hidden = true;
  }
}
