// The reading room's composition root: store, queue, panels and keys.
import { dialogOpen, post, say, typing } from '../app.js';
import { showDifferential } from './differential.js';
import { Gallery } from './gallery.js';
import { resizable } from './panels.js';
import { Queue } from './queue.js';
import { signing } from './sign.js';
import { el, Store } from './store.js';
import { Viewer } from './viewer.js';

const store = new Store(JSON.parse(document.getElementById('room-data').textContent));
const address = `/cases/${store.case.case_id}`;
const queue = new Queue(store.case.case_id);
const saved = document.getElementById('saved');
const classes = document.getElementById('classes');

resizable(document.getElementById('panels'));
const viewer = new Viewer(document.getElementById('viewport'), store);
new Gallery(document.getElementById('gallery'), store);
showDifferential(store);
const openSign = signing(store, queue);

function reclassify(label) {
  if (!store.mine) {
    say('Claim the case first; then its cells can be changed.');
    return;
  }
  // The class a doubtful cell has already: the reader confirms it, and the doubt is settled.
  const ids = [...store.chosen].filter((id) => {
    const cell = store.cells.get(id);
    return cell.current_class !== label || cell.doubtful;
  });
  if (!ids.length) {
    say(`Already ${store.name(label)}.`, { seconds: 2 });
    return;
  }
  store.assume(ids, label);
  queue.add(`${address}/cells`, { cell_id: ids, label });
}

function undo() {
  if (store.mine) queue.add(`${address}/undo`, {});
}

queue.addEventListener('sending', () => {
  saved.classList.remove('offline');
  saved.textContent = 'saving…';
});
queue.addEventListener('result', (event) => {
  // What a later change in the queue touches again must not flicker back to this answer.
  const { result, pending } = event.detail;
  store.apply({ ...result, cells: result.cells.filter((cell) => !pending.has(cell.cell_id)) });
});
queue.addEventListener('idle', () => {
  saved.textContent = 'saved';
});
queue.addEventListener('waiting', () => {
  saved.classList.add('offline');
  saved.textContent = `${queue.size} ${queue.size === 1 ? 'change waits' : 'changes wait'} for the connection`;
});
queue.addEventListener('refused', async (event) => {
  say(event.detail.error.message, { seconds: 8 });
  const answer = await fetch(`${address}.json`, { headers: { Accept: 'application/json' } });
  if (answer.ok) store.replace(await answer.json());
});

function describe() {
  const line = document.getElementById('selected');
  const cell = store.cells.get(store.focus);
  if (!cell) return;
  for (const key of document.querySelectorAll('.key[data-class]')) key.classList.toggle('on', key.dataset.class === cell.current_class);
  if (store.chosen.size > 1) {
    line.replaceChildren(el('b', {}, `${store.chosen.size} cells`), ' chosen');
    return;
  }
  const set = cell.prediction_set.map((cls) => store.name(cls)).join(', ') || 'nothing fits';
  const parts = [el('b', {}, `cell ${cell.number}`), ` ${store.name(cell.current_class)} `];
  if (cell.changed_by) parts.push(el('span', { class: 'set' }, `set by ${cell.changed_by}; the model said ${store.name(cell.ai_class)} `));
  parts.push(el('span', { class: 'set' }, `{${set}} ${cell.ai_probability.toFixed(2)}${cell.ood_score > 1 ? ' · unlike the training stain' : ''}${cell.edge ? ' · cut by the field’s edge' : ''}${cell.provisional ? ' · provisional: taught by a few examples' : ''}`));
  line.replaceChildren(...parts);
  line.title = line.textContent;
}
store.addEventListener('select', describe);
store.addEventListener('cells', describe);

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-class]');
  if (button) {
    reclassify(button.dataset.class);
    if (classes.open) classes.close();
  }
  const flag = event.target.closest('[data-flag]');
  if (flag && flag.getAttribute('aria-disabled') !== 'true') showEvidence(flag);
});
document.getElementById('undo').addEventListener('click', undo);
document.getElementById('next-doubt').addEventListener('click', nextDoubtful);
document.getElementById('other-class').addEventListener('click', () => classes.showModal());

function showEvidence(button) {
  const on = button.getAttribute('aria-pressed') !== 'true';
  for (const other of document.querySelectorAll('[data-flag]')) other.removeAttribute('aria-pressed');
  button.setAttribute('aria-pressed', String(on));
  const flag = store.case.flags.find((one) => one.id === button.dataset.flag);
  store.evidence = new Set(on ? flag.evidence.cells : []);
  store.emit('evidence');
  if (on) store.selectMany([...flag.evidence.cells].slice(0, 1), { from: 'flag' });
}

function nextDoubtful() {
  if (!store.nextDoubtful()) say('No doubtful cell is left.');
}

const KEYS = {
  j: (event) => store.move(1, event.shiftKey),
  k: (event) => store.move(-1, event.shiftKey),
  ArrowRight: (event) => store.move(1, event.shiftKey),
  ArrowLeft: (event) => store.move(-1, event.shiftKey),
  '.': nextDoubtful,
  u: undo,
  x: () => reclassify('artefact'),
  0: () => store.mine && classes.showModal(),
  b: () => viewer.switchBoxes(),
  f: () => viewer.fit(),
  ']': () => viewer.step(1),
  '[': () => viewer.step(-1),
};
document.addEventListener('keydown', (event) => {
  if (typing(event) || dialogOpen() || event.metaKey || event.altKey) return;
  if (event.ctrlKey) {
    if (event.key === 'Enter') openSign();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = /^[1-9]$/.test(key) ? () => reclassify(store.keys[Number(key) - 1]) : KEYS[key];
  if (!act) return;
  event.preventDefault();
  act(event);
});

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
      if (problem.status) say(problem.message, { seconds: 0 });
    }
  }, 45000);
}

if (queue.size) queue.send();
const first = store.sequence[0];
if (first) store.select(first, { from: 'start' });
