/** Shortcuts: single keys, where nobody writes and no dialog is open. They can be switched off (WCAG 2.1.4). */

import { SECTIONS } from "./routes.js";

const TOGETHER_MS = 1500; // between "g" and where to

/** Listen for the page's keys. */
export function listen(page) {
  let went = 0;
  page.keysOn = remembered();
  addEventListener("keydown", (event) => {
    if (!page.keysOn || event.ctrlKey || event.altKey || event.metaKey || isBusy(event.target)) return;
    const section = Date.now() - went < TOGETHER_MS && SECTIONS.find((each) => each.key === event.key);
    went = event.key === "g" ? Date.now() : 0;
    if (section) location.hash = `#/${section.name}`;
    else if (event.key === "?") page.help();
    else if (event.key === "t") page.switchTheme();
    else if (event.key === "/") document.querySelector("[data-filter]")?.focus();
    else return;
    event.preventDefault();
  });
}

function remembered() {
  try {
    return localStorage.getItem("keys") !== "off";
  } catch {
    return true;
  }
}

function isBusy(target) {
  return document.querySelector("dialog[open]") !== null || target.closest?.("input, select, textarea") !== null;
}
