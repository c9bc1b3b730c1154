// The gallery: doubt first, then class by class. The accessible twin of the boxes in the field.
import { el } from './store.js';

export class Gallery {
  constructor(root, store) {
    this.root = root;
    this.store = store;
    this.tiles = new Map();
    this.draw();
    root.addEventListener('click', (event) => {
      const tile = event.target.closest('.tile');
      if (tile) store.select(tile.dataset.cell, { extend: event.ctrlKey || event.metaKey || event.shiftKey, from: 'gallery' });
    });
    store.addEventListener('cells', (event) => this.draw(event.detail.moved));
    store.addEventListener('select', (event) => this.mark(event.detail.from !== 'viewer'));
    store.addEventListener('evidence', () => this.mark(false));
    const size = document.getElementById('tile');
    size.value = localStorage.getItem('hv-tile') || '64';
    const resize = () => root.style.setProperty('--tile', `${size.value}px`);
    size.addEventListener('input', () => {
      resize();
      localStorage.setItem('hv-tile', size.value);
    });
    resize();
  }

  tile(cell) {
    let tile = this.tiles.get(cell.cell_id);
    if (!tile) {
      const address = `/cases/${this.store.case.case_id}/blobs/${encodeURIComponent(cell.blob)}`;
      tile = el('button', { type: 'button', role: 'option', 'data-cell': cell.cell_id, tabindex: '-1' },
        el('img', { src: address, alt: '', loading: 'lazy', decoding: 'async', draggable: 'false' }),
        el('span', { class: 'tag' }));
      if (cell.ood_score > 1) tile.append(el('span', { class: 'far', title: 'unlike what the model was trained on' }));
      this.tiles.set(cell.cell_id, tile);
    }
    const words = [`cell ${cell.number}`, this.store.name(cell.current_class)];
    if (cell.doubtful) words.push('doubtful');
    if (cell.edge) words.push('cut by the edge');
    if (cell.provisional) words.push('provisional');
    if (cell.changed_by) words.push(`set by ${cell.changed_by}`);
    tile.className = `tile c-${cell.current_class}${cell.doubtful ? ' doubtful' : ''}${cell.changed_by ? ' human' : ''}`;
    tile.setAttribute('aria-label', words.join(', '));
    tile.title = words.join(', ');
    tile.querySelector('.tag').textContent = this.store.mark(cell.current_class);
    return tile;
  }

  draw(moved = []) {
    const hadFocus = this.root.contains(document.activeElement);
    const top = this.root.scrollTop;
    const groups = this.store.groups.map((group) => {
      const unsure = group.key === 'unsure';
      const name = unsure ? 'unsure' : this.store.name(group.key);
      const id = `group-${group.key}`;
      return el('div', { role: 'group', 'aria-labelledby': id },
        el('div', { class: 'group-head', id },
          el('span', { class: unsure ? 'chip c-unidentified' : `chip c-${group.key}` }, unsure ? '??' : this.store.mark(group.key)),
          el('span', {}, name), el('b', {}, String(group.cells.length))),
        el('div', { class: 'tiles' }, ...group.cells.map((cell) => this.tile(cell))));
    });
    this.root.replaceChildren(...groups);
    this.root.scrollTop = top;
    for (const id of moved) this.tiles.get(id)?.classList.add('moved');
    this.mark(moved.includes(this.store.focus), hadFocus);
  }

  mark(scroll = true, refocus = true) {
    const { chosen, focus, evidence } = this.store;
    for (const [id, tile] of this.tiles) {
      tile.setAttribute('aria-selected', String(chosen.has(id)));
      tile.tabIndex = id === focus ? 0 : -1;
      tile.classList.toggle('evidence', evidence.has(id));
    }
    const tile = this.tiles.get(focus);
    if (!tile) return;
    if (scroll) tile.scrollIntoView({ block: 'nearest' });
    const active = document.activeElement;
    if (refocus && (active === document.body || active?.id === 'main' || this.root.contains(active))) tile.focus({ preventScroll: true });
  }
}
