/** Commands: a dialog that shows the plan before anything happens, and sends what was shown. */

import { call, newId } from "./api.js";
import { open, problemNote, reasonField, tell } from "./dialogs.js";
import { h } from "./dom.js";
import { count, duration, percent, sentence } from "./format.js";
import { badge, button, choice, route } from "./parts.js";

const PLAN_AFTER_MS = 250; // of quiet, while somebody types
const TAKES_AWAY = new Set(["restart", "stop", "drain"]);
const MUCH = 0.25; // of a service's weight at once: asked twice
const VERBS = {
  restart: "stop and start again, out of traffic meanwhile",
  drain: "take out of traffic, leave running",
  undrain: "put back into traffic",
  stop: "take out of traffic, finish, end",
  start: "start what is stopped",
};

/**
 * Open the dialog. `subject`: {name, select(verb)}; `select` gives (a promise of) a list of selections, each with
 * `expected` (a generation) or not; several become several operations.
 */
export function command(subject, verb, verbs = Object.keys(VERBS)) {
  new Command(subject, verb, verbs).open();
}

class Command {
  constructor(subject, verb, verbs) {
    Object.assign(this, { subject, verbs, verb, reason: "", force: false, minutes: "", sure: false, isBlank: false });
    this.form = null; // the strategy in the fields; null: the center's own, as its first plan tells
    this.atOnce = false;
    this.requests = [];
    this.plans = null;
    this.problem = "";
    this.busy = false;
    this.round = 0;
  }

  open() {
    this.shown = open(
      () => `${sentence(this.verb)} ${this.subject.name}`,
      (close) => this.draw(close),
      { wide: true, onClose: () => this.forget() },
    );
    this.plan();
  }

  forget() {
    this.round += 1;
    clearTimeout(this.timer);
    this.aborter?.abort();
  }

  redraw() {
    this.shown.redraw();
  }

  // The plan.

  change(values, later = false) {
    Object.assign(this, values, { plans: null, problem: "", sure: false });
    clearTimeout(this.timer);
    this.round += 1;
    this.timer = setTimeout(() => this.plan(), later ? PLAN_AFTER_MS : 0);
    this.redraw();
  }

  async plan() {
    const round = (this.round += 1);
    this.aborter?.abort();
    this.aborter = new AbortController();
    try {
      const selections = await this.subject.select(this.verb, this.aborter.signal);
      if (round !== this.round) return;
      const requests = selections.map((selection) => this.request(selection));
      const plans = await Promise.all(requests.map((body) => this.ask({ ...body, dry_run: true })));
      if (round !== this.round) return;
      Object.assign(this, { requests, plans, problem: "" });
      this.fill(plans);
    } catch (error) {
      if (round !== this.round) return;
      Object.assign(this, { plans: null, problem: error.message });
      // Nothing has told the center's own strategy yet, but the floor can be lowered.
      if (error.code === "floor" && this.form === null) Object.assign(this, { form: blank(), isBlank: true });
    }
    this.redraw();
  }

  ask(body) {
    return call("POST", "/v1/operations", { body, signal: body.dry_run ? this.aborter.signal : undefined });
  }

  /** What the center's own strategy is, once it has told. */
  fill(plans) {
    if (this.form !== null && !this.isBlank) return;
    const strategy = plans.find((plan) => plan.strategy)?.strategy;
    this.atOnce = !strategy;
    if (!strategy) return;
    const given = Object.entries(this.form ?? {}).filter(([, value]) => value !== "");
    const known = Object.entries(strategy).map(([name, value]) => [name, typeof value === "boolean" ? value : String(value)]);
    Object.assign(this, { form: Object.fromEntries([...known, ...given]), isBlank: false });
  }

  request({ expected, ...selection }) {
    const body = { command_id: newId(), verb: this.verb, selection, parameters: this.parameters() };
    if (expected !== undefined) body.expected_generation = expected;
    if (this.atOnce && this.chosen) body.strategy = null;
    else if (this.form && !this.atOnce) body.strategy = this.strategy();
    return body;
  }

  parameters() {
    if (this.force && (this.verb === "stop" || this.verb === "restart")) return { force: true };
    const minutes = Number(this.minutes);
    return this.verb === "drain" && this.minutes.trim() ? { for_seconds: minutes * 60 } : {};
  }

  strategy() {
    const strategy = { by_zone: this.form.by_zone };
    if (this.form.batch.trim()) strategy.batch = this.form.batch.trim();
    for (const name of ["canary", "bake_seconds", "floor_percent", "max_failures", "target_seconds"]) {
      if (this.form[name].trim()) strategy[name] = Number(this.form[name]);
    }
    return strategy;
  }

  get targets() {
    return this.plans?.flatMap((plan) => plan.targets) ?? [];
  }

  /** Services of which much goes at once. */
  get hit() {
    if (!TAKES_AWAY.has(this.verb)) return [];
    return (this.plans ?? []).flatMap((plan) =>
      plan.services.filter((service) => {
        const weight = plan.targets
          .filter((target) => target.service === service)
          .reduce((sum, target) => sum + target.weight, 0);
        const isKept = plan.strategy && plan.strategy.floor_percent > 0;
        return !isKept && weight > plan.baseline[service] * MUCH;
      }),
    );
  }

  async send() {
    if (!this.plans || this.busy || (this.hit.length && !this.sure)) return;
    Object.assign(this, { busy: true, problem: "" });
    this.redraw();
    try {
      const begun = [];
      // The ids stay the same when it has to be tried again: what has arrived already is not done twice.
      for (const body of this.requests) begun.push(await this.ask({ ...body, reason: this.reason }));
      this.shown.close();
      const place = begun.length === 1 ? route("operations", begun[0].id) : route("operations");
      tell(`${sentence(this.verb)} of ${this.subject.name} has begun`, "good", place);
      location.hash = place;
    } catch (error) {
      Object.assign(this, { busy: false, problem: error.message });
      this.redraw();
    }
  }

  // What is shown.

  draw(close) {
    const options = this.verbs.map((verb) => [verb, `${sentence(verb)}: ${VERBS[verb]}`]);
    const replan = (event) => (event.preventDefault(), this.change({}));
    return [
      h(
        "form",
        { on: { submit: replan } },
        this.verbs.length > 1 && choice("What", options, this.verb, (verb) => this.change({ verb, form: null, chosen: false })),
        this.drawOptions(),
        reasonField(this),
        h("section", { "aria-label": "Plan", class: "plan", "aria-live": "polite", "aria-busy": String(!this.plans) }, this.drawPlan()),
        this.drawWarning(),
        problemNote(this.problem),
        h(
          "footer",
          {},
          button("Cancel", close),
          this.problem && !this.plans && button("Plan again", () => this.change({})),
          button(this.promise, () => this.send(), {
            class: TAKES_AWAY.has(this.verb) ? "danger" : "main", "data-confirm": "",
            disabled: !this.plans || this.busy || (this.hit.length > 0 && !this.sure),
          }), // prettier-ignore
        ),
      ),
    ];
  }

  get promise() {
    return this.plans ? `${sentence(this.verb)} ${count(this.targets.length, "unit")}` : sentence(this.verb);
  }

  drawOptions() {
    const field = (name, text, props = {}) => this.drawNumber(name, text, props);
    return h(
      "fieldset",
      {},
      h("legend", {}, "How"),
      this.check("All at once", this.atOnce, (atOnce) => this.change({ atOnce, chosen: true, form: this.form ?? blank() })),
      !this.atOnce && this.form && [
        field("batch", "Batch", { type: "text", title: 'a number ("2") or a share ("25%") of each service' }),
        field("canary", "Canary units"),
        field("bake_seconds", "Bake, s"),
        field("floor_percent", "Floor, %", { max: 100 }),
        field("max_failures", "May fail"),
        field("target_seconds", "One may take, s"),
        this.check("Zone after zone", this.form.by_zone, (by_zone) => this.change({ form: { ...this.form, by_zone } })),
      ], // prettier-ignore
      (this.verb === "stop" || this.verb === "restart") &&
        this.check("By force: cut what is in flight", this.force, (force) => this.change({ force })),
      this.verb === "drain" && this.drawMinutes(),
    );
  }

  drawNumber(name, text, props) {
    const input = (event) => this.change({ form: { ...this.form, [name]: event.target.value } }, true);
    const kind = props.type ? {} : { inputmode: "decimal", min: 0, step: "any" };
    const field = { type: "number", name, value: this.form[name], required: true, ...kind, ...props, on: { input } };
    return h("label", { class: "field", key: name }, h("span", {}, text), h("input", field));
  }

  drawMinutes() {
    const input = (event) => this.change({ minutes: event.target.value }, true);
    const field = { type: "number", name: "minutes", min: 0, step: "any", value: this.minutes, placeholder: "until undrained" };
    return h("label", { class: "field" }, h("span", {}, "For, minutes"), h("input", { ...field, on: { input } }));
  }

  check(text, checked, onChange) {
    const change = (event) => onChange(event.target.checked);
    return h("label", { class: "check", key: text }, h("input", { type: "checkbox", checked, on: { change } }), h("span", {}, text));
  }

  drawPlan() {
    if (!this.plans) return h("p", { class: "quiet" }, this.problem ? "No plan." : "Planning…");
    const batches = this.plans.flatMap((plan) => plan.batches.map((batch) => [batch, plan.targets.filter((target) => target.batch === batch.number)]));
    return [
      h("h3", {}, `Plan: ${count(this.targets.length, "unit")} in ${count(batches.length, "batch", "batches")}`),
      h("p", { class: "quiet" }, this.plans.map((plan) => this.rules(plan)).find(Boolean)),
      h("ol", { class: "batches" }, batches.map(([batch, targets], index) => drawBatch(batch, targets, index))),
    ];
  }

  rules({ strategy, services }) {
    if (!strategy) return "All at once; nothing is waited for in between.";
    const held = services.length && strategy.floor_percent ? `at least ${percent(strategy.floor_percent)} of the weight of ${services.join(", ")} stays` : "no floor";
    const bake = strategy.canary && strategy.bake_seconds ? `; the canary must be well for ${duration(strategy.bake_seconds)}` : "";
    const failures = strategy.max_failures ? `; ends after more than ${count(strategy.max_failures, "failure")}` : "; ends at the first failure";
    return sentence(`${held}${bake}${failures}.`);
  }

  drawWarning() {
    if (!this.hit.length) return null;
    const change = (event) => ((this.sure = event.target.checked), this.redraw());
    return h(
      "div",
      { class: "warning" },
      h("p", {}, h("strong", {}, "No floor. "), `Nothing keeps the capacity of ${this.hit.join(", ")} up meanwhile.`),
      h("label", { class: "check" }, h("input", { type: "checkbox", checked: this.sure, name: "sure", on: { change } }), h("span", {}, "I mean it")),
    );
  }
}

function drawBatch(batch, targets, index) {
  const most = 12;
  const names = targets.slice(0, most).map((target) => h("li", { key: target.instance }, target.instance));
  const more = targets.length - most;
  return h(
    "li",
    { key: index },
    h("strong", {}, batch.name),
    h("span", { class: "quiet" }, ` ${count(targets.length, "unit")}`),
    h("ul", { class: "names" }, names, more > 0 && h("li", {}, `and ${more} more`)),
  );
}

function blank() {
  return { batch: "", canary: "", bake_seconds: "", floor_percent: "", max_failures: "", target_seconds: "", by_zone: true };
}

/** What an operation does, in a few words. */
export function title(operation) {
  const { services, nodes, units, instances, labels } = operation.selection;
  const named = [
    services.length && services.join(", "),
    instances.length && instances.join(", "),
    units.length && units.join(", "),
    nodes.length && `on ${nodes.join(", ")}`,
    Object.keys(labels).length && Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(", "),
  ]; // prettier-ignore
  const text = `${sentence(operation.verb)} ${named.filter(Boolean).join(" ")}`;
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}

/** The state of an operation, with what a person wants of it. */
export function stateOf(operation) {
  const isOpen = !operation.finished;
  if (isOpen && operation.wish === "abort") return badge("aborted", "aborting");
  if (isOpen && operation.wish === "pause" && operation.state !== "paused") return badge("paused", "pausing");
  return badge(operation.state);
}
