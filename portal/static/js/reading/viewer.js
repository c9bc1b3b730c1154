// The field in OpenSeadragon, its boxes in one SVG above it. A smear without fields shows the chosen cell instead.
import { svg } from './store.js';

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
    this.scale = Object.assign(document.createElement('div'), { className: 'scalebar', hidden: true });
    this.note = Object.assign(document.createElement('div'), { className: 'viewer-note', hidden: true });
    this.root.append(this.layer, this.scale, this.note);
    for (const event of ['open', 'update-viewport', 'resize']) this.osd.addHandler(event, () => this.draw());
    this.osd.addHandler('open', () => this.opened());
    this.osd.addHandler('open-failed', () => this.failed());
    this.osd.addHandler('canvas-click', (event) => this.click(event));
    store.addEventListener('select', (event) => this.follow(event.detail.from));
    store.addEventListener('cells', () => this.draw());
    document.getElementById('field-previous')?.addEventListener('click', () => this.step(-1));
    document.getElementById('field-next')?.addEventListener('click', () => this.step(1));
    document.getElementById('fit').addEventListener('click', () => this.fit());
    this.toggle = document.getElementById('toggle-boxes');
    this.toggle.addEventListener('click', () => this.switchBoxes());
  }

  address(blob) {
    return `/cases/${this.store.case.case_id}/blobs/${encodeURIComponent(blob)}`;
  }

  show(key, blob, words) {
    if (this.shown === key) return false;
    this.shown = key;
    this.note.hidden = true;
    this.layer.replaceChildren();
    this.position.textContent = words;
    this.osd.open({ type: 'image', url: this.address(blob), buildPyramid: false });
    return true;
  }

  opened() {
    if (this.pending) {
      this.pan(this.pending, true);
      this.pending = null;
    }
  }

  failed() {
    this.note.textContent = 'This image cannot be shown. Reload the page to try again.';
    this.note.hidden = false;
  }

  /** Show where the chosen cell is. */
  follow(from) {
    const cell = this.store.cells.get(this.store.focus);
    if (!cell) return;
    if (cell.field === null || !this.fields.length) {
      this.show(`cell-${cell.cell_id}`, cell.blob, `${cell.number}`);
      return;
    }
    if (this.showField(cell.field)) this.pending = cell;
    else if (from !== 'viewer') this.pan(cell, false);
    this.draw();
  }

  showField(index) {
    const field = this.fields.find((one) => one.index === index);
    if (!field) return false;
    return this.show(`field-${index}`, field.blob, `${this.fields.indexOf(field) + 1} of ${this.fields.length}`);
  }

  step(by) {
    if (!this.fields.length) return;
    const at = this.fields.findIndex((field) => `field-${field.index}` === this.shown);
    this.showField(this.fields[(at + by + this.fields.length) % this.fields.length].index);
  }

  /** Bring a cell into view without moving what is in view already. */
  pan(cell, immediately) {
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const [x0, y0, x1, y1] = cell.box;
    const box = item.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
    const view = this.osd.viewport.getBounds();
    const inside = box.x > view.x && box.y > view.y && box.x + box.width < view.x + view.width && box.y + box.height < view.y + view.height;
    if (!inside) this.osd.viewport.panTo(box.getCenter(), immediately);
  }

  fit() {
    this.osd.viewport.goHome();
  }

  switchBoxes() {
    this.boxesOn = !this.boxesOn;
    this.toggle.setAttribute('aria-pressed', String(this.boxesOn));
    this.draw();
  }

  here() {
    if (!this.shown?.startsWith('field-')) return [];
    const index = Number(this.shown.slice(6));
    return [...this.store.cells.values()].filter((cell) => cell.field === index);
  }

  click(event) {
    if (!event.quick) return;
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const at = item.viewerElementToImageCoordinates(event.position);
    const hit = this.here()
      .filter(({ box }) => at.x >= box[0] && at.x <= box[2] && at.y >= box[1] && at.y <= box[3])
      .sort((a, b) => (a.box[2] - a.box[0]) * (a.box[3] - a.box[1]) - (b.box[2] - b.box[0]) * (b.box[3] - b.box[1]))[0];
    if (hit) this.store.select(hit.cell_id, { extend: event.originalEvent.shiftKey || event.originalEvent.ctrlKey, from: 'viewer' });
  }

  draw() {
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const point = (x, y) => item.imageToViewerElementCoordinates(new window.OpenSeadragon.Point(x, y));
    this.layer.replaceChildren(...(this.boxesOn ? this.here().map((cell) => this.box(cell, point)) : []));
    this.drawScale(point);
  }

  box(cell, point) {
    const [from, to] = [point(cell.box[0], cell.box[1]), point(cell.box[2], cell.box[3])];
    const [x, y, width, height] = [from.x, from.y, to.x - from.x, to.y - from.y];
    const chosen = this.store.chosen.has(cell.cell_id);
    const human = Boolean(cell.changed_by);
    const names = ['c-' + cell.current_class, cell.doubtful && 'doubtful', human && 'human', chosen && 'chosen'];
    const group = svg('g', { class: names.filter(Boolean).join(' ') },
      svg('rect', { x, y, width, height, rx: 2, class: 'halo' }), svg('rect', { x, y, width, height, rx: 2 }));
    if (human) group.append(svg('rect', { x: x - 4, y: y - 4, width: width + 8, height: height + 8, rx: 3 }));
    if (width > 18) {
      const label = svg('text', { x: x + 3, y: y + 11 });
      label.textContent = this.store.mark(cell.current_class);
      group.append(svg('rect', { x, y, width: 22, height: 14, class: 'plate' }), label);
    }
    return group;
  }

  /** A bar of a round number of image pixels: the slide's micrometres are not part of a case. */
  drawScale(point) {
    const perPixel = point(1, 0).x - point(0, 0).x;
    const pixels = [10, 20, 50, 100, 200, 500, 1000].find((size) => size * perPixel >= 60) ?? 1000;
    this.scale.hidden = false;
    this.scale.style.width = `${pixels * perPixel}px`;
    this.scale.textContent = `${pixels} px`;
  }
}
