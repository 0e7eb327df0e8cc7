/**
 * Topics in the browser: `TopicSocket` over a WebSocket, `TopicStream` over server-sent events.
 *
 *     const socket = new TopicSocket("room.lobby", { after: "0" });
 *     socket.addEventListener("event", ({ detail }) => console.log(detail.id, detail.data));
 *     socket.connect();
 *     await socket.publish({ text: "hello" });
 *
 * Both keep their position, come back by themselves, and dispatch:
 *
 *     state    { state, retryAt, reason }   `retryAt` as Date.now() counts, or null
 *     event    { id, type, data, meta }     `id` is null for an ephemeral event; `meta` is what the
 *                                           server knows of it, null without the option
 *     reset    { id, detail }               the history between here and `id` is gone
 *     presence { users | joined, left, connections }   who is there, then who has come and left; over
 *                                           PRESENCE_MEMBERS the connections alone; with the option
 *     repeat   { id }                       an id came twice, which the server promises not to do
 *     rtt      { milliseconds }             TopicSocket only
 *     problem  { code, detail }             TopicSocket only: an error frame that answers no request
 *
 * States: "idle" (not asked to connect, or asked to stop), "connecting", "live", "waiting" (lost;
 * another attempt follows), and three that end it until `connect()` is called: "signed-out",
 * "not-allowed", "refused".
 */

const CLOSE_RESTARTING = 1012;
const CLOSE_NOT_IDENTIFIED = 4401;
const CLOSE_NOT_ALLOWED = 4403;
const CLOSE_TOO_MANY = 4429;

const FIRST_DELAY_MS = 500; // doubled with every failed attempt
const LONGEST_DELAY_MS = 20_000;
const TOO_MANY_S = 10; // after 4429, where its reason has no "retry after"
const RESTART_DELAY_MS = 1_000; // at most, after 1012: another worker is ready already
const STABLE_MS = 5_000; // a connection that lasted this long was a success
const OPEN_TIMEOUT_MS = 10_000;
const REMEMBERED_IDS = 1_000; // how far back a repeated id is noticed
const MOST_ATTEMPTS = 3; // of one message: it may be what the connection is lost by

/** What `publish` rejects with; `code` is for programs. */
export class PublishError extends Error {
  /**
   * @param {string} code the server's, or one of ours: "not_connected", "queue_full" and "ended"
   *   (nothing was sent), "unconfirmed" (sent, but never answered: it may have arrived)
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "PublishError";
    this.code = code;
  }
}

/** A key for `publish`: 96 random bits. (`crypto.randomUUID` is for secure contexts alone.) */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("-");
}

/** What both transports share: the state, the position, and when to try again. */
class TopicConnection extends EventTarget {
  #state = "idle";
  #retryTimer = 0;
  #stableTimer = 0;
  #failures = 0;
  #attempt = 0;
  #ids = new Set();
  #closed = new AbortController();

  /**
   * @param {string} topic
   * @param {object} [options]
   * @param {?string} [options.after] an event id; "0" for all that is kept; null for live only
   * @param {boolean} [options.meta] whether to ask for what the server knows of an event
   * @param {boolean} [options.presence] whether to ask who reads the topic, where the site keeps that
   * @param {string} [options.base] what the paths of the server follow, with a slash at its end: a path, or another site
   */
  constructor(topic, { after = null, meta = false, presence = false, base = "/" } = {}) {
    super();
    this.topic = topic;
    this.meta = meta;
    this.presence = presence;
    this.position = after;
    this.base = new URL(base, document.baseURI);
    const options = { signal: this.#closed.signal };
    addEventListener("online", () => this.state === "waiting" && this.connect(), options);
  }

  get state() {
    return this.#state;
  }

  /** Connect now, from the position; also cuts a wait short. */
  connect() {
    if (this.#state === "connecting" || this.#state === "live") return;
    this.#settle();
    this._drop();
    this._setState("connecting");
    this._open();
  }

  /** Hang up, and stay so until `connect()`. */
  disconnect() {
    this.#settle();
    this._drop();
    this._setState("idle");
  }

  /** Hang up for good. */
  close() {
    this.disconnect();
    this.#closed.abort();
  }

  // -- for the transports, which write _open() and _drop()

  _url(path) {
    const url = new URL(path, this.base);
    if (this.position !== null) url.searchParams.set("after", this.position);
    if (this.meta) url.searchParams.set("meta", "1");
    if (this.presence) url.searchParams.set("presence", "1");
    return url;
  }

  _setState(state, { retryAt = null, reason = "" } = {}) {
    this.#state = state;
    this._dispatch("state", { state, retryAt, reason });
  }

  _dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  _opened() {
    this._setState("live");
    clearTimeout(this.#stableTimer);
    this.#stableTimer = setTimeout(() => (this.#failures = 0), STABLE_MS);
  }

  /** The connection is gone. Try again: soon, or after a delay that grows, and `retryAfter` seconds. */
  _lost(reason, { soon = false, retryAfter = 0 } = {}) {
    this.#settle();
    this._drop();
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    // Jitter, so that the clients of a server that went down do not all come back at once.
    const jitter = soon ? Math.random() * RESTART_DELAY_MS : longest * (0.5 + Math.random() / 2);
    const delay = retryAfter * 1000 + jitter;
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.connect(), delay);
    this._setState("waiting", { retryAt: Date.now() + delay, reason });
  }

  /** The connection is gone, and another attempt would fare no better. */
  _ended(state, reason) {
    this.#settle();
    this._drop();
    this.#failures = 0;
    this._setState(state, { reason });
  }

  /**
   * The server did not let us in, and a browser does not say why: ask by a plain request, whose
   * status can be read.
   */
  async _askWhy() {
    const attempt = this.#attempt;
    const request = new AbortController();
    const timer = setTimeout(() => request.abort(), OPEN_TIMEOUT_MS);
    let refusal = null;
    try {
      const response = await fetch(this._url(`topics/${encodeURIComponent(this.topic)}/events`), {
        headers: { Accept: "text/event-stream" },
        cache: "no-store",
        signal: request.signal,
      });
      if (response.status >= 400) {
        const { detail } = await response.json().catch(() => ({}));
        const retryAfter = Number(response.headers.get("Retry-After")) || 0;
        refusal = { status: response.status, detail, retryAfter };
      }
    } catch {
      // No answer at all: there is nothing to read, so it is tried again.
    } finally {
      clearTimeout(timer);
      request.abort();
    }
    if (attempt !== this.#attempt) return; // meanwhile somebody has hung up, or connected
    if (refusal === null) return this._lost("The server does not answer.");
    const { status, detail = `The server answered ${status}.` } = refusal;
    if (status === 429 || status >= 500) this._lost(detail, refusal);
    else if (status === 401) this._ended("signed-out", detail);
    else if (status === 403) this._ended("not-allowed", detail);
    else this._ended("refused", detail);
  }

  _event(id, type, { data, meta = null }) {
    if (id !== null) {
      if (this.#ids.has(id)) this._dispatch("repeat", { id });
      this.#ids.add(id);
      if (this.#ids.size > REMEMBERED_IDS) this.#ids.delete(this.#ids.values().next().value);
      this.position = id;
    }
    this._dispatch("event", { id, type, data, meta });
  }

  _reset(id, detail) {
    this.position = id;
    this._dispatch("reset", { id, detail });
  }

  #settle() {
    this.#attempt += 1;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#stableTimer);
  }
}

/** One topic over a WebSocket, both ways: `WS /ws/topics/<topic>?after=<id>`. */
export class TopicSocket extends TopicConnection {
  #socket = null;
  #openTimer = 0;
  #beatTimer = 0;
  #unanswered = 0; // pings since anything was heard
  #queue = []; // requests that wait for a connection, to be sent or to be sent again
  #pending = new Map(); // by ref: requests that were sent and not answered
  #lastRef = 0;

  /**
   * @param {string} topic
   * @param {object} [options] as above, and
   * @param {number} [options.heartbeatSeconds] between our pings; two without an answer mean dead
   * @param {number} [options.maxWaiting] requests that wait for a connection or an answer; `publish`
   *   rejects the next one
   */
  constructor(topic, { heartbeatSeconds = 15, maxWaiting = 50, ...options } = {}) {
    super(topic, options);
    this.heartbeatSeconds = heartbeatSeconds;
    this.maxWaiting = maxWaiting;
  }

  /** How many messages are not confirmed. */
  get waiting() {
    return this.#queue.length + this.#pending.size;
  }

  /**
   * Publish to the topic; resolves with the event's id (null if ephemeral) or rejects with a
   * PublishError. Without a connection a message waits for one; an ephemeral one is not worth it.
   *
   * A message that was not answered is sent again on the next connection, with the same key: the
   * server stores it once. Give a `key` of your own to send a message again yourself.
   */
  publish(data, { type = "message", ephemeral = false, key = newKey() } = {}) {
    const live = this.state === "live";
    if (ephemeral && !live) {
      return Promise.reject(new PublishError("not_connected", "There is no connection."));
    }
    if (this.waiting >= this.maxWaiting) {
      const message = `${this.maxWaiting} messages are waiting already.`;
      return Promise.reject(new PublishError("queue_full", message));
    }
    return new Promise((resolve, reject) => {
      this.#lastRef += 1;
      const message = { type: "publish", event: type, data, ref: this.#lastRef };
      if (ephemeral) message.ephemeral = true;
      else message.key = key;
      const request = { message, resolve, reject, attempts: 0 };
      if (live) this.#sendRequest(request);
      else this.#queue.push(request);
    });
  }

  close() {
    super.close();
    for (const { attempts, reject } of this.#queue.splice(0)) {
      if (attempts) reject(new PublishError("unconfirmed", "The connection was closed."));
      else reject(new PublishError("ended", "The connection was closed; nothing was sent."));
    }
  }

  _open() {
    const url = this._url(`ws/topics/${encodeURIComponent(this.topic)}`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this.#socket = new WebSocket(url));
    let opened = false;
    this.#openTimer = setTimeout(() => this._lost("The server does not answer."), OPEN_TIMEOUT_MS);
    socket.onopen = () => {
      opened = true;
      clearTimeout(this.#openTimer);
      this._opened();
      this.#unanswered = 0;
      this.#beat();
      for (const request of this.#queue.splice(0)) this.#sendRequest(request);
    };
    socket.onmessage = ({ data }) => this.#received(JSON.parse(data));
    socket.onclose = ({ code, reason }) => {
      if (code === CLOSE_NOT_IDENTIFIED) this._ended("signed-out", reason);
      else if (code === CLOSE_NOT_ALLOWED) this._ended("not-allowed", reason);
      else if (code === CLOSE_RESTARTING) this._lost("The server restarts.", { soon: true });
      else if (code === CLOSE_TOO_MANY)
        this._lost(reason, { retryAfter: Number(/retry after (\d+)/.exec(reason)?.[1] ?? TOO_MANY_S) });
      else if (opened) this._lost(reason || `The connection was lost (${code}).`);
      else this.#refused();
    };
  }

  _drop() {
    clearTimeout(this.#openTimer);
    clearTimeout(this.#beatTimer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      // Not listened to any more: the close event of a dead peer can take minutes.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const again = [];
    for (const request of this.#pending.values()) {
      if (request.message.key && request.attempts < MOST_ATTEMPTS) again.push(request);
      else request.reject(new PublishError("unconfirmed", "The connection was lost before the answer."));
    }
    this.#pending.clear();
    this.#queue.unshift(...again);
  }

  #refused() {
    this._drop();
    this._askWhy();
  }

  #sendRequest(request) {
    request.attempts += 1;
    this.#pending.set(request.message.ref, request);
    this.#send(request.message);
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** Every interval a ping, which measures the round trip; silence since the last two is death. */
  #beat() {
    // Counted in pings, not in time: the timers of a tab in the background run late.
    if (this.#unanswered >= 2) {
      this._lost("The server has fallen silent.");
      return;
    }
    this.#unanswered += 1;
    this.#send({ type: "ping", ref: performance.now() });
    this.#beatTimer = setTimeout(() => this.#beat(), this.heartbeatSeconds * 1000);
  }

  #received(frame) {
    this.#unanswered = 0;
    switch (frame.type) {
      case "event":
        this._event(frame.id ?? null, frame.event, frame);
        break;
      case "presence":
        this._dispatch("presence", frame);
        break;
      case "reset":
        this._reset(frame.id, frame.detail);
        break;
      case "ping":
        this.#send({ type: "pong" });
        break;
      case "pong":
        if (typeof frame.ref === "number") {
          this._dispatch("rtt", { milliseconds: performance.now() - frame.ref });
        }
        break;
      case "published":
        this.#answered(frame.ref)?.resolve(frame.id ?? null);
        break;
      case "error": {
        const request = this.#answered(frame.ref);
        if (request) request.reject(new PublishError(frame.code, frame.detail));
        else this._dispatch("problem", { code: frame.code, detail: frame.detail });
      }
    }
  }

  #answered(ref) {
    const request = this.#pending.get(ref);
    this.#pending.delete(ref);
    return request;
  }
}

/**
 * One topic over server-sent events, one way: `GET /topics/<topic>/events`.
 *
 * The browser's own EventSource reconnects with `Last-Event-ID`; only what makes it give up (an
 * answer that is no event stream) is handled here.
 */
export class TopicStream extends TopicConnection {
  #source = null;
  #types;
  #ephemeralTypes;
  #last = ""; // the last event that had an id: its type and text

  /**
   * @param {string} topic
   * @param {object} [options] as above, and
   * @param {string[]} [options.types] the types to listen for: an EventSource does not say what
   *   it was not asked for
   * @param {string[]} [options.ephemeralTypes] further types, whose events come without an id
   */
  constructor(topic, { types = ["message"], ephemeralTypes = [], ...options } = {}) {
    super(topic, options);
    this.#types = types;
    this.#ephemeralTypes = ephemeralTypes;
  }

  _open() {
    const source = new EventSource(this._url(`topics/${encodeURIComponent(this.topic)}/events`));
    this.#source = source;
    source.onopen = () => this._opened();
    source.onerror = () => {
      if (source.readyState === EventSource.CONNECTING) {
        this._setState("waiting", { reason: "The browser reconnects by itself." });
      } else {
        this._drop();
        this._askWhy();
      }
    };
    for (const type of this.#types) {
      source.addEventListener(type, ({ lastEventId, data }) => {
        // For an event without an id, an EventSource reports the id of the one before.
        const same = `${type}\n${data}`;
        const ephemeral = lastEventId === this.position && same !== this.#last;
        if (!ephemeral) this.#last = same;
        this._event(ephemeral ? null : lastEventId, type, this.#parse(data));
      });
    }
    for (const type of this.#ephemeralTypes) {
      source.addEventListener(type, (event) => this._event(null, type, this.#parse(event.data)));
    }
    if (this.presence) {
      source.addEventListener("presence", ({ data }) => {
        const notice = JSON.parse(data);
        // Somebody may publish events of this type: with `meta`, what is in them is in `data`.
        if ("connections" in notice) this._dispatch("presence", notice);
      });
    }
    source.addEventListener("reset", (event) => {
      this._reset(event.lastEventId, "History no longer reaches back to where this was.");
    });
  }

  _drop() {
    this.#source?.close();
    this.#source = null;
  }

  #parse(text) {
    const value = JSON.parse(text);
    return this.meta ? value : { data: value };
  }
}
