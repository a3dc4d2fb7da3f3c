/** Numbers, times and names as people read them. */

import { now } from "./api.js";

/** "1 unit", "3 units". */
export function count(number, noun, plural = `${noun}s`) {
  return `${number} ${number === 1 ? noun : plural}`;
}

/** "45 s", "3 min 5 s", "2 h 10 min", "4 d 3 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, seconds);
  if (whole < 10 && whole % 1 !== 0) return `${whole.toFixed(1)} s`;
  if (whole < 60) return `${Math.floor(whole)} s`;
  if (whole < 3600) return pair(whole, 60, "min", 1, "s");
  if (whole < 86400) return pair(whole, 3600, "h", 60, "min");
  return pair(whole, 86400, "d", 3600, "h");
}

function pair(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** Seconds from one ISO time to another, or until now. */
export function between(from, to = null) {
  return ((to === null ? now() : Date.parse(to)) - Date.parse(from)) / 1000;
}

/** The time of day; with the date if it is another day. */
export function moment(iso) {
  const date = new Date(iso);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const isToday = date.toDateString() === new Date(now()).toDateString();
  return isToday ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

/** 82.5 -> "82.5 %", 100 -> "100 %". */
export function percent(number) {
  return `${Math.round(number * 10) / 10} %`;
}

/** Words of a state or a key: "would_restart" -> "would restart". */
export function words(text) {
  return text.replaceAll("_", " ");
}

/** First letter large. */
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}

/** fnmatch, as rights are written: * ? [abc] [!abc]. */
export function matches(glob, name) {
  const pattern = glob.replace(/\[(!?)([^\]]+)\]|[\\^$.*+?()[\]{}|]/g, (found, not, set) => {
    if (set !== undefined) return `[${not ? "^" : ""}${set.replaceAll("\\", "\\\\")}]`;
    return { "*": ".*", "?": "." }[found] ?? `\\${found}`;
  });
  return new RegExp(`^(?:${pattern})$`, "s").test(name);
}
