// The case as the page knows it: the server is the truth, this is its latest word plus what waits to be sent.
/** What the hospital's rules say of the smear, to tell whether that has changed. */
const said = ({ quality, flags }) => [quality.white_cells, ...flags.map((flag) => flag.shown)].join('|');

export class Store extends EventTarget {
  constructor(data) {
    super();
    this.case = data.case;
    this.mine = data.mine;
    this.me = data.me;
    this.userId = data.user_id;
    this.tiles = data.tiles;
    this.classes = data.classes;
    this.order = Object.keys(data.classes);
    this.keys = data.keys;
    this.limits = data.limits;
    this.blind = data.case.blind;
    this.impression = data.impression;
    this.seen = new Set(data.seen);
    this.cells = new Map(data.case.cells.map((cell) => [cell.cell_id, cell]));
    this.differential = data.case.differential;
    this.version = data.case.version;
    this.focus = null;
    this.anchor = null;
    this.chosen = new Set();
    this.several = false;
    this.evidence = new Set();
    this.past = [];
    this.future = [];
    this.regroup();
  }

  emit(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** As the server orders: set size (an empty set counts as largest), then margin, then distance, then number. */
  doubt(cell) {
    const size = cell.added_by ? 1 : cell.prediction_set.length || 99;
    return [-size, cell.margin ?? cell.ai_probability, -cell.ood_score, cell.number];
  }

  /** Groups in reading order: the doubtful first, then class by class in reporting order. */
  regroup() {
    const byDoubt = (a, b) => {
      const [x, y] = [this.doubt(a), this.doubt(b)];
      return x.map((value, i) => value - y[i]).find(Boolean) ?? 0;
    };
    const all = [...this.cells.values()];
    const groups = [];
    if (this.blind?.hides_ai) {
      // One group, in the server's neutral order: nothing of the AI shows in where a cell stands.
      this.groups = [{ key: 'all', cells: all }];
      this.sequence = all.map((cell) => cell.cell_id);
      return;
    }
    const unsure = all.filter((cell) => cell.doubtful).sort(byDoubt);
    if (unsure.length) groups.push({ key: 'unsure', cells: unsure });
    for (const cls of this.order) {
      const cells = all.filter((cell) => !cell.doubtful && cell.current_class === cls).sort(byDoubt);
      if (cells.length) groups.push({ key: cls, cells });
    }
    this.groups = groups;
    this.sequence = groups.flatMap((group) => group.cells.map((cell) => cell.cell_id));
  }

  groupOf(id) {
    return this.groups.find((group) => group.cells.some((cell) => cell.cell_id === id));
  }

  /** Class groups that hold a cell which no reader has set, and that were not on this screen yet. */
  get unseen() {
    return this.blind ? [] : this.groups
      .filter((group) => group.key !== 'unsure' && !this.seen.has(group.key) && group.cells.some((cell) => !cell.changed_by))
      .map((group) => group.key);
  }

  get doubtful() {
    return this.sequence.filter((id) => this.cells.get(id).doubtful);
  }

  /**
   * `how`: `one` cell alone, `toggle` one of several, `range` from the anchor, `extend` one more, `focus` leaves the choice.
   * Where several are chosen one by one, `one` leaves it too: whatever leads to a cell, only a tap takes it in.
   */
  select(id, { how = 'one', from = '' } = {}) {
    if (!this.cells.has(id)) return;
    if (how === 'range' && this.anchor && this.cells.has(this.anchor)) {
      const ends = [this.sequence.indexOf(this.anchor), this.sequence.indexOf(id)].sort((a, b) => a - b);
      this.chosen = new Set(this.sequence.slice(ends[0], ends[1] + 1));
    } else if (how === 'toggle' || how === 'extend') {
      if (how === 'toggle' && this.chosen.has(id) && (this.several || this.chosen.size > 1)) this.chosen.delete(id);
      else this.chosen.add(id);
      this.anchor = id;
    } else if (how !== 'focus' && !this.several) {
      this.chosen = new Set([id]);
      this.anchor = id;
    }
    this.focus = id;
    this.emit('select', { from });
  }

  /** A plain tap or click takes a cell in or out. What was chosen by itself goes: a class must meet what was tapped only. */
  chooseSeveral(on) {
    this.several = on;
    if (on ? this.chosen.size < 2 : !this.chosen.size) this.chosen = new Set(on || !this.focus ? [] : [this.focus]);
    this.emit('select', { from: 'several' });
  }

  /** Choose nothing, where several are chosen one by one. */
  letGo() {
    this.chosen = new Set();
    this.emit('select', { from: 'several' });
  }

  selectMany(ids, { add = false, from = '' } = {}) {
    const known = ids.filter((id) => this.cells.has(id));
    if (!known.length) return;
    this.chosen = new Set(add ? [...this.chosen, ...known] : known);
    if (!known.includes(this.focus)) this.focus = known[0];
    this.anchor = this.focus;
    this.emit('select', { from });
  }

  move(step, { how = 'one' } = {}) {
    const at = this.sequence.indexOf(this.focus);
    const next = this.sequence[Math.max(0, Math.min(this.sequence.length - 1, at + step))];
    if (next) this.select(next, { how, from: 'keys' });
  }

  /** Choose the next (or previous) doubtful cell after `after`; false where none is left. */
  nextDoubtful(step = 1, after = this.focus) {
    const doubtful = this.doubtful;
    if (!doubtful.length) return false;
    const at = doubtful.indexOf(after);
    const next = at < 0 ? (step > 0 ? 0 : doubtful.length - 1) : (at + step + doubtful.length) % doubtful.length;
    this.select(doubtful[next], { from: 'keys' });
    return true;
  }

  /** Show an act at once: `change` alters the map of cells, `ids` are all that it may touch. */
  act(ids, change) {
    this.past.push(this.snapshot(ids));
    this.future = [];
    change(this.cells);
    this.redraw(ids);
  }

  assume(ids, label) {
    this.act(ids, (cells) => {
      for (const id of ids) {
        const cell = cells.get(id);
        cells.set(id, { ...cell, current_class: label ?? cell.current_class, doubtful: false, changed_by: this.me });
      }
    });
  }

  /** Undo or redo at once what this page did; returns the cells it touched (none: only the server knows them). */
  step(from, to) {
    const snapshot = from.pop();
    if (!snapshot) return [];
    const ids = snapshot.map(([id]) => id);
    to.push(this.snapshot(ids));
    for (const [id, cell] of snapshot) {
      if (cell) this.cells.set(id, cell);
      else this.cells.delete(id);
    }
    this.redraw(ids);
    return ids;
  }

  back() {
    return this.step(this.past, this.future);
  }

  forward() {
    return this.step(this.future, this.past);
  }

  snapshot(ids) {
    return ids.map((id) => [id, this.cells.get(id) ?? null]);
  }

  get nextNumber() {
    return Math.max(0, ...[...this.cells.values()].map((cell) => cell.number)) + 1;
  }

  /** Take the server's answer; cells in `pending` have later acts on their way and keep what these show. */
  apply(result, pending = new Set()) {
    for (const cell of result.cells) if (!pending.has(cell.cell_id)) this.cells.set(cell.cell_id, cell);
    for (const id of result.gone) if (!pending.has(id)) this.cells.delete(id);
    this.differential = result.differential;
    this.version = result.case_version;
    this.redraw(result.cells.map((cell) => cell.cell_id));
  }

  replace(caseView) {
    if (Boolean(caseView.blind) !== Boolean(this.blind)) location.reload(); // a blind reading was saved elsewhere
    // Fields and flags change when the hospital's node sends more of the smear.
    this.case.ai_differential = caseView.ai_differential;
    if (caseView.fields.length !== this.case.fields.length) {
      this.case.fields = caseView.fields;
      this.emit('fields');
    }
    if (!this.blind && said(caseView) !== said(this.case)) this.emit('flags'); // `flags.js` has them drawn anew
    // What the hospital sent since was on no screen yet, whatever of its class was.
    for (const cell of caseView.cells) if (!this.cells.has(cell.cell_id) && !cell.added_by) this.seen.delete(cell.current_class);
    this.cells = new Map(caseView.cells.map((cell) => [cell.cell_id, cell]));
    this.differential = caseView.differential;
    this.version = caseView.version;
    this.signed = caseView.report_id !== this.case.report_id;
    this.past = [];
    this.future = [];
    this.redraw([]);
    this.emit('replaced');
  }

  redraw(moved) {
    this.regroup();
    this.chosen = new Set([...this.chosen].filter((id) => this.cells.has(id)));
    if (!this.cells.has(this.focus)) {
      this.focus = [...this.chosen][0] ?? this.sequence[0] ?? null;
      if (this.focus && !this.several) this.chosen.add(this.focus);
      this.anchor = this.focus;
    }
    this.emit('cells', { moved });
  }

  name(cls) {
    return this.classes[cls].name;
  }

  mark(cls) {
    return this.classes[cls].mark;
  }

  /** What a person reads of some cells: `cell 17`, `4 cells`. */
  words(ids) {
    return ids.length === 1 ? `cell ${this.cells.get(ids[0])?.number ?? ''}`.trim() : `${ids.length} cells`;
  }
}
