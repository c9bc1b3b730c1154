// Cells side by side: the chosen ones, the same class in this patient's earlier signed cases, and signed references.
import { get } from '../app.js';
import { el } from '../elements.js';

const MOST = 12;

export async function compare(dialog, store, address) {
  const cell = store.cells.get(store.focus);
  if (!cell) return;
  const chosen = store.sequence.filter((id) => store.chosen.has(id)).slice(0, MOST).map((id) => store.cells.get(id));
  const [here, earlier, library] = dialog.querySelectorAll('.row-of-cells');
  here.replaceChildren(...chosen.map((one) => figure({
    source: one.blob && `${address}/blobs/${encodeURIComponent(one.blob)}`,
    cls: one.current_class, mark: store.mark(one.current_class), words: `cell ${one.number}, ${store.name(one.current_class)}`,
  })));
  for (const name of dialog.querySelectorAll('.of-class')) name.textContent = store.name(cell.current_class);
  for (const list of [earlier, library]) list.replaceChildren(el('p', { class: 'muted' }, 'One moment…'));
  dialog.showModal();
  try {
    const body = await get(`${address}/compare?label=${cell.current_class}`);
    fill(earlier, body.earlier, store, 'No earlier signed case of this patient shows such a cell.');
    fill(library, body.references, store, 'No hospital shares a signed cell of this class.');
  } catch (problem) {
    const words = problem.status ? problem.message : 'These come when the connection is back.';
    for (const list of [earlier, library]) list.replaceChildren(el('p', { class: 'muted' }, words));
  }
}

function fill(list, cells, store, none) {
  if (!cells.length) list.replaceChildren(el('p', { class: 'muted' }, none));
  else {
    list.replaceChildren(...cells.map((one) => figure({
      source: `/cases/${one.case_id}/blobs/${encodeURIComponent(one.blob)}`,
      cls: one.label, mark: store.mark(one.label), words: `${one.case_id} cell ${one.number}`, more: (one.set_by ? `set by ${one.set_by}, ` : '') + `signed ${one.signed_on}`,
    })));
  }
}

function figure({ source, cls, mark, words, more = '' }) {
  const picture = source ? el('img', { src: source, alt: words, loading: 'lazy' }) : el('div', { class: 'no-picture' });
  return el('figure', { class: `c-${cls}` }, picture, el('figcaption', {}, el('span', { class: `chip c-${cls}` }, mark), ` ${words}`,
    ...(more ? [el('span', { class: 'muted' }, more)] : [])));
}
