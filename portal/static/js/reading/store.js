// The case as the page knows it: the server is the truth, this is its latest word plus what waits to be sent.
export class Store extends EventTarget {
  constructor(data) {
    super();
    this.case = data.case;
    this.mine = data.mine;
    this.me = data.me;
    this.classes = data.classes;
    this.order = Object.keys(data.classes);
    this.keys = data.keys;
    this.cells = new Map(data.case.cells.map((cell) => [cell.cell_id, cell]));
    this.differential = data.case.differential;
    this.version = data.case.version;
    this.changes = 0;
    this.focus = null;
    this.chosen = new Set();
    this.evidence = new Set();
    this.regroup();
  }

  emit(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  doubt(cell) {
    const size = cell.prediction_set.length || 99;
    return [-size, cell.ai_probability, -cell.ood_score, cell.number];
  }

  /** Groups in reading order: the doubtful first, then class by class in reporting order. */
  regroup() {
    const byDoubt = (a, b) => {
      const [x, y] = [this.doubt(a), this.doubt(b)];
      return x.map((value, i) => value - y[i]).find((difference) => difference !== 0) ?? 0;
    };
    const all = [...this.cells.values()];
    const groups = [];
    const unsure = all.filter((cell) => cell.doubtful).sort(byDoubt);
    if (unsure.length) groups.push({ key: 'unsure', cells: unsure });
    for (const cls of this.order) {
      const cells = all.filter((cell) => !cell.doubtful && cell.current_class === cls).sort(byDoubt);
      if (cells.length) groups.push({ key: cls, cells });
    }
    this.groups = groups;
    this.sequence = groups.flatMap((group) => group.cells.map((cell) => cell.cell_id));
  }

  select(id, { extend = false, from = '' } = {}) {
    if (!this.cells.has(id)) return;
    if (extend) {
      if (this.chosen.has(id) && this.chosen.size > 1 && this.focus !== id) this.chosen.delete(id);
      else this.chosen.add(id);
    } else {
      this.chosen = new Set([id]);
    }
    this.focus = id;
    this.emit('select', { from });
  }

  selectMany(ids, options = {}) {
    const known = ids.filter((id) => this.cells.has(id));
    if (!known.length) return;
    this.chosen = new Set(known);
    this.focus = known[0];
    this.emit('select', options);
  }

  move(step, extend = false) {
    const at = this.sequence.indexOf(this.focus);
    const next = this.sequence[Math.max(0, Math.min(this.sequence.length - 1, at + step))];
    this.select(next, { extend, from: 'keys' });
  }

  nextDoubtful() {
    const doubtful = this.sequence.filter((id) => this.cells.get(id).doubtful);
    if (!doubtful.length) return false;
    const at = doubtful.indexOf(this.focus);
    this.select(doubtful[(at + 1) % doubtful.length], { from: 'keys' });
    return true;
  }

  /** Show a change at once; returns what stood before, to put it back if the server refuses. */
  assume(ids, label) {
    const before = ids.map((id) => ({ ...this.cells.get(id) }));
    for (const id of ids) {
      const cell = this.cells.get(id);
      this.cells.set(id, { ...cell, current_class: label, doubtful: false, changed_by: this.me });
    }
    this.redraw(ids);
    return before;
  }

  apply(result) {
    for (const cell of result.cells) this.cells.set(cell.cell_id, cell);
    this.differential = result.differential;
    this.version = result.case_version;
    this.changes = result.changes;
    this.redraw(result.cells.map((cell) => cell.cell_id));
    this.emit('differential');
  }

  replace(caseView) {
    this.cells = new Map(caseView.cells.map((cell) => [cell.cell_id, cell]));
    this.differential = caseView.differential;
    this.version = caseView.version;
    this.redraw([]);
    this.emit('differential');
  }

  redraw(moved) {
    this.regroup();
    this.emit('cells', { moved });
  }

  name(cls) {
    return this.classes[cls].name;
  }

  mark(cls) {
    return this.classes[cls].mark;
  }
}

/** Make an element: tag, attributes, children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  set(node, attributes);
  node.append(...children);
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  set(node, attributes);
  node.append(...children);
  return node;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
}
