// The picture: what the memory shows from here; what nobody has seen is hatched, with a soft edge.

export class View {
  constructor(canvas, stage) {
    this.canvas = canvas;
    this.stage = stage;
    this.context = canvas.getContext("2d", { alpha: false });
    this.glow = Object.assign(document.createElement("canvas"), { className: "glow", width: 14, height: 14 });
    this.glow.setAttribute("aria-hidden", "true");
    stage.prepend(this.glow);
    this.fog = document.createElement("canvas");
    this.mask = document.createElement("canvas");
    this.last = null;
    this.times = [];
    this.delays = [];
    new ResizeObserver(() => this.fit()).observe(stage);
  }

  shape(width, height) {
    this.ratio = width / height;
    this.width = width;
    this.fit();
  }

  fit() {
    if (!this.ratio) return;
    const box = this.stage.getBoundingClientRect();
    const width = Math.max(1, Math.min(box.width, box.height * this.ratio)), height = width / this.ratio;
    const dense = Math.min(window.devicePixelRatio || 1, (2.5 * this.width) / width); // beyond, the screen scales well enough
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.stage.style.setProperty("--wide", `${width}px`);
    this.stage.style.setProperty("--high", `${height}px`);
    const size = [Math.round(width * dense), Math.round(height * dense)];
    if (size[0] === this.canvas.width && size[1] === this.canvas.height) return;
    [this.canvas.width, this.canvas.height] = size;
    [this.fog.width, this.fog.height] = size;
    this.hatch = this.makeHatch(dense);
    this.draw();
  }

  makeHatch(dense) { // dark, with fine diagonal lines
    const n = Math.round(14 * dense), tile = document.createElement("canvas");
    tile.width = tile.height = n;
    const c = tile.getContext("2d");
    c.fillStyle = "rgb(15, 17, 22)";
    c.fillRect(0, 0, n, n);
    c.strokeStyle = "rgb(58, 65, 79)";
    c.lineWidth = Math.max(1, 1.3 * dense);
    for (const d of [-n, 0, n]) { c.beginPath(); c.moveTo(d - 2, n + 2); c.lineTo(d + n + 2, -2); c.stroke(); }
    return this.context.createPattern(tile, "repeat");
  }

  show(message, delay) {
    this.last?.image.close();
    this.last = message;
    const now = performance.now();
    this.times = [...this.times.filter((t) => now - t < 1000), now];
    this.delays = [...this.delays.slice(-19), delay];
    const { columns, rows, mask } = message;
    [this.mask.width, this.mask.height] = [columns, rows];
    const pixels = new ImageData(columns, rows);
    for (let i = 0; i < columns * rows; i++) pixels.data[4 * i + 3] = (mask[i >> 3] >> (7 - (i & 7))) & 1 ? 0 : 255;
    this.mask.getContext("2d").putImageData(pixels, 0, 0);
    this.draw();
  }

  draw() {
    if (!this.last) return;
    const { context: c, canvas: { width, height } } = this;
    c.imageSmoothingEnabled = true;
    c.imageSmoothingQuality = "high";
    c.drawImage(this.last.image, 0, 0, width, height);
    if (this.last.known < 0.9999) this.drawFog();
    const now = performance.now();
    if (now - (this.glowed || 0) < 250) return;
    this.glowed = now;
    this.glow.getContext("2d").drawImage(this.canvas, 0, 0, 14, 14);
  }

  drawFog() {
    const { context: c, canvas: { width, height } } = this;
    const f = this.fog.getContext("2d");
    f.globalCompositeOperation = "copy";
    f.imageSmoothingEnabled = true;
    f.drawImage(this.mask, 0, 0, width, height);
    f.globalCompositeOperation = "source-in";
    f.fillStyle = this.hatch;
    f.fillRect(0, 0, width, height);
    c.globalAlpha = 0.94;
    c.drawImage(this.fog, 0, 0);
    c.globalAlpha = 1;
  }

  get rate() {
    const now = performance.now();
    return this.times.filter((t) => now - t < 1000).length;
  }

  get delay() {
    const sorted = [...this.delays].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] || 0;
  }

  record(done) { // what is seen, as the browser's own kind of video
    const kind = ["video/mp4", "video/webm;codecs=vp9", "video/webm"].find((k) => window.MediaRecorder?.isTypeSupported(k));
    if (!kind) throw new Error("this browser cannot record; take the video of the walk instead");
    const parts = [], recorder = new MediaRecorder(this.canvas.captureStream(30), { mimeType: kind, videoBitsPerSecond: 8e6 });
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => done(new Blob(parts, { type: kind }), kind.startsWith("video/mp4") ? "mp4" : "webm");
    recorder.start(1000);
    return recorder;
  }
}
