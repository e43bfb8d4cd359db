// Keys, mouse and touch: what is held down moves the camera; single keys are commands.

const MOVES = { KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyQ: [0, 1, 0], KeyE: [0, -1, 0] };
const LOOKS = {
  KeyJ: [-1, 0], KeyL: [1, 0], KeyI: [0, -1], KeyK: [0, 1],
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};
const COMMANDS = {
  KeyR: "generate", KeyZ: "undo", KeyX: "save", KeyO: "open", KeyP: "preview", KeyB: "branch", KeyM: "mark",
  Space: "play", KeyH: "home", KeyV: "revisit", BracketLeft: "slower", BracketRight: "faster", Comma: "turn-less", Period: "turn-more",
};

export class Controls {
  constructor({ canvas, sticks, command, began }) {
    this.held = new Set();
    this.stick = { move: [0, 0], look: [0, 0] };
    this.drag = [0, 0]; // radians / (pixels of the view), taken by `take`
    this.wheel = 0;
    this.began = began; // something is held that was not: move at once
    this.active = () => true;
    addEventListener("keydown", (e) => this.down(e, command));
    addEventListener("keyup", (e) => this.held.delete(e.code));
    addEventListener("blur", () => this.held.clear());
    this.mouse(canvas);
    for (const [name, element] of Object.entries(sticks)) this.touch(name, element);
    addEventListener("pointerdown", (e) => { if (e.pointerType === "touch") document.body.classList.add("touch"); }, true);
    if (matchMedia("(pointer: coarse)").matches) document.body.classList.add("touch");
  }

  down(event, command) {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && !/^(range|checkbox)$/.test(event.target.type);
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") return command("help");
    if (!this.active()) return;
    const slider = event.target.type === "range" && event.code.startsWith("Arrow");
    if ((MOVES[event.code] || LOOKS[event.code]) && !slider) {
      event.preventDefault();
      if (!event.repeat && !this.held.has(event.code)) { this.held.add(event.code); this.began(); }
      return;
    }
    const name = COMMANDS[event.code];
    if (!name || (event.code === "Space" && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    if (!event.repeat || /slower|faster|turn/.test(name)) command(name);
  }

  mouse(canvas) {
    let last = null;
    canvas.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); canvas.focus({ preventScroll: true }); });
    canvas.addEventListener("pointermove", (e) => {
      if (!last) return;
      this.drag = [this.drag[0] + e.clientX - last[0], this.drag[1] + e.clientY - last[1]];
      last = [e.clientX, e.clientY];
      this.began();
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { last = null; });
    canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.wheel -= Math.sign(e.deltaY) * Math.min(1, Math.abs(e.deltaY) / 60); this.began(); }, { passive: false });
  }

  touch(name, element) {
    const knob = element.firstElementChild;
    const set = (e) => {
      const box = element.getBoundingClientRect(), r = box.width / 2;
      let x = (e.clientX - box.left - r) / r, y = (e.clientY - box.top - r) / r;
      const n = Math.max(1, Math.hypot(x, y));
      [x, y] = [x / n, y / n];
      knob.style.transform = `translate(${x * r * 0.6}px, ${y * r * 0.6}px)`;
      this.stick[name] = Math.hypot(x, y) < 0.12 ? [0, 0] : [x, y];
      this.began();
    };
    let held = false;
    element.addEventListener("pointerdown", (e) => { held = true; element.setPointerCapture(e.pointerId); set(e); });
    element.addEventListener("pointermove", (e) => held && set(e));
    for (const kind of ["pointerup", "pointercancel"]) element.addEventListener(kind, () => { held = false; this.stick[name] = [0, 0]; knob.style.transform = ""; });
  }

  take() { // what is wanted now: rates for what is held, amounts for mouse and wheel
    const sum = (table, n) => [...this.held].reduce((total, code) => (table[code] ? total.map((x, i) => x + table[code][i]) : total), Array(n).fill(0));
    const [x, y, z] = sum(MOVES, 3), [yaw, pitch] = sum(LOOKS, 2), { move, look } = this.stick;
    const wanted = { move: [x + move[0], y, z - move[1]], look: [yaw + look[0], pitch + look[1]], drag: this.drag, wheel: this.wheel };
    this.drag = [0, 0];
    this.wheel = 0;
    return wanted;
  }
}
