// What stands beside the view: figures, timeline, path, messages.

const $ = (id) => document.getElementById(id);
const made = (tag, fields = {}, ...children) => { const e = Object.assign(document.createElement(tag), fields); e.append(...children); return e; };

export function toast(text, bad = false) {
  const box = $("toasts");
  for (const old of [...box.children]) if (old.textContent === text) old.remove();
  const note = made("div", { textContent: text, className: bad ? "bad" : "" });
  (document.querySelector("dialog[open]") || document.body).append(box);
  note.onclick = () => note.remove();
  for (const old of box.querySelectorAll(":scope > :not(.bad)")) old.remove(); // news replaces news, errors stay
  box.append(note);
  while (box.children.length > 2) box.firstChild.remove();
  setTimeout(() => note.remove(), bad ? 5000 + 50 * text.length : 3200);
}

const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`);
const count = (n) => `${n} chunk${n === 1 ? "" : "s"}`;
const short = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));

export function showFigures(state) {
  $("title").textContent = state.title;
  document.title = `${state.title} · Mirage`;
  const { memory_bytes: bytes, memory_budget: budget, drift } = state;
  $("memory").textContent = budget ? `${size(bytes)} of ${size(budget)}` : size(bytes);
  $("memory-bar").hidden = !budget;
  if (budget) $("memory-bar").value = bytes / budget;
  $("frames").textContent = `${state.frames} in ${count(state.chunks.length)}`;
  const off = drift.now - drift.start;
  $("drift").textContent = `${drift.now.toFixed(1)} dB, ${Math.abs(off) < 0.05 ? "as at the start" : `${off > 0 ? "+" : "−"}${Math.abs(off).toFixed(1)} since the start`}`;
  $("auto").checked = state.auto;
  $("prompt-row").hidden = !state.prompt;
  $("no-prompt").hidden = state.prompt;
  $("busy").hidden = !state.working;
  $("busy").lastChild.textContent = state.working > 1 ? `imagining, ${state.working} chunks to go` : "imagining what comes next";
}

export function showDepth(depth, pace) { // the scene's depth on a log scale, and what a second of walking is on it
  const low = Math.min(depth[5], pace) / 1.6, high = Math.max(depth[95], pace) * 1.6;
  const at = (x) => (300 * Math.log(x / low)) / Math.log(high / low);
  const bar = (a, b, y, h, ink) => `<rect x="${at(a)}" y="${y}" width="${Math.max(1, at(b) - at(a))}" height="${h}" rx="2" fill="${ink}"/>`;
  $("depth").innerHTML = bar(low, high, 15, 2, "#262b35") + bar(depth[5], depth[95], 13, 6, "#3c4351") + bar(depth[25], depth[75], 11, 10, "#5a6374")
    + bar(depth[50] / 1.005, depth[50] * 1.005, 7, 18, "#e8e9ed") + `<circle cx="${at(pace)}" cy="16" r="5.5" fill="#e9b872" stroke="#14171d" stroke-width="2"/>`;
  $("depth-said").textContent = `One second is ${short(pace)} units. The scene is ${short(depth[5])} to ${short(depth[95])} away, half of it beyond ${short(depth[50])}.`;
}

export class Timeline {
  constructor(pick, fork) {
    this.list = $("strip");
    this.pick = pick;
    this.fork = fork;
    this.shown = "";
  }

  show(state) {
    const key = JSON.stringify([state.id, state.chunks.map((c) => [c.number, c.frames, c.known, c.seconds]), state.working]);
    if (key === this.shown) return;
    this.shown = key;
    const item = (number, label, title, pose) => {
      const image = made("img", { src: `/api/sessions/${state.id}/chunks/${number}.jpg?${stamp(state, number)}`, alt: "", loading: "lazy" });
      const button = made("button", { title }, image, made("small", { textContent: label }));
      button.onclick = () => this.pick(pose);
      const fork = made("button", { className: "fork", textContent: "branch", title: "Begin another walk from here" });
      fork.onclick = () => this.fork(number);
      return made("li", number === state.chunks.length ? { className: "here" } : {}, button, fork);
    };
    const items = [item(0, "start", "The picture: go there", state.start)];
    for (const c of state.chunks) {
      items.push(item(c.number, `${Math.round(100 * c.known)}%`, `Chunk ${c.number}: ${Math.round(100 * c.known)}% was known, ${c.new} cells were new, ${c.seconds.toFixed(1)} s${c.prompt ? `: ${c.prompt}` : ""}. Go there`, c.pose));
    }
    for (let i = 0; i < Math.min(state.working, 4); i++) items.push(made("li", { className: "wait", title: "being imagined" }, made("i")));
    this.list.style.setProperty("--shape", `${state.width} / ${state.height}`);
    this.list.replaceChildren(...items);
    this.list.scrollLeft = this.list.scrollWidth;
  }
}

const stamp = (state, number) => { const c = state.chunks[number - 1]; return c ? `${c.new}-${c.seconds}` : ""; };

export function showPlan(plan, keyframes) {
  $("keyframes").textContent = keyframes ? `${keyframes} place${keyframes === 1 ? "" : "s"}` : "none";
  $("plan").hidden = !plan;
  if (!plan) return;
  const n = plan.known.length - 1, points = plan.known.map((k, i) => `${((300 * i) / n).toFixed(1)},${(38 - 36 * k).toFixed(1)}`).join(" ");
  $("plan-known").innerHTML = `<polygon points="0,40 ${points} 300,40" fill="#7fc3d9" opacity=".22"/><polyline points="${points}" fill="none" stroke="#7fc3d9" stroke-width="1.5" vector-effect="non-scaling-stroke"/><line id="plan-at" x1="0" x2="0" y1="0" y2="40" stroke="#e9b872" stroke-width="1.5" vector-effect="non-scaling-stroke"/>`;
  const least = Math.min(...plan.known), mean = plan.known.reduce((a, b) => a + b, 0) / (n + 1);
  const advice = plan.suggested_scale !== 1 ? ` Better at ${plan.suggested_scale}× the pace.` : "";
  $("plan-said").textContent = `${Math.round(100 * mean)}% of it is known, ${Math.round(100 * least)}% at least. ${plan.warnings.map((w) => `Mind: ${w}.`).join(" ")}${advice}`;
  $("scrub").max = n;
  $("scrub").value = 0;
}

export function showPlanAt(index, count) {
  const line = $("plan-at");
  if (!line) return;
  const x = (300 * index) / Math.max(1, count - 1);
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  $("scrub").value = index;
}

export const walks = { // of this browser; the worlds themselves are on the server
  key: "mirage-walks",
  all() { try { return JSON.parse(localStorage.getItem(this.key)) || []; } catch { return []; } },
  keep(walk) { this.write([walk, ...this.all().filter((w) => w.id !== walk.id)].slice(0, 16)); },
  drop(id) { this.write(this.all().filter((w) => w.id !== id)); },
  write(all) { try { localStorage.setItem(this.key, JSON.stringify(all)); } catch { /* a private window */ } },
};

export function showWalks(open) {
  const all = walks.all();
  $("walks").hidden = !all.length;
  $("walks").lastElementChild.replaceChildren(...all.map((walk) => {
    const image = made("img", { src: `/api/sessions/${walk.id}/chunks/0.jpg`, alt: "", loading: "lazy" });
    const item = made("li", {}, made("button", { title: "Go on", onclick: () => open(walk.id) }, image, made("span", { textContent: `${walk.title} · ${count(walk.chunks ?? 0)}` })));
    image.onerror = () => { walks.drop(walk.id); item.remove(); $("walks").hidden = !$("walks").lastElementChild.children.length; };
    return item;
  }));
}
