// Talking to the server: verbs over HTTP, poses and pictures over a WebSocket with one picture under way at most.

export async function call(path, options = {}) {
  if (options.json !== undefined) {
    options = { ...options, method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(options.json) };
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    const error = new Error(said.detail || `the server answered ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  if (options.raw) return answer;
  return answer.status === 204 ? null : answer.json();
}

const HEAD = 24; // bytes before the mask, see messages.VIEW

function unpack(buffer) {
  const data = new DataView(buffer);
  if (data.getUint16(0) !== 0x4d56 || data.getUint8(2) !== 1) throw new Error("a picture of another version came");
  const columns = data.getUint16(20, true), rows = data.getUint16(22, true);
  const bytes = Math.ceil((columns * rows) / 8);
  return {
    number: data.getUint32(4, true), width: data.getUint16(8, true), height: data.getUint16(10, true),
    known: data.getFloat32(12, true), given: data.getFloat32(16, true), columns, rows,
    mask: new Uint8Array(buffer, HEAD, bytes), jpeg: new Blob([new Uint8Array(buffer, HEAD + bytes)], { type: "image/jpeg" }),
  };
}

export class Live {
  constructor(id, on) {
    this.id = id;
    this.on = on; // view(message, milliseconds), state(message), error(text), link(isUp), gone(text)
    this.number = 0;
    this.pending = null; // the newest pose that has not been sent
    this.waiting = false; // a picture is under way
    this.asked = 0;
    this.tries = 0;
    this.closed = false;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/sessions/${this.id}/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.tries = 0;
      this.waiting = false;
      this.on.link(true);
      this.flush();
    };
    this.socket.onmessage = (event) => this.take(event.data);
    this.socket.onclose = (event) => {
      if (this.closed) return;
      if (event.code === 4004) return this.on.gone("This walk is not on this server any more.");
      if (event.code === 4008) return this.on.gone("Too many windows show this walk: close one.");
      this.on.link(false);
      setTimeout(() => this.closed || this.connect(), Math.min(5000, 250 * 2 ** this.tries++));
    };
  }

  async take(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      return message.type === "state" ? this.on.state(message) : this.on.error(message.message);
    }
    const message = unpack(data);
    message.image = await createImageBitmap(message.jpeg);
    if (this.closed) return;
    this.on.view(message, performance.now() - this.asked);
    this.waiting = false;
    this.say({ type: "shown", number: message.number });
    this.flush();
  }

  look(pose, walk) {
    this.pending = { pose, walk };
    this.flush();
  }

  flush() {
    if (!this.pending || this.waiting || this.socket.readyState !== 1) return;
    this.number += 1;
    this.asked = performance.now();
    this.waiting = true;
    this.say({ type: "look", number: this.number, ...this.pending });
    this.pending = null;
  }

  say(message) {
    if (this.socket.readyState === 1) this.socket.send(JSON.stringify(message));
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}
