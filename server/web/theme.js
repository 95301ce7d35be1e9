// Runs before the first paint, so that a page in dark mode does not flash white. A choice made here is remembered;
// without one the system's preference holds.
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("shoal-theme");
  } catch {
    chosen = null; // storage is blocked: the choice lasts as long as the page
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showState = () => document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  function choose(theme) {
    root.dataset.theme = theme;
    try {
      localStorage.setItem("shoal-theme", theme);
    } catch {
      // as above
    }
    showState();
  }

  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  system.addEventListener("change", showState);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => choose(isDark() ? "light" : "dark"));
    showState();
  });
})();
