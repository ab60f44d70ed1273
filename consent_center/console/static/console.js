// What pages need beyond htmx: the remembered theme, a menu that closes on phones, questions before acts.
"use strict";
(function () {
  const root = document.documentElement;
  const stored = (() => { try { return localStorage.getItem("pec-theme"); } catch { return null; } })();
  if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  root.classList.add("js");

  document.addEventListener("DOMContentLoaded", () => {
    const menu = document.querySelector("details.menu");
    const wide = window.matchMedia("(min-width: 60rem)");
    const fit = () => { if (menu) menu.open = wide.matches; };
    fit();
    wide.addEventListener("change", fit);

    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-theme-switch]");
      if (button) {
        const dark = root.dataset.theme
          ? root.dataset.theme === "dark"
          : window.matchMedia("(prefers-color-scheme: dark)").matches;
        root.dataset.theme = dark ? "light" : "dark";
        try { localStorage.setItem("pec-theme", root.dataset.theme); } catch { /* private window: not remembered */ }
      }
      const print = event.target.closest("[data-print]");
      if (print) window.print();
    });
    document.addEventListener("submit", (event) => {
      const question = event.submitter?.dataset.confirm || event.target.dataset.confirm;
      if (question && !window.confirm(question)) event.preventDefault();
    }, true);
  });
})();
