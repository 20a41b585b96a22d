/*
 * What may be asked of a run that goes on, where the page was started with --control: pause, go on, stop, another
 * learning rate. backbeat.control(name, ask) returns {element, update(record)}; it stays as it is while the page is
 * drawn anew, so that nobody loses what they write. ask(name, wish) sends it, or throws what was answered.
 */
"use strict";
(() => {
  const { make } = backbeat.words;
  const RATE = "The learning rate must be a number above 0, for example 0.05.";
  const ASKED = {
    pause: "Asked to pause; it does so after some more updates.",
    go_on: "Asked to go on.",
    stop: "Asked to stop; it does so after some more updates.",
    learning_rate: "Asked for another learning rate.",
  };
  const LOST = "The connection is lost; nothing was asked.";

  /* The learning rate before any schedule, as it was last set. */
  function rateOf(record) {
    const set = (record.changes || []).filter((change) => change.what === "learning_rate");
    return set.length ? set.at(-1).value : record.learning_rate;
  }

  backbeat.control = (name, ask) => {
    let changes = null; // how many have been told
    let rate = null; // as it is set, and as the field had it
    let paused = false;
    const status = make("p", { class: "told", role: "status", tabindex: "-1" });
    const say = (text, kind = "") => {
      status.className = `told ${kind}`;
      status.textContent = text;
    };
    async function send(wish) {
      say(ASKED[wish.what]);
      try {
        await ask(name, wish);
      } catch (error) {
        say(error instanceof TypeError ? LOST : error.message, "lost");
      }
    }

    const wait = make("button", { type: "button", class: "wait", onclick: () => send({ what: paused ? "go_on" : "pause" }) });
    const stop = make("button", { type: "button", class: "stop", text: "Stop …", onclick: () => asking(true) });
    const sure = make("button", {
      type: "button",
      class: "sure",
      text: "Stop it",
      onclick: () => {
        asking(false);
        send({ what: "stop" });
      },
    });
    const not = make("button", { type: "button", class: "not", text: "Keep training", onclick: () => asking(false) });
    const confirm = make(
      "div",
      { class: "confirm", role: "group", "aria-label": "Stop the run?", hidden: true },
      make("span", { text: "Stop the run? It keeps what it has learned, and can be resumed later." }),
      sure,
      not,
    );
    confirm.addEventListener("keydown", (event) => {
      if (event.key === "Escape") asking(false);
    });
    function asking(on) {
      confirm.hidden = !on;
      stop.hidden = on;
      (on ? not : stop).focus(); // whoever presses Enter twice has stopped nothing
    }

    const field = make("input", {
      id: "control-rate", type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", size: "8",
    }); // prettier-ignore
    const form = make(
      "form",
      { novalidate: true },
      make("label", { for: "control-rate", text: "Learning rate" }),
      field,
      make("button", { text: "Change" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value.trim();
      const value = Number(text);
      const good = text !== "" && Number.isFinite(value) && value > 0;
      field.setAttribute("aria-invalid", String(!good));
      if (good) send({ what: "learning_rate", value });
      else say(RATE, "lost");
    });
    const fixed = make("p", { class: "fixed", hidden: true });
    const buttons = make("div", { class: "row" }, wait, form, stop, confirm);
    const element = make("section", { id: "control", "aria-label": "Control of the run", hidden: true }, buttons, fixed, status);

    function update(record) {
      const running = record.kind === "run" && record.state === "running";
      const all = record.changes || [];
      if (changes !== null && all.length > changes) {
        say(`${all.slice(changes).map(({ sentence }) => sentence[0].toUpperCase() + sentence.slice(1)).join(". ")}.`);
      }
      changes = all.length;
      paused = Boolean(record.paused);
      wait.textContent = paused ? "Go on" : "Pause";
      const newest = rateOf(record);
      if (newest !== rate) {
        if (field.value === "" || Number(field.value) === rate || document.activeElement !== field) field.value = String(newest ?? "");
        rate = newest;
      }
      form.hidden = Boolean(record.rate_fixed);
      fixed.hidden = !running || !record.rate_fixed;
      fixed.textContent = record.rate_fixed || "";
      if (!running && buttons.contains(document.activeElement)) status.focus();
      buttons.hidden = !running;
      if (running) element.hidden = false; // what was told last stays after the end
      if (!running && !status.textContent) element.hidden = true;
    }
    return { element, update };
  };
})();
