// A run while it runs: charts by uPlot, figures and log book over server-sent events.
import { say } from './app.js';
import { el, svg } from './elements.js';

const page = document.querySelector('[data-run]');
const id = page.dataset.run;
const plots = new Map();
let run = JSON.parse(document.getElementById('run-data').textContent);

// Okabe–Ito, dashed differently too: a hospital is known by colour and by stroke. The second colour is for dark pages.
const STROKES = [
  ['#0072b2', '#56b4e9', []], ['#d55e00', '#f0823a', [7, 3]], ['#009e73', '#2fc79a', [2, 3]],
  ['#b3548c', '#de8fbd', [9, 3, 2, 3]], ['#b27a00', '#e6b04a', [4, 2]], ['#4f5b66', '#aab4bd', [1, 2]],
];
const dark = () => matchMedia('(prefers-color-scheme: dark)').matches ? document.documentElement.dataset.theme !== 'light' : document.documentElement.dataset.theme === 'dark';
const stroke = (i) => STROKES[i % STROKES.length][dark() ? 1 : 0];
const dash = (i) => STROKES[i % STROKES.length][2];
const ink = (name) => {
  const probe = el('span');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
};

function hospitals() {
  const names = new Map();
  for (const view of run.round_views) for (const site of view.sites) names.set(site.hospital_id, site.hospital_name);
  return [...names];
}

const perSite = (key) => hospitals().map(([hospital], i) => ({
  stroke: stroke(i),
  dash: dash(i),
  points: run.round_views.map((view) => view.sites.find((site) => site.hospital_id === hospital)?.[key] ?? null),
  end: run.after?.sites[hospital]?.[key] ?? null,
}));

// Each round shows the model that it started from, so what the last one came to stands one further.
const ticks = (ends) => {
  const step = Math.ceil(run.rounds / 12);
  const rounds = Array.from({ length: run.rounds }, (_, i) => i + 1).filter((n) => n % step === 0);
  return ends ? [...rounds.filter((n) => n + step <= run.rounds + 1), run.rounds + 1] : rounds;
};
const upFromZero = (_, low, high) => [0, (high || 1) * 1.12];

function draw(name, series, { range = upFromZero, values, incrs, ends = false } = {}) {
  const target = document.getElementById(`plot-${name}`);
  const more = ends && run.after;
  const data = [
    [...run.round_views.map((view) => view.round), ...more ? [run.rounds + 1] : []],
    ...series.map((one) => [...one.points, ...more ? [one.end] : []]),
  ];
  const shape = `${series.length}/${dark()}`;
  const old = plots.get(name);
  if (old?.shape === shape) {
    old.plot.setData(data);
    return;
  }
  old?.plot.destroy();
  const axis = { stroke: ink('--muted'), grid: { stroke: ink('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  const plot = new window.uPlot({
    width: target.clientWidth,
    height: target.clientHeight,
    padding: [8, 12, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    scales: { x: { time: false, range: [0.85, Math.max(run.rounds + Number(ends), 2) + 0.15] }, y: { range } },
    axes: [
      { ...axis, grid: { show: false }, size: 26, gap: 4, splits: () => ticks(ends), values: (_, splits) => splits.map((n) => (n > run.rounds ? 'end' : String(n))) },
      { ...axis, size: name === 'accuracy' ? 48 : 36, gap: 6, space: 32, values, incrs },
    ],
    series: [{}, ...series.map((one) => ({ ...one, points: { show: true, size: 6, fill: one.stroke, stroke: one.stroke }, width: 1.75, spanGaps: true }))],
  }, data, target);
  plots.set(name, { plot, shape });
}

function key(label, colour, strokes) {
  const line = svg('line', { x1: 0, x2: 18, y1: 4, y2: 4, stroke: colour, 'stroke-width': 2, 'stroke-dasharray': strokes.join(' ') });
  return [svg('svg', { viewBox: '0 0 18 8', 'aria-hidden': 'true' }, line), label];
}

function charts() {
  document.getElementById('charts').hidden = run.round_views.length === 0;
  if (run.round_views.length === 0) return;
  draw('accuracy', perSite('accuracy'), { ends: true, range: [0, 1], incrs: [0.2, 0.25, 0.5], values: (_, splits) => splits.map((tick) => `${Math.round(tick * 100)} %`) });
  draw('macro-f1', perSite('macro_f1'), { ends: true, range: [0, 1], incrs: [0.25, 0.5], values: (_, splits) => splits.map((tick) => `${Math.round(tick * 100)}`) });
  draw('loss', perSite('loss'), { ends: true });
  draw('seconds', perSite('seconds'));
  const traffic = [
    { label: 'sent', stroke: ink('--muted'), dash: [4, 3], points: run.round_views.map((view) => view.bytes_down / 1e6) },
    { label: 'received', stroke: ink('--accent'), dash: [], points: run.round_views.map((view) => view.bytes_up / 1e6) },
  ];
  draw('bytes', traffic);
  document.getElementById('legend-bytes').replaceChildren(...traffic.map((one) => el('span', {}, ...key(one.label, one.stroke, one.dash))));
  document.getElementById('legend').replaceChildren(...hospitals().map(([, name], i) => el('li', {}, ...key(name, stroke(i), dash(i)))));
}

function log(event) {
  if (document.querySelector(`[data-event="${event.id}"]`)) return;
  const time = el('time', { datetime: event.at }, new Date(event.at).toISOString().slice(11, 19));
  document.getElementById('log').prepend(el('li', { class: 'fresh', 'data-event': event.id }, time, el('span', {}, event.text)));
}

// The words and tables are the server's: the page is fetched again and its live parts taken over, one fetch at a time.
let fetching = false;
let again = false;
async function refresh() {
  again = true;
  if (fetching) return;
  fetching = true;
  while (again) {
    again = false;
    const answer = await fetch(location.href, { headers: { 'X-Unasked': 'true' } }).catch(() => null);
    if (answer?.redirected) return location.reload();
    if (answer?.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const part of document.querySelectorAll('[data-live]')) {
        const other = fresh.getElementById(part.id);
        if (other && other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
      }
      if (!fresh.getElementById('stop')) document.getElementById('stop')?.close();
    }
  }
  fetching = false;
  return undefined;
}

function watch() {
  const source = new EventSource(`/rounds/${id}/events?after=${page.dataset.last}`);
  let lost = false;
  source.addEventListener('log', (event) => log(JSON.parse(event.data)));
  source.addEventListener('run', (event) => {
    run = JSON.parse(event.data);
    charts();
    refresh();
  });
  source.addEventListener('end', () => {
    source.close();
    refresh();
  });
  source.addEventListener('open', () => {
    if (lost) say('Live again.');
    lost = false;
  });
  source.addEventListener('error', () => {
    if (!lost) say('Not live: no connection to the centre. Trying again.', { seconds: 0 });
    lost = true;
  });
}

charts();
window.addEventListener('themechange', () => setTimeout(charts));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', charts);
new ResizeObserver(() => plots.forEach(({ plot }, name) => {
  const target = document.getElementById(`plot-${name}`);
  if (target.clientWidth) plot.setSize({ width: target.clientWidth, height: target.clientHeight });
})).observe(document.getElementById('charts'));
if (page.dataset.over === 'no') watch();
