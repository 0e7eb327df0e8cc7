/** The demo page: gives each panel (`data-panel`) the module that brings it to life. */

import { mountAnswer } from "./answer.js";
import { mountRoom } from "./room.js";

const PANELS = { answer: mountAnswer, room: mountRoom };

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const context = {
  base: meta("base"),
  login: meta("login"),
  userId: meta("user-id"),
  csrfToken: meta("csrf-token"),
};

for (const element of document.querySelectorAll("[data-panel]")) {
  PANELS[element.dataset.panel](element, context);
}
