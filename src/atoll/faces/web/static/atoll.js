// What every page does by itself: the theme, times in the reader's zone, and saying so when the live stream is lost.
"use strict";

// ---- theme: as the system, light, dark; kept in this browser
{
  const themes = ["", "light", "dark"];
  const button = document.querySelector("[data-theme-switch]");
  const told = () => {
    const theme = localStorage.getItem("theme") ?? "";
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.setAttribute("aria-label", `Theme: ${theme || "as the system"}`);
    button.textContent = theme ? theme[0].toUpperCase() + theme.slice(1) : "Theme";
    document.dispatchEvent(new Event("atoll:theme"));
  };
  button?.addEventListener("click", () => {
    const next = themes[(themes.indexOf(localStorage.getItem("theme") ?? "") + 1) % themes.length];
    if (next) localStorage.setItem("theme", next);
    else localStorage.removeItem("theme");
    told();
  });
  if (button) told();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new Event("atoll:theme")));
}

// ---- times: <time datetime data-style="moment|ago">, in the reader's zone and language
const Times = (() => {
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
  const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

  function ago(then) {
    let value = (then - Date.now()) / 1000;
    for (const [unit, size] of steps) {
      if (Math.abs(value) < size) return relative.format(Math.round(value), unit);
      value /= size;
    }
  }

  function tell(element) {
    const then = new Date(element.dateTime);
    if (Number.isNaN(then.valueOf())) return;
    const now = new Date();
    const today = then.toDateString() === now.toDateString();
    const shape = today ? clock : then.getFullYear() === now.getFullYear() ? day : moment;
    const text = element.dataset.style === "ago" ? ago(then) : shape.format(then);
    if (element.textContent !== text) element.textContent = text;
    element.title = exact.format(then);
  }

  const all = (root = document) => root.querySelectorAll?.("time[datetime]").forEach(tell);
  all();
  setInterval(() => document.querySelectorAll('time[data-style="ago"]').forEach(tell), 10_000);
  new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === "attributes") tell(change.target);
      else for (const node of change.addedNodes) {
        if (node.nodeType !== Node.ELEMENT_NODE) continue;
        if (node.matches("time[datetime]")) tell(node);
        else all(node);
      }
    }
  }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["datetime"] });
  return { all };
})();

// ---- live: one stream for a tab, on [data-stream]. What has [data-live] fetches itself again at the events named there,
// not more often than every [data-live-pace] milliseconds, and every [data-live-seconds] seconds.
{
  const stream = document.querySelector("[data-stream]");
  const bar = document.querySelector("[data-lost]");
  const fetched = new Map();
  const due = new Map();
  let opened = false;
  let losing = 0;

  function again(element) {
    const name = element?.id;
    if (!name || due.has(name)) return;
    const wait = (fetched.get(name) ?? 0) + Number(element.dataset.livePace ?? 1000) - Date.now();
    due.set(name, setTimeout(() => {
      due.delete(name);
      fetched.set(name, Date.now());
      const now = document.getElementById(name);
      if (now) htmx.trigger(now, "atoll:fetch");
    }, Math.max(0, wait)));
  }
  const at = (event) => document.querySelectorAll(`[data-live~="${event}"]`).forEach(again);

  // shown a moment later, as a stream that ends is open again at once
  const lost = () => { losing ||= setTimeout(() => { bar.hidden = false; }, 1500); };
  const found = () => { clearTimeout(losing); losing = 0; bar.hidden = true; };

  document.addEventListener("atoll:again", (event) => again(event.detail));
  if (stream) {
    stream.addEventListener("opened", () => {
      found();
      if (opened) at("opened");
      opened = true;
    });
    for (const event of ["stale", "added", "changed"]) stream.addEventListener(event, () => at(event));
    for (const event of ["htmx:sse:error", "htmx:error", "htmx:sse:close"]) stream.addEventListener(event, lost);
    stream.addEventListener("htmx:sse:before:connection", (event) => {
      if (event.detail.connection.attempt && !document.hidden) lost();
    });
    setInterval(() => {
      if (document.hidden) return;
      // a first connection that failed is not tried again by itself
      if (!stream._htmx?.sse && window.htmx) { lost(); htmx.trigger(stream, "atoll:connect"); }
      for (const element of document.querySelectorAll("[data-live-seconds]")) {
        const last = fetched.get(element.id) ?? performance.timeOrigin;
        if (Date.now() - last > 1000 * Number(element.dataset.liveSeconds)) again(element);
      }
    }, 4000);
  }
}

// ---- small comforts: tick all, count what is ticked, copy
{
  const boxes = () => [...document.querySelectorAll('td.tick input')];
  function told() {
    const ticked = boxes().filter((box) => box.checked).length;
    const say = document.querySelector("[data-ticked]");
    if (!say) return;
    const text = ticked ? `${ticked} ticked:` : say.dataset.none;
    if (say.textContent !== text) say.textContent = text;
    const all = document.querySelector("[data-tick-all]");
    all.hidden = false;
    all.checked = ticked > 0 && ticked === boxes().length;
    all.indeterminate = ticked > 0 && !all.checked;
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-tick-all]")) for (const box of boxes()) box.checked = event.target.checked;
    if (event.target.matches(".tick input")) told();
  });
  document.addEventListener("htmx:after:swap", told);
  told();

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}
