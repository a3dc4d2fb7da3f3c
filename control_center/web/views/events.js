/** What happened, newest first, as it comes. */

import { h } from "../dom.js";
import { sentence, words } from "../format.js";
import { badge, choice, filter, link, time } from "../parts.js";

const SHOWN = 200;
const TYPES = ["operation", "decision", "node", "service", "gateway", "mode"];

/** The list. It loads nothing: events come by themselves. */
export const events = {
  title: () => "Events",
  concerns: () => true,
  load: async () => true,

  draw(_, ui, page) {
    const wanted = (ui.filter ?? "").toLowerCase();
    const isMeant = (event) =>
      (!ui.type || event.type === ui.type) && `${event.type} ${JSON.stringify(event.body)}`.toLowerCase().includes(wanted);
    const found = page.events.filter(isMeant).slice(-SHOWN).reverse();
    const options = [["", "all"], ...TYPES.map((type) => [type, type])];
    return [
      h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Events")),
      h(
        "div",
        { class: "tools" },
        filter(ui, "Filter", page.redraw),
        choice("Type", options, ui.type ?? "", (value) => ((ui.type = value), page.redraw())),
      ),
      found.length
        ? h("ol", { class: "events" }, found.map((event) => h("li", { key: event.seq }, time(event.at), h("span", { class: "type" }, event.type), h("span", {}, told(event)))))
        : h("p", { class: "quiet" }, "Nothing has happened yet."),
    ]; // prettier-ignore
  },
};

function told({ type, body }) {
  const teller = TELLERS[type];
  return teller ? teller(body) : rest(body);
}

const TELLERS = {
  operation: (body) => [
    link(`${sentence(body.verb)}${body.services?.length ? ` ${body.services.join(", ")}` : ""}`, "operations", body.id),
    " ", badge(body.state), " ",
    body.error ?? ((body.targets ?? []).slice(0, 3).map((target) => `${target.instance} ${target.state}${target.steps ? ` (${target.steps})` : ""}`).join(", ") || body.waiting_for),
  ],
  decision: (body) => [badge(body.verdict), " ", link(body.instance, "decisions", String(body.id)), `: ${body.reason}`],
  node: (body) => [link(body.node, "nodes", body.node), " ", badge(body.state), ` was ${body.before}`, body.detail && `: ${body.detail}`],
  mode: (body) => `${words(body.before)} → ${words(body.mode)}, by ${body.by}${body.reason ? `: ${body.reason}` : ""}`,
  gateway: (body) => `${body.gateway}${body.doubted ? ` is doubted: ${body.doubted}` : " is believed again"}`,
  service: (body) =>
    body.cleared_by
      ? `${body.service ?? body.instance} cleared by ${body.cleared_by}${body.reason ? `: ${body.reason}` : ""}`
      : [link(body.service, "services", body.service), body.frozen ? `: frozen: ${body.frozen}` : ": automatic restarts are possible again"],
}; // prettier-ignore

function rest(body) {
  return Object.entries(body).map(([name, value]) => `${words(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}
