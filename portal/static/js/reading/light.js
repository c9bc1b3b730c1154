// Brightness and contrast of the field and of the cells beside it: for the eyes only, nothing stored is changed.
const RANGE = { brightness: [0.5, 1.8], contrast: [0.5, 2] };
const STEP = 0.1;

export class Light {
  constructor(room) {
    this.room = room;
    this.inputs = { brightness: document.getElementById('brightness'), contrast: document.getElementById('contrast') };
    for (const [name, input] of Object.entries(this.inputs)) input.addEventListener('input', () => this.set(name, Number(input.value)));
    const button = document.getElementById('light-open');
    const panel = document.getElementById('light');
    button.addEventListener('click', () => {
      panel.hidden = !panel.hidden;
      button.setAttribute('aria-expanded', String(!panel.hidden));
    });
    document.getElementById('light-plain').addEventListener('click', () => this.plain());
    this.plain();
  }

  set(name, value) {
    const [least, most] = RANGE[name];
    const kept = Math.round(Math.max(least, Math.min(most, value)) * 100) / 100;
    this.inputs[name].value = String(kept);
    this.room.style.setProperty(`--${name}`, String(kept));
    this.room.classList.toggle('adjusted', Object.values(this.inputs).some((input) => Number(input.value) !== 1));
  }

  change(name, steps) {
    this.set(name, Number(this.inputs[name].value) + steps * STEP);
  }

  plain() {
    for (const name of Object.keys(RANGE)) this.set(name, 1);
  }
}
