/** All nodes, and one with its units. */

import { call, path } from "../api.js";
import { command } from "../command.js";
import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { badge, bar, button, choice, facts, filter, link, look, some, table } from "../parts.js";

/** The list. */
export const nodes = {
  title: () => "Nodes",
  concerns: (event) => event.type === "node",
  load: async (_, ui, signal) => (await call("GET", "/v1/nodes", { signal })).nodes,

  draw(found, ui, page) {
    const wanted = (ui.filter ?? "").toLowerCase();
    const isMeant = (node) => node.node.toLowerCase().includes(wanted) && (ui.show !== "ill" || node.state !== "up");
    const [shown, more] = some(found.filter(isMeant), ui, page.redraw);
    const ill = found.filter((node) => node.state !== "up").length;
    return [
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: -1 }, "Nodes"),
        h("p", { class: "sum" }, `${count(found.length, "node")}${ill ? `, ${ill} not up` : ", all up"}`),
      ),
      h(
        "div",
        { class: "tools" },
        filter(ui, "Filter", page.redraw),
        choice("Show", [["all", "all"], ["ill", "only those that are not up"]], ui.show ?? "all", (value) => ((ui.show = value), page.redraw())),
      ), // prettier-ignore
      table("Nodes", columns(page), shown, (node) => node.node, { empty: found.length ? "No node is like that." : "No node is registered." }),
      more,
      h("p", { class: "quiet" }, "Phi says how unlikely a node's silence is: 8 is one in a hundred million. Nothing is restarted because of it."),
    ];
  },
};

function columns(page) {
  return [
    { name: "Node", look: "name", cell: (node) => link(node.node, "nodes", node.node) },
    { name: "State", cell: (node) => badge(node.state) },
    { name: "Phi", look: "count", cell: (node) => phi(node.phi) },
    { name: "Last seen", look: "count", cell: (node) => seen(node) },
    { name: "Units", look: "count", cell: (node) => node.units ?? "–" },
    { name: "Services", look: "text", cell: (node) => node.services.slice(0, 6).map((name, index) => [index > 0 && ", ", link(name, "services", name)]) },
    { name: "Address", cell: (node) => h("span", { class: "code" }, node.via === "pull" ? "fetches its commands" : `${node.address}:${node.port}`) },
    { name: "Version", cell: (node) => node.version ?? "–" },
    { name: "Note", look: "text", cell: (node) => node.detail },
    { name: "Commands", look: "doing", cell: (node) => page.may(null) && button("Command…", () => commandNode(node.node), { "aria-label": `Command ${node.node}` }) },
  ]; // prettier-ignore
}

function phi(value) {
  return value === null ? "–" : value.toFixed(1);
}

function seen(node) {
  return node.seen_seconds_ago === null ? "never" : `${duration(Math.round(node.seen_seconds_ago * 10) / 10)} ago`;
}

/** One node. */
export const node = {
  title: ([name]) => name,
  concerns: (event, [name]) => event.type === "operation" || (event.type === "node" && event.body.node === name),

  async load([name], _, signal) {
    const [found, units] = await Promise.all([call("GET", path(["/v1/nodes/", ""], name), { signal }), unitsOrProblem(name, signal)]);
    return { node: found, ...units };
  },

  draw({ node, units, asOf, problem }, ui, page) {
    const verbs = page.may(null) ? ["restart", "drain", "undrain", "stop", "start"] : [];
    return [
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: -1 }, node.node, " ", badge(node.state)),
        h("div", { class: "buttons" }, verbs.map((verb) => button(`${verb[0].toUpperCase()}${verb.slice(1)}…`, () => commandNode(node.node, verb), { key: verb }))),
      ),
      node.detail && h("p", { class: "problem" }, node.detail),
      facts(
        ["Phi", phi(node.phi)],
        ["Last seen", seen(node)],
        ["Heartbeat each", node.interval_seconds && duration(Math.round(node.interval_seconds * 10) / 10)],
        ["Address", h("span", { class: "code" }, node.via === "pull" ? "fetches its commands" : `${node.scheme}://${node.address}:${node.port}`)],
        ["Version", node.version],
        ["Starts of its daemon", node.life || null],
        ["Open operations", node.open_operations],
      ),
      h("h2", {}, "Units"),
      asOf && h("p", { class: "note" }, `As its last heartbeat told (${asOf}).`),
      problem ? h("p", { class: "problem" }, problem) : table("Units", unitColumns(node, page), units, (unit) => unit.unit, { empty: "It has no units." }),
    ];
  },
};

async function unitsOrProblem(name, signal) {
  try {
    const answer = await call("GET", path(["/v1/nodes/", "/units"], name), { signal });
    return { units: answer.units, asOf: answer.as_of ?? null, problem: null };
  } catch (error) {
    if (signal.aborted || !error.status || error.status === 401) throw error;
    return { units: [], asOf: null, problem: error.message };
  }
}

function unitColumns(node, page) {
  return [
    { name: "Unit", look: "name", cell: (unit) => unit.unit },
    { name: "State", cell: (unit) => badge(unit.state, unit.state.toLowerCase()) },
    { name: "Weight", look: "wide", cell: (unit) => (unit.full_weight ? bar(unit.weight ?? 0, unit.full_weight, look(unit.state)) : "–") },
    { name: "Why", look: "text", cell: (unit) => unit.why },
    { name: "Service", cell: (unit) => (unit.service ? link(unit.service, "services", unit.service) : "–") },
    { name: "Generation", look: "count", cell: (unit) => unit.generation },
    { name: "Pid", look: "count", cell: (unit) => unit.pid ?? "–" },
    { name: "Restarts", look: "count", cell: (unit) => unit.restarts },
    { name: "Up for", look: "count", cell: (unit) => (unit.uptime_seconds === null ? "–" : duration(Math.floor(unit.uptime_seconds))) },
    { name: "Commands", look: "doing", cell: (unit) => [
      node.via === "push" && h("a", { href: `#/nodes/${encodeURIComponent(node.node)}/units/${encodeURIComponent(unit.unit)}/logs`, "aria-label": `Logs of ${unit.unit}` }, "Logs"),
      page.may(unit.service) && button("Command…", () => commandUnit(node.node, unit), { "aria-label": `Command ${unit.unit}` }),
    ] },
  ]; // prettier-ignore
}

// Commands.

const MEANT = {
  start: (unit) => unit.wanted === "down",
  undrain: (unit) => unit.maintenance,
  restart: (unit) => unit.wanted === "up",
  stop: (unit) => unit.wanted === "up",
  drain: (unit) => unit.service && unit.wanted === "up" && !unit.maintenance,
};

/** Of all units of a node for which it means something; the node is asked which these are. */
function commandNode(name, verb = "drain") {
  const select = async (verb, signal) => {
    const { units } = await call("GET", path(["/v1/nodes/", "/units"], name), { signal });
    const meant = units.filter(MEANT[verb]).map((unit) => unit.unit);
    if (!meant.length) throw new Error(`no unit of ${name} is there to ${verb}`);
    return [{ nodes: [name], units: meant }];
  };
  command({ name: `the units of ${name}`, select }, verb);
}

function commandUnit(node, unit) {
  const one = { nodes: [node], units: [unit.unit] };
  const select = (verb) => [verb === "restart" && unit.wanted === "up" ? { ...one, expected: unit.generation } : one];
  const verbs = unit.service ? undefined : ["restart", "stop", "start"];
  command({ name: `${node}/${unit.unit}`, select }, unit.wanted === "down" ? "start" : "restart", verbs);
}
