// What is seen first: the cells. The rest of the room comes while their pictures do.
import { Gallery } from './gallery.js';
import { resizable } from './panels.js';
import { Store } from './store.js';

const LATE = 300;

export const data = JSON.parse(document.getElementById('room-data').textContent);
export const store = new Store(data);
resizable(document.getElementById('panels'));
export const gallery = new Gallery(document.getElementById('gallery'), store);
// `main.js` waits for this: its work would keep the first pictures from the screen.
const shown = gallery.begun.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
await Promise.race([shown, new Promise((late) => setTimeout(late, LATE))]);
