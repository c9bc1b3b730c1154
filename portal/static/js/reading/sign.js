// Signing out: the draft is kept, unsent changes go first, the version the reader saw is the version that is signed.
import { post } from '../app.js';

export function signing(store, queue) {
  const dialog = document.getElementById('sign');
  const form = document.getElementById('sign-form');
  const error = document.getElementById('sign-error');
  const draft = document.getElementById('draft');
  const submit = document.getElementById('sign-submit');
  const open = async () => {
    if (!store.mine || dialog.open) return;
    await queue.settled();
    document.getElementById('case-version').value = store.version;
    const cells = [...store.cells.values()];
    const doubtful = cells.filter((cell) => cell.doubtful).length;
    const changed = cells.filter((cell) => cell.changed_by).length;
    document.getElementById('sign-summary').textContent =
      `${cells.length} cells, ${changed} set by hand, ${doubtful ? `${doubtful} doubtful left as the model named them` : 'none left in doubt'}.`;
    error.hidden = true;
    dialog.showModal();
    document.getElementById('impression').focus();
  };
  document.getElementById('open-sign')?.addEventListener('click', open);

  let timer = 0;
  const impression = document.getElementById('impression');
  impression.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      try {
        await post(`/cases/${store.case.case_id}/impression`, { impression: impression.value });
        draft.textContent = 'Draft kept.';
      } catch (problem) {
        draft.textContent = `Draft not kept: ${problem.message}`;
      }
    }, 700);
  });
  form.addEventListener('change', (event) => {
    const reason = event.target.dataset.dismiss;
    if (reason) document.getElementById(reason).required = event.target.checked;
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
      const { location: address } = await post(form.action, new FormData(form));
      location.assign(address);
    } catch (problem) {
      error.textContent = problem.message;
      error.hidden = false;
      submit.disabled = false;
      document.getElementById('password').value = '';
      document.getElementById('password').focus();
    }
  });
  return open;
}
