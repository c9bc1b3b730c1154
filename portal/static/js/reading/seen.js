// Which class groups were on the screen: their first cell, with its image, for a moment, in a visible page.
const MOMENT = 250;

export function watchGroups(root, store, queue, address) {
  if (!store.mine) return;
  const timers = new Map();
  const inView = new Set();
  const see = (key) => {
    timers.delete(key);
    const group = root.querySelector(`[data-group="${key}"]`);
    const first = group?.querySelector('.tile img');
    if (document.hidden || !inView.has(key) || !first?.complete || !first.naturalWidth || store.seen.has(key)) return;
    store.seen.add(key);
    queue.add(`${address}/seen`, { group: [key] }, { quiet: true });
    store.emit('seen');
  };
  const wait = (key) => {
    if (key === 'unsure' || store.seen.has(key) || timers.has(key)) return;
    timers.set(key, setTimeout(() => see(key), MOMENT));
  };
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const key = entry.target.closest('[data-group]')?.dataset.group;
      if (!key) continue;
      inView[entry.isIntersecting ? 'add' : 'delete'](key);
      if (entry.isIntersecting) wait(key);
    }
  }, { root, threshold: 0.6 });
  const observe = () => {
    observer.disconnect();
    inView.clear();
    for (const group of root.children) {
      const first = group.querySelector('.tile');
      if (first && group.dataset.group !== 'unsure' && !store.seen.has(group.dataset.group)) observer.observe(first);
    }
  };
  // Looked at again: an image that comes late; all, when the page comes back to the front.
  root.addEventListener('load', (event) => {
    const key = event.target.closest('[data-group]')?.dataset.group;
    if (inView.has(key)) wait(key);
  }, true);
  document.addEventListener('visibilitychange', () => inView.forEach(wait));
  store.addEventListener('drawn', observe);
  observe();
}
