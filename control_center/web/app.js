/**
 * The page: which view is shown, when it is loaded anew, and what all views share.
 *
 * A view is {title, load, draw, concerns}: `load` asks the API, `draw` makes elements of the answer, `concerns` says
 * whether an event changes it. It is loaded each two seconds while somebody can see it, and at once when an event
 * concerns it. One view is loaded at a time, and its answer is dropped if another is shown by then.
 */

import { call, hasToken, setToken, whenUnknown } from "./api.js";
import { announce, askForToken } from "./dialogs.js";
import { h, render } from "./dom.js";
import { matches, moment } from "./format.js";
import { listen } from "./keys.js";
import { button } from "./parts.js";
import { find } from "./routes.js";
import { Follower } from "./stream.js";
import { drawTop, showHelp, switchTheme } from "./top.js";

const EACH_MS = 2000;
const CENTER_EACH_MS = 10_000;
const CALM_MS = 150; // events that come together load a view once
const KEPT_EVENTS = 500;
const OPERATE = new Set(["operate", "admin"]);

class Page {
  constructor() {
    this.main = document.getElementById("main");
    Object.assign(this, { center: null, connection: "connecting", events: [], section: "", asking: null, keysOn: true });
    Object.assign(this, { route: null, found: undefined, problem: null, loadedAt: null, loading: null, states: new Map() });
    this.follower = new Follower((event) => this.happened(event), (state) => this.turn(state));
    this.redraw = this.redraw.bind(this);
    this.refresh = this.refresh.bind(this);
    this.signOut = this.signOut.bind(this);
  }

  async start() {
    whenUnknown((problem) => this.askForToken(problem));
    listen(this);
    addEventListener("hashchange", () => this.show());
    document.addEventListener("visibilitychange", () => this.appear());
    addEventListener("online", () => this.follower.hurry());
    this.show(false);
    await this.loadCenter();
  }

  /** A page that nobody sees asks for nothing: browsers allow six connections to a center, all tabs together. */
  appear() {
    clearTimeout(this.timer);
    if (document.hidden) return this.follower.stop();
    if (!this.center) return;
    this.follower.start();
    this.loadCenter();
    this.refresh();
  }

  // Who the caller is.

  async loadCenter() {
    clearTimeout(this.centerTimer);
    try {
      const center = await call("GET", "/v1/center");
      if (this.center && center.id !== this.center.id) return location.reload(); // another fleet altogether
      const isFirst = this.center === null;
      this.center = center;
      this.forbidden = null;
      if (isFirst) this.begin();
    } catch (error) {
      if (error.status === 403) this.forbidden = error.message;
    }
    if (this.forbidden) this.askForToken({ message: this.forbidden });
    drawTop(this);
    if (!document.hidden && !this.asking) this.centerTimer = setTimeout(() => this.loadCenter(), CENTER_EACH_MS);
  }

  begin() {
    if (!document.hidden) this.follower.start();
    this.refresh();
  }

  get hasToken() {
    return hasToken();
  }

  /** Whether the caller's role suffices: "operate" or "admin". */
  can(right) {
    const role = this.center?.principal.role;
    return right === "admin" ? role === "admin" : OPERATE.has(role);
  }

  /** Whether the caller may command units of a service; null: units without one. */
  may(service) {
    if (!this.can("operate")) return false;
    return this.center.principal.services.some((glob) => glob === "*" || (service !== null && matches(glob, service)));
  }

  askForToken(problem) {
    if (this.asking) return;
    this.follower.stop();
    clearTimeout(this.timer);
    const why = hasToken() ? problem.message : "";
    this.asking = askForToken(why, async (token) => {
      setToken(token);
      this.center = await call("GET", "/v1/center");
      this.forbidden = null;
      this.asking = null;
      this.events = [];
      this.follower.last = null;
      this.loadCenter();
      this.begin();
    });
  }

  signOut() {
    setToken(null);
    location.reload(); // nothing of what was shown stays
  }

  // What is shown.

  show(byPerson = true) {
    this.loading?.abort();
    this.leave();
    const route = find(location.hash);
    Object.assign(this, { route, section: route.section, found: undefined, problem: null, isFresh: byPerson });
    if (!this.states.has(location.hash)) this.states.set(location.hash, {});
    this.ui = this.states.get(location.hash);
    this.redraw();
    scrollTo(0, 0);
    if (this.center) this.refresh();
  }

  leave() {
    this.route?.view?.leave?.(this.ui);
  }

  /** Ask the API again, and draw. */
  async refresh() {
    const { route, ui } = this;
    clearTimeout(this.timer);
    if (!route?.view) return;
    if (this.loading) {
      this.again = true;
      return;
    }
    this.again = false;
    const loading = (this.loading = new AbortController());
    try {
      const found = await route.view.load(route.names, ui, loading.signal, route.query);
      if (route !== this.route) return;
      Object.assign(this, { found, problem: null, loadedAt: new Date().toISOString() });
    } catch (error) {
      if (route !== this.route || error.name === "AbortError") return;
      this.fail(error);
    } finally {
      if (this.loading === loading) this.loading = null;
      if (route !== this.route && !this.loading && this.center) this.refresh();
    }
    this.redraw();
    if (!document.hidden && !this.asking && !route.view.isStill) {
      this.timer = setTimeout(this.refresh, this.again ? CALM_MS : EACH_MS);
    }
  }

  fail(error) {
    if (!("status" in error)) throw error; // a mistake of this page: the browser's console tells of it
    if (error.status === 0 && this.reached !== "away") announce("Not connected to the control center");
    this.problem = error;
    if (error.status === 404) this.found = undefined; // it was there, and is not any more
  }

  redraw() {
    const { route, found, problem } = this;
    document.title = `${this.titleOf(route, found)} · ${this.center?.name ?? "Fleet"}`;
    drawTop(this);
    this.drawBanner();
    render(this.main, this.content(route, found, problem));
    if (found !== undefined) route.view?.ready?.(this.main, this.ui);
    if (this.isFresh && (found !== undefined || problem)) {
      this.isFresh = false;
      (this.main.querySelector("h1") ?? this.main).focus({ preventScroll: true });
    }
  }

  titleOf({ view, names }, found) {
    return view ? view.title(names, found) : "Nothing here";
  }

  content(route, found, problem) {
    // Each view has its own element, so that nothing of one is taken for a part of another.
    const key = location.hash || "#/services";
    if (!route.view) return h("div", { key: "none" }, h("h1", { tabindex: -1 }, "There is nothing here"), h("p", {}, h("a", { href: "#/services" }, "To the services")));
    if (found !== undefined) return h("div", { key, class: "view" }, route.view.draw(found, this.ui, this, route.names));
    if (problem && problem.status !== 0 && problem.status !== 401) return h("div", { key: `problem ${key}` }, h("h1", { tabindex: -1 }, "Not to be shown"), h("p", { class: "problem" }, problem.message));
    return h("p", { key: "loading", class: "quiet" }, this.center ? "Loading…" : "");
  }

  // The connection.

  /** How it is: a stream may be open still when questions are not answered any more. */
  get reached() {
    return this.problem?.status === 0 ? "away" : this.connection;
  }

  turn(state) {
    if (state === this.connection) return;
    const before = this.connection;
    this.connection = state;
    if (state === "away") announce("Not connected to the control center");
    if (state === "live" && before === "away") {
      announce("Connected again");
      this.loadCenter();
      this.refresh();
    }
    drawTop(this);
    this.drawBanner();
  }

  drawBanner() {
    const isOld = this.reached === "away" || (this.problem !== null && this.found !== undefined && this.problem.status !== 401);
    const since = this.loadedAt ? `What you see is from ${moment(this.loadedAt)}.` : "";
    const why = this.problem?.status ? this.problem.message : "The control center does not answer.";
    render(
      document.getElementById("banner"),
      isOld && h("p", { class: "away" }, h("strong", {}, "Not connected. "), `${why} ${since} `, button("Try now", () => (this.follower.hurry(), this.refresh()))),
      this.center?.registry.state === "away" && h("p", { class: "away" }, h("strong", {}, "The registry is away. "), "What is shown of services is the last that was known; nothing is begun."),
      this.center && !this.center.leader && !this.center.leader_name && h("p", { class: "away" }, h("strong", {}, "No control center leads. "), "Operations do not go on."),
    ); // prettier-ignore
  }

  happened(event) {
    this.events.push(event);
    if (this.events.length > KEPT_EVENTS) this.events.shift();
    if (event.type === "mode") this.loadCenter();
    if (event.type === "operation") this.tellOfEnd(event.body);
    if (!this.route?.view?.concerns(event, this.route.names)) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(this.refresh, CALM_MS);
  }

  /** Outcomes are read out; steps are not. */
  tellOfEnd({ id, state, verb, services }) {
    const shown = this.route?.names[0] === id;
    if (shown && ["succeeded", "failed", "aborted", "expired"].includes(state)) announce(`${verb} ${(services ?? []).join(", ")}: ${state}`);
  }

  // Keys.

  setKeys(on) {
    this.keysOn = on;
    try {
      localStorage.setItem("keys", on ? "on" : "off");
    } catch {
      // It lasts until the page is loaded again.
    }
  }

  help() {
    showHelp(this);
  }

  switchTheme() {
    switchTheme();
  }
}

new Page().start();
