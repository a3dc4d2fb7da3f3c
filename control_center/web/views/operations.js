/** All operations, and one as it goes on. */

import { call, path } from "../api.js";
import { stateOf, title } from "../command.js";
import { ask, tell } from "../dialogs.js";
import { h } from "../dom.js";
import { count, duration, percent, sentence, words } from "../format.js";
import { badge, bar, button, capacity, choice, facts, filter, lasting, link, look, table, time } from "../parts.js";

const PAGE = 50;
const MANY = 40; // targets of a batch that are not all shown by themselves
const WATCHED = 5; // services whose capacity is shown beside an operation
const ORDER = ["succeeded", "confirming", "running", "sent", "failed", "expired", "skipped", "pending"];

/** The list. */
export const operations = {
  title: () => "Operations",
  concerns: (event) => event.type === "operation",

  async load(_, ui, signal) {
    const open = ui.open ? "&open=1" : "";
    const newest = await call("GET", `/v1/operations?limit=${PAGE}${open}`, { signal });
    return [...newest.operations, ...(ui.older ?? [])];
  },

  draw(found, ui, page) {
    const wanted = (ui.filter ?? "").toLowerCase();
    const known = new Set();
    // What was among the newest may be among the older ones, too.
    const rows = found.filter((each) => !known.has(each.id) && known.add(each.id) && `${title(each)} ${each.id} ${each.reason} ${each.issued_by}`.toLowerCase().includes(wanted));
    const older = async () => {
      const last = found.at(-1);
      const next = await call("GET", `/v1/operations?limit=${PAGE}&before=${encodeURIComponent(last.id)}${ui.open ? "&open=1" : ""}`);
      ui.older = [...(ui.older ?? []), ...next.operations];
      ui.ended = next.operations.length < PAGE;
      page.refresh();
    };
    const show = (value) => {
      Object.assign(ui, { open: value === "open", older: [], ended: false });
      page.refresh();
      page.redraw();
    };
    return [
      h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Operations")),
      h(
        "div",
        { class: "tools" },
        filter(ui, "Filter", page.redraw),
        choice("Show", [["all", "all"], ["open", "only open ones"]], ui.open ? "open" : "all", show),
      ), // prettier-ignore
      table("Operations", COLUMNS, rows, (operation) => operation.id, { empty: "No operation." }),
      found.length >= PAGE && !ui.ended && h("p", {}, button("Show older ones", older)),
    ];
  },
};

const COLUMNS = [
  { name: "Operation", look: "name", cell: (operation) => link(title(operation), "operations", operation.id) },
  { name: "State", cell: (operation) => stateOf(operation) },
  { name: "Progress", look: "wide", cell: (operation) => progress(operation) },
  { name: "By", cell: (operation) => operation.issued_by },
  { name: "Reason", look: "text", cell: (operation) => operation.reason || "–" },
  { name: "Created", cell: (operation) => time(operation.created) },
  { name: "Took", look: "count", cell: (operation) => lasting(operation.started, operation.finished) },
];

function progress({ counts, state }) {
  const all = Object.values(counts).reduce((sum, number) => sum + number, 0);
  const ended = (counts.succeeded ?? 0) + (counts.failed ?? 0) + (counts.skipped ?? 0) + (counts.expired ?? 0);
  const how = counts.failed || counts.expired ? "bad" : state === "succeeded" ? "good" : "busy";
  return bar(ended, all, how, { label: "progress", text: `${ended} of ${all}` });
}

/** One operation. */
export const operation = {
  title: ([id], found) => (found ? title(found.operation) : id),
  concerns: (event, [id]) => (event.type === "operation" ? event.body.id === id : false),

  async load([id], _, signal) {
    const found = await call("GET", path(["/v1/operations/", ""], id), { signal });
    const names = found.finished ? [] : found.services.slice(0, WATCHED);
    const services = await Promise.all(names.map((name) => serviceOrNone(name, signal)));
    return { operation: found, services: services.filter(Boolean) };
  },

  draw({ operation, services }, ui, page) {
    const entries = new Map(services.flatMap((service) => service.entries.map((entry) => [entry.instance, entry])));
    return [
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: -1 }, title(operation), " ", stateOf(operation)),
        h("div", { class: "buttons" }, controls(operation, page)),
      ),
      said(operation),
      h("div", { class: "columns" }, [overview(operation), services.length > 0 && watched(services, operation)]),
      h("h2", {}, "Batches"),
      h("div", { class: "stages" }, operation.batches.map((batch) => stage(batch, operation, entries, ui, page))),
    ];
  },
};

async function serviceOrNone(name, signal) {
  try {
    return await call("GET", path(["/v1/services/", ""], name), { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function said({ waiting_for: waiting, error, finished }) {
  if (error) return h("p", { class: "problem" }, sentence(error));
  return !finished && waiting && h("p", { class: "note" }, sentence(waiting));
}

function controls(operation, page) {
  const services = new Set(operation.targets.map((target) => target.service));
  if (operation.finished || ![...services].every((service) => page.may(service))) return null;
  const wanted = operation.wish === "run" ? ["pause", "abort"] : operation.wish === "pause" ? ["resume", "abort"] : [];
  return wanted.map((verb) => button(`${sentence(verb)}…`, () => steer(operation, verb, page), { key: verb, class: verb === "abort" ? "danger" : "" }));
}

const MEANING = {
  pause: "Nothing more is begun; what was begun goes on to its end.",
  resume: "It goes on where it stands.",
  abort: "Nothing more is begun, and it cannot be resumed. What was begun goes on to its end.",
};

function steer(operation, verb, page) {
  const act = async (reason) => {
    await call("POST", path(["/v1/operations/", `/${verb}`], operation.id), { body: { reason } });
    tell({ pause: "Paused", resume: "Resumed", abort: "Aborted" }[verb], "good");
    page.refresh();
  };
  ask(`${sentence(verb)} this operation`, MEANING[verb], sentence(verb), act, { danger: verb === "abort" });
}

function overview(operation) {
  const { strategy, counts } = operation;
  return facts(
    ["Progress", progress(operation)],
    ["Units", h("span", { class: "badges" }, ORDER.filter((state) => counts[state]).map((state) => badge(state, `${counts[state]} ${state}`)))],
    ["By", operation.cause === "guard" ? `${operation.issued_by}, automatically` : operation.issued_by],
    ["Reason", operation.reason],
    ["Began", operation.started && time(operation.started)],
    ["Took", operation.started && lasting(operation.started, operation.finished)],
    ["Begins nothing after", !operation.finished && time(operation.deadline)],
    ["How", strategy ? how(strategy) : "all at once"],
    ["Parameters", Object.entries(operation.parameters).map(([name, value]) => `${words(name)}: ${value}`).join(", ")],
    ["Id", h("span", { class: "code" }, operation.id)],
  ); // prettier-ignore
}

function how(strategy) {
  const canary = strategy.canary ? `${count(strategy.canary, "canary", "canaries")} baked for ${duration(strategy.bake_seconds)}, ` : "";
  const zones = strategy.by_zone ? ", zone after zone" : "";
  return `${canary}batches of ${strategy.batch}${zones}, floor ${percent(strategy.floor_percent)}, ${strategy.max_failures} may fail`;
}

function watched(services, operation) {
  const floor = operation.strategy?.floor_percent ?? null;
  const legend = floor ? `The line is the floor: ${percent(floor)} of the weight.` : "";
  return h(
    "section",
    { class: "watched", "aria-label": "Capacity now" },
    h("h2", {}, "Capacity now"),
    facts(...services.map((service) => [service.service, capacity(service, floor || null)])),
    legend && h("p", { class: "quiet" }, legend),
  );
}

function stage(batch, operation, entries, ui, page) {
  const targets = operation.targets.filter((target) => target.batch === batch.number);
  const isLive = batch.state === "running" || batch.state === "baking" || batch.state === "failed";
  const isOpen = ui[`batch ${batch.number}`] ?? (isLive || targets.length <= MANY);
  const toggle = (event) => {
    if (event.target.open === isOpen) return;
    ui[`batch ${batch.number}`] = event.target.open;
    page.redraw();
  };
  return h(
    "details",
    { class: `stage ${look(batch.state)}`, open: isOpen, key: batch.number, "data-batch": batch.name, on: { toggle } },
    h(
      "summary",
      {},
      h("strong", {}, batch.name),
      badge(batch.state),
      h("span", { class: "quiet" }, count(targets.length, "unit")),
      batch.started && h("span", { class: "quiet count" }, lasting(batch.started, batch.finished)),
    ),
    isOpen && table(`Units of ${batch.name}`, targetColumns(entries), targets, (target) => `${target.instance} ${target.service}`),
  );
}

function targetColumns(entries) {
  return [
    { name: "Unit", look: "name", cell: (target) => link(target.instance, "nodes", target.node) },
    { name: "State", cell: (target) => badge(target.state) },
    { name: "What", look: "text", cell: (target) => (isOver(target) ? target.detail : target.steps || target.detail) || "–" },
    { name: "Weight now", look: "wide", cell: (target) => weightNow(target, entries.get(target.instance)) },
    { name: "Zone", cell: (target) => target.zone ?? "–" },
    { name: "Generation", look: "count", cell: (target) => entries.get(target.instance)?.generation ?? target.generation ?? "–" },
    { name: "Took", look: "count", cell: (target) => lasting(target.started, target.finished) },
  ]; // prettier-ignore
}

function isOver(target) {
  return ["succeeded", "failed", "skipped", "expired"].includes(target.state);
}

function weightNow(target, entry) {
  if (entry) return bar(entry.status === "draining" ? 0 : entry.weight, entry.full_weight, look(entry.status));
  return isOver(target) || target.state === "pending" || !target.service ? "–" : h("span", { class: "quiet" }, "not in the registry");
}
