// A run while it runs: charts by uPlot, figures and log book over server-sent events.
import { say } from './app.js';

const page = document.querySelector('[data-run]');
const id = page.dataset.run;
const plots = new Map();
let run = JSON.parse(document.getElementById('run-data').textContent);

// Okabe–Ito, dashed differently too: a hospital is known by colour and by stroke.
const STROKES = [['#0072b2', []], ['#d55e00', [6, 3]], ['#009e73', [2, 3]], ['#cc79a7', [8, 3, 2, 3]], ['#e69f00', [4, 2]], ['#56b4e9', [1, 2]]];
const ink = (name) => {
  const probe = document.createElement('span');
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

const perSite = (key) => hospitals().map(([hospital]) => run.round_views.map((view) => view.sites.find((site) => site.hospital_id === hospital)?.[key] ?? null));

function draw(name, series, { range, values, dots = true } = {}) {
  const target = document.getElementById(`plot-${name}`);
  const x = run.round_views.map((view) => view.round);
  const data = [x, ...series.map((one) => one.points)];
  const shape = `${series.length}/${document.documentElement.dataset.theme}`;
  const old = plots.get(name);
  if (old?.shape === shape) {
    old.plot.setData(data);
    return;
  }
  old?.plot.destroy();
  const [text, line] = [ink('--muted'), ink('--line')];
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  const plot = new window.uPlot({
    width: target.clientWidth,
    height: target.clientHeight,
    cursor: { show: false },
    legend: { show: false },
    scales: { x: { time: false, range: [0.8, Math.max(run.rounds, 2) + 0.2] }, y: { range: range ?? ((_, low, high) => [Math.min(0, low ?? 0), (high ?? 1) * 1.15 || 1]) } },
    axes: [
      { ...axis, grid: { show: false }, size: 28, splits: () => Array.from({ length: run.rounds }, (_, i) => i + 1).filter((n) => run.rounds <= 12 || n % Math.ceil(run.rounds / 12) === 0), values: (_, splits) => splits.map(String) },
      { ...axis, size: 46, values },
    ],
    series: [{}, ...series.map((one) => ({ label: one.label, stroke: one.stroke, dash: one.dash, width: 2, spanGaps: true, points: { show: dots, size: 6, fill: one.stroke } }))],
  }, data, target);
  plots.set(name, { plot, shape });
}

function charts() {
  const section = document.querySelector('.charts-all');
  section.hidden = run.round_views.length === 0;
  if (section.hidden) return;
  const named = hospitals().map(([, name], i) => ({ label: name, stroke: STROKES[i % STROKES.length][0], dash: STROKES[i % STROKES.length][1] }));
  const series = (key) => perSite(key).map((points, i) => ({ ...named[i], points }));
  draw('accuracy', series('accuracy'), { range: [0, 1], values: (_, ticks) => ticks.map((tick) => `${Math.round(tick * 100)} %`) });
  draw('loss', series('loss'));
  draw('bytes', [
    { label: 'sent', stroke: ink('--muted'), dash: [4, 3], points: run.round_views.map((view) => view.bytes_down / 1e6) },
    { label: 'received', stroke: ink('--accent'), dash: [], points: run.round_views.map((view) => view.bytes_up / 1e6) },
  ]);
  draw('seconds', series('seconds'));
  document.getElementById('legend').replaceChildren(...named.map(({ label, stroke, dash }) => {
    const item = document.createElement('li');
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
    svg.setAttribute('viewBox', '0 0 18 8');
    svg.setAttribute('aria-hidden', 'true');
    for (const [name, value] of Object.entries({ x1: 0, x2: 18, y1: 4, y2: 4, stroke, 'stroke-width': 2, 'stroke-dasharray': dash.join(' ') })) line.setAttribute(name, value);
    svg.append(line);
    item.append(svg, label);
    return item;
  }));
}

function log(event) {
  if (document.querySelector(`[data-event="${event.id}"]`)) return;
  const item = document.createElement('li');
  item.dataset.event = event.id;
  item.className = 'fresh';
  const time = document.createElement('time');
  time.dateTime = event.at;
  time.textContent = new Date(event.at).toISOString().slice(11, 19);
  const text = document.createElement('span');
  text.textContent = event.text;
  item.append(time, text);
  document.getElementById('log').prepend(item);
}

async function refresh() {
  await window.htmx.ajax('GET', `/rounds/${id}`, { target: '#live', swap: 'outerMorph' });
}

charts();
window.addEventListener('themechange', () => setTimeout(charts));
let resized = 0;
window.addEventListener('resize', () => {
  clearTimeout(resized);
  resized = setTimeout(() => plots.forEach(({ plot }, name) => {
    const target = document.getElementById(`plot-${name}`);
    plot.setSize({ width: target.clientWidth, height: target.clientHeight });
  }), 100);
});

if (page.dataset.over === 'no') {
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
