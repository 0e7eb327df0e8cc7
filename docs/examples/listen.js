const { topic } = await (await fetch("/chat", {
  method: "POST",
  headers: { "X-CSRFToken": csrfToken, "Idempotency-Key": crypto.randomUUID() },
  body: JSON.stringify({ prompt }),
})).json();
const events = new EventSource(`/topics/${topic}/events?after=0`);
events.onmessage = (event) => (output.textContent += JSON.parse(event.data).token);
events.addEventListener("done", () => events.close());
events.addEventListener("error", (event) => {
  if (!event.data) return; // the connection: EventSource comes back by itself
  output.textContent += JSON.parse(event.data).detail;
  events.close();
});
