// Signing out: what is written is kept, unsent acts go first, what was not looked at blocks, the version the reader saw is signed.
import { NO_CONNECTION, post, say } from '../app.js';
import { el } from '../elements.js';
import { Draft, dropDrafts } from './drafts.js';

export function signing(store, queue, { expired, show, before, ready }) {
  const address = `/cases/${store.case.case_id}`;
  const dialog = document.getElementById('sign');
  const form = document.getElementById('sign-form');
  const error = document.getElementById('sign-error');
  const draft = document.getElementById('draft');
  const submit = document.getElementById('sign-submit');
  const impression = document.getElementById('impression');
  const proposal = () => impression.dataset.proposal ?? '';
  const dismissals = () => {
    for (const check of form.querySelectorAll('[data-dismiss]')) document.getElementById(check.dataset.dismiss).required = check.checked;
  };
  const written = new Draft(form, 'sign', store, { filled: dismissals });
  /** A class changed by hand: the reader has something to say, and no text stands there unread. */
  const corrected = () => [...store.cells.values()].some((cell) => cell.changed_by && (cell.added_by || cell.current_class !== cell.ai_class));

  const open = async () => {
    if (!store.mine || dialog.open) return;
    before();
    if (queue.size && !navigator.onLine) {
      say('There is no connection: sign once what waits is saved.');
      return;
    }
    await queue.settled();
    if (!await ready()) {
      say('The flags have changed and could not be loaded, there is no connection: try again when it is back.');
      return;
    }
    if (dialog.open) return;
    // Signed here already, but the answer was lost: the same is asked again, and the report that was made comes.
    if (!store.signed) document.getElementById('case-version').value = store.version;
    const cells = [...store.cells.values()];
    const changed = cells.filter((cell) => cell.changed_by).length;
    document.getElementById('sign-summary').textContent = `${cells.length} cells, ${changed} set or accepted by hand.`;
    error.hidden = true;
    if (!impression.value && !corrected()) impression.value = proposal();
    else if (impression.value === proposal() && corrected()) impression.value = '';
    draft.textContent = impression.value && impression.value === proposal()
      ? 'Proposed from the counts, as nothing was corrected: change it as you see fit.' : 'The draft is kept as you write.';
    dialog.showModal();
    block();
  };
  const box = document.getElementById('sign-blocked');
  // A group that came on the screen just before counts a moment later.
  store.addEventListener('seen', () => box.hidden || block());

  /** Say what was not looked at and blocks the signature; go to what is next. */
  function block() {
    const [doubtful, unseen] = [store.doubtful, store.unseen];
    const reasons = [];
    if (doubtful.length) reasons.push(`${store.words(doubtful)} ${doubtful.length === 1 ? 'is' : 'are'} doubtful and not reviewed: set the class, or accept it (a).`);
    if (unseen.length) reasons.push(`Not on your screen yet: ${unseen.map((cls) => store.name(cls)).join(', ')}.`);
    box.hidden = !reasons.length;
    box.querySelector('ul').replaceChildren(...reasons.map((reason) => el('li', {}, reason)));
    submit.disabled = !box.hidden;
    (submit.disabled ? document.getElementById('sign-show') : impression.value ? document.getElementById('password') : impression).focus();
  }
  document.getElementById('sign-show').addEventListener('click', () => {
    dialog.close();
    show();
  });
  document.getElementById('open-sign')?.addEventListener('click', open);

  let timer = 0;
  let saving = Promise.resolve();
  /** One after the other: an older text that arrived later would be taken for one from another computer. */
  const save = () => (saving = saving.then(send));
  async function send() {
    if (!written.holds('impression')) return;
    const fields = { impression: impression.value };
    written.sending(fields);
    try {
      await post(`${address}/impression`, { ...fields, over: written.bases('impression') });
      written.sent(fields);
      draft.textContent = 'Draft kept.';
    } catch (problem) {
      draft.textContent = problem.status ? `Draft not kept: ${problem.message}` : 'Draft kept here until the connection is back.';
      if (problem.status === 401) expired();
    }
  }
  if (store.mine) {
    written.restore();
    save();
  }
  window.addEventListener('online', save);
  impression.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(save, 700);
  });
  form.addEventListener('change', dismissals);
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.ctrlKey) form.requestSubmit();
  });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    submit.disabled = true;
    error.hidden = true;
    try {
      const { location: report } = await post(form.action, new FormData(form));
      dropDrafts(store);
      queue.announce('left', { how: 'signed', to: report });
      location.assign(report);
    } catch (problem) {
      // A wrong password and an ended session look alike from here; only the second refuses everything else too.
      if (problem.status === 401 && (await fetch(`${address}.json`)).status === 401) expired();
      error.textContent = problem.status ? problem.message : NO_CONNECTION;
      error.hidden = false;
      submit.disabled = false;
      document.getElementById('password').value = '';
      document.getElementById('password').focus();
    }
  });
  return open;
}
