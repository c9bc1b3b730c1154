// What is seen first: the cells. The rest comes while their pictures do.
import { Gallery } from './gallery.js';
import { resizable } from './panels.js';
import { Store } from './store.js';

export const data = JSON.parse(document.getElementById('room-data').textContent);
export const store = new Store(data);
resizable(document.getElementById('panels'));
store.select(store.sequence[0]); // a stop for tab
export const gallery = new Gallery(document.getElementById('gallery'), store);

// Keys pressed before `main.js` is there.
const early = [];
let act = (event) => early.push(event);
document.addEventListener('keydown', (event) => act(event));
export const onKey = (does) => {
  act = does;
  early.forEach(does);
};

// `main.js` waits for this: its work would keep the first pictures from the screen.
const shown = gallery.begun.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
await Promise.race([shown, new Promise((done) => setTimeout(done, 300))]);
