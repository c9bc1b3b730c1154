// Who set a cell's class, when, and from what; nothing is ever left out.
import { get, say } from '../app.js';
import { el } from '../elements.js';

const WORDS = {
  class: (line, store) => (line.previous === line.label ? `accepted as ${store.name(line.label)}` : `${store.name(line.previous)} → ${store.name(line.label)}`),
  added: (line, store) => `marked in the field as ${store.name(line.label)}`,
  split: (line) => (line.stands ? 'one half of a split cell' : 'split in two'),
  merged: (line) => (line.stands ? 'merged from others' : 'merged into one'),
  undo: (line, store) => 'taken back' + (line.stands ? `: ${store.name(line.label)} again` : ''),
  redo: (line, store) => `made again: ${store.name(line.label)}`,
};

export async function showHistory(dialog, store, address) {
  const cell = store.cells.get(store.focus);
  if (!cell) return;
  const list = dialog.querySelector('ol');
  dialog.querySelector('h2').textContent = `Cell ${cell.number}`;
  list.replaceChildren(el('li', { class: 'muted' }, 'One moment…'));
  dialog.showModal();
  try {
    const lines = (await get(`${address}/history`)).filter((line) => line.cell_id === cell.cell_id);
    const first = cell.added_by ? [] : [el('li', {}, el('b', {}, store.name(cell.ai_class)), el('span', { class: 'muted' }, ` the model, ${cell.ai_probability.toFixed(2)}`))];
    list.replaceChildren(...lines.map((line) => entry(line, store)), ...first);
  } catch (problem) {
    dialog.close();
    say(problem.status ? problem.message : 'The history comes when the connection is back.');
  }
}

function entry(line, store) {
  return el('li', { class: line.undone ? 'undone' : null }, el('b', {}, WORDS[line.kind](line, store)),
    el('span', { class: 'muted' }, ` ${line.by}, `), el('time', { datetime: line.at, class: 'muted' }, when(line.at)));
}

function when(text) {
  const at = new Date(text);
  const date = at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' });
  return `${date} ${at.toLocaleTimeString('en-GB', { timeZone: 'UTC' })} UTC`;
}
