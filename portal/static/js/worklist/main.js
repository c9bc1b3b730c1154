// The worklist's composition root: filters, order, lines, choice, keys.
import { dialogOpen, say, typing } from '../app.js';
import { Assigning, Choice } from './choosing.js';
import { List } from './list.js';
import { live, tick } from './live.js';

const form = document.getElementById('filters');
const list = new List(document.getElementById('list'), form);
const choice = new Choice(list);
const assigning = new Assigning(list, choice);
const update = document.getElementById('update-view');

async function refilter() {
  history.replaceState(null, '', `/worklist?${list.query()}`);
  if (update) update.hidden = false;
  try {
    await list.reload();
  } catch {
    say('No connection to the centre: the list is as it was.');
  }
}

let wait = 0;
form.addEventListener('input', (event) => {
  if (event.target.type !== 'search') return;
  clearTimeout(wait);
  wait = setTimeout(refilter, 200);
});
form.addEventListener('change', (event) => {
  if (event.target.type !== 'search') refilter();
});
form.addEventListener('submit', (event) => {
  event.preventDefault();
  list.rows[0]?.querySelector('a.row').focus();
});

list.table.tHead.addEventListener('click', (event) => {
  const heading = event.target.closest('[data-sort]');
  if (!heading) return;
  const { sort, down } = form.elements;
  const same = (sort.value || 'urgency') === heading.dataset.sort;
  down.value = same && down.value !== '1' ? '1' : '';
  sort.value = heading.dataset.sort;
  for (const other of list.table.querySelectorAll('[data-sort]')) other.removeAttribute('aria-sort');
  heading.setAttribute('aria-sort', down.value ? 'descending' : 'ascending');
  refilter();
});

const more = document.querySelector('#more .btn');
more.addEventListener('click', () => list.next());
const foot = document.getElementById('more');
const near = new IntersectionObserver((seen) => {
  if (seen.some((one) => one.isIntersecting)) list.next().catch(() => {});
}, { rootMargin: '600px' });
near.observe(foot);
// Looked at anew: whoever scrolls on at once is at the end again, which is no change that would be told.
list.addEventListener('shown', () => {
  near.unobserve(foot);
  if (list.more) near.observe(foot);
});

// What a view is made of is what the page shows when its dialog opens.
document.addEventListener('click', (event) => {
  if (!event.target.closest('[data-open="save-view"], #update-view')) return;
  for (const field of document.querySelectorAll('input[name="filters"]')) field.value = list.query();
  if (event.target.closest('#update-view')) document.getElementById('update-form').requestSubmit();
}, true);
for (const box of document.querySelectorAll('[data-off]')) {
  const off = box.form.querySelector('input[type="hidden"][name="default"]');
  box.addEventListener('change', () => { off.disabled = box.checked; });
}

const KEYS = {
  x: () => here() && choice.toggle(here()),
  X: () => here() && choice.range(here()),
  a: () => assigning.open(),
  s: () => document.getElementById('open-save').click(),
  Escape: () => choice.set([]),
};
const here = () => document.activeElement?.closest('#list tbody tr');
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && event.target.id === 'search') event.target.blur();
  if (typing(event) || dialogOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'j' && here() === list.last) list.next().catch(() => {});
  const act = KEYS[event.key];
  if (!act || (event.key === 'a' && !choice.ids.size)) return;
  event.preventDefault();
  act();
});

live(list);
tick(list);
