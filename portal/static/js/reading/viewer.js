// The field in OpenSeadragon, its boxes in one SVG above it. A smear without fields shows the chosen cell instead.
import { el, svg } from '../elements.js';

const SCALES = { px: [10, 20, 50, 100, 200, 500, 1000], µm: [1, 2, 5, 10, 20, 50, 100, 200, 500] };
const LEAST_BAR = 60;
const STEP = 1.4;

/** OpenSeadragon adds a style element, which our policy forbids, unless one is there: this stands in for it. */
function standInForStyle() {
  const mark = document.createElementNS('urn:hematovision', 'style');
  mark.setAttribute('data-openseadragon-mobile-css', 'true');
  document.head.append(mark);
}

export class Viewer {
  constructor(root, store) {
    this.root = root;
    this.store = store;
    this.fields = store.case.fields;
    this.shown = null;
    this.boxesOn = true;
    this.draft = [];
    this.pointed = null;
    this.position = document.getElementById('field-position');
    standInForStyle();
    this.osd = window.OpenSeadragon({
      element: root,
      drawer: 'canvas',
      showNavigationControl: false,
      showNavigator: false,
      animationTime: matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      keyboardNavEnabled: false,
      maxZoomPixelRatio: 8,
      visibilityRatio: 0.6,
      minZoomImageRatio: 0.8,
    });
    this.osd.innerTracker.keyDownHandler = null;
    this.osd.innerTracker.keyHandler = null;
    this.layer = svg('svg', { class: 'boxes', 'aria-hidden': 'true' });
    this.scale = el('div', { class: 'scalebar', hidden: true });
    this.note = el('div', { class: 'viewer-note', hidden: true });
    this.root.append(this.layer, this.scale, this.note);
    for (const event of ['open', 'update-viewport', 'resize']) this.osd.addHandler(event, () => this.draw());
    this.osd.addHandler('open', () => this.opened());
    this.osd.addHandler('open-failed', () => this.failed());
    this.osd.addHandler('tile-load-failed', () => this.failed());
    this.osd.addHandler('canvas-click', (event) => this.click(event));
    window.addEventListener('online', () => this.again());
    store.addEventListener('select', (event) => this.follow(event.detail.from));
    store.addEventListener('cells', () => this.draw());
    store.addEventListener('fields', () => {
      this.fields = store.case.fields;
      const at = this.fields.findIndex((one) => `field-${one.index}` === this.shown);
      if (at >= 0) this.position.textContent = `${at + 1} of ${this.fields.length}`;
    });
    document.getElementById('field-previous')?.addEventListener('click', () => this.step(-1));
    document.getElementById('field-next')?.addEventListener('click', () => this.step(1));
    document.getElementById('fit').addEventListener('click', () => this.fit());
    this.toggle = document.getElementById('toggle-boxes');
    this.toggle.addEventListener('click', () => this.switchBoxes());
  }

  get image() {
    return this.osd.world.getItemAt(0);
  }

  /** The field on show, or null: a single cell is. */
  get field() {
    return this.shown?.startsWith('field-') ? this.fields.find((one) => `field-${one.index}` === this.shown) : null;
  }

  show(key, source, words) {
    if (this.shown === key) return false;
    this.shown = key;
    this.source = source;
    this.view = null;
    this.layer.replaceChildren();
    this.position.textContent = words;
    this.open();
    this.store.emit('field');
    return true;
  }

  open() {
    this.note.hidden = true;
    this.osd.open(this.source);
  }

  opened() {
    if (this.view) {
      this.osd.viewport.fitBounds(this.view, true);
      this.view = null;
    }
    if (this.pending) {
      this.pan(this.pending, true);
      this.pending = null;
    }
  }

  failed() {
    this.note.textContent = navigator.onLine ? 'This image cannot be shown. Reload the page to try again.' : 'The image comes when the connection is back.';
    this.note.hidden = false;
  }

  /** Open what lacks a tile anew, where the reader was: OpenSeadragon asks for a failed tile no second time. */
  again() {
    if (this.note.hidden) return;
    this.view = this.image ? this.osd.viewport.getBounds() : null;
    this.open();
  }

  /** Show where the chosen cell is. */
  follow(from) {
    const cell = this.store.cells.get(this.store.focus);
    if (!cell) return;
    if (cell.field === null || !this.fields.length) {
      if (cell.blob) this.show(`cell-${cell.cell_id}`, this.cellSource(cell), `${cell.number}`);
      return;
    }
    if (this.showField(cell.field)) this.pending = cell;
    else if (from !== 'viewer' && from !== 'several') this.pan(cell, false);
    this.draw();
  }

  cellSource(cell) {
    return { type: 'image', url: `/cases/${this.store.case.case_id}/blobs/${encodeURIComponent(cell.blob)}`, buildPyramid: false };
  }

  /** A pyramid of tiles, as Deep Zoom has them: the highest level is the field itself. */
  fieldSource({ index, width, height }) {
    const { size, overlap } = this.store.tiles;
    const maxLevel = Math.ceil(Math.log2(Math.max(width, height)));
    const minLevel = Math.max(0, maxLevel - Math.ceil(Math.log2(Math.max(1, Math.max(width, height) / size))));
    const base = `/cases/${this.store.case.case_id}/fields/${index}/tiles/`;
    const getTileUrl = (level, x, y) => `${base}${level}_${x}_${y}.jpg`;
    return { width, height, tileSize: size, tileOverlap: overlap, minLevel, maxLevel, getTileUrl };
  }

  showField(index) {
    const field = this.fields.find((one) => one.index === index);
    if (!field) return false;
    return this.show(`field-${index}`, this.fieldSource(field), `${this.fields.indexOf(field) + 1} of ${this.fields.length}`);
  }

  step(by) {
    if (!this.fields.length) return;
    const at = this.fields.indexOf(this.field);
    const next = this.fields[(at + by + this.fields.length) % this.fields.length];
    this.showField(next.index);
  }

  pan(cell, immediately) {
    const item = this.image;
    if (!item) return;
    const [x0, y0, x1, y1] = cell.box;
    const box = item.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
    const view = this.osd.viewport.getBounds();
    const inside = box.x > view.x && box.y > view.y && box.x + box.width < view.x + view.width && box.y + box.height < view.y + view.height;
    if (!inside) this.osd.viewport.panTo(box.getCenter(), immediately);
  }

  /** What of the field is on screen, in its pixels; null where a single cell is shown. */
  visible() {
    const { field, image } = this;
    if (!field || !image) return null;
    const { x, y, width, height } = image.viewportToImageRectangle(this.osd.viewport.getBounds());
    const within = (value, most) => Math.round(Math.max(0, Math.min(most, value)));
    return { field: field.index, box: [within(x, field.width), within(y, field.height), within(x + width, field.width), within(y + height, field.height)] };
  }

  /** Show a region of a field that somebody asks about; null: none any more. */
  point(field, box) {
    this.pointed = field === null ? null : { field, box };
    if (field === null) {
      this.draw();
      return;
    }
    const show = () => {
      const [x0, y0, x1, y1] = box;
      const margin = 0.04 * Math.max(x1 - x0, y1 - y0);
      this.osd.viewport.fitBounds(this.image.imageToViewportRectangle(x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin));
      this.draw();
    };
    if (this.showField(field)) this.osd.addOnceHandler('open', show);
    else show();
  }

  fit() {
    this.osd.viewport.goHome();
  }

  zoom(closer) {
    this.osd.viewport.zoomBy(closer ? STEP : 1 / STEP);
    this.osd.viewport.applyConstraints();
  }

  /** Move the view by a fifth of it. */
  shift(across, down) {
    const { width, height } = this.osd.viewport.getBounds();
    this.osd.viewport.panBy(new window.OpenSeadragon.Point((across * width) / 5, (down * height) / 5));
    this.osd.viewport.applyConstraints();
  }

  switchBoxes() {
    this.boxesOn = !this.boxesOn;
    this.toggle.setAttribute('aria-pressed', String(this.boxesOn));
    this.draw();
  }

  here() {
    const field = this.field;
    return field ? [...this.store.cells.values()].filter((cell) => cell.field === field.index) : [];
  }

  /** Where a pointer is, in pixels of the image on show. */
  at(event) {
    const frame = this.root.getBoundingClientRect();
    return this.image.viewerElementToImageCoordinates(new window.OpenSeadragon.Point(event.clientX - frame.left, event.clientY - frame.top));
  }

  click(event) {
    if (!event.quick || !this.image || this.draft.length) return;
    const hit = this.hit(this.image.viewerElementToImageCoordinates(event.position));
    const { shiftKey, ctrlKey, metaKey } = event.originalEvent;
    if (hit) this.store.select(hit.cell_id, { how: shiftKey || ctrlKey || metaKey || this.store.several ? 'toggle' : 'one', from: 'viewer' });
  }

  /** The smallest cell at a place. */
  hit(at) {
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    return this.here()
      .filter(({ box }) => at.x >= box[0] && at.x <= box[2] && at.y >= box[1] && at.y <= box[3])
      .sort((a, b) => area(a) - area(b))[0];
  }

  draw() {
    const item = this.image;
    if (!item) return;
    const point = (x, y) => item.imageToViewerElementCoordinates(new window.OpenSeadragon.Point(x, y));
    const boxes = this.boxesOn ? this.here().map((cell) => this.box(cell, point)) : [];
    this.layer.replaceChildren(...boxes, ...this.draft.map((box) => this.draftBox(box, point)));
    if (this.pointed && this.pointed.field === this.field?.index) this.layer.append(this.draftBox(this.pointed.box, point));
    this.drawScale(point);
  }

  box(cell, point) {
    const { x, y, width, height } = frame(cell.box, point);
    const chosen = this.store.chosen.has(cell.cell_id);
    const human = Boolean(cell.changed_by);
    const names = ['c-' + cell.current_class, cell.doubtful && 'doubtful', human && 'human', chosen && 'chosen'];
    const group = svg('g', { class: names.filter(Boolean).join(' '), 'data-cell': cell.cell_id },
      svg('rect', { x, y, width, height, rx: 2, class: 'halo' }), svg('rect', { x, y, width, height, rx: 2 }));
    if (human) group.append(svg('rect', { x: x - 4, y: y - 4, width: width + 8, height: height + 8, rx: 3 }));
    if (width > 18) {
      const label = svg('text', { x: x + 3, y: y + 11 });
      label.textContent = this.store.mark(cell.current_class);
      group.append(svg('rect', { x, y, width: 22, height: 14, class: 'plate' }), label);
    }
    return group;
  }

  draftBox(box, point) {
    return svg('g', { class: 'draft' }, svg('rect', { ...frame(box, point), class: 'halo' }), svg('rect', frame(box, point)));
  }

  /** A bar of a round length: micrometres where the hospital's images say how large a pixel is, else pixels. */
  drawScale(point) {
    const microns = this.field?.microns;
    const unit = microns ? 'µm' : 'px';
    const perUnit = (point(1, 0).x - point(0, 0).x) / (microns ?? 1);
    const length = SCALES[unit].find((size) => size * perUnit >= LEAST_BAR) ?? SCALES[unit].at(-1);
    this.scale.hidden = false;
    this.scale.style.width = `${length * perUnit}px`;
    this.scale.textContent = `${length} ${unit}`;
  }
}

function frame(box, point) {
  const [from, to] = [point(box[0], box[1]), point(box[2], box[3])];
  return { x: from.x, y: from.y, width: to.x - from.x, height: to.y - from.y };
}
