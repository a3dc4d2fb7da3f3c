/** What happens in the fleet, as it happens: server-sent events by a streaming fetch, which can send a token. */

import { Problem, send } from "./api.js";

const SILENCE_MS = 40_000; // the center sends something each 15 s
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const NEWEST = 200; // events of the past that are asked for in the beginning

/** Text as it comes; ends with the response. */
export async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
  } finally {
    await reader.cancel().catch(() => {}); // it has failed or ended already
  }
}

/** Follows the center's events through broken connections. */
export class Follower {
  /** `onEvent(event)`; `onState("live" | "connecting" | "away")`. */
  constructor(onEvent, onState) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.last = null;
    this.running = null;
  }

  /** Begin, or go on after the last event that was seen. */
  start() {
    if (this.running) return;
    this.running = new AbortController();
    this.follow(this.running.signal);
  }

  /** Stop; nothing more is told. */
  stop() {
    this.running?.abort();
    this.running = null;
  }

  /** Connect now if it waits to. */
  hurry() {
    this.wake?.();
  }

  async follow(signal) {
    let wait = FIRST_WAIT_MS;
    this.onState("connecting");
    while (!signal.aborted) {
      try {
        await this.listen(signal, () => (wait = FIRST_WAIT_MS));
      } catch (error) {
        if (signal.aborted) return;
        // A caller who is not known, or may not read, is asked for a token; that starts it anew.
        if (error instanceof Problem && (error.status === 401 || error.status === 403)) return this.stop();
      }
      if (signal.aborted) return;
      this.onState("away");
      await this.pause(wait * (0.5 + Math.random() / 2), signal);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  async listen(signal, onLife) {
    const silent = new AbortController();
    const headers = this.last === null ? {} : { "Last-Event-ID": String(this.last) };
    const query = this.last === null ? `?newest=${NEWEST}` : "";
    const both = AbortSignal.any([signal, silent.signal]);
    let timer = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const response = await send("GET", `/v1/events${query}`, { signal: both, headers });
      this.onState("live");
      let rest = "";
      for await (const piece of pieces(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENCE_MS);
        onLife();
        rest = this.read(rest + piece);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whole events are told; what is left of the text is given back. */
  read(text) {
    const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
    const rest = blocks.pop();
    for (const block of blocks) {
      const data = block
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (!data.length) continue; // a comment
      const event = JSON.parse(data.join("\n"));
      this.last = event.seq;
      this.onEvent(event);
    }
    return rest;
  }

  pause(milliseconds, signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", this.wake, { once: true });
    });
  }
}
