// The gallery: doubt first, then class by class.
import { el } from '../elements.js';
import { Thumbnails } from './thumbnails.js';

const SIZES = { least: 44, most: 128, step: 4 };

export class Gallery {
  constructor(root, store) {
    this.root = root;
    this.store = store;
    this.tiles = new Map();
    this.groups = new Map();
    this.pictures = new Thumbnails(root, `/cases/${store.case.case_id}`);
    this.draw();
    this.begun = this.pictures.begin();
    root.addEventListener('click', (event) => this.click(event));
    store.addEventListener('cells', (event) => this.draw(event.detail.moved));
    store.addEventListener('select', (event) => this.mark(!['viewer', 'band', 'several'].includes(event.detail.from)));
    store.addEventListener('evidence', () => this.mark(false));
    store.addEventListener('seen', () => this.markSeen());
    this.several = document.getElementById('several');
    this.several.addEventListener('click', () => {
      store.chooseSeveral(!store.several);
      this.several.setAttribute('aria-pressed', String(store.several));
    });
    this.size = document.getElementById('tile');
    this.size.addEventListener('input', () => this.resize(Number(this.size.value)));
    this.resize(Number(localStorage.getItem('hv-tile')) || 64);
  }

  resize(pixels) {
    const kept = Math.max(SIZES.least, Math.min(SIZES.most, pixels));
    this.size.value = String(kept);
    this.root.style.setProperty('--tile', `${kept}px`);
    localStorage.setItem('hv-tile', String(kept));
  }

  grow(steps) {
    this.resize(Number(this.size.value) + steps * SIZES.step);
  }

  click(event) {
    const tile = event.target.closest('.tile');
    if (tile) {
      const how = event.shiftKey ? 'range' : event.ctrlKey || event.metaKey || this.store.several ? 'toggle' : 'one';
      this.store.select(tile.dataset.cell, { how, from: 'gallery' });
      return;
    }
    const head = event.target.closest('.group-head');
    if (head) this.chooseGroup(head.parentElement.dataset.group);
  }

  chooseGroup(key) {
    const group = this.store.groups.find((one) => one.key === key);
    if (group) this.store.selectMany(group.cells.map((cell) => cell.cell_id), { from: 'gallery' });
  }

  tile(cell) {
    let tile = this.tiles.get(cell.cell_id);
    if (!tile) {
      tile = el('div', { role: 'option', 'data-cell': cell.cell_id, tabindex: '-1', draggable: this.store.mine ? 'true' : null },
        el('img', { alt: '', decoding: 'async', draggable: 'false', hidden: true }),
        el('span', { class: 'tag' }));
      if (cell.ood_score > 1) tile.append(el('span', { class: 'far', title: 'unlike what the model was trained on' }));
      this.tiles.set(cell.cell_id, tile);
    }
    const image = tile.firstElementChild;
    if (cell.blob && image.hidden) {
      this.pictures.show(image, cell.blob);
      image.hidden = false;
    }
    const open = this.store.blind?.hides_ai && cell.doubtful;
    const words = [`cell ${cell.number}`, open ? 'not classified' : this.store.name(cell.current_class)];
    if (cell.doubtful && !open) words.push('doubtful');
    if (cell.edge) words.push('cut by the edge');
    if (cell.provisional) words.push('provisional');
    if (cell.added_by) words.push(`marked by ${cell.added_by}`);
    else if (cell.changed_by) words.push(`set by ${cell.changed_by}`);
    const title = words.join(', ');
    const look = `tile c-${cell.current_class}${cell.doubtful ? ' doubtful' : ''}${cell.changed_by ? ' human' : ''}`;
    tile.classList.remove('moved');
    if (tile.look === look + title) return tile;
    tile.look = look + title;
    tile.className = look;
    tile.ariaLabel = tile.title = title;
    tile.querySelector('.tag').textContent = this.store.mark(cell.current_class);
    return tile;
  }

  group(key) {
    const plain = { unsure: 'unsure', all: 'all cells' }[key];
    const id = `group-${key}`;
    if (!this.groups.has(key)) {
      this.groups.set(key, el('div', { role: 'group', 'aria-labelledby': id, 'data-group': key },
        el('div', { class: 'group-head', id, title: 'Choose the whole group (e)' },
          ...(key === 'all' ? [] : [el('span', { class: `chip c-${plain ? 'unidentified' : key}` }, plain ? '??' : this.store.mark(key))]),
          el('span', {}, plain ?? this.store.name(key)), el('b'), el('span', { class: 'yet' })),
        el('div', { class: 'tiles' })));
    }
    return this.groups.get(key);
  }

  draw(moved = []) {
    const hadFocus = this.root.contains(document.activeElement);
    const top = this.root.scrollTop;
    place(this.root, this.store.groups.map((group) => {
      const shown = this.group(group.key);
      shown.querySelector('b').textContent = group.cells.length;
      place(shown.lastElementChild, group.cells.map((cell) => this.tile(cell)));
      return shown;
    }));
    this.root.scrollTop = top;
    for (const id of moved) this.tiles.get(id)?.classList.add('moved');
    this.mark(moved.includes(this.store.focus), hadFocus);
    this.markSeen();
    this.store.emit('drawn');
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

  markSeen() {
    const unseen = this.store.mine ? this.store.unseen : [];
    for (const group of this.root.children) {
      const yet = unseen.includes(group.dataset.group);
      group.classList.toggle('unseen', yet);
      group.querySelector('.yet').textContent = yet ? 'not seen yet' : '';
    }
  }

  /** To the next group not seen yet, else to the one after (or before) the focus. */
  nextGroup(step = 1) {
    const { groups } = this.store;
    const here = groups.indexOf(this.store.groupOf(this.store.focus));
    const [unseen] = step > 0 && this.store.mine ? this.store.unseen : [];
    const group = groups.find((one) => one.key === unseen) ?? groups[(here + step + groups.length) % groups.length];
    if (!group) return;
    this.store.select(group.cells[0].cell_id, { from: 'keys' });
    this.groups.get(group.key).scrollIntoView({ block: 'start' });
  }

  /** The cell a row below (or above) the focus. */
  rowFrom(step) {
    const here = this.tiles.get(this.store.focus)?.getBoundingClientRect();
    if (!here) return null;
    const others = this.store.sequence.map((id) => [id, this.tiles.get(id).getBoundingClientRect()]);
    const beyond = others.filter(([, box]) => step * (box.top - here.top) > 2);
    if (!beyond.length) return null;
    const row = Math[step > 0 ? 'min' : 'max'](...beyond.map(([, box]) => box.top));
    return beyond.filter(([, box]) => Math.abs(box.top - row) < 2)
      .sort(([, a], [, b]) => Math.abs(a.left - here.left) - Math.abs(b.left - here.left))[0][0];
  }
}

/** Give `parent` these children, moving only what stands elsewhere. */
function place(parent, children) {
  for (const child of [...parent.children]) if (!children.includes(child)) child.remove();
  children.forEach((child, at) => child === parent.children[at] || parent.insertBefore(child, parent.children[at]));
}
