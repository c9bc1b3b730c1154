// Pieces of text to insert into a comment or the impression; a reader keeps own ones.
import { post, say } from '../app.js';
import { el } from '../elements.js';

export function phraseLists(phrases) {
  const lists = [...document.querySelectorAll('details.phrases')];
  const draw = () => {
    for (const list of lists) {
      const rows = phrases.filter((one) => one.place === list.dataset.place).map((one) => el('li', {},
        el('button', { class: 'btn quiet', type: 'button', 'data-phrase': one.text }, one.text),
        ...(one.id ? [el('button', { class: 'btn quiet icon-only', type: 'button', 'data-forget': one.id, 'aria-label': `Forget: ${one.text}`, title: 'Forget this phrase' }, '×')] : [])));
      list.replaceChildren(list.querySelector('summary'), el('ul', {}, ...rows),
        el('button', { class: 'btn quiet', type: 'button', 'data-keep': true }, 'Keep what is written as a phrase'));
    }
  };
  draw();
  for (const list of lists) {
    const field = document.getElementById(list.dataset.into);
    list.addEventListener('click', async (event) => {
      const { phrase, forget } = event.target.dataset;
      if (phrase) {
        const before = field.value.slice(0, field.selectionStart);
        field.setRangeText(`${before && !/\s$/.test(before) ? ' ' : ''}${phrase}`, field.selectionStart, field.selectionEnd, 'end');
        field.dispatchEvent(new Event('input', { bubbles: true }));
        list.open = false;
        field.focus();
      } else if (forget || 'keep' in event.target.dataset) {
        const text = field.value.slice(field.selectionStart, field.selectionEnd).trim() || field.value.trim();
        try {
          if (forget) {
            await post(`/phrases/${forget}/remove`);
            phrases = phrases.filter((one) => one.id !== forget);
          } else if (text) {
            const kept = await post('/phrases', { place: list.dataset.place, text });
            phrases = [kept, ...phrases.filter((one) => one.id !== kept.id)];
          } else say('Write the phrase first.', { seconds: 2 });
          draw();
        } catch (problem) {
          say(problem.status ? problem.message : 'Phrases can be kept when the connection is back.');
        }
      }
    });
  }
}
