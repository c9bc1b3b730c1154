// Forms marked `data-send`: a refusal is told beside the form, a file is handed over, a link shown, a redirect followed.
// Without this script they are plain forms.
import { csrf } from './app.js';

function tell(form, text) {
  const line = form.querySelector('.error');
  line.textContent = text;
  line.hidden = !text;
}

async function keep(form, answer) {
  const name = /filename="([^"]+)"/.exec(answer.headers.get('Content-Disposition'))?.[1] ?? 'file.json';
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
  finish(form).querySelectorAll('[data-file]').forEach((place) => { place.textContent = name; });
}

function show(form, link) {
  const done = finish(form);
  done.querySelector('[data-link]').textContent = link;
  done.querySelector('[data-link-copy]').dataset.copy = link;
}

function finish(form) {
  const done = form.parentElement.querySelector('[data-done]');
  form.hidden = true;
  done.hidden = false;
  done.querySelector('button')?.focus();
  return done;
}

async function send(form, submitter) {
  const buttons = form.querySelectorAll('button');
  buttons.forEach((button) => { button.disabled = true; });
  tell(form, '');
  try {
    const answer = await fetch(submitter?.getAttribute('formaction') || form.action, {
      method: 'POST',
      body: new URLSearchParams(new FormData(form)),
      headers: { 'X-CSRF-Token': csrf(), Accept: 'application/json' },
    });
    if (answer.status === 401) location.reload();
    else if (!answer.ok) tell(form, (await answer.json().catch(() => ({}))).message ?? 'That did not work. Try again.');
    else if (answer.headers.get('Content-Disposition')) await keep(form, answer);
    else if (form.parentElement.querySelector('[data-link]')) show(form, (await answer.json()).link);
    else if (answer.url === location.href) location.reload();
    else location.assign(answer.url);
  } catch {
    tell(form, 'No connection to the centre. Nothing was changed; try again.');
  }
  buttons.forEach((button) => { button.disabled = false; });
}

document.addEventListener('submit', (event) => {
  const form = event.target.closest('form[data-send]');
  if (!form) return;
  event.preventDefault();
  send(form, event.submitter);
});

// A dialog that is opened again starts afresh.
document.addEventListener('close', (event) => {
  const [form, done] = [event.target.querySelector?.('form[data-send]'), event.target.querySelector?.('[data-done]')];
  if (form) tell(form, '');
  if (form && done && !done.hidden) {
    form.reset();
    form.hidden = false;
    done.hidden = true;
  }
}, true);
