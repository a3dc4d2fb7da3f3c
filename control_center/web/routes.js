/** Addresses (`#/services/cart?x=y`) and the views that they mean. */

import { decision, decisions } from "./views/decisions.js";
import { events } from "./views/events.js";
import { logs } from "./views/logs.js";
import { node, nodes } from "./views/nodes.js";
import { operation, operations } from "./views/operations.js";
import { service, services } from "./views/services.js";

/** Sections, in the order in which they stand; `key`: the second key of the shortcut. */
export const SECTIONS = [
  { name: "services", title: "Services", key: "s" },
  { name: "operations", title: "Operations", key: "o" },
  { name: "nodes", title: "Nodes", key: "n" },
  { name: "decisions", title: "Decisions", key: "d" },
  { name: "events", title: "Events", key: "e" },
];

// "*": a name, which the view is given.
const ROUTES = [
  [["services"], services],
  [["services", "*"], service],
  [["operations"], operations],
  [["operations", "*"], operation],
  [["nodes"], nodes],
  [["nodes", "*"], node],
  [["nodes", "*", "units", "*", "logs"], logs],
  [["decisions"], decisions],
  [["decisions", "*"], decision],
  [["events"], events],
];

/** What an address means: {view, names, query, section}; `view` is null if it means nothing. */
export function find(hash) {
  const [place, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = decoded(place || "services");
  const query = new URLSearchParams(search);
  for (const [pattern, view] of ROUTES) {
    if (parts && pattern.length === parts.length && pattern.every((part, index) => part === "*" || part === parts[index])) {
      return { view, names: parts.filter((_, index) => pattern[index] === "*"), query, section: parts[0] };
    }
  }
  return { view: null, names: [], query, section: "" };
}

function decoded(place) {
  try {
    return place.split("/").map(decodeURIComponent);
  } catch {
    return null; // a stray % sign
  }
}
