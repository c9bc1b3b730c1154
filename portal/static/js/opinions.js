// Two readings side by side: the first reader takes one name or the other, cell by cell.
import { post, say } from './app.js';

const list = document.querySelector('.differing');
list?.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-take]');
  if (!button) return;
  const item = button.closest('[data-cell]');
  const buttons = item.querySelectorAll('[data-take]');
  for (const one of buttons) one.disabled = true;
  try {
    const fields = { cell_id: item.dataset.cell, label: button.dataset.take, idempotency_key: crypto.randomUUID() };
    await post(`/cases/${list.dataset.case}/cells`, fields);
    for (const one of buttons) one.setAttribute('aria-pressed', String(one === button));
    item.querySelector('.now').textContent = `now ${button.dataset.name}`;
  } catch (problem) {
    say(problem.status ? problem.message : 'There is no connection: try again once it is back.');
  }
  for (const one of buttons) one.disabled = false;
});
