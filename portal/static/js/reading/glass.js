// Not gradable: the glass slide is asked for, under a signature; what waits is sent first.
import { NO_CONNECTION, post, say } from '../app.js';
import { Draft, dropDrafts } from './drafts.js';

export function glassDialog(store, queue, flush) {
  const dialog = document.getElementById('glass');
  const form = document.getElementById('glass-form');
  const error = form.querySelector('.error');
  const submit = form.querySelector('[type="submit"]');
  const written = new Draft(form, 'glass', store);
  if (store.mine) written.restore();
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    error.hidden = true;
    if (navigator.onLine) await queue.settled();
    try {
      const { location: letter } = await post(form.action, new FormData(form));
      dropDrafts(store);
      queue.announce('left', { how: 'signed', to: letter });
      location.assign(letter);
    } catch (problem) {
      error.textContent = problem.status ? problem.message : NO_CONNECTION;
      error.hidden = false;
      submit.disabled = false;
      form.password.value = '';
    }
  });
  return async () => {
    if (!store.mine) say('Claim the case first (c).');
    if (!store.mine || dialog.open) return;
    flush();
    if (queue.size && !navigator.onLine) {
      say('There is no connection: ask for glass once what waits is saved.');
      return;
    }
    await queue.settled();
    if (!store.signed) document.getElementById('glass-version').value = store.version; // as in sign.js
    dialog.showModal();
  };
}
