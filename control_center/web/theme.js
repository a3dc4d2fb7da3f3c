// Light or dark as chosen before, set before anything is painted; without a choice the system's preference holds.
// No module: modules run after the first paint.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is switched off: nothing was chosen.
}
