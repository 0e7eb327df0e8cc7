/** A language model's answer: begun by POST, read from its topic, as often as anybody likes. */

const ENDS = {
  end: "Complete.",
  length: "Cut: it reached its length limit.",
  cancelled: "Stopped.",
};

/** @param {HTMLElement} panel  @param {{csrfToken: string, base: string}} context */
export function mountAnswer(panel, { csrfToken, base }) {
  const find = (selector) => panel.querySelector(selector);
  const output = find("[data-answer]");
  const state = find("[data-state]");
  const refused = find("[data-not-asked]");
  const composer = find("[data-composer]");
  const stop = find("[data-cancel]");
  let events = null;
  let topic = "";
  let attempt = null; // the prompt that was last sent, and its key: sent again, it is one answer

  composer.addEventListener("submit", async (event) => {
    event.preventDefault();
    const prompt = composer.elements.prompt.value;
    if (attempt?.prompt !== prompt) attempt = { prompt, key: newKey() };
    refused.textContent = "";
    try {
      const response = await send("chat", "POST", { "Idempotency-Key": attempt.key }, { prompt });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.detail);
      attempt = null;
      composer.reset();
      listen(answer.topic);
    } catch (error) {
      refused.textContent = `Not asked: ${error.message}`;
    }
  });

  stop.addEventListener("click", async () => {
    const name = topic.split(".").at(-1);
    const response = await send(`chat/${name}`, "DELETE").catch(() => null);
    if (!response?.ok) refused.textContent = "Not stopped: the server did not take it.";
  });

  function send(path, method, headers = {}, body = undefined) {
    const all = { "X-CSRFToken": csrfToken, ...headers };
    return fetch(base + path, { method, headers: all, body: body && JSON.stringify(body) });
  }

  function listen(name) {
    events?.close();
    topic = name;
    const url = new URL(location);
    url.searchParams.set("answer", topic);
    history.replaceState(null, "", url); // a reload, or another tab, finds it
    output.textContent = "";
    state.textContent = "Waiting for the first word…";
    stop.disabled = false;
    const source = new EventSource(`${base}topics/${encodeURIComponent(topic)}/events?after=0`);
    events = source;
    source.onmessage = ({ data }) => {
      output.textContent += JSON.parse(data).token;
      output.scrollTop = output.scrollHeight;
      state.textContent = "Answering…";
    };
    source.addEventListener("done", ({ data }) => {
      const { stop_reason: reason } = JSON.parse(data);
      end(ENDS[reason] ?? `Ended: ${reason}.`);
    });
    source.addEventListener("error", ({ data }) => {
      if (data) end(JSON.parse(data).detail);
      else if (source.readyState === EventSource.CLOSED) end("This answer can't be read.");
      else state.textContent = "The connection is lost; the browser reconnects by itself…";
    });
    source.addEventListener("reset", () => end("This answer is no longer kept."));

    function end(text) {
      source.close();
      state.textContent = text;
      stop.disabled = true;
    }
  }

  const known = new URLSearchParams(location.search).get("answer");
  if (known) listen(known);
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
}
