/** The chat room: one topic over two transports, side by side. */

import { newKey, TopicSocket, TopicStream } from "./realtime.js";

const MAX_UNCONFIRMED = 50; // messages in the outbox; the next one is refused, and said to be
const MAX_SHOWN = 300; // messages kept on the page; older ones are still in the log
const TYPING_EVERY_MS = 2_000; // how often it is said that somebody is typing
const TYPING_FOR_MS = 4_000; // how long that is believed
const COMPARE_AFTER_MS = 250; // the panes are a few milliseconds apart all the time
const HEARTBEAT_SECONDS = 5; // short, so that the round trip moves

const STATES = {
  idle: "cut",
  connecting: "connecting",
  live: "live",
  waiting: "reconnecting",
  "signed-out": "signed out",
  "not-allowed": "not allowed",
  refused: "refused",
};

/** @param {HTMLElement} panel  @param {{userId: string, base: string, login: string}} context */
export function mountRoom(panel, { userId, base, login }) {
  const find = (selector) => panel.querySelector(selector);
  const panes = {
    socket: new Pane(find('[data-pane="socket"]'), userId, login),
    stream: new Pane(find('[data-pane="stream"]'), userId, login),
  };
  const outbox = new Outbox(find("[data-outbox]"), () => socket);
  const composer = find("[data-composer]");
  const refused = find("[data-refused]");
  const roomForm = find("[data-room]");
  let socket = null;
  let stream = null;
  let lastTyping = 0;
  let compareTimer = 0;
  let streamIsPaused = false;

  function enter(room) {
    socket?.close();
    stream?.close();
    const topic = `room.${room}`;
    const options = { after: "0", meta: true, presence: true, base };
    socket = new TopicSocket(topic, { ...options, heartbeatSeconds: HEARTBEAT_SECONDS });
    stream = new TopicStream(topic, { ...options, ephemeralTypes: ["typing"] });
    panes.socket.show(socket);
    panes.stream.show(stream);
    socket.addEventListener("event", ({ detail }) => outbox.arrived(detail.data?.key));
    socket.addEventListener("problem", ({ detail }) => (refused.textContent = detail.detail));
    for (const connection of [socket, stream]) {
      connection.addEventListener("event", compareSoon);
      connection.addEventListener("state", compareSoon);
      connection.connect();
    }
    streamOnlyInSight();
    roomForm.elements.name.value = room;
    const url = new URL(location);
    url.searchParams.set("room", room);
    history.replaceState(null, "", url);
  }

  function compareSoon() {
    clearTimeout(compareTimer);
    compareTimer = setTimeout(compare, COMPARE_AFTER_MS);
  }

  /** Say whether both panes are at the same message, or which is not live. */
  function compare() {
    const notLive = Object.values(panes).filter((pane) => !pane.isLive);
    const step = find("[data-step]");
    let text = `Not live: ${notLive.map((pane) => pane.whatItIs).join(", ")}.`;
    delete step.dataset.same;
    if (!notLive.length) {
      const same = panes.socket.newest === panes.stream.newest;
      text = same ? "Both panes are at the same event." : "One pane is behind the other.";
      step.dataset.same = same;
    }
    if (step.textContent !== text) step.textContent = text;
  }

  /** Hang up the stream of a hidden tab, and go on from its position when the tab is seen again. */
  function streamOnlyInSight() {
    if (document.hidden) {
      // Over HTTP/1.1 a browser has six connections to a site, for all its tabs: the streams of six
      // that nobody looks at would keep those that somebody opens waiting for good.
      streamIsPaused = ["connecting", "live", "waiting"].includes(stream.state);
      if (streamIsPaused) stream.disconnect();
    } else if (streamIsPaused) {
      streamIsPaused = false;
      stream.connect();
    }
  }

  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = composer.elements.text.value.trim();
    if (!text) return;
    if (outbox.size >= MAX_UNCONFIRMED) {
      refused.textContent = `Not sent: ${MAX_UNCONFIRMED} messages are waiting already.`;
      return;
    }
    refused.textContent = "";
    outbox.send({ text, at: Date.now(), key: newKey() });
    composer.reset();
    lastTyping = 0;
  });

  composer.elements.text.addEventListener("input", () => {
    if (Date.now() - lastTyping < TYPING_EVERY_MS) return;
    lastTyping = Date.now();
    // Nobody misses it: whether it arrives does not matter.
    socket.publish(null, { type: "typing", ephemeral: true }).catch(() => {});
  });

  roomForm.addEventListener("submit", (event) => {
    event.preventDefault();
    if (outbox.size) {
      refused.textContent = "Messages are still waiting here: reconnect or discard them first.";
      return;
    }
    enter(roomForm.elements.name.value);
  });

  document.addEventListener("visibilitychange", streamOnlyInSight);

  addEventListener("beforeunload", (event) => {
    if (outbox.size) event.preventDefault();
  });

  enter(firstRoom(roomForm.elements.name));
}

/** The room of the page's address, if that names one. */
function firstRoom(input) {
  const standard = input.value;
  input.value = new URLSearchParams(location.search).get("room") ?? standard;
  return input.checkValidity() ? input.value : standard;
}

/** One transport's view of the room. */
class Pane {
  #connection = null;
  #retryAt = null;
  #count = 0;
  #unshown = [];
  #showTimer = 0;
  #typing = new Map(); // name -> timer
  #here = new Map(); // id -> name

  constructor(element, userId, login) {
    const find = (selector) => element.querySelector(selector);
    this.userId = userId;
    this.login = login;
    this.title = find("h2").textContent;
    this.newest = null; // the id of the last message, or of a reset
    this.state = find("[data-state]");
    this.stateText = find("[data-state-text]");
    this.countdown = find("[data-countdown]");
    this.log = find("[data-log]");
    this.here = find("[data-here]");
    this.typing = find("[data-typing]");
    this.warning = find("[data-warning]");
    this.position = find("[data-position]");
    this.count = find("[data-count]");
    this.rtt = find("[data-rtt]");
    this.cut = find("[data-cut]");
    this.reconnect = find("[data-reconnect]");
    this.cut.addEventListener("click", () => this.#connection.disconnect());
    this.reconnect.addEventListener("click", () => {
      this.#connection.disconnect();
      this.#connection.connect();
    });
    setInterval(() => this.#countDown(), 250);
  }

  get isLive() {
    return this.#connection.state === "live";
  }

  /** Its title and state, in words. */
  get whatItIs() {
    return `${this.title} (${STATES[this.#connection.state]})`;
  }

  /** Show this connection from now on, from an empty page. */
  show(connection) {
    this.#connection = connection;
    this.newest = null;
    this.#count = 0;
    this.#unshown = [];
    this.log.replaceChildren();
    this.warning.hidden = true;
    this.position.textContent = "–";
    this.count.textContent = "0";
    const listen = (type, listener) =>
      connection.addEventListener(type, ({ detail }) => listener(detail));
    listen("state", (detail) => this.#stateChanged(detail));
    listen("event", (detail) => this.#received(detail));
    listen("presence", (detail) => this.#isHere(detail));
    listen("reset", ({ id, detail }) => {
      this.newest = id;
      this.#show({ divider: detail });
    });
    listen("repeat", ({ id }) => this.#warn(`The event ${id} came twice. That is a bug.`));
    listen("rtt", ({ milliseconds }) => {
      this.rtt.textContent = `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
    });
  }

  #stateChanged({ state, retryAt, reason }) {
    this.#retryAt = retryAt;
    this.state.dataset.state = state;
    this.stateText.textContent = STATES[state];
    this.countdown.textContent = "";
    this.state.title = reason;
    const connected = state === "live" || state === "connecting";
    if (state !== "live") this.here.textContent = ""; // nobody tells it now
    this.cut.disabled = !connected && state !== "waiting";
    this.reconnect.disabled = connected;
    if (this.rtt && !connected) this.rtt.textContent = "–";
    const ended = state === "signed-out" || state === "not-allowed" || state === "refused";
    if (ended) this.#warn(reason || `The server says: ${STATES[state]}.`);
    else if (connected) this.warning.hidden = true;
    if (state === "signed-out") this.warning.append(" ", this.#signIn());
    this.#countDown();
  }

  #countDown() {
    if (this.#retryAt === null) return;
    const seconds = Math.max(0, Math.ceil((this.#retryAt - Date.now()) / 1000));
    this.countdown.textContent = ` in ${seconds} s`;
  }

  #warn(text) {
    this.warning.textContent = text;
    this.warning.hidden = false;
  }

  /** A link that leads to the login page, and from there back to this room. */
  #signIn() {
    const link = textElement("a", "Sign in");
    const next = new URLSearchParams({ next: location.pathname + location.search });
    link.href = `${this.login}?${next}`;
    return link;
  }

  #received({ id, type, data, meta }) {
    const sender = meta?.sender ?? null;
    if (sender && !this.#isOwn(sender)) this.#isTyping(nameOf(sender), type === "typing");
    // An EventSource hears of no type it was not asked for: the panes show what both can know.
    if (type !== "message") return;
    if (id !== null) this.newest = id;
    this.#count += 1;
    this.#show({ id, data, sender });
  }

  #isOwn(sender) {
    return String(sender.id) === this.userId;
  }

  /** A history of thousands comes at once: it is drawn in batches, and never more than fits. */
  #show(entry) {
    this.#unshown.push(entry);
    if (this.#unshown.length > MAX_SHOWN) this.#unshown.shift();
    this.#showTimer ||= setTimeout(() => this.#draw(), 16);
  }

  #draw() {
    this.#showTimer = 0;
    const { log } = this;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(...this.#unshown.splice(0).map((entry) => this.#item(entry)));
    while (log.childElementCount > MAX_SHOWN) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
    this.position.textContent = this.newest ?? "–";
    this.count.textContent = this.#count;
  }

  #item({ id, data, sender, divider }) {
    const item = document.createElement("li");
    if (divider) {
      item.className = "divider";
      item.textContent = divider;
      return item;
    }
    const { claimed, text, at } = readMessage(data);
    const user = sender ? nameOf(sender) : claimed;
    item.dataset.id = id;
    item.title = id;
    item.classList.toggle("own", sender !== null && this.#isOwn(sender));
    item.style.setProperty("--hue", hueOf(user));
    item.append(textElement("strong", user), " ");
    if (sender) item.append(senderMark(), " ");
    if (at) {
      const time = textElement("time", at.toLocaleTimeString([], { timeStyle: "short" }));
      time.dateTime = at.toISOString();
      item.append(time);
    }
    item.append(textElement("p", text));
    return item;
  }

  /** Several tabs are one person; in a crowd only the connections are told. */
  #isHere({ users, joined, left = [], connections }) {
    if (!joined) this.#here.clear();
    for (const user of users ?? joined ?? []) this.#here.set(String(user.id), nameOf(user));
    for (const { id } of left) this.#here.delete(String(id));
    const names = [...this.#here].map(([id, name]) => (id === this.userId ? `${name} (you)` : name));
    this.here.textContent = `Here: ${names.join(", ") || `${connections} connections`}`;
  }

  #isTyping(user, yes = true) {
    clearTimeout(this.#typing.get(user));
    this.#typing.delete(user);
    if (yes && this.#typing.size < 20) {
      this.#typing.set(
        user,
        setTimeout(() => this.#isTyping(user, false), TYPING_FOR_MS),
      );
    }
    const names = [...this.#typing.keys()];
    const verb = names.length === 1 ? "is" : "are";
    this.typing.textContent = names.length ? `${names.join(", ")} ${verb} typing…` : "";
  }
}

/** What was written here and has not come back yet. */
class Outbox {
  #entries = new Map(); // key -> { item, timer }

  constructor(list, currentSocket) {
    this.list = list;
    this.currentSocket = currentSocket;
  }

  get size() {
    return this.#entries.size;
  }

  /** Publish `message`, and show it while its fate is open. */
  send(message) {
    const socket = this.currentSocket();
    const live = socket.state === "live";
    const entry = { item: document.createElement("li"), timer: 0 };
    this.#entries.set(message.key, entry);
    this.#describe(entry, message, live ? "sending…" : "waits for the connection");
    // Usually the answer is there before anybody could read this.
    if (live) entry.timer = setTimeout(() => this.list.append(entry.item), 400);
    else this.list.append(entry.item);
    // "Send again" sends it with the same key too: it can't come twice.
    socket.publish(message, { key: message.key }).then(
      () => this.arrived(message.key),
      (error) => this.#failed(message, error),
    );
  }

  /** The message with this key was confirmed, or has come back as an event. */
  arrived(key) {
    const entry = this.#entries.get(key);
    if (!entry) return;
    clearTimeout(entry.timer);
    entry.item.remove();
    this.#entries.delete(key);
  }

  #failed(message, error) {
    const entry = this.#entries.get(message.key);
    if (!entry) return; // it has come back meanwhile
    clearTimeout(entry.timer);
    const why =
      error.code === "unconfirmed"
        ? "not confirmed: if it has arrived, this line goes away after the reconnect"
        : `not sent: ${error.message}`;
    const again = button("Send again", () => {
      this.arrived(message.key);
      this.send(message);
    });
    const discard = button("Discard", () => this.arrived(message.key));
    this.#describe(entry, message, why, again, discard);
    this.list.append(entry.item);
  }

  #describe({ item }, message, status, ...buttons) {
    item.replaceChildren(textElement("q", message.text), textElement("span", status), ...buttons);
  }
}

/** What the server says of who has sent an event. */
function nameOf(sender) {
  return sender.username ?? `user ${sender.id}`;
}

/** Tells the server's word from a name that the message itself has, which may be anybody's. */
function senderMark() {
  const mark = textElement("span", "✓");
  mark.className = "sender";
  mark.title = "The server says so.";
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", mark.title);
  return mark;
}

/** Anybody may publish any JSON value to a room: show it, whatever it is. */
function readMessage(data) {
  if (typeof data?.text !== "string") {
    return { claimed: "data", text: JSON.stringify(data), at: null };
  }
  const at = new Date(Number.isFinite(data.at) ? data.at : NaN);
  return {
    claimed: typeof data.user === "string" ? data.user : "somebody",
    text: data.text,
    at: Number.isNaN(at.getTime()) ? null : at,
  };
}

/** A colour for a name, the same everywhere. */
function hueOf(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

function textElement(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function button(text, onClick) {
  const element = textElement("button", text);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}
