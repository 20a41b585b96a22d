/*
 * Shows a record: backbeat.show(record, root, switches?) draws a comparison, advice or a run and returns {update(record)}, which
 * draws a newer record in its place and keeps the switches as they are. A report holds its record in the page itself.
 */
"use strict";
(() => {
  const { make } = backbeat.words;
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function themeButton() {
    const button = make("button", {
      type: "button",
      class: "theme",
      onclick: () => {
        root.dataset.theme = isDark() ? "light" : "dark";
        name();
        backbeat.charts.redrawAll();
      },
    });
    const name = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
    };
    name();
    system.addEventListener("change", () => {
      name();
      backbeat.charts.redrawAll();
    });
    return button;
  }

  /* Paper is white and narrow, whatever the screen. */
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    root.classList.add("printing");
    backbeat.charts.fitAll();
    backbeat.charts.redrawAll();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    root.classList.remove("printing");
    backbeat.charts.fitAll();
    backbeat.charts.redrawAll();
  });

  backbeat.themeButton = themeButton;
  backbeat.show = (first, host, state = {}) => {
    const bar = make("header", { class: "top" }, make("span", { class: "brand", text: "backbeat" }), themeButton());
    const main = make("main", { class: "page" });
    const foot = make("footer", { class: "page foot" });
    host.replaceChildren(bar, main, foot);
    function draw(record) {
      backbeat.charts.clear();
      main.replaceChildren();
      const { comparison, advice, run } = backbeat;
      ({ comparison, advice, run })[record.kind](record, main, state);
      foot.textContent = `backbeat ${record.backbeat || ""} · ${String(record.created || "").slice(0, 10)}`;
    }
    draw(first);
    return { update: draw };
  };

  const embedded = document.getElementById("record");
  if (embedded) backbeat.show(JSON.parse(embedded.textContent), document.getElementById("page"));
})();
