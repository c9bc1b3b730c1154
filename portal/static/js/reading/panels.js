// Panels that resize by mouse, touch or arrow keys, and keep their size.
const LIMITS = { gallery: [220, 900], differential: [250, 560] };

export function resizable(panels) {
  for (const splitter of panels.querySelectorAll('.splitter')) {
    const name = splitter.dataset.splits;
    const [least, most] = LIMITS[name];
    const set = (width) => {
      const room = panels.clientWidth;
      const kept = Math.round(Math.max(least, Math.min(most, room * 0.6, width)));
      panels.style.setProperty(`--${name}`, `${kept}px`);
      splitter.setAttribute('aria-valuenow', String(Math.round((100 * kept) / room)));
      localStorage.setItem(`hv-panel-${name}`, String(kept));
      window.dispatchEvent(new Event('resize'));
    };
    const width = () => (name === 'gallery' ? splitter.previousElementSibling : splitter.nextElementSibling).offsetWidth;
    const stored = Number(localStorage.getItem(`hv-panel-${name}`));
    if (stored) set(stored);
    else splitter.setAttribute('aria-valuenow', String(Math.round((100 * width()) / panels.clientWidth)));
    splitter.addEventListener('pointerdown', (event) => {
      splitter.setPointerCapture(event.pointerId);
      const move = (to) => {
        const frame = panels.getBoundingClientRect();
        set(name === 'gallery' ? to.clientX - frame.left : frame.right - to.clientX);
      };
      splitter.addEventListener('pointermove', move);
      splitter.addEventListener('pointerup', () => splitter.removeEventListener('pointermove', move), { once: true });
    });
    splitter.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -24, ArrowRight: 24 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      set(width() + (name === 'gallery' ? step : -step));
    });
  }
}
