/** What several views are made of. */

import { h } from "./dom.js";
import { between, duration, moment, percent, words } from "./format.js";

// State -> [look, sign]. The sign and the word say the same as the colour.
const STATES = {
  up: ["good", "●"], warming: ["busy", "◐"], draining: ["calm", "◌"],
  pending: ["idle", "○"], sent: ["busy", "→"], running: ["busy", "◐"], confirming: ["busy", "◕"], baking: ["busy", "◔"],
  paused: ["warn", "‖"], succeeded: ["good", "✓"], failed: ["bad", "✕"], aborted: ["warn", "■"], expired: ["warn", "◷"],
  skipped: ["idle", "–"],
  suspect: ["warn", "?"], dead: ["bad", "✕"], unknown: ["idle", "○"], gone: ["idle", "–"], refused: ["bad", "⊘"],
  restart: ["busy", "↻"], would_restart: ["warn", "↻"], wait: ["idle", "◷"], refuse: ["warn", "⊘"], fatal: ["bad", "✕"],
  RUNNING: ["good", "●"], WARMING: ["busy", "◐"], STARTING: ["busy", "◔"], BACKOFF: ["warn", "↻"],
  STOPPED: ["idle", "○"], STOPPING: ["calm", "◌"], EXITED: ["idle", "–"], FATAL: ["bad", "✕"],
  UNHEALTHY: ["bad", "!"], EXPIRING: ["calm", "◌"], DRAINING: ["calm", "◌"], DRAINED: ["calm", "‖"],
}; // prettier-ignore

/** How a state looks: good | busy | calm | warn | bad | idle. */
export function look(state) {
  return (STATES[state] ?? ["idle"])[0];
}

/** A state: sign, word, colour. */
export function badge(state, text = words(state)) {
  const [look, sign] = STATES[state] ?? ["idle", "·"];
  return h("span", { class: `badge ${look}` }, h("span", { class: "sign", "aria-hidden": "true" }, sign), text);
}

/** A share of a whole as a bar, with its number. `mark`: where a limit is, in percent. */
export function bar(value, whole, look, { label = "weight", text = `${value}/${whole}`, mark = null } = {}) {
  const share = whole > 0 ? Math.min(100, (value / whole) * 100) : 0;
  const range = { "aria-valuemin": 0, "aria-valuemax": Math.max(whole, value, 1), "aria-valuenow": value };
  return h(
    "span",
    { class: "weight" },
    h(
      "span",
      { class: "bar", role: "meter", "aria-label": label, ...range, "aria-valuetext": text },
      h("span", { class: `fill ${look}`, style: { width: `${share}%` } }),
      mark !== null && h("span", { class: "mark", style: { left: `${mark}%` }, title: `floor ${percent(mark)}` }),
    ),
    h("span", { class: "number", "aria-hidden": "true" }, text),
  );
}

/** How much of a service is there. */
export function capacity(service, mark = null) {
  const look = service.capacity_percent >= 99.95 ? "good" : service.capacity_percent >= 50 ? "busy" : "bad";
  const text = percent(service.capacity_percent);
  return bar(service.weight, service.full_weight, look, { label: "capacity", text, mark });
}

/** A moment, exact when pointed at. */
export function time(iso) {
  return iso ? h("time", { datetime: iso, title: iso }, moment(iso)) : "–";
}

/** How long something has lasted, or lasted. */
export function lasting(from, to = null) {
  return from ? duration(Math.floor(between(from, to))) : "–";
}

/** A link to a view. */
export function link(text, ...parts) {
  return h("a", { href: route(...parts) }, text);
}

/** A view's address. */
export function route(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** A button. */
export function button(text, onClick, props = {}) {
  return h("button", { type: "button", ...props, on: { click: onClick } }, text);
}

/**
 * A table that becomes cards in a narrow window. Columns: {name, cell(row), look}; rows have `key(row)`.
 * `beneath(row)`: what is unfolded under a row. Roles are written out, for cards lose those of the elements.
 */
export function table(caption, columns, rows, key, { beneath = () => null, empty = "None." } = {}) {
  if (!rows.length) return h("p", { class: "quiet" }, empty);
  return h(
    "table",
    { role: "table" },
    h("caption", { class: "unseen" }, caption),
    h(
      "thead",
      { role: "rowgroup" },
      h("tr", { role: "row" }, columns.map((column) => header(column))),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) => [line(columns, row, key), under(beneath(row), key(row), columns.length)]),
    ),
  );
}

function header(column) {
  const hidden = column.look === "doing" ? h("span", { class: "unseen" }, column.name) : column.name;
  return h("th", { role: "columnheader", scope: "col", class: column.look }, hidden);
}

function line(columns, row, key) {
  const cells = columns.map((column, index) =>
    h(
      index ? "td" : "th",
      { role: index ? "cell" : "rowheader", scope: index ? null : "row", class: column.look, "data-name": column.name },
      column.cell(row),
    ),
  );
  return h("tr", { role: "row", key: `row ${key(row)}` }, cells);
}

function under(content, key, width) {
  if (!content) return null;
  return h("tr", { role: "row", class: "under", key: `under ${key}` }, h("td", { role: "cell", colspan: width }, content));
}

/** Terms and what they are. */
export function facts(...pairs) {
  const shown = pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "");
  return h(
    "dl",
    { class: "facts" },
    shown.map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A field that narrows a list down. `/` goes there. */
export function filter(ui, name, redraw) {
  return h(
    "label",
    { class: "filter" },
    h("span", {}, name),
    h("input", {
      type: "search", value: ui.filter ?? "", "data-filter": "", autocomplete: "off", spellcheck: "false",
      on: { input: (event) => ((ui.filter = event.target.value), redraw()) },
    }), // prettier-ignore
  );
}

/** One of several words. */
export function choice(label, options, chosen, onChange) {
  return h(
    "label",
    { class: "choice" },
    h("span", {}, label),
    h(
      "select",
      { value: chosen, on: { change: (event) => onChange(event.target.value) } },
      options.map(([value, text]) => h("option", { value, key: value }, text)),
    ),
  );
}

/** The first rows of many, and a button for more. */
export function some(rows, ui, redraw, step = 200) {
  const most = ui.most ?? step;
  const more = rows.length > most;
  const show = () => ((ui.most = most + step), redraw());
  return [rows.slice(0, most), more && h("p", {}, button(`Show ${Math.min(step, rows.length - most)} more of ${rows.length}`, show))];
}

/** Any value as text, lists and terms. */
export function shown(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) {
    if (!value.length) return "none";
    if (value.every((each) => typeof each !== "object")) return value.join(", ");
    return h("ul", { class: "values" }, value.map((each) => h("li", {}, shown(each))));
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value);
    if (!pairs.length) return "none";
    return h("dl", { class: "tree" }, pairs.map(([name, each]) => h("div", { key: name }, h("dt", {}, words(name)), h("dd", {}, shown(each)))));
  }
  if (typeof value === "number") return String(Math.round(value * 1000) / 1000);
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}
