/** What the guard decided, and why. */

import { call } from "../api.js";
import { ask, tell } from "../dialogs.js";
import { h } from "../dom.js";
import { words } from "../format.js";
import { badge, button, choice, filter, link, shown, time } from "../parts.js";

const PAGE = 50;
const VERDICTS = ["restart", "would_restart", "wait", "refuse", "fatal"];

/** The list; `?service=` and `?instance=` narrow it down. */
export const decisions = {
  title: () => "Decisions",
  concerns: (event) => event.type === "decision" || event.type === "service",

  async load(_, ui, signal, query) {
    const newest = await call("GET", `/v1/decisions?${asked(query)}`, { signal });
    return { decisions: [...newest.decisions, ...(ui.older ?? [])], query };
  },

  draw({ decisions, query }, ui, page) {
    const wanted = (ui.filter ?? "").toLowerCase();
    const known = new Set();
    const isMeant = (each) =>
      !known.has(each.id) &&
      known.add(each.id) &&
      (!ui.verdict || each.verdict === ui.verdict) &&
      `${each.instance} ${each.service} ${each.rule} ${each.reason}`.toLowerCase().includes(wanted);
    const found = decisions.filter(isMeant);
    const older = async () => {
      const next = await call("GET", `/v1/decisions?${asked(query, decisions.at(-1).id)}`);
      ui.older = [...(ui.older ?? []), ...next.decisions];
      ui.ended = next.decisions.length < PAGE;
      page.refresh();
    };
    const about = query.get("service") ?? query.get("instance");
    const options = [["", "all"], ...VERDICTS.map((verdict) => [verdict, words(verdict)])];
    return [
      h("div", { class: "head" }, h("h1", { tabindex: -1 }, about ? `Decisions about ${about}` : "Decisions")),
      h(
        "div",
        { class: "tools" },
        filter(ui, "Filter", page.redraw),
        choice("Verdict", options, ui.verdict ?? "", (value) => ((ui.verdict = value), page.redraw())),
      ),
      found.length
        ? h("ol", { class: "decisions" }, found.map((each) => h("li", { key: each.id }, article(each, page, ui.unfolded === each.id))))
        : h("p", { class: "quiet" }, "Gateways have reported nothing that had to be decided."),
      decisions.length >= PAGE && !ui.ended && h("p", {}, button("Show older ones", older)),
    ]; // prettier-ignore
  },
};

function asked(query, before = null) {
  const parameters = new URLSearchParams({ limit: PAGE });
  for (const name of ["service", "instance"]) if (query.get(name)) parameters.set(name, query.get(name));
  if (before !== null) parameters.set("before", before);
  return parameters;
}

/** One decision. */
export const decision = {
  title: ([id]) => `Decision ${id}`,
  concerns: () => false,
  load: ([id], _, signal) => call("GET", `/v1/decisions/${encodeURIComponent(id)}`, { signal }),
  draw: (found, ui, page) => [h("div", { class: "head" }, h("h1", { tabindex: -1 }, `Decision ${found.id}`)), article(found, page, true)],
};

function article(each, page, isOpen) {
  return h(
    "article",
    { class: "decision", "data-decision": each.id },
    h(
      "header",
      {},
      badge(each.verdict),
      h("strong", {}, each.instance),
      h("span", { class: "quiet" }, " of ", link(each.service, "services", each.service), `, generation ${each.generation}`),
      h("span", { class: "quiet end" }, link(time(each.at), "decisions", String(each.id))),
    ),
    h("p", {}, each.reason, h("span", { class: "rule", title: "the rule that decided" }, words(each.rule))),
    each.operation && h("p", {}, "Operation ", link(each.operation, "operations", each.operation)),
    h("details", { open: isOpen }, h("summary", {}, "Evidence"), shown(each.evidence)),
    each.verdict === "fatal" && page.may(each.service) && button("Clear…", () => clear(each, page)),
  );
}

function clear(each, page) {
  const [node, ...unit] = each.instance.split("/");
  const act = async (reason) => {
    await call("POST", `/v1/instances/${encodeURIComponent(node)}/${encodeURIComponent(unit.join("/"))}/clear`, { body: { reason } });
    tell(`${each.instance} may be restarted automatically again`, "good");
    page.refresh();
  };
  ask(`Clear ${each.instance}`, "How often it was restarted is forgotten; it may be restarted automatically again.", "Clear", act);
}
