/* What a page does beyond links and forms: it stays up to date, swaps parts without losing the place, and has keys.
   Without this script every page works; it only has to be loaded again. Nothing stored is ever made markup here. */
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const page = () => $("#page");

  /* -- swapping the page for a newer one of the same place ------------------------------------------------------- */
  /* What is fetched for a visitor; a page that renews itself gives way to it, and does that afterwards. */
  let busy = null, missed = false, renewing = null;
  function swap(address, { push = false, quiet = false } = {}) {
    if (quiet && busy) { missed = true; return Promise.resolve(); }
    busy?.abort();
    renewing?.abort();
    const mine = new AbortController();
    if (quiet) renewing = mine; else busy = mine;
    return fetch(address, { signal: mine.signal, headers: { "HX-Request": "true" } }).then(async (answer) => {
      const text = await answer.text();
      if (mine.signal.aborted) return;
      if (quiet && !answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(text, "text/html");
      const next = fresh.getElementById("page");
      if (!next) { location.assign(address); return; }
      if (push && address !== location.pathname + location.search) history.pushState({ swapped: true }, "", address);
      document.title = fresh.title;
      await morph(text);
    }).finally(() => {
      if (busy !== mine) return;
      busy = null;
      if (missed) { missed = false; again(); }
    });
  }
  /* The server's own text, never one that was read and written again: there every "<" of a value is escaped, also in
     attributes, and htmx looks for tags of its own in it by pattern. */
  async function morph(text) {
    const held = document.activeElement?.id;
    await htmx.swap({ sourceElement: page(), target: page(), text, select: "#page", swap: "outerMorph" });
    if (held && document.activeElement?.id !== held) document.getElementById(held)?.focus({ preventScroll: true });
    drawn = Date.now();
    dress();
    watch();
  }

  /* -- live ------------------------------------------------------------------------------------------------------ */
  let source = null, watched = "";
  const liveness = $("#liveness");
  function say(state, word) {
    if (!liveness) return;
    liveness.hidden = false;
    liveness.className = "liveness " + state;
    $(".word", liveness).textContent = word;
  }
  function watch() {
    const { live, mark } = page()?.dataset ?? {};
    if (!live) { source?.close(); source = null; watched = ""; if (liveness) liveness.hidden = true; return; }
    if (source && watched === live && source.readyState !== EventSource.CLOSED) return;
    source?.close();
    watched = live;
    source = new EventSource(live + (live.includes("?") ? "&" : "?") + "seen=" + encodeURIComponent(mark ?? ""));
    source.onopen = () => say("on", "Live");
    source.onerror = () => say("off", "Reconnecting");
    source.addEventListener("changed", () => again());
  }
  let waiting = null;
  function again() {
    if (document.hidden) { waiting = true; return; }
    waiting = false;
    const form = document.activeElement?.closest?.("form[data-live-form]");
    if (form && form.dataset.typing) return;
    swap(location.pathname + location.search, { quiet: true }).catch((error) => {
      if (error.name !== "AbortError") say("off", "Reconnecting");
    });
  }
  let drawn = Date.now();
  setInterval(() => {
    const seconds = Number(page()?.dataset.refresh ?? 0);
    if (seconds && !document.hidden && Date.now() - drawn >= seconds * 1000 && !$(":popover-open")) again();
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); source = null; } else { watch(); if (waiting) again(); }
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) watch(); });
  addEventListener("popstate", () => swap(location.pathname + location.search).catch(() => location.reload()));

  /* -- links that stay on the page, and forms that search while one types ----------------------------------------- */
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-swap], .chips a, .segments a");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    swap(link.getAttribute("href"), { push: true }).then(() => {
      const focus = $("[data-focus]");
      if (link.matches(".lane a, .drawing *, .history a, .executions a") && focus) {
        if (matchMedia("(max-width: 70rem)").matches) focus.scrollIntoView({ block: "start", behavior: "smooth" });
      }
    }).catch((error) => { if (error.name !== "AbortError") location.assign(link.href); });
  });
  function fields(form) {
    const kept = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value !== "") kept.append(name, value);
    const text = kept.toString();
    return form.getAttribute("action") + (text ? "?" + text : "");
  }
  let typing = null;
  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-live-form]");
    if (!form || event.target.matches("select, [type=datetime-local]")) return;
    clearTimeout(typing);
    form.dataset.typing = "1";
    typing = setTimeout(() => search(form), 300);
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest?.("form[data-live-form]");
    if (form) search(form);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-live-form]")) return;
    event.preventDefault();
    search(event.target);
  });
  function search(form) {
    clearTimeout(typing);
    delete form.dataset.typing;
    const address = fields(form);
    if (address === location.pathname + location.search) return;
    swap(address, { push: true }).catch((error) => { if (error.name !== "AbortError") location.assign(address); });
  }

  /* -- a row more or less in a form: the server draws it, the page keeps its place --------------------------------- */
  document.addEventListener("submit", (event) => {
    const form = event.target, button = event.submitter;
    if (!form.matches("form[data-start]") || button?.name !== "do") return;
    event.preventDefault();
    const wish = button.value, body = new URLSearchParams(new FormData(form, button));
    renewing?.abort();
    fetch(form.action, { method: "POST", body }).then(async (answer) => {
      await morph(await answer.text());
      const whole = wish.startsWith("add:") ? wish.slice(4) : wish.slice(5, wish.lastIndexOf("/"));
      const inside = [...document.querySelectorAll("form[data-start] [name]")].filter((one) => one.id.startsWith(whole + "/"));
      inside.at(-1)?.focus();
    }).catch(() => { form.removeAttribute("data-start"); form.requestSubmit(button); });
  });

  /* -- diagram nodes lead to their call --------------------------------------------------------------------------- */
  function visit(node) {
    const calls = (node.dataset.calls ?? "").split(" ").filter(Boolean);
    const here = node.closest("[data-diagram]")?.dataset.diagram;
    if (!calls.length || !here) return;
    swap(here + (here.includes("?") ? "&" : "?") + "call=" + encodeURIComponent(calls[0]), { push: true })
      .then(() => $("#call")?.scrollIntoView({ block: "nearest", behavior: "smooth" }));
  }
  document.addEventListener("edda:node", (event) => visit(event.target)); /* diagram.js tells */

  /* -- time goes on ------------------------------------------------------------------------------------------------ */
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function rough(seconds) {
    for (const [length, name] of UNITS) if (seconds >= length) return Math.floor(seconds / length) + " " + name;
    return "0 s";
  }
  function two(seconds) {
    if (seconds < 60) return Math.floor(seconds) + " s";
    for (let at = 0; at < 3; at++) {
      const [length, name] = UNITS[at], [below, small] = UNITS[at + 1];
      if (seconds >= length) {
        const rest = Math.floor((seconds % length) / below);
        return Math.floor(seconds / length) + " " + name + (rest ? " " + rest + " " + small : "");
      }
    }
  }
  function tick() {
    const now = Date.now();
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const ahead = (Date.parse(time.dateTime) - now) / 1000;
      const text = Math.abs(ahead) < 1 ? "now" : ahead > 0 ? "in " + rough(ahead) : rough(-ahead) + " ago";
      if (time.textContent !== text) time.textContent = text;
    }
    for (const span of document.querySelectorAll("[data-ticking]")) {
      const text = two(Math.max(0, (now - Date.parse(span.dataset.ticking)) / 1000)) + " so far";
      if (span.textContent !== text) span.textContent = text;
    }
  }
  setInterval(tick, 1000);

  /* -- keys -------------------------------------------------------------------------------------------------------- */
  const PLACES = { i: "/instances", w: "/workflows", e: "/events", o: "/outbox", k: "/workers" };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    if (event.key === "/") { const field = $("[data-search]"); if (field) { event.preventDefault(); field.focus(); field.select(); } return; }
    if (event.key === "g") { going = Date.now(); return; }
    if (PLACES[event.key] && Date.now() - going < 1500) {
      const link = [...document.querySelectorAll("header nav a")].find((one) => one.getAttribute("href").endsWith(PLACES[event.key]));
      if (link) location.assign(link.href);
      return;
    }
    if (event.key === "Escape") { const close = $("#call .close"); if (close && !$(":popover-open")) close.click(); return; }
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const rows = [...document.querySelectorAll(".lanes a, a.row-link")];
    const at = rows.indexOf(document.activeElement);
    if (event.key.startsWith("Arrow") && at < 0) return;
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
    if (next) { event.preventDefault(); next.focus(); }
  });

  /* -- copying, theme ------------------------------------------------------------------------------------------------ */
  document.addEventListener("click", (event) => {
    const copy = event.target.closest?.("[data-copy]");
    if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => {
      copy.classList.add("done");
      setTimeout(() => copy.classList.remove("done"), 1200);
    });
  });
  function dress() {
    for (const one of document.querySelectorAll("button.copy")) one.hidden = !navigator.clipboard;
    const call = $("#h-call")?.textContent;
    for (const node of document.querySelectorAll(".drawing [data-calls]")) node.classList.toggle("is-chosen", node.dataset.calls.split(" ").includes(call));
    tick();
  }
  const toggle = $("#theme");
  if (toggle) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("edda-theme", root.dataset.theme); } catch { /* not kept */ }
    });
  }
  dress();
  watch();
})();
