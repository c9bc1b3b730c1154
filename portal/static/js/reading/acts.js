// What a reader does to cells: shown at once, written down by the queue, said in words should the centre refuse it.
import { say } from '../app.js';

export class Acts {
  constructor(store, queue, address) {
    this.store = store;
    this.queue = queue;
    this.address = store.blind ? `${address}/blind` : address;
  }

  /** Where boxes are made, and not only named. */
  shaping() {
    if (this.store.blind) say('Cells are marked, split and merged in the open reading, not in a blind one.');
    return this.allowed() && !this.store.blind;
  }

  allowed() {
    if (!this.store.mine) say('Claim the case first (c); then its cells can be changed.');
    return this.store.mine;
  }

  none(cells) {
    if (!cells.length) say('Choose the cells first: tap each of them.', { seconds: 2 });
    return !cells.length;
  }

  /** Give the chosen cells a class; a doubtful one that has it already is confirmed by that. */
  reclassify(label, cells = [...this.store.chosen]) {
    if (!this.allowed() || this.none(cells)) return;
    const ids = cells.filter((id) => this.store.cells.get(id).current_class !== label || this.store.cells.get(id).doubtful);
    if (!ids.length) {
      say(`Already ${this.store.name(label)}.`, { seconds: 2 });
      return;
    }
    const words = `${this.store.words(ids)}: ${this.store.name(label)}`;
    this.goOn(ids, () => this.store.assume(ids, label));
    this.queue.add(`${this.address}/cells`, { cell_id: ids, label }, { touches: ids, words });
  }

  /** Confirm the chosen cells as they are named. */
  accept() {
    if (!this.allowed() || this.none([...this.store.chosen])) return;
    const ids = [...this.store.chosen].filter((id) => !this.store.cells.get(id).changed_by);
    if (this.store.blind?.hides_ai) {
      say('Give each cell its class: there is none to accept yet.', { seconds: 2 });
      return;
    }
    if (!ids.length) {
      say('A reader has set these already.', { seconds: 2 });
      return;
    }
    const words = `${this.store.words(ids)}: accepted as named`;
    this.goOn(ids, () => this.store.assume(ids));
    this.queue.add(`${this.address}/${this.store.blind ? 'cells' : 'accept'}`, { cell_id: ids }, { touches: ids, words });
  }

  /** One key a doubtful cell: once its doubt is settled the next one is chosen. */
  goOn(ids, change) {
    const before = this.store.doubtful;
    const at = before.indexOf(this.store.focus);
    change();
    // The next taps begin anew: none of them must join a cell that was chosen by itself.
    if (this.store.several) this.store.letGo();
    if (this.store.several || at < 0 || !ids.includes(this.store.focus)) return;
    const left = new Set(this.store.doubtful);
    const next = [...before.slice(at), ...before.slice(0, at)].find((id) => left.has(id));
    if (next) this.store.select(next, { from: 'keys' });
  }

  add(box, field, label) {
    if (!this.allowed()) return;
    const id = newId();
    const number = this.store.nextNumber;
    this.store.act([id], (cells) => cells.set(id, marked(this.store, { id, number, field: field.index, box, label })));
    this.store.select(id, { from: 'viewer' });
    this.queue.add(`${this.address}/cells/new`, { new_id: id, field: field.index, box, label },
      { touches: [id], words: `cell ${number}, marked in field ${field.index + 1}: ${this.store.name(label)}` });
  }

  split(cell, boxes) {
    if (!this.allowed()) return;
    const ids = [newId(), newId()];
    const words = `cell ${cell.number}: split in two`;
    const number = this.store.nextNumber;
    this.store.act([cell.cell_id, ...ids], (cells) => {
      cells.delete(cell.cell_id);
      ids.forEach((id, i) => cells.set(id, marked(this.store, { id, number: number + i, field: cell.field, box: boxes[i], label: cell.current_class })));
    });
    if (this.store.several) this.store.select(ids[0], { from: 'viewer' });
    else this.store.selectMany(ids, { from: 'viewer' });
    this.queue.add(`${this.address}/cells/split`, { cell_id: cell.cell_id, new_id: ids, box: boxes.flat() }, { touches: [cell.cell_id, ...ids], words });
  }

  merge() {
    if (!this.shaping()) return;
    const old = [...this.store.chosen].map((id) => this.store.cells.get(id));
    const fields = new Set(old.map((cell) => cell.field));
    if (old.length < 2 || fields.size > 1 || fields.has(null)) {
      say('Choose two or more cells of one field (ctrl click, or ctrl j and k, then ctrl space), then merge.');
      return;
    }
    const [id, gone] = [newId(), old.map((cell) => cell.cell_id)];
    // The cell in focus names the whole.
    gone.sort((a, b) => (b === this.store.focus) - (a === this.store.focus));
    const label = this.store.cells.get(gone[0]).current_class;
    const words = `${this.store.words(gone)}: merged into one`;
    const box = [Math.min(...old.map((cell) => cell.box[0])), Math.min(...old.map((cell) => cell.box[1])),
      Math.max(...old.map((cell) => cell.box[2])), Math.max(...old.map((cell) => cell.box[3]))];
    this.store.act([...gone, id], (cells) => {
      cells.set(id, marked(this.store, { id, number: this.store.nextNumber, field: old[0].field, box, label }));
      for (const one of gone) cells.delete(one);
    });
    this.store.select(id, { from: 'viewer' });
    this.queue.add(`${this.address}/cells/merge`, { cell_id: gone, new_id: id }, { touches: [...gone, id], words });
  }

  undo() {
    if (!this.allowed()) return;
    this.again(this.store.back(), 'undo', 'one change taken back');
  }

  redo() {
    if (!this.allowed()) return;
    this.again(this.store.forward(), 'redo', 'one change made again');
  }

  again(ids, path, words) {
    const [id] = ids.filter((one) => this.store.cells.has(one));
    if (id) this.store.select(id, { from: 'keys' });
    this.queue.add(`${this.address}/${path}`, {}, { touches: ids, words });
  }
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return `r${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** A cell as the centre will have it; its picture comes with the answer. */
function marked(store, { id, number, field, box, label }) {
  return {
    cell_id: id, number, field, box, blob: null, ai_class: 'unidentified', ai_probability: 0, prediction_set: [], ood_score: 0,
    edge: false, provisional: false, current_class: label, changed_by: store.me, changed_at: new Date().toISOString(),
    doubtful: false, added_by: store.me,
  };
}
