// The AI as a second eye: what it says of a cell in words and number, and what it saw, off until asked.
const SURE = [[0.95, 'almost certain'], [0.8, 'likely'], [0.5, 'rather likely'], [0, 'doubtful']];

/** `AI: monocyte 71 %, rather likely; monocyte or immature granulocyte fit · unlike the training stain`. */
export function secondEye(cell, store) {
  const number = Math.round(100 * cell.ai_probability);
  const sure = SURE.find(([least]) => cell.ai_probability >= least)[1];
  const names = cell.prediction_set.map((cls) => store.name(cls));
  const fits = names.length > 1 ? `${names.slice(0, -1).join(', ')} or ${names.at(-1)} ${names.length > 2 ? 'fit' : 'fits'}` : names.length ? 'nothing else fits' : 'no class fits';
  const marks = [cell.ood_score > 1 && 'unlike the training stain', cell.edge && 'cut by the field’s edge', cell.provisional && 'provisional: taught by a few examples'];
  return [`AI: ${store.name(cell.ai_class)} ${number} %, ${sure}; ${fits}`, ...marks.filter(Boolean)].join(' · ');
}

export class Overlay {
  constructor(root, store, address) {
    this.root = root;
    this.store = store;
    this.address = address;
    this.sent = new Set(store.case.overlays);
    this.button = document.querySelector('[data-does="overlay"]');
    store.addEventListener('select', () => this.show());
  }

  toggle() {
    if (!this.button) return;
    this.root.hidden = !this.root.hidden;
    this.button.setAttribute('aria-pressed', String(!this.root.hidden));
    this.show();
  }

  show() {
    const cell = this.store.cells.get(this.store.focus);
    if (this.root.hidden || !cell) return;
    const [image, words] = this.root.children;
    image.hidden = !this.sent.has(cell.cell_id);
    if (!image.hidden) image.src = `${this.address}/blobs/heat-${encodeURIComponent(cell.cell_id)}.png`;
    image.alt = `Cell ${cell.number} under what speaks for ${this.store.name(cell.ai_class)}`;
    words.textContent = image.hidden
      ? `Of cell ${cell.number} no such picture came: hospitals send it of the most doubtful cells.`
      : `Cell ${cell.number}: bright where the model sees ${this.store.name(cell.ai_class)} rather than others. It tells where, not whether rightly so.`;
  }
}
