// Keeps the list up to date: server-sent events, and by asking every few seconds while there are none.
import { say } from '../app.js';

const ASK_SECONDS = 10;

export function live(list) {
  const waiting = new Set();
  let all = false;
  let timer = 0;
  let poll = 0;
  let again = 0;
  let lost = false;
  let opened = false;

  const well = (fine) => {
    if (fine === !lost) return;
    lost = !fine;
    if (fine) say('The list is up to date again.');
    else say('The list is not up to date: no connection to the centre. Trying again.', { seconds: 0 });
  };
  const catchUp = async () => {
    timer = 0;
    const ids = [...waiting];
    waiting.clear();
    const whole = all;
    all = false;
    try {
      await (whole ? list.refresh() : list.changed(ids));
      well(true);
    } catch {
      all = true;
      well(false);
      clearTimeout(again);
      again = setTimeout(soon, ASK_SECONDS * 1000);
    }
  };
  const soon = () => {
    timer ||= setTimeout(catchUp, 150);
  };
  const asking = (on) => {
    clearInterval(poll);
    poll = on ? setInterval(() => { all = true; soon(); }, ASK_SECONDS * 1000) : 0;
  };

  function connect() {
    const source = new EventSource('/worklist/events');
    source.addEventListener('ready', () => {
      asking(false);
      // What changed while nobody told: before the first connection too, since the page was made.
      all = true;
      soon();
      opened = true;
    });
    source.addEventListener('rows', (event) => {
      const ids = JSON.parse(event.data);
      if (!ids.length) all = true;
      ids.forEach((id) => waiting.add(id));
      soon();
    });
    source.addEventListener('end', () => {
      source.close();
      location.reload();
    });
    source.addEventListener('error', () => {
      if (!poll) asking(true);
      if (opened) soon();
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, ASK_SECONDS * 1000);
    });
    addEventListener('pagehide', () => source.close(), { once: true });
  }
  connect();
}

/** Lengths of time go on by themselves: waiting, turn-around, and what has become late meanwhile. */
export function tick(list) {
  const length = (seconds) => {
    const minutes = Math.max(1, Math.round(seconds / 60));
    if (minutes < 120) return `${minutes} min`;
    return minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
  };
  const all = () => {
    const now = Date.now() / 1000;
    for (const row of list.rows) {
      if (!row.dataset.due) continue;
      const [got, due] = [Number(row.dataset.got), Number(row.dataset.due)];
      const used = (now - got) / Math.max(1, due - got);
      const tone = now > due ? 'late' : used > 0.75 ? 'soon' : '';
      row.querySelector('.clock').className = `clock ${tone}`;
      row.querySelector('.words').textContent = tone === 'late' ? `late ${length(now - due)}` : `${length(due - now)} left`;
      row.querySelector('.due').setAttribute('class', `due ${tone}`);
      row.querySelectorAll('.due rect').forEach((one, at) => one.classList.toggle('on', at <= used * 5));
      row.querySelector('[data-waiting]').textContent = length(now - got);
    }
  };
  setInterval(all, 20_000);
}
