// The memory in space: coloured points, the path, the cameras. Plain WebGL; drag to turn, wheel or pinch to come nearer.

import { centerOf, cross, dot, unit } from "./camera.js";

const POINTS = `attribute vec3 place; attribute vec4 paint; uniform mat4 matrix; uniform vec3 home; uniform float size, tint; varying vec3 colour;
void main() { // a point is as large as the pixels that it stands for, seen from where the walk began
  gl_Position = matrix * vec4(place, 1.0);
  gl_PointSize = clamp(size * distance(place, home) / gl_Position.w, 1.5, 48.0);
  colour = mix(paint.rgb, mix(vec3(0.96, 0.94, 0.90), vec3(0.91, 0.72, 0.45), 1.0 - step(0.5 / 255.0, paint.a)), tint);
}`;
const LINES = `attribute vec3 place; uniform mat4 matrix; void main() { gl_Position = matrix * vec4(place, 1.0); }`;
const PAINT = `precision mediump float; varying vec3 colour; void main() {
  if (length(gl_PointCoord - 0.5) > 0.5) discard;
  gl_FragColor = vec4(colour, 1.0);
}`;
const FOCAL = 1.9; // of the map's own camera, in halves of its height
const SIDE = 4, STRIDE = 8; // points along a cell, pixels of a cell: about how large a point is
const PLAIN = `precision mediump float; uniform vec4 ink; void main() { gl_FragColor = ink; }`;

export class Map3D {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: true, alpha: true, premultipliedAlpha: true });
    this.count = 0;
    this.tint = 0;
    this.yaw = 0.55;
    this.pitch = 0.46;
    this.zoom = 1;
    this.reach = 1;
    this.wide = 1;
    this.target = [0, 0, 1];
    this.scene = { path: [], plan: [], keys: [], pose: null, start: null, focal: [1, 1], size: [1, 1] };
    if (!this.gl) return;
    this.points = this.program(POINTS, PAINT, ["place", "paint"], ["matrix", "home", "size", "tint"]);
    this.lines = this.program(LINES, PLAIN, ["place"], ["matrix", "ink"]);
    this.cloud = this.gl.createBuffer();
    this.strokes = this.gl.createBuffer();
    this.steer();
    new ResizeObserver(() => this.later()).observe(canvas);
  }

  program(vertex, fragment, attributes, uniforms) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    attributes.forEach((name, i) => gl.bindAttribLocation(program, i, name));
    gl.linkProgram(program);
    return { program, ...Object.fromEntries(uniforms.map((name) => [name, gl.getUniformLocation(program, name)])) };
  }

  steer() {
    const held = new globalThis.Map();
    this.canvas.addEventListener("pointerdown", (e) => { this.canvas.setPointerCapture(e.pointerId); held.set(e.pointerId, [e.clientX, e.clientY]); });
    this.canvas.addEventListener("pointermove", (e) => {
      const before = held.get(e.pointerId);
      if (!before) return;
      const spread = () => { const [a, b] = [...held.values()]; return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0; };
      const wide = spread();
      held.set(e.pointerId, [e.clientX, e.clientY]);
      if (held.size > 1) this.zoom *= Math.max(0.5, Math.min(2, wide / (spread() || 1)));
      else {
        this.yaw += (e.clientX - before[0]) * 0.008;
        this.pitch = Math.max(-1.4, Math.min(1.5, this.pitch + (e.clientY - before[1]) * 0.008));
      }
      this.later();
    });
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, (e) => held.delete(e.pointerId));
    this.canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom = Math.max(0.15, Math.min(6, this.zoom * Math.exp(e.deltaY * 0.001))); this.later(); }, { passive: false });
  }

  setPoints(buffer, reach) {
    if (!this.gl) return;
    this.reach = reach;
    this.count = buffer.byteLength / 16;
    this.frame(new Float32Array(buffer), reach);
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.cloud);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, buffer, this.gl.STATIC_DRAW);
    this.later();
  }

  frame(numbers, reach) { // what to look at, and from how far: the middle of what is not too far off
    const home = centerOf(this.scene.start), near = [];
    const step = Math.max(1, Math.floor(this.count / 2000));
    for (let i = 0; i < this.count; i += step) {
      const place = [numbers[4 * i], numbers[4 * i + 1], numbers[4 * i + 2]];
      if (Math.hypot(...place.map((x, k) => x - home[k])) < 3 * reach) near.push(place);
    }
    if (!near.length) return;
    const middle = (values) => { values.sort((a, b) => a - b); return (values[Math.floor(0.1 * values.length)] + values[Math.floor(0.9 * values.length)]) / 2; };
    this.target = [0, 1, 2].map((k) => 0.75 * middle(near.map((p) => p[k])) + 0.25 * home[k]);
    const away = near.map((p) => Math.hypot(...p.map((x, k) => x - this.target[k]))).sort((a, b) => a - b);
    this.wide = away[Math.floor(0.85 * (away.length - 1))];
  }

  set(scene) {
    Object.assign(this.scene, scene);
    this.later(false);
  }

  later(soon = true) { // one drawing per frame of the screen; fewer while one walks, the view goes first
    if (this.due || !this.gl) return;
    this.due = true;
    const draw = () => requestAnimationFrame(() => { this.due = false; this.draw(); });
    soon ? draw() : setTimeout(draw, 120);
  }

  draw() {
    const gl = this.gl, { canvas, scene } = this, dense = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(canvas.clientWidth * dense), height = Math.round(canvas.clientHeight * dense);
    if (!width || !scene.pose) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const matrix = this.matrix(width / height);

    gl.useProgram(this.points.program);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.cloud);
    gl.enableVertexAttribArray(0);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 16, 0);
    gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, 16, 12);
    gl.uniformMatrix4fv(this.points.matrix, false, matrix);
    gl.uniform3fv(this.points.home, centerOf(scene.start));
    gl.uniform1f(this.points.size, (1.8 * (STRIDE / SIDE) * FOCAL * height) / 2 / scene.focal[0]);
    gl.uniform1f(this.points.tint, this.tint);
    if (this.count) gl.drawArrays(gl.POINTS, 0, this.count);
    gl.disableVertexAttribArray(1);

    gl.useProgram(this.lines.program);
    gl.uniformMatrix4fv(this.lines.matrix, false, matrix);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.strokes);
    const s = this.reach * 0.07;
    const every = Math.max(1, Math.ceil(scene.path.length / 24));
    this.stroke(this.trace(scene.path), [0.62, 0.66, 0.74, 1]);
    this.stroke(scene.path.filter((_, i) => i % every === 0).flatMap((p) => this.frustum(p, 0.45 * s)), [0.42, 0.45, 0.52, 1]);
    this.stroke(this.trace(scene.plan), [0.5, 0.77, 0.86, 1]);
    this.stroke(scene.keys.flatMap((p) => this.frustum(p, 0.7 * s)), [0.5, 0.77, 0.86, 1]);
    if (scene.start) this.stroke(this.frustum(scene.start, 0.7 * s), [0.96, 0.94, 0.9, 1]);
    gl.disable(gl.DEPTH_TEST);
    this.stroke(this.frustum(scene.pose, s), [0.91, 0.72, 0.45, 1]);
  }

  stroke(places, ink) {
    if (!places.length) return;
    const gl = this.gl;
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(places.flat()), gl.STREAM_DRAW);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 12, 0);
    gl.uniform4fv(this.lines.ink, ink);
    gl.drawArrays(gl.LINES, 0, places.length);
  }

  trace(poses) {
    const places = poses.map(centerOf);
    return places.slice(1).flatMap((place, i) => [places[i], place]);
  }

  frustum(p, depth) {
    const { focal, size } = this.scene, eye = centerOf(p), x = size[0] / 2 / focal[0], y = size[1] / 2 / focal[1];
    const corner = (u, v) => [0, 1, 2].map((i) => eye[i] + depth * (p[8 + i] + u * x * p[i] + v * y * p[4 + i]));
    const c = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
    return c.flatMap((place, i) => [eye, place, place, c[(i + 1) % 4]]);
  }

  matrix(aspect) { // an orbit about the middle of the scene; up is the start's up
    const { start } = this.scene, target = this.target;
    const [right, down, ahead] = [start.slice(0, 3), start.slice(4, 7), start.slice(8, 11)];
    const c = Math.cos(this.pitch), s = Math.sin(this.pitch), distance = 2.15 * this.wide * this.zoom;
    const back = right.map((_, i) => c * (-Math.cos(this.yaw) * ahead[i] + Math.sin(this.yaw) * right[i]) - s * down[i]);
    const eye = target.map((x, i) => x + distance * back[i]);
    const z = unit(back), x = unit(cross(down.map((v) => -v), z)), y = cross(z, x);
    const near = this.wide * 0.02, end = this.wide * 80, f = FOCAL; // a little above the middle: below is the legend
    const view = [x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, -dot(x, eye), -dot(y, eye), -dot(z, eye), 1];
    const lens = [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, -0.12, (end + near) / (near - end), -1, 0, 0, (2 * end * near) / (near - end), 0];
    const out = new Float32Array(16);
    for (let col = 0; col < 4; col++) for (let row = 0; row < 4; row++) for (let k = 0; k < 4; k++) out[4 * col + row] += lens[4 * k + row] * view[4 * col + k];
    return out;
  }
}
