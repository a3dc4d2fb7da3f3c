/** The control center's API: requests, problems, the token. */

const TOKEN = "unit-center token"; // in the session only: it is gone with the tab
const PATIENCE_MS = 35_000;

/** A refusal (`status`, `code` and words of the center), or no answer at all (`status` 0). */
export class Problem extends Error {
  constructor(status, code, detail, body = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.body = body;
  }
}

let token = remembered();
let onUnknown = () => {};

function remembered() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

/** Whether a token is in use. */
export function hasToken() {
  return token !== null;
}

/** Use that token from now on; null: none. */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, value);
  } catch {
    // Without storage it lasts until the page is loaded again.
  }
}

/** Who is told when the center does not know the caller. */
export function whenUnknown(handler) {
  onUnknown = handler;
}

/** Send a request; the answer's head has come, and is good. Throws Problem, or AbortError when `signal` says so. */
export async function send(method, path, { body, signal, headers } = {}) {
  const options = { method, signal, cache: "no-store", headers: { ...headers } };
  if (token !== null) options.headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error;
    throw new Problem(0, "no_answer", "the control center does not answer");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

/** The same, for a whole JSON answer. */
export async function call(method, path, { body, signal } = {}) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const both = signal ? AbortSignal.any([signal, patience]) : patience;
  const response = await send(method, path, { body, signal: both });
  noteTime(response);
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "no_answer", "the control center's answer broke off");
  }
}

async function problem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Something between us and the center answered in its own words.
  }
  const found = new Problem(response.status, body.code ?? "", body.detail ?? `HTTP ${response.status}`, body);
  if (response.status === 401) onUnknown(found);
  return found;
}

// The center's clock: what is "ago" must not depend on this machine's.

let ahead = 0; // milliseconds that the center's clock is ahead of ours

function noteTime(response) {
  const said = Date.parse(response.headers.get("Date") ?? "");
  const difference = said + 500 - Date.now();
  // The header has whole seconds: a difference within them is none.
  ahead = Number.isNaN(said) || Math.abs(difference) < 1500 ? 0 : difference;
}

/** The center's time in milliseconds. */
export function now() {
  return Date.now() + ahead;
}

/** An id that no other command has. crypto.randomUUID() would be missing outside of secure contexts. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A path from parts, some of which are names. */
export function path(parts, ...names) {
  return parts.reduce((whole, part, index) => whole + encodeURIComponent(names[index - 1]) + part);
}
