// The room's composition root: queue, panels and keys.
import { dialogOpen, post, say, typing } from '../app.js';
import { el } from '../elements.js';
import { Acts } from './acts.js';
import { dragging, rubberBand } from './choosing.js';
import { compare } from './compare.js';
import { showDifferential } from './differential.js';
import { Draft, dropWhereSigned, shelfOf } from './drafts.js';
import { Drawing } from './drawing.js';
import { Findings } from './findings.js';
import { data, gallery, onKey, store } from './first.js';
import { Flags } from './flags.js';
import { glassDialog } from './glass.js';
import { showHistory } from './history.js';
import { Light } from './light.js';
import { Consult } from './consult.js';
import { follow } from './live.js';
import { CellMenu } from './menu.js';
import { More } from './more.js';
import { phraseLists } from './phrases.js';
import { Queue } from './queue.js';
import { watchGroups } from './seen.js';
import { Activity } from './activity.js';
import { blindSaving, opinionPanel } from './blind.js';
import { Overlay, secondEye } from './secondeye.js';
import { signing } from './sign.js';
import { Trouble } from './trouble.js';
import { Viewer } from './viewer.js';

const address = `/cases/${store.case.case_id}`;
const queue = new Queue(store.case.case_id, store.userId);
const saved = document.getElementById('saved');
const classes = document.getElementById('classes');
const line = document.getElementById('selected');

const viewer = new Viewer(document.getElementById('viewport'), store);
const light = new Light(document.querySelector('.room'));
const acts = new Acts(store, queue, address);
const trouble = new Trouble(store, queue, address);
const drawing = new Drawing(viewer, store, {
  add: (box, field, label) => acts.add(box, field, label),
  split: (cell, boxes) => acts.split(cell, boxes),
  ask: () => classes.showModal(),
}, (words) => {
  if (words) line.textContent = words;
  else describe();
});
dropWhereSigned(store);
const consult = store.blind ? null : new Consult(store, viewer, address, data.colleagues);
showDifferential(store, queue);
const flags = store.blind ? null : new Flags(store, queue, address);
/** Further cells joined the case: what is chosen, typed and undone here stays; acts under way go first. */
const more = store.blind ? null : new More(address, async ({ cells }) => {
  if (queue.size) await new Promise((done) => queue.addEventListener('idle', done, { once: true }));
  if (await trouble.reload() && !await flags.renew()) say(`${cells} cells more came: the doubtful ones stand first, and the differential counts them.`, { seconds: 8 });
});
if (!store.blind) watchGroups(gallery.root, store, queue, address);
rubberBand(gallery.root, store, gallery.tiles);
dragging(gallery.root, store, (label, cells) => acts.reclassify(label, cells));
// Blind, only what the eye sees is asked for: findings are entered once the reading is saved.
const findings = store.blind ? null : new Findings(store, queue, address, data.findings, { back: toCells, sign: () => openSign() });
const flush = () => findings?.flush();
const activity = new Activity(store, address);
const openSign = store.blind ? blindSaving(store, queue, { expired: () => trouble.onExpired() })
  : signing(store, queue, { expired: () => trouble.onExpired(), show: firstUnreviewed, before: flush, ready: () => flags.ready() });
const saveFirst = () => say('Save this reading first.', { seconds: 2 });
const openGlass = store.blind ? saveFirst : glassDialog(store, queue, flush);
const asking = document.querySelector('#ask form');
if (asking) new Draft(asking, 'ask', store).restore();
else if (store.mine) shelfOf(store).remove('ask'); // it was asked
phraseLists(data.phrases ?? []);
activity.joins(document.getElementById('sign-form'));
opinionPanel(store, acts);
const overlay = new Overlay(document.getElementById('overlay'), store, address);

queue.addEventListener('sending', () => {
  saved.classList.remove('offline');
  saved.textContent = 'saving…';
});
queue.addEventListener('result', (event) => {
  // What a later act in the queue touches again must not flicker back to this answer.
  const { result, pending, touches = [], elsewhere } = event.detail;
  if (result.items) {
    findings?.apply(result, new Set(pending));
    return;
  }
  const told = [...result.cells.map((cell) => cell.cell_id), ...result.gone];
  if (elsewhere) [store.past, store.future] = [[], []];
  store.apply(result, new Set(pending));
  if (touches.some((id) => !told.includes(id)) && !pending.length) trouble.reload();
});
queue.addEventListener('idle', () => {
  saved.classList.remove('offline');
  saved.textContent = 'saved';
});
queue.addEventListener('waiting', () => {
  if (!queue.size) return;
  saved.classList.add('offline');
  saved.textContent = `${queue.size} ${queue.size === 1 ? 'change waits' : 'changes wait'} for the connection`;
});

function describe() {
  const cell = store.cells.get(store.focus);
  if (!cell || drawing.active) return;
  for (const key of document.querySelectorAll('.key[data-class]')) key.classList.toggle('on', store.chosen.size > 0 && key.dataset.class === cell.current_class);
  if (!store.chosen.size) {
    line.replaceChildren(el('b', {}, 'No cell'), ' chosen: tap each that you mean, then its class');
    line.title = '';
    return;
  }
  const apart = !store.chosen.has(store.focus);
  if (store.chosen.size > 1) {
    line.replaceChildren(el('b', {}, `${store.chosen.size} cells`), apart ? ` chosen, not cell ${cell.number}` : ' chosen');
    line.title = '';
    return;
  }
  const parts = [el('b', {}, `cell ${cell.number}`), ` ${store.name(cell.current_class)} `];
  if (store.blind?.hides_ai) {
    parts.splice(1, 1, el('span', { class: 'set' }, cell.doubtful ? ' not classified yet' : ` ${store.name(cell.current_class)}, by you`));
  } else if (cell.added_by) {
    parts.push(el('span', { class: 'set' }, `marked by ${cell.added_by}`));
  } else {
    if (cell.changed_by) parts.push(el('span', { class: 'set' }, `set by ${cell.changed_by} · `));
    const thought = store.impression[cell.cell_id];
    parts.push(el('span', { class: 'set' }, secondEye(cell, store) + (thought && thought !== cell.ai_class ? ` · without the AI: ${store.name(thought)}` : '')));
  }
  if (apart) parts.push(el('span', { class: 'set' }, ` · not chosen, ${store.words([...store.chosen])} is`));
  line.replaceChildren(...parts);
  line.title = line.textContent;
}
store.addEventListener('select', describe);
store.addEventListener('cells', describe);

/** Give a class: to the box that is being drawn, else to the chosen cells. */
function setClass(label) {
  if (!drawing.take(label)) acts.reclassify(label);
}

function showEvidence(button) {
  const on = button.getAttribute('aria-pressed') !== 'true';
  for (const other of document.querySelectorAll('[data-flag]')) other.removeAttribute('aria-pressed');
  button.setAttribute('aria-pressed', String(on));
  const flag = store.case.flags.find((one) => one.id === button.dataset.flag);
  store.evidence = new Set(on ? flag.evidence.cells : []);
  store.emit('evidence');
  if (on) store.select(flag.evidence.cells[0], { from: 'flag' });
}

function nextFlag() {
  const flags = [...document.querySelectorAll('[data-flag]:not([aria-disabled="true"])')];
  const at = flags.findIndex((flag) => flag.getAttribute('aria-pressed') === 'true');
  if (flags.length) showEvidence(flags[(at + 1) % flags.length]);
  else say('No flag rests on single cells.', { seconds: 2 });
}

function nextDoubtful(step = 1) {
  if (!store.nextDoubtful(step)) say(store.blind?.hides_ai ? 'Every cell is classified.' : 'No doubtful cell is left.', { seconds: 2 });
}

function toCells() {
  gallery.tiles.get(store.focus)?.focus();
}

/** From the sign-out dialog to what it waits for. */
function firstUnreviewed() {
  if (!store.nextDoubtful()) gallery.nextGroup(1);
}

function doubtfulHere() {
  const cls = store.cells.get(store.focus)?.current_class;
  const ids = store.doubtful.filter((id) => store.cells.get(id).current_class === cls);
  if (ids.length) store.selectMany(ids, { from: 'keys' });
  else say(`No ${store.name(cls)} is doubtful.`, { seconds: 2 });
}

function row(step) {
  const id = gallery.rowFrom(step);
  if (id) store.select(id, { from: 'keys' });
}

function startMark() {
  if (acts.shaping() && !drawing.add()) say('Cells can be marked in fields; this case brings single cells only.');
}

function startSplit() {
  const cell = store.cells.get(store.focus);
  if (!acts.shaping() || !cell) return;
  if (cell.field === null) say('Only a cell of a field can be split.');
  else drawing.split(cell);
}

/** Somebody reads the case: not taken from them by one key, and never from another than who is named. */
const takeOver = document.getElementById('take-over');
async function askFirst() {
  takeOver.showModal();
  if (!await trouble.reload()) return;
  document.getElementById('take-over-who').textContent = trouble.holder
    ? `${trouble.holder} is reading it until ${trouble.until.slice(11, 19)}.` : 'Nobody is reading it any more.';
}
takeOver?.addEventListener('keydown', (event) => {
  if (event.key === 't' && !event.repeat) takeOver.querySelector('form').requestSubmit();
});

const submit = (selector) => document.querySelector(selector)?.closest('form').requestSubmit();
const ACTIONS = {
  next: () => store.move(1),
  previous: () => store.move(-1),
  rowDown: () => row(1),
  rowUp: () => row(-1),
  nextDoubtful: () => nextDoubtful(1),
  previousDoubtful: () => nextDoubtful(-1),
  nextGroup: () => gallery.nextGroup(1),
  previousGroup: () => gallery.nextGroup(-1),
  nextFlag,
  focusNext: () => store.move(1, { how: 'focus' }),
  focusPrevious: () => store.move(-1, { how: 'focus' }),
  choose: () => store.select(store.focus, { how: 'toggle', from: 'keys' }),
  extendNext: () => store.move(1, { how: 'extend' }),
  extendPrevious: () => store.move(-1, { how: 'extend' }),
  doubtfulHere,
  doubtfulAll: () => (store.doubtful.length ? store.selectMany(store.doubtful, { from: 'keys' }) : nextDoubtful()),
  wholeGroup: () => gallery.chooseGroup(store.groupOf(store.focus)?.key),
  onlyThis: () => store.selectMany([store.focus], { from: 'keys' }),
  class: setClass,
  other: () => (drawing.active || acts.allowed()) && classes.showModal(),
  artefact: () => setClass('artefact'),
  accept: () => acts.accept(),
  undo: () => acts.undo(),
  redo: () => acts.redo(),
  menu: () => menu.beside(gallery.tiles.get(store.focus)),
  mark: startMark,
  split: startSplit,
  merge: () => acts.merge(),
  nextField: () => viewer.step(1),
  previousField: () => viewer.step(-1),
  zoomIn: () => viewer.zoom(true),
  zoomOut: () => viewer.zoom(false),
  fit: () => viewer.fit(),
  panLeft: () => viewer.shift(-1, 0),
  panRight: () => viewer.shift(1, 0),
  panUp: () => viewer.shift(0, -1),
  panDown: () => viewer.shift(0, 1),
  boxes: () => viewer.switchBoxes(),
  brighter: () => light.change('brightness', 1),
  darker: () => light.change('brightness', -1),
  moreContrast: () => light.change('contrast', 1),
  lessContrast: () => light.change('contrast', -1),
  plain: () => light.plain(),
  largerTiles: () => gallery.grow(2),
  smallerTiles: () => gallery.grow(-2),
  facts: () => document.getElementById('facts').showModal(),
  findings: () => findings ? findings.next() : saveFirst(),
  compare: () => compare(document.getElementById('compare'), store, address),
  overlay: () => overlay.toggle(),
  history: () => store.blind ? say('The history is shown once this reading is saved.', { seconds: 2 }) : showHistory(document.getElementById('history'), store, address),
  claim: () => takeOver ? askFirst() : submit('[data-claim]'),
  release: () => submit('[data-release]'),
  sign: openSign,
  glass: openGlass,
  consult: () => consult ? consult.toggle() : saveFirst(),
  more: () => more ? more.ask() : saveFirst(),
};
const menu = new CellMenu(document.getElementById('cell-menu'), store, (does, value) => ACTIONS[does](value));

document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-class]');
  if (button) {
    if (classes.open) classes.close();
    setClass(button.dataset.class);
  }
  const flag = event.target.closest('[data-flag]');
  if (flag && flag.getAttribute('aria-disabled') !== 'true') showEvidence(flag);
  const act = event.target.closest('button[data-does]');
  if (act && !menu.menu.contains(act)) ACTIONS[act.dataset.does]();
});
document.querySelector('[data-release]')?.closest('form').addEventListener('submit', () => queue.announce('left', { how: 'released', to: '/worklist' }));

/** A key as `reading_keys.py` spells it: `shift+j`, `ctrl+Enter`, `Space`. */
function spelled(event) {
  let key = event.key === ' ' ? 'Space' : event.key;
  if (/^[A-Z]$/.test(key)) key = key.toLowerCase();
  return `${event.ctrlKey || event.metaKey ? 'ctrl+' : ''}${event.shiftKey ? 'shift+' : ''}${key}`;
}

/** The class that a key stands for, if any. */
function labelOf(key) {
  if (/^[1-9]$/.test(key)) return store.keys[Number(key) - 1];
  return key === 'x' ? 'artefact' : null;
}

function pressed(event) {
  const altGraph = event.getModifierState('AltGraph'); // how some keyboards type brackets
  if (typing(event) || dialogOpen() || (event.altKey && !altGraph)) return;
  const key = altGraph ? event.key : spelled(event);
  if (drawing.key(event, event.ctrlKey || event.metaKey ? null : labelOf(key))) {
    event.preventDefault();
    return;
  }
  const does = data.actions[key];
  if (!does || event.repeat && does === 'class') return;
  // Buttons are pressed by space and enter, sliders moved by arrows: as everywhere.
  const control = event.target.closest?.('button, a, summary, input, [role="separator"]');
  if (control && (['Space', 'Enter'].includes(key) || (key.includes('Arrow') && control.matches('input, [role="separator"]')))) return;
  event.preventDefault();
  ACTIONS[does](does === 'class' ? labelOf(key) : undefined);
}

const lease = document.getElementById('lease');
if (lease?.dataset.until) {
  let until = new Date(lease.dataset.until);
  const tick = () => {
    const left = Math.max(0, Math.round((until - Date.now()) / 1000));
    lease.textContent = `${String(Math.floor(left / 60)).padStart(2, '0')}:${String(left % 60).padStart(2, '0')}`;
  };
  tick();
  setInterval(tick, 1000);
  setInterval(async () => {
    try {
      until = new Date((await post(`${address}/heartbeat`)).lease_until);
    } catch (problem) {
      if (problem.status === 401 || problem.status === 403) trouble.onExpired();
      else if (problem.status) say(problem.message, { seconds: 0 });
    }
  }, 45000);
}

/** Somebody else has the case now: a reader who still writes must know, and whoever only looks too. */
async function newHolder() {
  const mine = store.mine && trouble.held !== false;
  if (!await trouble.reload()) return;
  if (mine && !trouble.held && trouble.holder) say(`${trouble.holder} has taken this case over. What you changed up to then is kept.`, { seconds: 0 });
  else if (!store.mine && trouble.holder !== data.case.claimed_by) say(trouble.holder ? `${trouble.holder} is reading this case now.` : 'Nobody holds this case now: reload the page to claim it.', { seconds: 8 });
  data.case.claimed_by = trouble.holder;
}
follow(address, { consult: () => consult?.heard(), more: () => more?.load(), holder: newHolder });

queue.send();
store.emit('select');
onKey(pressed);
