/** What a unit writes, as it writes it. */

import { path, send } from "../api.js";
import { announce } from "../dialogs.js";
import { h } from "../dom.js";
import { button, choice, link } from "../parts.js";
import { pieces } from "../stream.js";

const KEPT = 2000; // lines
const FIRST = 200; // lines of the past
const LONGEST = 10_000; // characters of a line that are shown
const AGAIN_MS = 2000;

/** The view. It draws its own lines: they are many, and only ever come at the end. */
export const logs = {
  title: ([node, unit]) => `Logs of ${node}/${unit}`,
  concerns: () => false,
  isStill: true,
  load: async () => true,

  draw(_, ui, page, [node, unit]) {
    ui.stream ??= "stdout";
    ui.state ??= "connecting";
    const follower = (ui.follower ??= new LogFollower(node, unit, ui, page.redraw));
    const pause = () => ((ui.paused = !ui.paused), follower.show(), page.redraw());
    return [
      h("div", { class: "head" }, h("h1", { tabindex: -1 }, `Logs of ${unit}`), h("p", { class: "sum" }, "on ", link(node, "nodes", node))),
      h(
        "div",
        { class: "tools" },
        choice("Stream", [["stdout", "stdout"], ["stderr", "stderr"]], ui.stream, (value) => follower.choose(value)),
        button(ui.paused ? "Continue" : "Pause", pause, { "aria-pressed": String(Boolean(ui.paused)) }),
        button("Clear", () => follower.clear()),
        h("span", { class: "quiet", "data-log-state": ui.state }, STATES[ui.paused ? "paused" : ui.state](ui)),
      ), // prettier-ignore
      h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": `Output of ${unit}`, tabindex: 0, own: true, "data-log": "" }),
    ];
  },

  ready(main, ui) {
    ui.follower?.showIn(main.querySelector("[data-log]"));
  },

  leave(ui) {
    ui.follower?.stop();
    delete ui.follower;
  },
};

const STATES = {
  connecting: () => "connecting…",
  live: () => "live",
  paused: (ui) => `paused; ${ui.held ?? 0} lines held back`,
  away: (ui) => `${ui.problem}; trying again`,
  refused: (ui) => ui.problem,
};

class LogFollower {
  constructor(node, unit, ui, redraw) {
    Object.assign(this, { node, unit, ui, redraw, place: null, lines: [], waiting: [], rest: "", drawn: false });
    this.start();
  }

  showIn(place) {
    if (this.place === place) return;
    this.place = place;
    place.replaceChildren(...this.lines.map(element));
    place.scrollTop = place.scrollHeight;
  }

  choose(stream) {
    this.stop();
    this.ui.stream = stream;
    this.clear();
    this.start();
  }

  clear() {
    Object.assign(this, { lines: [], waiting: [], rest: "" });
    this.ui.held = 0;
    this.place?.replaceChildren();
    this.redraw();
  }

  stop() {
    this.aborter?.abort();
  }

  start() {
    this.aborter = new AbortController();
    this.follow(this.aborter.signal);
  }

  async follow(signal) {
    const at = path(["/v1/nodes/", "/units/", ""], this.node, this.unit);
    for (let first = true; !signal.aborted; first = false) {
      try {
        const lines = first ? FIRST : 0;
        const response = await send("GET", `${at}/logs?stream=${this.ui.stream}&lines=${lines}&follow=1`, { signal });
        this.turn("live");
        for await (const piece of pieces(response)) this.take(piece);
        this.turn("away", "the stream has ended");
      } catch (error) {
        if (signal.aborted) return;
        const isFinal = error.status >= 400 && error.status < 500;
        this.turn(isFinal ? "refused" : "away", error.status ? error.message : "the stream broke off");
        if (isFinal) return;
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  turn(state, problem = "") {
    if (this.ui.state === state && this.ui.problem === problem) return;
    Object.assign(this.ui, { state, problem });
    if (problem) announce(`Logs: ${problem}`);
    this.redraw();
  }

  take(piece) {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop().slice(0, LONGEST);
    this.waiting.push(...lines.map((line) => line.slice(0, LONGEST)));
    if (this.waiting.length > KEPT) this.waiting.splice(0, this.waiting.length - KEPT);
    if (this.ui.paused) {
      this.ui.held = this.waiting.length;
      this.redraw();
    } else if (!this.drawn) {
      this.drawn = true; // once a frame, however fast they come
      requestAnimationFrame(() => ((this.drawn = false), this.show()));
    }
  }

  show() {
    if (this.ui.paused || !this.waiting.length) return;
    const place = this.place;
    const isAtEnd = place && place.scrollHeight - place.scrollTop - place.clientHeight < 40;
    this.lines.push(...this.waiting);
    place?.append(...this.waiting.map(element));
    const over = this.lines.length - KEPT;
    for (let number = 0; number < over; number++) place?.firstChild?.remove();
    if (over > 0) this.lines.splice(0, over);
    Object.assign(this, { waiting: [] });
    this.ui.held = 0;
    if (isAtEnd) place.scrollTop = place.scrollHeight; // who has scrolled up stays there
  }
}

function element(line) {
  const made = document.createElement("div");
  made.textContent = line || "\u200b"; // an empty line has a height, too
  return made;
}
