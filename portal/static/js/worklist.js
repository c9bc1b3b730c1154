// The worklist keeps itself up to date through htmx; this adds what a person sees when that fails.
import { say } from './app.js';

let lost = false;
document.addEventListener('htmx:error', () => {
  if (!lost) say('The list is not up to date: no connection to the centre. Trying again.', { seconds: 0 });
  lost = true;
});
document.addEventListener('htmx:after:request', (event) => {
  const status = event.detail?.ctx?.response?.status;
  if (status === 401 || status === 303) location.reload();
  if (lost && status === 200) {
    lost = false;
    say('The list is up to date again.');
  }
});
