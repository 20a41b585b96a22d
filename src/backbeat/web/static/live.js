/*
 * The live page: the list of runs at #/, one run, comparison or advice at #/NAME. The server says by an event stream
 * what has changed; what is shown is then asked for anew, at most once a second. All addresses are relative to the
 * page's own, which holds the token.
 */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { make } = words;
  const EVERY_MS = 1000;
  const FEW = 12; // names in one address
  const host = document.getElementById("live");
  const top = make("nav", { class: "where", "aria-label": "Where this page is" });
  const fresh = make("span", { class: "fresh", role: "status", text: "connecting" });
  const inside = make("div", {});
  host.append(inside);
  const state = { overview: {}, runs: {} };
  let shown = null; // {name, update(), version}
  let controlled = false; // whether runs may be changed from here
  let only = null; // the name of the run, where the page is of one run
  let versions = {};
  let first = null; // the answer that the page begins with
  let busy = false;
  let again = false;
  let timer = null;

  async function get(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" } });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}.`);
    return found;
  }
  async function ask(name, wish) {
    const headers = { accept: "application/json", "content-type": "application/json" };
    const answer = await fetch(`api/runs/${encodeURIComponent(name)}/control`, {
      method: "POST",
      headers,
      body: JSON.stringify(wish),
    });
    if (!answer.ok) throw new Error((await answer.json()).error || `The server answered ${answer.status}.`);
  }
  const api = {
    runs: () => get("api/runs"),
    run: (name) => get(`api/runs/${encodeURIComponent(name)}`),
    /* Of many all are asked for: their names would not fit into an address. */
    curves: (names) => get(`api/curves?${names.length > FEW ? "" : names.map((n) => `run=${encodeURIComponent(n)}`).join("&")}`),
  };

  const say = (text, kind = "") => {
    fresh.className = `fresh ${kind}`;
    if (fresh.textContent !== text) fresh.textContent = text;
  };
  /* Whoever points at a chart, reads it by keys or has looked closer is not disturbed by a new drawing. */
  const looking = () =>
    (moved && inside.querySelector(".chart:hover")) || inside.querySelector(".chart:focus-visible") || charts.zoomed();
  let moved = false; // whether the pointer has moved since something was opened: it may lie there by chance
  inside.addEventListener("pointermove", (event) => (moved ||= Boolean(event.movementX || event.movementY)));

  function where() {
    const name = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
    return name || only || "";
  }

  async function openOverview() {
    const top = make("header", { class: "top" }, make("span", { class: "brand", text: "backbeat" }), backbeat.themeButton());
    const main = make("main", { class: "page" });
    charts.clear();
    inside.replaceChildren(top, nav(""), main);
    document.title = "Runs · backbeat";
    const view = backbeat.overview(main, state.overview, { curves: api.curves });
    const newest = async () => {
      const { runs, one } = await known();
      return view.update(runs, one ? "It has not begun to be recorded yet." : "");
    };
    shown = { name: "", version: null, update: newest };
  }

  /* Of a page of one run it is known which one as soon as that is there. */
  async function asked() {
    const runs = await api.runs();
    if (runs.one && runs.runs.length) only = runs.runs[0].name;
    controlled = Boolean(runs.control);
    return runs;
  }

  /* The runs: once those that the page began with, then always the newest. */
  async function known() {
    const runs = first || (await asked());
    first = null;
    return runs;
  }

  async function openRun(name) {
    if (!(await known()).runs.some((run) => run.name === name)) throw new Error(`There is no such run: ${name}.`);
    const version = versions[name]; // before it is asked for: what comes meanwhile is asked for again
    const record = await api.run(name);
    const box = make("div", {});
    state.runs[name] ||= {};
    inside.replaceChildren(box);
    const view = backbeat.show(record, box, state.runs[name]);
    const control = controlled && record.kind === "run" ? backbeat.control(name, ask) : null;
    box.querySelector("header.top").after(nav(name), ...(control ? [control.element] : []));
    control?.update(record);
    document.title = `${name} · backbeat`;
    const update = async () => {
      const newest = await api.run(name);
      control?.update(newest);
      view.update(newest);
    };
    shown = { name, version, update, glance: async () => control?.update(await api.run(name)) };
  }

  function nav(name) {
    top.replaceChildren();
    if (!only && name) top.append(make("a", { href: "#/", text: "All runs" }));
    if (name) top.append(make("span", { text: name }));
    top.append(fresh);
    return top;
  }

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const name = where();
      if (!shown || shown.name !== name) {
        moved = false;
        await (name ? openRun(name) : openOverview());
        if (!name) await shown.update();
      } else if (name === "" || shown.version !== versions[name]) {
        if (looking()) {
          await shown.glance?.();
          say("waiting while you look", "held");
          again = true;
          return;
        }
        const view = shown;
        const version = versions[name];
        await view.update();
        view.version = version;
      }
      say("up to date");
    } catch (error) {
      say(error.message, "lost");
      if (!shown || shown.name !== where()) {
        shown = null;
        const words = make("p", { class: "empty", text: error.message });
        inside.replaceChildren(make("main", { class: "page" }, make("h1", { text: "Runs" }), words, nav(where())));
      }
    } finally {
      busy = false;
      again ||= Boolean(shown && shown.name !== where());
      if (again) {
        again = false;
        later();
      }
    }
  }
  function later() {
    timer ??= setTimeout(() => {
      timer = null;
      refresh();
    }, EVERY_MS);
  }

  addEventListener("hashchange", refresh);

  async function start() {
    try {
      first = await asked();
    } catch (error) {
      say(error.message, "lost");
    }
    await refresh();
    const stream = new EventSource("api/changes");
    stream.addEventListener("changed", (event) => {
      versions = JSON.parse(event.data).runs;
      later();
    });
    stream.onopen = () => say("up to date");
    stream.onerror = () => {
      const over = stream.readyState === EventSource.CLOSED;
      say(over ? "the server was started anew; open the address that it printed" : "the connection is lost; trying again", "lost");
    };
  }
  start();
})();
