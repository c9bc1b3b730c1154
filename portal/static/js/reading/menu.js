// All that can be done with the chosen cells, where the pointer or the focused cell is.
export class CellMenu {
  constructor(menu, store, run) {
    this.menu = menu;
    this.store = store;
    menu.addEventListener('click', (event) => {
      const item = event.target.closest('[role="menuitem"]');
      if (!item) return;
      this.close();
      if (this.at && !store.chosen.size) store.selectMany([this.at], { from: 'gallery' });
      if (item.dataset.set) run('class', item.dataset.set);
      else run(item.dataset.does);
    });
    menu.addEventListener('keydown', (event) => this.key(event));
    menu.addEventListener('focusout', (event) => {
      if (!menu.contains(event.relatedTarget)) this.close(false);
    });
    document.addEventListener('contextmenu', (event) => this.context(event));
  }

  get open() {
    return !this.menu.hidden;
  }

  context(event) {
    const tile = event.target.closest?.('.tile');
    if (!tile) return;
    event.preventDefault();
    const id = tile.dataset.cell;
    if (!this.store.chosen.has(id)) this.store.select(id, { from: 'gallery' });
    this.show(event.clientX, event.clientY, id);
  }

  /** Beside an element, for the keyboard. */
  beside(element) {
    const box = element.getBoundingClientRect();
    this.show(box.right, box.top);
  }

  /** `at`: the cell it was asked for at, meant where none is chosen, once something is picked. */
  show(x, y, at = null) {
    this.at = at;
    this.back = document.activeElement;
    const many = this.store.chosen.size > 1;
    for (const item of this.menu.querySelectorAll('[data-many]')) item.hidden = (item.dataset.many === 'yes') !== many;
    this.menu.hidden = false;
    const { offsetWidth, offsetHeight } = this.menu;
    this.menu.style.left = `${Math.max(8, Math.min(x, innerWidth - offsetWidth - 8))}px`;
    this.menu.style.top = `${Math.max(8, Math.min(y, innerHeight - offsetHeight - 8))}px`;
    this.items()[0].focus();
  }

  close(refocus = true) {
    if (!this.open) return;
    this.menu.hidden = true;
    if (refocus) this.back?.focus?.({ preventScroll: true });
  }

  items() {
    return [...this.menu.querySelectorAll('[role="menuitem"]')].filter((item) => !item.hidden);
  }

  key(event) {
    const items = this.items();
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: (at + 1) % items.length, ArrowUp: (at - 1 + items.length) % items.length, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items[to].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') this.close();
    else if (event.key !== 'Enter' && event.key !== ' ') {
      this.close(); // Its own key does what it says there too.
      return;
    } else {
      event.stopPropagation();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
