// Choosing many cells by mouse: a rubber band over the gallery, and dragging the chosen onto a class.
import { el } from '../elements.js';

const FAR = 4;

export function rubberBand(root, store, tiles) {
  root.addEventListener('pointerdown', (event) => {
    const free = !event.target.closest('.tile, .group-head') && event.clientX < root.getBoundingClientRect().left + root.clientWidth;
    if (event.button !== 0 || event.pointerType === 'touch' || !free) return;
    event.preventDefault();
    const start = place(root, event);
    const before = event.shiftKey || event.ctrlKey ? new Set(store.chosen) : new Set();
    const band = el('div', { class: 'band' });
    const move = (to) => {
      const end = place(root, to);
      if (!band.isConnected && Math.hypot(end.x - start.x, end.y - start.y) < FAR) return;
      if (!band.isConnected) root.append(band);
      const box = { left: Math.min(start.x, end.x), top: Math.min(start.y, end.y), right: Math.max(start.x, end.x), bottom: Math.max(start.y, end.y) };
      band.style.left = `${box.left}px`;
      band.style.top = `${box.top}px`;
      band.style.width = `${box.right - box.left}px`;
      band.style.height = `${box.bottom - box.top}px`;
      const touched = store.sequence.filter((id) => touches(root, tiles.get(id), box));
      if (touched.length || before.size) store.selectMany([...before, ...touched], { from: 'band' });
    };
    const end = () => {
      band.remove();
      root.removeEventListener('pointermove', move);
    };
    root.setPointerCapture(event.pointerId);
    root.addEventListener('pointermove', move);
    root.addEventListener('pointerup', end, { once: true });
    root.addEventListener('pointercancel', end, { once: true });
  });
}

/** In the gallery's own, scrolled coordinates. */
function place(root, event) {
  const frame = root.getBoundingClientRect();
  return { x: event.clientX - frame.left + root.scrollLeft, y: event.clientY - frame.top + root.scrollTop };
}

function touches(root, tile, band) {
  if (!tile?.isConnected) return false;
  const [frame, box] = [root.getBoundingClientRect(), tile.getBoundingClientRect()];
  const [left, top] = [box.left - frame.left + root.scrollLeft, box.top - frame.top + root.scrollTop];
  return left < band.right && left + box.width > band.left && top < band.bottom && top + box.height > band.top;
}

/** Drag the chosen tiles, or one where none is chosen, onto a group of the gallery, or onto a class in the bar below. */
export function dragging(root, store, drop) {
  const target = (event) => {
    const key = event.target.closest?.('.key[data-class]');
    if (key) return [key, key.dataset.class];
    const group = event.target.closest?.('[data-group]');
    return group && group.dataset.group !== 'unsure' ? [group, group.dataset.group] : [null, null];
  };
  let dragged = null;
  let over = null;
  const light = (element) => {
    over?.classList.remove('drop');
    over = element;
    over?.classList.add('drop');
  };
  root.addEventListener('dragstart', (event) => {
    const tile = event.target.closest?.('.tile');
    if (!tile || !store.mine) return;
    const id = tile.dataset.cell;
    // Chosen one by one, they are not dragged by another cell, nor is that dragged in their stead.
    if (store.several && store.chosen.size && !store.chosen.has(id)) {
      event.preventDefault();
      return;
    }
    if (!store.chosen.has(id)) store.select(id, { from: 'gallery' });
    dragged = store.chosen.size ? [...store.chosen] : [id];
    event.dataTransfer.effectAllowed = 'move';
    event.dataTransfer.setData('text/plain', store.words(dragged));
    document.body.classList.add('dragging');
  });
  document.addEventListener('dragover', (event) => {
    if (!dragged) return;
    const [element] = target(event);
    light(element);
    if (element) event.preventDefault();
  });
  document.addEventListener('drop', (event) => {
    const [element, label] = target(event);
    if (!dragged || !element) return;
    event.preventDefault();
    drop(label, dragged.filter((one) => store.cells.has(one)));
  });
  document.addEventListener('dragend', () => {
    dragged = null;
    light(null);
    document.body.classList.remove('dragging');
  });
}
