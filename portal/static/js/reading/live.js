// What others do to this case meanwhile: the page hears of it and asks for the rest.
export function follow(address, heard) {
  const source = new EventSource(`${address}/events`);
  for (const [name, act] of Object.entries(heard)) source.addEventListener(name, act);
  let first = true;
  source.addEventListener('ready', () => {
    // After a lost connection nobody told what happened in between.
    if (!first) Object.entries(heard).forEach(([name, act]) => name !== 'end' && act());
    first = false;
  });
  source.addEventListener('end', () => source.close());
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(address, heard), 10_000);
  });
  addEventListener('pagehide', () => source.close(), { once: true });
}
