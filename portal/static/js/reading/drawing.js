// Marking in the field: a box for a missed cell, a cut through one that is two. By mouse, touch or keys alone.
const USUAL = 48;
const LEAST = 6;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Drawing {
  /** `done`: `add(box, field)` → asks for the class; `split(cell, boxes)`. `say`: shows what to do next. */
  constructor(viewer, store, done, say) {
    this.viewer = viewer;
    this.store = store;
    this.done = done;
    this.say = say;
    this.mode = null;
    viewer.root.addEventListener('pointerdown', (event) => this.pointer(event), true);
    store.addEventListener('field', () => this.stop());
  }

  get active() {
    return this.mode !== null;
  }

  start(mode) {
    this.mode = mode;
    this.viewer.osd.setMouseNavEnabled(false);
    this.viewer.root.classList.add('drawing');
    this.show();
  }

  stop() {
    if (!this.active) return;
    this.mode = null;
    this.viewer.draft = [];
    this.viewer.osd.setMouseNavEnabled(true);
    this.viewer.root.classList.remove('drawing');
    this.viewer.draw();
    this.say('');
  }

  /** Begin with a box of the usual size in the middle of what is on show. */
  add() {
    const { field } = this.viewer;
    if (!field) return false;
    const sides = this.viewer.here().map(({ box }) => Math.max(box[2] - box[0], box[3] - box[1])).sort((a, b) => a - b);
    const side = Math.min(sides[Math.floor(sides.length / 2)] ?? USUAL, field.width, field.height);
    const middle = this.viewer.image.viewportToImageCoordinates(this.viewer.osd.viewport.getCenter());
    const x = clamp(Math.round(middle.x - side / 2), 0, field.width - side);
    const y = clamp(Math.round(middle.y - side / 2), 0, field.height - side);
    this.box = [x, y, x + side, y + side];
    this.start('add');
    return true;
  }

  /** Begin with a cut across the longer side. */
  split(cell) {
    this.cell = cell;
    this.across = cell.box[2] - cell.box[0] >= cell.box[3] - cell.box[1];
    this.cut = 0.5;
    this.viewer.follow('keys');
    this.start('split');
  }

  halves() {
    const [x0, y0, x1, y1] = this.cell.box;
    if (this.across) {
      const x = Math.round(x0 + this.cut * (x1 - x0));
      return [[x0, y0, x, y1], [x, y0, x1, y1]];
    }
    const y = Math.round(y0 + this.cut * (y1 - y0));
    return [[x0, y0, x1, y], [x0, y, x1, y1]];
  }

  show() {
    this.viewer.draft = this.mode === 'add' ? [this.box] : this.halves();
    this.viewer.draw();
    this.say(this.mode === 'add'
      ? 'New cell: drag a box, or move it by arrows and size it by shift arrows. Its class’s key adds it, esc drops it.'
      : 'Two cells: arrows or a click move the cut, t turns it. Enter splits, esc leaves it.');
  }

  /** What a key does while drawing; false: nothing, let others have it. `label`: the class that the key stands for. */
  key(event, label) {
    if (!this.active) return false;
    if (event.key === 'Escape') this.stop();
    else if (ARROWS[event.key] && !event.ctrlKey) this.nudge(...ARROWS[event.key], event.shiftKey);
    else if (this.mode === 'add' && label) this.take(label);
    else if (this.mode === 'add' && (event.key === 'Enter' || event.key === '0')) this.done.ask();
    else if (this.mode === 'split' && event.key === 't') this.turn();
    else if (this.mode === 'split' && event.key === 'Enter') this.take();
    else return !event.ctrlKey && !['+', '=', '-', 'f', 'b', '?', 'Tab'].includes(event.key);
    return true;
  }

  turn() {
    this.across = !this.across;
    this.show();
  }

  /** Whether the class went to a box that is being drawn. */
  take(label) {
    if (!this.active) return false;
    const { mode, box, cell } = this;
    const field = this.viewer.field;
    const halves = mode === 'split' ? this.halves() : [];
    if ([...halves, ...(mode === 'add' ? [box] : [])].some((one) => Math.min(one[2] - one[0], one[3] - one[1]) < LEAST)) {
      this.say('That is too small for a cell; draw it larger.');
      return true;
    }
    this.stop();
    if (mode === 'add') this.done.add(box, field, label);
    else this.done.split(cell, halves);
    return true;
  }

  nudge(across, down, size) {
    const { field } = this.viewer;
    if (this.mode === 'split') {
      if (this.across === (across !== 0)) this.cut = clamp(this.cut + 0.04 * (across || down), 0.12, 0.88);
    } else {
      const [x0, y0, x1, y1] = this.box;
      const by = Math.max(1, Math.round((x1 - x0) / 12));
      if (size) {
        this.box = [x0, y0, clamp(x1 + across * by, x0 + LEAST, field.width), clamp(y1 + down * by, y0 + LEAST, field.height)];
      } else {
        const left = clamp(x0 + across * by, 0, field.width - (x1 - x0));
        const top = clamp(y0 + down * by, 0, field.height - (y1 - y0));
        this.box = [left, top, left + x1 - x0, top + y1 - y0];
      }
    }
    this.show();
  }

  pointer(event) {
    if (!this.active || !this.viewer.image) return;
    event.preventDefault();
    event.stopPropagation();
    const { field } = this.viewer;
    const inside = (to) => {
      const at = this.viewer.at(to);
      return [clamp(Math.round(at.x), 0, field.width), clamp(Math.round(at.y), 0, field.height)];
    };
    const [x, y] = inside(event);
    const move = (to) => {
      const [toX, toY] = inside(to);
      if (this.mode === 'split') this.cutAt(toX, toY);
      else if (Math.abs(toX - x) >= LEAST && Math.abs(toY - y) >= LEAST) this.box = [Math.min(x, toX), Math.min(y, toY), Math.max(x, toX), Math.max(y, toY)];
      this.show();
    };
    if (this.mode === 'split') move(event);
    this.viewer.root.setPointerCapture(event.pointerId);
    const end = () => this.viewer.root.removeEventListener('pointermove', move);
    this.viewer.root.addEventListener('pointermove', move);
    this.viewer.root.addEventListener('pointerup', end, { once: true });
    this.viewer.root.addEventListener('pointercancel', end, { once: true });
  }

  cutAt(x, y) {
    const [x0, y0, x1, y1] = this.cell.box;
    this.cut = clamp(this.across ? (x - x0) / (x1 - x0) : (y - y0) / (y1 - y0), 0.12, 0.88);
  }
}

const clamp = (value, least, most) => Math.max(least, Math.min(most, value));
