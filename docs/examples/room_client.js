import { TopicSocket } from "./realtime.js";

const room = new TopicSocket("room.lobby", { after: "0", meta: true, presence: true });
room.addEventListener("state", ({ detail }) => console.log(detail.state, detail.reason));
room.addEventListener("event", ({ detail }) => {
  console.log(detail.meta?.sender?.username, "says", detail.data.text);
});
room.addEventListener("presence", ({ detail }) => console.log(detail.connections, "connected"));
room.connect();
const id = await room.publish({ text: "hello" });
