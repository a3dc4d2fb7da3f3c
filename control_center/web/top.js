/** What stands above every view: where one can go, who one is, how the connection is. */

import { call } from "./api.js";
import { ask, open, tell } from "./dialogs.js";
import { h, render } from "./dom.js";
import { duration } from "./format.js";
import { button, choice, facts } from "./parts.js";
import { SECTIONS } from "./routes.js";

const CONNECTION = {
  live: ["good", "●", "Live"],
  connecting: ["busy", "◔", "Connecting"],
  away: ["bad", "✕", "Not connected"],
};
const MODES = {
  observe: "decide and show, never act",
  assist: "act on a quorum of gateways, or on a gateway and the node's own probe",
  full: "one gateway suffices where the node does not contradict",
};

/** Draw it. `page`: what the page knows. */
export function drawTop(page) {
  const { center, reached, section } = page;
  render(
    document.getElementById("top"),
    h("a", { class: "brand", href: "#/services" }, h("img", { src: "/static/icon.svg", alt: "", width: 22, height: 22 }), center?.name ?? "Fleet"),
    h(
      "nav",
      { "aria-label": "Sections" },
      SECTIONS.map(({ name, title }) => h("a", { key: name, href: `#/${name}`, "aria-current": name === section ? "page" : null }, title)),
    ),
    h(
      "div",
      { class: "status" },
      drawConnection(reached),
      center && drawMode(page),
      button("◑", switchTheme, { class: "plain", "aria-label": "Light or dark", title: "Light or dark (t)" }),
      button("?", () => showHelp(page), { class: "plain", "aria-label": "Help", title: "Help (?)" }),
      center && drawCaller(page),
    ),
  ); // prettier-ignore
}

function drawConnection(state) {
  const [look, sign, text] = CONNECTION[state];
  return h("span", { class: `badge ${look}`, "data-connection": state }, h("span", { class: "sign", "aria-hidden": "true" }, sign), text);
}

function drawMode(page) {
  const { mode } = page.center;
  const text = `Mode: ${mode}`;
  const title = `Automatic restarts: ${MODES[mode] ?? mode}`;
  if (!page.can("admin")) return h("span", { class: "badge idle", title }, text);
  return button(`${text}…`, () => askForMode(page), { class: "plain", title, "data-mode": mode });
}

function askForMode(page) {
  let mode = page.center.mode;
  const set = async (reason) => {
    page.center = await call("PUT", "/v1/center/mode", { body: { mode, reason } });
    tell(`The mode is ${page.center.mode} now`, "good");
    drawTop(page);
  };
  const fields = (redraw) => choice("Mode", Object.entries(MODES).map(([name, text]) => [name, `${name}: ${text}`]), mode, (value) => ((mode = value), redraw())); // prettier-ignore
  ask("Automatic restarts", "What the center may do by itself when gateways report dead units.", "Set the mode", set, { fields });
}

function drawCaller(page) {
  const { name, role } = page.center.principal;
  const signOut = page.hasToken && button("Sign out", page.signOut, { class: "plain" });
  return h("span", { class: "caller" }, h("span", { title: `role: ${role}` }, `${name} (${role})`), signOut);
}

/** Dark if it is light, and the other way round; kept on this machine. */
export function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // It lasts until the page is loaded again.
  }
}

/** Shortcuts, and what is known of the center. */
export function showHelp(page) {
  const { center } = page;
  const keys = [
    ["?", "this help"], ["/", "to the filter"], ["t", "light or dark"],
    ...SECTIONS.map(({ title, key }) => [`g ${key}`, title]), ["Esc", "close a dialog"],
  ]; // prettier-ignore
  const shown = open("Help", (close) => [
    h("h3", {}, "Keys"),
    h("dl", { class: "keys" }, keys.map(([key, text]) => h("div", { key }, h("dt", {}, key.split(" ").map((each) => [h("kbd", {}, each), " "])), h("dd", {}, text)))),
    h(
      "label",
      { class: "check" },
      h("input", { type: "checkbox", checked: page.keysOn, on: { change: (event) => (page.setKeys(event.target.checked), shown.redraw()) } }),
      h("span", {}, "Keys without Ctrl or Alt do something"),
    ),
    center && [
      h("h3", {}, "This control center"),
      facts(
        ["Name", center.name],
        ["Leads", center.leader ? "yes" : `no; ${center.leader_name ?? "nobody"} does`],
        ["Registry", `${center.registry.backend}, ${center.registry.state === "ok" ? "answers" : `away${center.registry.seconds_ago === null ? "" : ` for ${duration(Math.round(center.registry.seconds_ago))}`}`}`],
        ["Version", center.version],
        ["API", h("a", { href: "/openapi.json" }, "openapi.json")],
      ),
    ],
    h("footer", {}, button("Close", close, { class: "main" })),
  ]); // prettier-ignore
}
