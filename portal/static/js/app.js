// What every page has: theme, key map, "g x" jumps, j/k in lists, confirmations, copying, messages.
export const csrf = () => document.querySelector('meta[name="csrf-token"]').content;

export const NO_CONNECTION = 'There is no connection: try again when it is back.';

export class Refused extends Error {
  constructor(status, body) {
    super(body.message || 'That did not work. Try again.');
    this.status = status;
    this.code = body.code;
  }
}

/** The JSON at an address; a refusal throws `Refused`, no connection throws a TypeError. */
export async function get(url, options) {
  const answer = await fetch(url, { headers: { Accept: 'application/json' }, ...options });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, json);
  return json;
}

/** POST a form and return the answer's JSON, as `get`. */
export async function post(url, fields = {}) {
  const body = fields instanceof FormData ? new URLSearchParams(fields) : new URLSearchParams();
  if (!(fields instanceof FormData)) {
    for (const [name, value] of Object.entries(fields)) [value].flat().forEach((one) => body.append(name, one));
  }
  return get(url, { method: 'POST', body, headers: { 'X-CSRF-Token': csrf(), Accept: 'application/json' } });
}

export function say(text, { seconds = 4 } = {}) {
  const toast = document.createElement('div');
  toast.className = 'toast';
  toast.textContent = text;
  document.getElementById('toasts').replaceChildren(toast);
  if (seconds) setTimeout(() => toast.remove(), seconds * 1000);
}

export const typing = (event) =>
  event.target.closest?.('input:not([type=checkbox],[type=radio],[type=range]), textarea, select, [contenteditable]');
export const dialogOpen = () => document.querySelector('dialog[open]') !== null;

/** Drafts and unsent acts of this browser: key, kind, whose, of which case. */
function kept() {
  try {
    return Object.keys(localStorage).map((key) => [key, ...key.split('/')]).filter(([, kind]) => ['hv-draft', 'hv-acts'].includes(kind));
  } catch {
    return []; // this browser keeps nothing
  }
}

/** They hold clinical words: none stays at this machine for whoever comes next. `but`: whose do. */
function dropKept(but) {
  for (const [key, , whose] of kept()) if (whose !== but) localStorage.removeItem(key);
}

const { person } = document.body.dataset;
if (person) dropKept(person);

/** The case of each act of this person that the centre does not have; which groups were on screen is no act of theirs. */
const unsaved = () => kept()
  .filter(([key, kind, whose]) => kind === 'hv-acts' && whose === person && JSON.parse(localStorage.getItem(key))?.quiet === false)
  .map(([, , , caseId]) => caseId);

const signOut = document.getElementById('sign-out');
const leaving = document.getElementById('unsaved');
signOut?.addEventListener('submit', (event) => {
  const cases = unsaved();
  if (cases.length && !leaving.contains(event.submitter)) {
    event.preventDefault();
    const are = cases.length === 1 ? 'change is' : 'changes are';
    document.getElementById('unsaved-what').textContent = `${cases.length} ${are} not saved yet${navigator.onLine ? '' : ': there is no connection'}.`;
    document.getElementById('unsaved-where').textContent = `Stay, and open ${[...new Set(cases)].join(', ')} with a connection to have them saved.`;
    leaving.showModal();
    return;
  }
  window.dispatchEvent(new Event('signout'));
  dropKept();
});
window.addEventListener('allsaved', () => {
  if (leaving?.open && !unsaved().length) signOut.requestSubmit();
});

const THEMES = ['auto', 'light', 'dark'];
function switchTheme(button) {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = next;
  document.cookie = `hv_theme=${next}; path=/; max-age=31536000; samesite=lax`;
  button.setAttribute('aria-label', `Theme: ${next}`);
  button.title = `Theme: ${next}`;
  say(next === 'auto' ? 'Theme follows the system' : `Theme: ${next}`, { seconds: 2 });
  window.dispatchEvent(new Event('themechange'));
}

function moveInRows(step) {
  const links = [...document.querySelectorAll('[data-rows] a.row')];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + step))].focus();
}

document.addEventListener('click', (event) => {
  const opener = event.target.closest('[data-open]');
  if (opener) document.getElementById(opener.dataset.open)?.showModal();
  const closer = event.target.closest('[data-close]');
  if (closer) closer.closest('dialog').close();
  const theme = event.target.closest('[data-theme-switch]');
  if (theme) switchTheme(theme);
  const copy = event.target.closest('[data-copy]');
  if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => say('Copied', { seconds: 2 }));
});

// What scrolls and holds nothing to step to is a stop for the keyboard itself.
const reach = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute('tabindex');
  }
});
document.querySelectorAll('.scroll-x, .command, aside').forEach((box) => reach.observe(box));

let jump = 0;
document.addEventListener('keydown', (event) => {
  if (typing(event) || dialogOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === '?') {
    document.getElementById('keymap').showModal();
  } else if (jump && Date.now() - jump < 1200) {
    const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    jump = 0;
    if (link) {
      event.preventDefault();
      event.stopImmediatePropagation();
      location.assign(link.href);
    }
  } else if (event.key === 'g') {
    jump = Date.now();
  } else if (event.key === '/' && document.querySelector('[data-search]')) {
    event.preventDefault();
    document.querySelector('[data-search]').focus();
  } else if (event.key === 'j' || event.key === 'k') {
    moveInRows(event.key === 'j' ? 1 : -1);
  }
});
