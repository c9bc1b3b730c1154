// What was thought blind, beside what the AI says, and the second opinions on the case.
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
