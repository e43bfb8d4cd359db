// The explorer's page: one walk at a time, kept by the server; its name is in the address, so a reload goes on.

import { call, Live } from "./api.js";
import { arc, between, Camera, UNIT_TURN } from "./camera.js";
import { Controls } from "./controls.js";
import { Map3D } from "./map.js";
import { showDepth, showFigures, showPlan, showPlanAt, showWalks, Timeline, toast, walks } from "./panels.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const PACE = 1 / 6; // of the median depth: units per second at 1
const camera = new Camera();
const view = new View($("view"), $("stage"));
const map = new Map3D($("map"));
const timeline = new Timeline((pose) => glide([camera.pose, pose]), (chunks) => branch(chunks));
let about, state, live, ride, plan, recorder, turning = 1, afresh = false;
let keyframes = [];

const api = (path, options) => call(`/api/sessions/${state.id}${path}`, options);
const pace = () => PACE * state.depth[50] * 10 ** Number($("scale").value);

const controls = new Controls({
  canvas: $("view"),
  sticks: { move: $("stick-move"), look: $("stick-look") },
  command: (name) => act(name),
  began: () => { ride = null; step(performance.now()); },
});
controls.active = () => state && !document.querySelector("dialog[open]");

// Walking ----------------------------------------------------------------------------------------------------------

let before = performance.now(), sent = "";

function step(now) { // one small step, also between two frames of the screen, so that a key answers at once
  const seconds = Math.min(0.1, Math.max(0.008, (now - before) / 1000));
  before = now;
  if (!state || !live) return;
  const said = ride?.onIndex && !ride.paused ? "Pause" : "Preview";
  if ($("preview-said").textContent !== said) $("preview-said").textContent = said;
  if (ride) return proceed(now);
  const { move, look, drag, wheel } = controls.take();
  const far = pace() * seconds, turn = UNIT_TURN * turning * seconds;
  if (move.some(Boolean)) camera.move(far * move[0], far * move[1], far * move[2]);
  if (wheel) camera.move(0, 0, 0.25 * pace() * wheel);
  if (look.some(Boolean)) camera.look(turn * look[0], turn * look[1]);
  if (drag.some(Boolean)) {
    const perPixel = state.width / state.focal[0] / $("view").clientWidth;
    camera.look(-drag[0] * perPixel, -drag[1] * perPixel);
  }
  report(true);
}

function report(walk, force = false) {
  const pose = camera.pose.map((x) => Number(x.toPrecision(9))), key = pose.join();
  if (key === sent && !force) return;
  sent = key;
  live.look(pose, walk);
  map.set({ pose });
}

function loop(now) {
  step(now);
  requestAnimationFrame(loop);
}

// Rides: along poses, at the pace of the walk; any key ends them ---------------------------------------------------

function glide(poses, { walk = true, done, rate } = {}) {
  const times = [0];
  for (let i = 1; i < poses.length; i++) {
    const [distance, angle] = arc(poses[i - 1], poses[i]);
    times.push(times[i - 1] + (rate ? 1 / rate : Math.max(distance / (2.5 * pace()), angle / (2 * UNIT_TURN))));
  }
  const end = times[times.length - 1], squeeze = rate ? 1 : Math.min(1, 6 / (end || 1));
  ride = { poses, times: times.map((t) => t * squeeze), at: 0, last: performance.now(), walk, done, paused: false };
}

function proceed(now) {
  const r = ride, end = r.times[r.times.length - 1];
  if (!r.paused) r.at += (now - r.last) / 1000;
  r.last = now;
  let i = r.times.findIndex((t) => t > r.at) - 1;
  if (i < 0) i = r.times.length - 2;
  const part = Math.min(1, (r.at - r.times[i]) / (r.times[i + 1] - r.times[i] || 1));
  camera.pose = r.at >= end ? r.poses[r.poses.length - 1] : between(r.poses[i], r.poses[i + 1], part);
  if (r.onIndex) r.onIndex(i + Math.round(part));
  report(r.walk);
  if (r.at >= end) {
    ride = null;
    r.done?.();
  }
}

// Commands ---------------------------------------------------------------------------------------------------------

const commands = {
  help: () => $("help").open || $("help").showModal(),
  open: () => choose(),
  save: () => download(`/api/sessions/${state.id}/world.zip`, "Packing the world"),
  video: () => download(`/api/sessions/${state.id}/video.mp4`, "Making the video"),
  slower: () => pushScale(-0.1),
  faster: () => pushScale(0.1),
  "turn-less": () => { turning = Math.max(0.125, turning / 1.25); toast(`Turning at ${Math.round(UNIT_TURN * turning * 57.3)}° a second`); },
  "turn-more": () => { turning = Math.min(4, turning * 1.25); toast(`Turning at ${Math.round(UNIT_TURN * turning * 57.3)}° a second`); },
  home: () => glide([camera.pose, state.start]),
  revisit: () => glide([camera.pose, ...[...state.path].reverse()]),
  play() {
    if (ride) { ride.paused = !ride.paused; return; }
    if (plan) return commands.preview();
    if (state.path.length < 2) return toast("Nothing to play yet: walk first");
    glide(state.path, { walk: false, rate: 4, done: () => report(true, true) });
  },
  mark() {
    keyframes.push(camera.pose);
    map.set({ keys: keyframes });
    showPlan(plan, keyframes.length);
    toast(`Keyframe ${keyframes.length} added`);
    if (keyframes.length > 1) return planPath({ keyframes: keyframes.slice(1) }, keyframes[0]);
  },
  unmark() {
    keyframes = [];
    map.set({ keys: [] });
    commands.unplan();
  },
  plan() {
    const words = $("words").value.trim() || $("preset").value;
    return planPath({ words, scale: 10 ** Number($("scale").value) });
  },
  unplan() {
    plan = null;
    map.set({ plan: [] });
    showPlan(null, keyframes.length);
  },
  async preview() {
    if (ride?.onIndex) { ride.paused = !ride.paused; return; }
    if (!plan) await commands.plan();
    if (!plan) return;
    const back = camera.pose;
    glide(plan.poses, { walk: false, rate: 16, done: () => setTimeout(() => { if (!ride) { camera.pose = back; report(true, true); } }, 500) });
    ride.onIndex = (i) => showPlanAt(i, plan.poses.length);
  },
  async follow() {
    if (!plan) return;
    const poses = plan.poses;
    commands.unplan();
    await api("/generate", { json: { poses: poses.slice(1), wait: false, prompt: wanted(), ...fresh() } });
    glide(poses, { walk: false, rate: 16, done: () => report(true, true) });
  },
  async generate() {
    await api("/generate", { json: { wait: false, prompt: wanted(), ...fresh() } });
  },
  async undo() {
    if (!state.chunks.length && !state.working) return toast("There is nothing to undo");
    live?.say({ type: "auto", on: false }); // or the same place would be imagined again at once
    take(await api("/undo", { json: state.chunks.length ? {} : { chunks: 0 } }));
    afresh = true;
    toast("Taken back. R imagines something else there; imagining as you go is off");
    report(true, true);
  },
  branch: () => branch(state.chunks.length),
};

const wanted = () => (state.prompt ? $("prompt").value : null);
const fresh = () => { const other = afresh ? { seed: Math.floor(Math.random() * 2 ** 52) } : {}; afresh = false; return other; };

async function act(name) {
  if (name !== "help" && name !== "open" && !state) return;
  for (const old of document.querySelectorAll("#toasts .bad")) old.remove();
  try {
    await commands[name]();
  } catch (error) {
    toast(error.message, true);
  }
}

async function planPath(request, from) {
  try {
    if (from) { // through keyframes: begin at the first
      camera.pose = from;
      report(true, true);
      await api("/move", { json: { pose: camera.pose } });
    }
    plan = await api("/path", { json: { frames: 65, ...request } });
    map.set({ plan: plan.poses });
    showPlan(plan, keyframes.length);
    if (innerWidth <= 860) $("plan").scrollIntoView({ behavior: "smooth", block: "nearest" });
  } catch (error) {
    toast(error.message, true);
  }
}

async function branch(chunks) {
  try {
    const other = await api("/branch", { json: { chunks } });
    toast(`Another walk, from chunk ${chunks}. The first is kept among your walks`);
    enter(other);
  } catch (error) {
    toast(error.message, true);
  }
}

async function download(path, about) {
  toast(`${about} …`);
  const answer = await call(path, { raw: true });
  offer(await answer.blob(), /filename="?([^";]+)/.exec(answer.headers.get("content-disposition") || "")?.[1] || "mirage");
}

function offer(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function pushScale(by) {
  $("scale").value = Number($("scale").value) + by;
  showPace();
}

function showPace() {
  const factor = 10 ** Number($("scale").value);
  $("scale-said").textContent = `${factor >= 1 ? factor.toFixed(1) : factor.toFixed(2)}×`;
  if (state) showDepth(state.depth, pace());
}

// A walk: entering, news of it, leaving ----------------------------------------------------------------------------

function enter(entered) {
  live?.close();
  ride = plan = null;
  keyframes = [];
  state = entered;
  sent = "";
  camera.pose = state.pose;
  camera.gravity = state.start.slice(4, 7);
  history.replaceState(null, "", `#${state.id}`);
  walks.keep({ id: state.id, title: state.title, chunks: state.chunks.length });
  document.body.classList.remove("starting");
  $("start").close();
  view.shape(state.width, state.height);
  map.set({ start: state.start, pose: state.pose, path: state.path, plan: [], keys: [], focal: state.focal, size: [state.width, state.height] });
  map.count = 0;
  showPlan(null, 0);
  showPace();
  live = new Live(state.id, { view: show, state: take, error: (text) => toast(text, true), link: linked, gone: lost });
  take(entered, true);
  report(true, true);
  $("view").focus({ preventScroll: true });
}

function take(news, anew = false) {
  if (!state || news.id !== state.id) return;
  const changed = anew || news.frames !== state.frames || news.memory_bytes !== state.memory_bytes;
  state = news;
  showFigures(state);
  timeline.show(state);
  map.set({ path: state.path });
  if (!changed) return;
  walks.keep({ id: state.id, title: state.title, chunks: state.chunks.length });
  if (!anew) report(!ride || ride.walk, true);
  loadPoints();
}

let loading = false, again = false;
async function loadPoints() { // the newest only
  if (loading) { again = true; return; }
  loading = true;
  try {
    const id = state.id, answer = await api("/points", { raw: true }), buffer = await answer.arrayBuffer();
    if (state.id === id) map.setPoints(buffer, 1.1 * state.depth[50]);
  } catch { /* busy: the next chunk brings the next points */ }
  loading = false;
  if (again) { again = false; loadPoints(); }
}

function show(message, delay) {
  view.show(message, delay);
  $("known").textContent = `${Math.round(100 * message.known)}% known from here`;
  const empty = message.known < 0.02;
  $("notice").hidden = !empty;
  if (empty) $("notice").textContent = "Nobody has been here. Turn back, or imagine it";
}

function linked(up) {
  $("link").hidden = up;
  if (up && state) report(true, true);
}

function lost(text) {
  live?.close();
  if (state) walks.drop(state.id);
  state = live = null;
  history.replaceState(null, "", location.pathname);
  begin();
  toast(text, true);
}

// The first page ---------------------------------------------------------------------------------------------------

function begin() {
  document.body.classList.toggle("starting", !state);
  $("start-close").hidden = !state;
  showWalks(resume);
  if (!$("start").open) $("start").showModal();
}

async function resume(id) {
  try {
    enter(await call(`/api/sessions/${id}`));
  } catch (error) {
    if (error.status === 404) walks.drop(id);
    begin();
    toast(error.message, true);
  }
}

async function start(button, request) {
  button.classList.add("loading");
  try {
    enter(await request());
  } catch (error) {
    toast(error.message, true);
  }
  button.classList.remove("loading");
}

function choose() {
  $("file").accept = state ? ".zip,application/zip" : "image/jpeg,image/png,image/webp,.zip,application/zip";
  $("file").click();
}

async function takeFile(file) {
  if (!file) return;
  const zip = /\.zip$/i.test(file.name) || file.type === "application/zip", title = file.name.replace(/\.[^.]*$/, "").slice(0, 100);
  const most = about.limits[zip ? "world_mib" : "picture_mib"];
  if (file.size > most * 2 ** 20) return toast(`${file.name} is too large: at most ${most} MiB`, true);
  toast(zip ? "Opening the world …" : "Looking at the picture …");
  await start($("drop"), () => call(`/api/${zip ? "worlds" : "pictures"}?title=${encodeURIComponent(title)}`, { method: "POST", body: file }));
}

async function boot() {
  try {
    about = await call("/api");
  } catch (error) {
    document.body.classList.add("starting");
    $("start").showModal();
    return toast(error.message, true);
  }
  $("pictures").append(...about.pictures.map((name) => {
    const button = Object.assign(document.createElement("button"), { title: `Walk into the ${name}` });
    button.dataset.picture = name;
    button.append(Object.assign(new Image(), { src: `/pictures/${name}.jpg`, alt: "" }), Object.assign(document.createElement("span"), { textContent: name }));
    button.onclick = () => start(button, () => call("/api/sessions", { json: { picture: name } }));
    return button;
  }));
  $("preset").append(...about.presets.map((words) => new Option(words.replace(":", ": ").replaceAll("=", " "), words)));
  const id = location.hash.slice(1);
  if (id) await resume(id);
  else begin();
  requestAnimationFrame(loop);
}

for (const id of ["auto", "tint", "scale", "scrub", "preset"]) $(id).addEventListener("change", () => $(id).blur()); // keys walk again
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => { act(button.dataset.do); button.blur(); });
$("brand").onclick = begin;
$("start-close").onclick = () => $("start").close();
$("start").addEventListener("cancel", (event) => state || event.preventDefault());
$("file").onchange = async () => { await takeFile($("file").files[0]); $("file").value = ""; };
$("scale").oninput = showPace;
$("auto").onchange = () => live?.say({ type: "auto", on: $("auto").checked });
$("prompt").onchange = () => live?.say({ type: "prompt", prompt: $("prompt").value });
$("tint").onchange = () => { map.tint = $("tint").checked ? 0.72 : 0; map.later(); };
$("preset").onchange = () => { $("words").value = ""; act("plan"); };
$("words").onkeydown = (event) => { if (event.key === "Enter") act("plan"); };
$("scrub").oninput = () => {
  if (!plan) return;
  ride = null;
  const index = Number($("scrub").value);
  camera.pose = plan.poses[index];
  report(false);
  showPlanAt(index, plan.poses.length);
};
$("record").onclick = () => {
  if (recorder) { recorder.stop(); recorder = null; } else {
    try {
      recorder = view.record((blob, kind) => offer(blob, `mirage-${state.title}-view.${kind}`));
    } catch (error) { return toast(error.message, true); }
  }
  $("record").classList.toggle("on", Boolean(recorder));
  $("record").textContent = recorder ? "■ Stop" : "● Record";
};
let inside = 0;
addEventListener("dragenter", (e) => { e.preventDefault(); inside += 1; $("dropping").hidden = false; });
addEventListener("dragleave", () => { inside = Math.max(0, inside - 1); $("dropping").hidden = inside === 0; });
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", (e) => { e.preventDefault(); inside = 0; $("dropping").hidden = true; takeFile(e.dataTransfer.files[0]); });
addEventListener("hashchange", () => { const id = location.hash.slice(1); if (id && id !== state?.id) resume(id); });
setInterval(() => { if (state) $("rate").textContent = view.rate ? `${view.rate} fps · ${Math.round(view.delay)} ms` : ""; }, 500);
boot();
