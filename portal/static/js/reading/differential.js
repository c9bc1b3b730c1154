// The differential, live: exact intervals as the server computes them, what the reader changed, nRBC per 100.
import { el, svg } from '../elements.js';

const CORE = ['neutrophil', 'lymphocyte', 'monocyte', 'eosinophil', 'basophil'];
const round = (value) => (value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1));

export function showDifferential(store) {
  const body = document.getElementById('differential');
  const draw = () => {
    const now = store.differential;
    const counted = store.order.filter((cls) => store.classes[cls].counts);
    const shown = counted.filter((cls) => now[cls]?.count || CORE.includes(cls) || store.case.ai_differential[cls]?.count);
    const total = counted.reduce((sum, cls) => sum + (now[cls]?.count ?? 0), 0);
    const what = store.blind?.hides_ai ? 'white cells that you have classified' : 'white cells';
    document.getElementById('differential-caption').textContent = `${total} ${what}, exact 95 % intervals`;
    body.replaceChildren(...shown.map((cls) => line(store, cls, now[cls])));
    const outside = store.order.filter((cls) => !store.classes[cls].counts && cls !== 'artefact');
    const cells = [...store.cells.values()].filter((cell) => cell.changed_by || !store.blind?.hides_ai);
    const others = outside.map((cls) => [cls, cells.filter((cell) => cell.current_class === cls).length]).filter(([, n]) => n);
    document.getElementById('per-hundred').replaceChildren(...others.map(([cls, n]) =>
      el('div', {}, el('span', { class: `chip c-${cls}` }, store.mark(cls)), ` ${store.name(cls)}: ${n}`
        + (total && cls !== 'platelet' ? `, ${(100 * n / total).toFixed(1)} per 100 white cells` : ''))));
    document.getElementById('changes').textContent = changeWords(store);
  };
  store.addEventListener('cells', draw);
  draw();
}

function changeWords(store) {
  const changed = [...store.cells.values()].filter((cell) => cell.changed_by).length;
  if (store.blind?.hides_ai) return `${changed} of ${store.cells.size} classified`;
  return changed ? `${changed} set by hand` : '';
}

function line(store, cls, share) {
  const { count = 0, percent = 0, low = 0, high = 0 } = share ?? {};
  const before = store.blind?.hides_ai ? count : store.case.ai_differential[cls]?.count ?? 0;
  const limit = store.limits[cls];
  const crossed = limit !== undefined && low < limit && limit < high;
  const names = [count === 0 && 'none', count !== before && 'changed', crossed && 'crossed'].filter(Boolean).join(' ');
  const bar = svg('svg', { class: `diff-bar c-${cls}`, viewBox: '0 0 100 14', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { class: 'track', width: 100, height: 14, rx: 1 }),
    svg('rect', { class: 'share', y: 3, width: percent, height: 8 }),
    svg('path', { class: 'range', d: `M${low} 3.5v7M${low} 7H${high}M${high} 3.5v7` }));
  if (limit !== undefined) bar.append(svg('path', { class: 'limit', d: `M${limit} 0V14` }));
  return el('tr', { class: names || null, title: count === before ? `${store.name(cls)}: ${count} cells` : `${store.name(cls)}: ${count} cells; the model counted ${before}` },
    el('th', { scope: 'row' }, el('span', { class: `chip c-${cls}` }, store.mark(cls), el('span', { class: 'sr' }, ` ${store.name(cls)}`))),
    el('td', { class: 'pc' }, `${round(percent)} %`),
    el('td', { class: 'ci' }, share ? `${round(low)}–${round(high)}` : ''),
    el('td', { class: 'limits' }, bar, ...(limit === undefined ? [] : [limitWords(limit, low, high)])));
}

/** Whether the count settles on which side of the limit the patient is: the interval, not the percentage, says so. */
function limitWords(limit, low, high) {
  const words = low < limit && limit < high ? '◆ not settled by this count' : low >= limit ? 'above' : 'below';
  return el('span', { class: 'limit-words', title: `The interval ${round(low)}–${round(high)} against the limit ${limit} %` }, `limit ${limit} ${words}`);
}
