// The differential, live: exact intervals as the server computes them, what the reader changed, nRBC per 100.
import { el, svg } from '../elements.js';

const CORE = ['neutrophil', 'lymphocyte', 'monocyte', 'eosinophil', 'basophil'];
const round = (value) => (value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1));

export function showDifferential(store, queue) {
  const body = document.getElementById('differential');
  const caption = document.getElementById('differential-caption');
  const late = el('span', { class: 'sr' });
  // A cell shows an act at once, the figures with the centre's answer: until then they are of before, and say so.
  const wait = () => {
    const waits = queue.entries.some(({ quiet, url }) => !quiet && !/\/findings(\/|$)/.test(url));
    body.parentElement.classList.toggle('waits', waits);
    late.textContent = waits ? ', not counted yet: changes wait to be saved' : '';
  };
  const draw = () => {
    const now = store.differential;
    const counted = store.order.filter((cls) => store.classes[cls].counts);
    const shown = counted.filter((cls) => now[cls]?.count || CORE.includes(cls) || store.case.ai_differential[cls]?.count || store.limits[cls]);
    const total = counted.reduce((sum, cls) => sum + (now[cls]?.count ?? 0), 0);
    const what = store.blind?.hides_ai ? 'white cells that you have classified' : 'white cells';
    caption.replaceChildren(`${total} ${what}, exact 95 % intervals`, late);
    body.replaceChildren(...shown.map((cls) => line(store, cls, now[cls], total)));
    const outside = store.order.filter((cls) => !store.classes[cls].counts && cls !== 'artefact');
    const cells = [...store.cells.values()].filter((cell) => cell.changed_by || !store.blind?.hides_ai);
    const others = outside.map((cls) => [cls, cells.filter((cell) => cell.current_class === cls).length]).filter(([, n]) => n);
    document.getElementById('per-hundred').replaceChildren(...others.map(([cls, n]) =>
      el('div', {}, el('span', { class: `chip c-${cls}` }, store.mark(cls)), ` ${store.name(cls)}: ${n}`
        + (total && cls !== 'platelet' ? `, ${(100 * n / total).toFixed(1)} per 100 white cells` : ''))));
    document.getElementById('changes').textContent = changeWords(store);
  };
  store.addEventListener('cells', draw);
  for (const kind of ['sending', 'waiting', 'result', 'refused', 'expired', 'idle']) queue.addEventListener(kind, wait);
  draw();
  wait();
}

function changeWords(store) {
  const changed = [...store.cells.values()].filter((cell) => cell.changed_by).length;
  if (store.blind?.hides_ai) return `${changed} of ${store.cells.size} classified`;
  return changed ? `${changed} set by hand` : '';
}

/** The Clopper–Pearson interval of `count` in `total`, in percent, as the server has it: its bounds halved in on. */
function exact(count, total) {
  if (!total) return [0, 100];
  const logs = [0];
  for (let i = 1; i <= total; i += 1) logs.push(logs[i - 1] + Math.log(i));
  const atMost = (most, p) => {
    let sum = 0;
    for (let i = 0; i <= most; i += 1) sum += Math.exp(logs[total] - logs[i] - logs[total - i] + i * Math.log(p) + (total - i) * Math.log1p(-p));
    return sum;
  };
  const bound = (most, level) => {
    let [from, to] = [0, 1];
    for (let i = 0; i < 40; i += 1) {
      const p = (from + to) / 2;
      if (atMost(most, p) > level) from = p;
      else to = p;
    }
    return 100 * from;
  };
  return [count ? bound(count - 1, 0.975) : 0, count < total ? bound(count, 0.025) : 100];
}

/** What the hospital's rules look at: a class with all that is reported under it. */
function ruled(store, cls, total) {
  const under = store.order.filter((one) => one === cls || store.classes[one].parent === cls);
  const count = under.reduce((sum, one) => sum + (store.differential[one]?.count ?? 0), 0);
  const [low, high] = exact(count, total);
  return { percent: total ? 100 * count / total : 0, low, high };
}

function line(store, cls, share, total) {
  const { count = 0, percent = 0, low = 0, high = 0 } = share ?? {};
  const before = store.blind?.hides_ai ? count : store.case.ai_differential[cls]?.count ?? 0;
  const limits = store.limits[cls] ?? [];
  const whole = limits.length ? ruled(store, cls, total) : null;
  const off = (limit) => Math.abs(limit - whole.percent);
  // In words the one that matters: which is not settled, else which is nearest.
  const limit = limits.find((one) => unsettled(one, whole)) ?? [...limits].sort((a, b) => off(a) - off(b))[0];
  const crossed = limit !== undefined && unsettled(limit, whole);
  const names = [count === 0 && 'none', count !== before && 'changed', crossed && 'crossed'].filter(Boolean).join(' ');
  const bar = svg('svg', { class: `diff-bar c-${cls}`, viewBox: '0 0 100 14', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { class: 'track', width: 100, height: 14, rx: 1 }),
    svg('rect', { class: 'share', y: 3, width: percent, height: 8 }),
    svg('path', { class: 'range', d: `M${low} 3.5v7M${low} 7H${high}M${high} 3.5v7` }));
  bar.append(...limits.map((at) => svg('path', { class: 'limit', d: `M${at} 0V14` })));
  return el('tr', { class: names || null, title: count === before ? `${store.name(cls)}: ${count} cells` : `${store.name(cls)}: ${count} cells; the model counted ${before}` },
    el('th', { scope: 'row' }, el('span', { class: `chip c-${cls}` }, store.mark(cls), el('span', { class: 'sr' }, ` ${store.name(cls)}`))),
    el('td', { class: 'pc' }, `${round(percent)} %`),
    el('td', { class: 'ci' }, share ? `${round(low)}–${round(high)}` : ''),
    el('td', { class: 'limits' }, bar, ...(limit === undefined ? [] : [limitWords(limit, whole)])));
}

const unsettled = (limit, { low, high }) => low < limit && limit < high;

/** Whether the count settles on which side of the limit the patient is: the interval, not the percentage, says so. */
function limitWords(limit, { low, high }) {
  const words = unsettled(limit, { low, high }) ? '◆ not settled by this count' : low >= limit ? 'above' : 'below';
  return el('span', { class: 'limit-words', title: `The interval ${round(low)}–${round(high)} against the limit ${limit} %` }, `limit ${limit} ${words}`);
}
