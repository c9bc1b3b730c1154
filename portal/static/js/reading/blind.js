// Reading blind: its text and estimate, kept as a draft and saved for good; then what was thought, beside the AI's.
import { post, say } from '../app.js';
import { Draft } from './drafts.js';

export function blindSaving(store, queue, { expired }) {
  const id = store.case.case_id;
  const dialog = document.getElementById('blind');
  if (!dialog) return () => {};
  const form = dialog.querySelector('form');
  const [text, submit, error, hint] = ['blind-text', 'blind-submit', 'blind-error', 'blind-draft'].map((name) => document.getElementById(name));
  const written = new Draft(form, 'blind', store);
  let saving = Promise.resolve();
  const draft = () => (saving = saving.then(send)); // one after the other, as in sign.js
  async function send() {
    const fields = written.fields();
    written.sending(fields);
    const all = new FormData(form);
    for (const one of written.bases('blind-text')) all.append('over', one);
    try {
      await post(`/cases/${id}/blind/draft`, all);
      written.sent(fields);
      hint.textContent = 'Draft kept.';
    } catch (problem) {
      hint.textContent = problem.status ? `Draft not kept: ${problem.message}` : 'Draft kept here until the connection is back.';
      if (problem.status === 401) expired();
    }
  }
  if (store.mine && written.restore()) draft();
  let timer = 0;
  form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(draft, 700);
  });
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.ctrlKey) form.requestSubmit();
  });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    submit.disabled = true;
    error.hidden = true;
    try {
      await queue.settled();
      const { location: next } = await post(form.action, new FormData(form));
      written.drop();
      location.assign(next);
    } catch (problem) {
      if (problem.status === 401) expired();
      error.textContent = problem.status ? problem.message : 'There is no connection: save once it is back.';
      error.hidden = false;
      submit.disabled = false;
    }
  });
  const open = () => {
    if (!store.mine) return say('Claim the case first (c).');
    if (dialog.open) return undefined;
    const named = [...store.cells.values()].filter((cell) => cell.changed_by).length;
    document.getElementById('blind-summary').textContent = `${named} of ${store.cells.size} cells ${store.blind.hides_ai ? 'classified' : 'set or accepted'} by you.`;
    error.hidden = true;
    dialog.showModal();
    return text.focus();
  };
  document.getElementById('open-blind')?.addEventListener('click', open);
  return open;
}

/** What was thought blind: the cells that are named otherwise now, to show or to name so again. */
export function opinionPanel(store, acts) {
  const differing = () => Object.entries(store.impression)
    .filter(([id, label]) => store.cells.has(id) && store.cells.get(id).current_class !== label).map(([id]) => id);
  const show = document.getElementById('impression-show');
  const take = document.getElementById('impression-take');
  const draw = () => {
    const count = differing().length;
    for (const button of [show, take]) if (button) button.disabled = !count;
    const words = document.getElementById('impression-differs');
    if (words) words.textContent = count ? `${count} ${count === 1 ? 'cell is' : 'cells are'} named otherwise now.` : 'Every cell that you named is named so now.';
  };
  show?.addEventListener('click', () => store.selectMany(differing(), { from: 'flag' }));
  take?.addEventListener('click', () => {
    const ids = differing();
    for (const label of new Set(ids.map((id) => store.impression[id]))) acts.reclassify(label, ids.filter((id) => store.impression[id] === label));
  });
  store.addEventListener('cells', draw);
  draw();
}
