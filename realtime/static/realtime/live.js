// Keeps the admin's live page up to date, and follows a topic. No inline code, nothing from elsewhere.
"use strict";

const KEPT_LINES = 200;
const SHOWN_CHARACTERS = 2000; // of one event's data
const RETRY_MS = 2000;

/** Make `old` the same as `fresh`, and leave what is the same, with the focus in it, where it is. */
function merge(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const isSame =
    old.nodeType === Node.ELEMENT_NODE &&
    old.nodeName === fresh.nodeName &&
    old.dataset.key === fresh.dataset.key;
  if (!isSame) {
    old.replaceWith(fresh);
    return;
  }
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  mergeChildren(old, fresh);
}

function mergeChildren(old, fresh) {
  const wanted = [...fresh.childNodes];
  const keyed = new Map([...old.children].map((child) => [child.dataset.key, child]));
  wanted.forEach((child, index) => {
    const here = old.childNodes[index];
    const same = child.dataset?.key ? keyed.get(child.dataset.key) : here;
    if (!same) {
      old.insertBefore(child, here ?? null);
      return;
    }
    if (same !== here) old.insertBefore(same, here);
    merge(same, child);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

/** Show the tables as the server's template has written them, with the focus where it was. */
function update(tables, html) {
  // Escaped by Django; and what a template element holds runs no script. It keeps all white space,
  // as the page itself does: a body drops what it begins with, and every table would be moved.
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const focused = document.activeElement;
  mergeChildren(tables, fresh.content);
  // An element that was moved has lost it.
  if (focused.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

function keepUpToDate(page) {
  const state = page.querySelector("[data-live-state]");
  const tables = page.querySelector("[data-live-tables]");
  const source = new EventSource(page.dataset.events);
  source.onopen = () => {
    state.textContent = state.dataset.open;
  };
  source.onerror = () => {
    const isOver = source.readyState === EventSource.CLOSED;
    state.textContent = isOver ? state.dataset.ended : state.dataset.waiting;
  };
  source.onmessage = (event) => {
    update(tables, JSON.parse(event.data));
  };
}

/** A topic's own event stream. By fetch: an EventSource is deaf to types it was not told before. */
class Tail {
  constructor(list, state, pause) {
    Object.assign(this, { list, state, pause, lastId: "", waiting: [], isPaused: false });
    pause.hidden = false;
    pause.addEventListener("click", () => this.toggle());
    this.frame = 0;
    this.run();
  }

  async run() {
    for (;;) {
      try {
        await this.read();
      } catch (error) {
        if (error.isRefusal) {
          this.say(`${this.state.dataset.refused} ${error.message}`);
          return;
        }
      }
      this.say(this.state.dataset.waiting);
      await new Promise((done) => setTimeout(done, RETRY_MS * (1 + Math.random())));
    }
  }

  async read() {
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    const response = await fetch(this.list.dataset.tail, { headers, cache: "no-store" });
    if (response.status >= 400 && response.status < 500) {
      const { detail } = await response.json();
      throw Object.assign(new Error(detail), { isRefusal: true });
    }
    if (!response.ok) return;
    this.say(this.state.dataset.open);
    const parts = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { value, done } = await parts.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) this.take(block);
    }
  }

  take(block) {
    const fields = { event: "message" };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
    }
    if (fields.id !== undefined) this.lastId = fields.id;
    if (fields.data === undefined) return;
    this.waiting.push({ at: new Date(), type: fields.event, id: fields.id ?? "", data: fields.data });
    if (this.waiting.length > KEPT_LINES) this.waiting.shift();
    if (this.isPaused) this.say();
    else this.frame ||= requestAnimationFrame(() => this.show());
  }

  show() {
    this.frame = 0;
    for (const each of this.waiting.splice(0)) this.list.prepend(this.line(each));
    while (this.list.children.length > KEPT_LINES) this.list.lastChild.remove();
  }

  line({ at, type, id, data }) {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = at.toLocaleTimeString();
    time.title = id;
    const name = document.createElement("b");
    name.textContent = name.title = type;
    const code = document.createElement("code");
    code.dir = "auto";
    const isLong = data.length > SHOWN_CHARACTERS;
    code.textContent = isLong ? `${data.slice(0, SHOWN_CHARACTERS)}…` : data;
    item.append(time, name, code);
    return item;
  }

  toggle() {
    this.isPaused = !this.isPaused;
    this.pause.setAttribute("aria-pressed", String(this.isPaused));
    if (!this.isPaused) this.show();
    this.say();
  }

  say(text = this.state.dataset.open) {
    this.state.textContent = this.isPaused
      ? `${this.state.dataset.paused} ${this.waiting.length}`
      : text;
  }
}

const page = document.querySelector(".live[data-events]");
keepUpToDate(page);
const list = page.querySelector("[data-tail]");
if (list) {
  const [state, pause] = ["[data-tail-state]", "[data-tail-pause]"].map((each) => page.querySelector(each));
  new Tail(list, state, pause);
}
