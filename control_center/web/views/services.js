/** All services, and one. */

import { call, path } from "../api.js";
import { command } from "../command.js";
import { ask, tell } from "../dialogs.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { badge, bar, button, capacity, choice, facts, filter, lasting, link, look, some, table } from "../parts.js";

const NODES_MS = 10_000; // nodes also tell of services that have left the registry, which is rare
const FEW = 24; // instances that are shown without being asked for
const AT_ONCE = 8; // nodes that are asked at the same time

/** The list. */
export const services = {
  title: () => "Services",
  concerns: (event) => event.type !== "gateway",

  async load(_, ui, signal) {
    const listed = await call("GET", "/v1/services", { signal });
    await lookForHidden(ui, listed.services, signal);
    const total = listed.services.reduce((sum, service) => sum + service.instances, 0);
    ui.open ??= new Set(total <= FEW ? listed.services.map((service) => service.service) : []);
    const names = listed.services.map((service) => service.service).filter((name) => ui.open.has(name));
    const found = await Promise.all(names.slice(0, FEW).map((name) => one(name, signal)));
    return { services: listed.services, entries: new Map(found.filter(Boolean).map((each) => [each.service, each.entries])) };
  },

  draw({ services, entries }, ui, page) {
    const wanted = (ui.filter ?? "").toLowerCase();
    const rows = services
      .filter((service) => service.service.toLowerCase().includes(wanted) && (ui.show !== "notable" || isNotable(service)))
      .sort(ui.sort === "capacity" ? (a, b) => a.capacity_percent - b.capacity_percent : () => 0);
    const [shown, more] = some(rows, ui, page.redraw);
    return [
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: -1 }, "Services"),
        h("p", { class: "sum" }, summary(services)),
      ),
      h(
        "div",
        { class: "tools" },
        filter(ui, "Filter", page.redraw),
        choice("Show", [["all", "all"], ["notable", "only what is notable"]], ui.show ?? "all", (value) => ((ui.show = value), page.redraw())),
        choice("Sort by", [["name", "name"], ["capacity", "capacity"]], ui.sort ?? "name", (value) => ((ui.sort = value), page.redraw())),
      ), // prettier-ignore
      table("Services", columns(ui, page), shown, (service) => service.service, {
        beneath: (service) => ui.open.has(service.service) && beneath(entries.get(service.service), page),
        empty: services.length ? "No service is like that." : "No service is in the registry.",
      }),
      more,
      hidden(ui.hidden, page),
    ];
  },
};

function summary(services) {
  const instances = services.reduce((sum, service) => sum + service.instances, 0);
  const notable = services.filter(isNotable).length;
  return `${count(services.length, "service")}, ${count(instances, "instance")}${notable ? `, ${notable} notable` : ""}`;
}

function isNotable(service) {
  return service.capacity_percent < 99.95 || service.warming + service.draining > 0 || service.operation || service.frozen;
}

function columns(ui, page) {
  const toggle = (name) => {
    if (!ui.open.delete(name)) ui.open.add(name);
    page.refresh();
    page.redraw();
  };
  return [
    { name: "Service", look: "name", cell: ({ service }) => [unfold(ui.open.has(service), service, () => toggle(service)), link(service, "services", service)] },
    { name: "Capacity", look: "wide", cell: (service) => capacity(service) },
    { name: "Instances", cell: (service) => counts(service) },
    { name: "Zones", cell: ({ zones }) => zonesText(zones) },
    { name: "Nodes", look: "count", cell: ({ nodes }) => nodes },
    { name: "Notes", cell: (service) => notes(service) },
    { name: "Commands", look: "doing", cell: ({ service }) => page.may(service) && button("Command…", () => commandService(service), { "aria-label": `Command ${service}` }) },
  ]; // prettier-ignore
}

function unfold(isOpen, name, onClick) {
  const props = { class: "plain fold", "aria-expanded": String(isOpen), "aria-label": `Instances of ${name}` };
  return button(isOpen ? "▾" : "▸", onClick, props);
}

function counts(service) {
  return h(
    "span",
    { class: "badges" },
    ["up", "warming", "draining"].map((state) => service[state] > 0 && badge(state, `${service[state]} ${state}`)),
  );
}

function zonesText(zones) {
  const named = Object.entries(zones).filter(([zone]) => zone);
  return named.length ? named.map(([zone, number]) => `${zone}: ${number}`).join(", ") : "–";
}

function notes(service) {
  return h(
    "span",
    { class: "badges" },
    service.operation && h("a", { href: `#/operations/${service.operation}` }, badge("running", "operation")),
    service.frozen && badge("refused", "frozen"),
  );
}

function beneath(entries, page) {
  if (!entries) return h("p", { class: "quiet" }, "Loading…");
  return instances(entries, page, false);
}

/** The instances of a service as a table. */
function instances(entries, page, isWhole) {
  return table(
    "Instances",
    [
      { name: "Instance", look: "name", cell: (entry) => link(entry.instance, "nodes", entry.node) },
      { name: "Weight", look: "wide", cell: (entry) => bar(entry.status === "draining" ? 0 : entry.weight, entry.full_weight, look(entry.status)) },
      { name: "Status", cell: (entry) => h("span", { class: "badges" }, badge(entry.status), marks(entry)) },
      { name: "Generation", look: "count", cell: (entry) => entry.generation },
      { name: "Zone", cell: (entry) => entry.zone ?? "–" },
      { name: "Version", cell: (entry) => entry.version ?? "–" },
      { name: "Address", look: "place", cell: (entry) => h("span", { class: "code" }, `${entry.address}:${entry.port}`) },
      { name: "Up for", look: "count", cell: (entry) => lasting(entry.started_at) },
      { name: "Commands", look: "doing", cell: (entry) => [
        isWhole && link("Logs", "nodes", entry.node, "units", entry.unit, "logs"),
        page.may(entry.service) && button("Command…", () => commandInstance(entry), { "aria-label": `Command ${entry.instance}` }),
      ] },
    ],
    entries,
    (entry) => entry.instance,
    { empty: "No instance." },
  ); // prettier-ignore
}

function marks(entry) {
  return [
    entry.operation && h("a", { href: `#/operations/${entry.operation}`, key: "operation" }, badge("running", "operation")),
    entry.reports > 0 && h("span", { key: "reports" }, badge("UNHEALTHY", count(entry.reports, "complaint"))),
  ];
}

/** One service. */
export const service = {
  title: ([name]) => name,
  concerns: (event) => event.type !== "gateway",
  load: ([name], _, signal) => call("GET", path(["/v1/services/", ""], name), { signal }),

  draw(found, ui, page) {
    const name = found.service;
    const wanted = (ui.filter ?? "").toLowerCase();
    const [shown, more] = some(found.entries.filter((entry) => entry.instance.toLowerCase().includes(wanted)), ui, page.redraw);
    const verbs = page.may(name) ? ["restart", "drain", "undrain", "stop", "start"] : [];
    return [
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: -1 }, name),
        h("div", { class: "buttons" }, verbs.map((verb) => button(`${verb[0].toUpperCase()}${verb.slice(1)}…`, () => commandService(name, verb), { key: verb }))),
      ),
      found.frozen && frozenNote(name, found.frozen, page),
      facts(
        ["Capacity", capacity(found)],
        ["Instances", counts(found)],
        ["Zones", zonesText(found.zones)],
        ["Nodes", found.nodes],
        ["Operation", found.operation && link(found.operation, "operations", found.operation)],
      ),
      h("h2", {}, "Instances"),
      found.entries.length > 12 && h("div", { class: "tools" }, filter(ui, "Filter", page.redraw)),
      instances(shown, page, true),
      more,
      h("p", {}, h("a", { href: `#/decisions?service=${encodeURIComponent(name)}` }, `Decisions about ${name}`)),
    ];
  },
};

function frozenNote(name, why, page) {
  const thaw = async (reason) => {
    await call("POST", path(["/v1/services/", "/thaw"], name), { body: { reason } });
    tell(`${name} is thawed: its units may be restarted automatically again`, "good");
    page.refresh();
  };
  const text = "The guard may then restart its units automatically again, within the budgets.";
  return h(
    "div",
    { class: "warning" },
    h("p", {}, h("strong", {}, "Frozen: nothing of it is restarted automatically. "), why),
    page.may(name) && button("Thaw…", () => ask(`Thaw ${name}`, text, "Thaw", thaw)),
  );
}

// Commands.

function commandService(name, verb = "restart") {
  const select = (verb, signal) => (verb === "start" || verb === "undrain" ? away(name, verb, signal) : [{ services: [name] }]);
  command({ name, select }, verb);
}

/** Of an instance. Who restarts it means the life that is shown, not one that began meanwhile. */
function commandInstance(entry) {
  const one = { nodes: [entry.node], units: [entry.unit] };
  const select = (verb) => [verb === "restart" ? { ...one, expected: entry.generation } : one];
  command({ name: entry.instance, select }, "restart", ["restart", "drain", "undrain", "stop"]);
}

/** Units of a service that are stopped or drained: no registry has them, so the nodes are asked. */
async function away(name, verb, signal) {
  const { nodes } = await call("GET", "/v1/nodes", { signal });
  const asked = nodes.filter((node) => node.services.includes(name)).map((node) => node.node);
  const found = [];
  while (asked.length) {
    const some = asked.splice(0, AT_ONCE).map((node) => unitsOf(node, signal));
    found.push(...(await Promise.all(some)));
  }
  const isMeant = (unit) => unit.service === name && (verb === "start" ? unit.wanted === "down" : unit.maintenance);
  const groups = new Map(); // the same units on several nodes are one operation
  for (const { node, units } of found) {
    const meant = units.filter(isMeant).map((unit) => unit.unit).sort(); // prettier-ignore
    if (!meant.length) continue;
    const key = JSON.stringify(meant);
    groups.set(key, { nodes: [...(groups.get(key)?.nodes ?? []), node], units: meant });
  }
  if (!groups.size) throw new Error(`no unit of ${name} is ${verb === "start" ? "stopped" : "drained"}`);
  return [...groups.values()];
}

async function unitsOf(node, signal) {
  try {
    return { node, units: (await call("GET", path(["/v1/nodes/", "/units"], node), { signal })).units };
  } catch (error) {
    if (signal?.aborted) throw error;
    return { node, units: [] }; // it cannot be commanded now either
  }
}

async function one(name, signal) {
  try {
    return await call("GET", path(["/v1/services/", ""], name), { signal });
  } catch (error) {
    if (error.status === 404) return null; // its last instance has just left
    throw error;
  }
}

/** Services that nodes have units of, and the registry has not: stopped or drained altogether. */
async function lookForHidden(ui, known, signal) {
  if (!ui.nodesAt || Date.now() - ui.nodesAt > NODES_MS) {
    ui.nodes = (await call("GET", "/v1/nodes", { signal })).nodes;
    ui.nodesAt = Date.now();
  }
  const names = new Set(known.map((service) => service.service));
  const found = new Map();
  for (const node of ui.nodes) {
    for (const name of node.services) if (!names.has(name)) found.set(name, [...(found.get(name) ?? []), node.node]);
  }
  ui.hidden = found;
}

function hidden(found, page) {
  if (!found?.size) return null;
  return h(
    "section",
    { "aria-label": "Out of traffic" },
    h("h2", {}, "Out of traffic"),
    h("p", { class: "quiet" }, "No instance of these is in the registry; nodes have units of them."),
    table(
      "Services out of traffic",
      [
        { name: "Service", look: "name", cell: ([name]) => name },
        { name: "Nodes", cell: ([, nodes]) => nodes.slice(0, 5).map((node, index) => [index > 0 && ", ", link(node, "nodes", node)]) },
        { name: "Commands", look: "doing", cell: ([name]) => page.may(name) && button("Command…", () => commandService(name, "start"), { "aria-label": `Command ${name}` }) },
      ],
      [...found],
      ([name]) => name,
    ), // prettier-ignore
  );
}
