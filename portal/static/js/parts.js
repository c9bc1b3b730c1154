// Parts of a page that keep themselves up to date (`data-every`, seconds) or follow a form (`data-finds`, the part's id).
// What nobody asked for says so (`X-Unasked`): an open page is no use of the session.
const latest = new Map();

async function renew(id, address, headers = {}) {
  const number = (latest.get(id) ?? 0) + 1;
  latest.set(id, number);
  let answer;
  try {
    answer = await fetch(address, { headers: { 'X-Part': 'true', ...headers } });
  } catch {
    return; // no connection: the next time tells
  }
  if (answer.status === 401) location.reload();
  if (!answer.ok || latest.get(id) !== number) return;
  const made = new DOMParser().parseFromString(await answer.text(), 'text/html').getElementById(id);
  const now = document.getElementById(id);
  if (!made || now.isEqualNode(made)) return;
  const href = now.contains(document.activeElement) && document.activeElement.getAttribute('href');
  now.replaceWith(document.adoptNode(made));
  if (href) made.querySelector(`a[href="${CSS.escape(href)}"]`)?.focus();
  watch(made);
}

function watch(part) {
  const { every, from } = part.dataset;
  if (!every) return;
  const timer = setInterval(() => {
    if (!part.isConnected) clearInterval(timer);
    else if (!document.hidden) renew(part.id, from, { 'X-Unasked': 'true' });
  }, every * 1000);
}

for (const part of document.querySelectorAll('[data-every]')) watch(part);
for (const form of document.querySelectorAll('form[data-finds]')) {
  const find = () => renew(form.dataset.finds, `${form.action}?${new URLSearchParams(new FormData(form))}`);
  let typed;
  form.addEventListener('input', (event) => {
    clearTimeout(typed);
    typed = setTimeout(find, event.target.type === 'search' ? 250 : 0);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    find();
  });
}
