// Where one is: OpenCV axes (+x right, +y down, +z forward). A pose on the wire is the upper 3 x 4 of cam_from_world.

export const UNIT_TURN = (50 * Math.PI) / 180; // radians per second at angle 1

export class Camera {
  constructor() {
    this.right = [1, 0, 0];
    this.down = [0, 1, 0];
    this.ahead = [0, 0, 1];
    this.center = [0, 0, 0];
    this.gravity = [0, 1, 0];
  }

  get pose() {
    const rows = [this.right, this.down, this.ahead];
    return rows.flatMap((r) => [...r, -dot(r, this.center)]);
  }

  set pose(p) {
    [this.right, this.down, this.ahead] = [p.slice(0, 3), p.slice(4, 7), p.slice(8, 11)];
    const t = [p[3], p[7], p[11]];
    this.center = [0, 1, 2].map((i) => -(this.right[i] * t[0] + this.down[i] * t[1] + this.ahead[i] * t[2]));
  }

  move(x, y, z) {
    for (let i = 0; i < 3; i++) this.center[i] += x * this.right[i] + y * this.down[i] + z * this.ahead[i];
  }

  look(yaw, pitch) { // radians; positive to the right and down
    const steep = Math.asin(Math.max(-1, Math.min(1, dot(this.ahead, this.gravity))));
    pitch = Math.max(-1.4 - steep, Math.min(1.4 - steep, pitch));
    for (const axis of ["right", "down", "ahead"]) this[axis] = turn(this[axis], this.gravity, yaw);
    for (const axis of ["down", "ahead"]) this[axis] = turn(this[axis], this.right, -pitch);
    this.ahead = unit(this.ahead);
    this.right = unit(cross(this.down, this.ahead));
    this.down = cross(this.ahead, this.right);
  }
}

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
export const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((x) => x / n); };

function turn(v, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle), k = dot(axis, v) * (1 - c), w = cross(axis, v);
  return v.map((x, i) => x * c + w[i] * s + axis[i] * k);
}

export function centerOf(p) {
  return [0, 1, 2].map((i) => -(p[i] * p[3] + p[4 + i] * p[7] + p[8 + i] * p[11]));
}

export function between(p, q, part) { // straight for the centre, normalised mix for the axes: for gliding only
  const camera = new Camera();
  const mix = (a, b) => a.map((x, i) => x + (b[i] - x) * part);
  const c = mix(centerOf(p), centerOf(q));
  const ahead = unit(mix(p.slice(8, 11), q.slice(8, 11)));
  const right = unit(cross(mix(p.slice(4, 7), q.slice(4, 7)), ahead));
  Object.assign(camera, { ahead, right, down: cross(ahead, right), center: c });
  return camera.pose;
}

export function arc(p, q) { // how far from pose to pose, for timing: distance, and angle in radians
  const a = centerOf(p), b = centerOf(q);
  const trace = [0, 4, 8].reduce((sum, r) => sum + dot(p.slice(r, r + 3), q.slice(r, r + 3)), 0);
  return [Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]), Math.acos(Math.max(-1, Math.min(1, (trace - 1) / 2)))];
}
