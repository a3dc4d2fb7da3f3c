/** Dialogs, messages, and what is said to those who do not see the page. */

import { h, render } from "./dom.js";
import { button } from "./parts.js";

const SHOWN_MS = 8000;

/**
 * Open a modal dialog. `draw(close)` gives its content and is called again by the returned `redraw`.
 * `onClose()` is called however it was closed.
 */
export function open(title, draw, { wide = false, onClose = () => {} } = {}) {
  const id = `dialog-${(open.count = (open.count ?? 0) + 1)}`;
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", id);
  if (wide) dialog.className = "wide";
  document.body.append(dialog);
  const back = document.activeElement;
  const close = () => dialog.open && dialog.close();
  const redraw = () => render(dialog, h("h2", { id }, typeof title === "function" ? title() : title), draw(close));
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (back?.isConnected) back.focus({ preventScroll: true });
    onClose();
  });
  redraw();
  dialog.showModal();
  return { redraw, close, dialog };
}

/** A question with a reason to be given. `act(reason)` returns a promise; what it throws is shown. */
export function ask(title, text, verb, act, { danger = false, fields = () => null } = {}) {
  const state = { reason: "", busy: false, problem: "" };
  const submit = async (event) => {
    event.preventDefault();
    if (state.busy) return;
    Object.assign(state, { busy: true, problem: "" });
    shown.redraw();
    try {
      await act(state.reason);
      shown.close();
    } catch (error) {
      Object.assign(state, { busy: false, problem: error.message });
      shown.redraw();
    }
  };
  const shown = open(title, (close) =>
    h(
      "form",
      { on: { submit } },
      text && h("p", {}, text),
      fields(() => shown.redraw()),
      reasonField(state),
      problemNote(state.problem),
      h(
        "footer",
        {},
        button("Cancel", close),
        h("button", { type: "submit", class: danger ? "danger" : "main", disabled: state.busy }, verb),
      ),
    ),
  );
}

/** Where a reason is written; it is kept in the audit log. */
export function reasonField(state) {
  return h(
    "label",
    { class: "field" },
    h("span", {}, "Reason"),
    h("input", {
      type: "text", value: state.reason, maxlength: 1000, name: "reason", autocomplete: "off",
      placeholder: "kept and shown", on: { input: (event) => (state.reason = event.target.value) },
    }), // prettier-ignore
  );
}

/** What went wrong, read out when it appears. */
export function problemNote(text) {
  return h("div", { role: "alert" }, text && h("p", { class: "problem" }, text));
}

/** Ask for a token; `signIn(token)` throws a Problem if it is not good. Not closed without one. */
export function askForToken(why, signIn) {
  const state = { token: "", busy: false, problem: why };
  const submit = async (event) => {
    event.preventDefault();
    if (state.busy || !state.token.trim()) return;
    state.busy = true;
    shown.redraw();
    try {
      await signIn(state.token.trim());
      shown.close();
    } catch (error) {
      Object.assign(state, { busy: false, problem: error.message });
      shown.redraw();
    }
  };
  const shown = open("Sign in", () =>
    h(
      "form",
      { on: { submit } },
      h("p", {}, "This control center wants to know who you are. The token stays in this tab and is gone with it."),
      h(
        "label",
        { class: "field" },
        h("span", {}, "Token"),
        h("input", {
          type: "password", name: "token", autocomplete: "off", spellcheck: "false", required: true, autofocus: true,
          value: state.token, on: { input: (event) => (state.token = event.target.value) },
        }), // prettier-ignore
      ),
      problemNote(state.problem),
      h("footer", {}, h("button", { type: "submit", class: "main", disabled: state.busy }, "Sign in")),
    ),
  );
  // The first Escape is cancelled here; browsers close on the second one, so it is opened again where it belongs.
  shown.dialog.addEventListener("cancel", (event) => event.preventDefault());
  return shown;
}

// Messages.

const messages = [];

/** Show a message for a while, and have it read out. `look`: good | bad | calm. */
export function tell(text, look = "calm", href = null) {
  const message = { text, look, href, key: (tell.count = (tell.count ?? 0) + 1) };
  messages.push(message);
  if (messages.length > 4) messages.shift();
  drawMessages();
  announce(text);
  setTimeout(() => forget(message), SHOWN_MS);
}

function forget(message) {
  const index = messages.indexOf(message);
  if (index >= 0) messages.splice(index, 1);
  drawMessages();
}

function drawMessages() {
  render(
    document.getElementById("toasts"),
    messages.map((message) =>
      h(
        "div",
        { class: `toast ${message.look}`, key: message.key },
        message.href ? h("a", { href: message.href }, message.text) : h("span", {}, message.text),
        button("×", () => forget(message), { "aria-label": "Dismiss", class: "plain" }),
      ),
    ),
  );
}

/** Have something read out. */
export function announce(text) {
  const place = document.getElementById("announcer");
  place.textContent = place.textContent === text ? `${text}\u00a0` : text; // the same again is new all the same
}
