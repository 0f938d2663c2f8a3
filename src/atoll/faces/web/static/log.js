// The output of a job as it is written: appended as text, the last 500 lines kept, followed only at the end.
"use strict";
{
  const most = 500;
  const longest = 4000;
  const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 8;
  const toEnd = (box) => { box.scrollTop = box.scrollHeight; };

  // of what overwrote itself, as bars of progress do, the last is shown
  const shown = (text) => {
    const line = text.replace(/\r+$/, "");
    return line.slice(line.lastIndexOf("\r") + 1).slice(0, longest);
  };

  function append(box, text) {
    const follows = atEnd(box);
    const parts = ((box.rest ?? "") + text).split("\n");
    if (box.rest !== undefined && box.rest !== "") box.lastElementChild?.remove();
    box.rest = parts.at(-1).slice(-longest);
    const lines = parts.slice(parts.at(-1) ? -most : -most - 1);
    if (!parts.at(-1)) lines.pop();
    const fragment = document.createDocumentFragment();
    for (const line of lines) {
      const element = document.createElement("div");
      element.textContent = shown(line);
      fragment.append(element);
    }
    box.append(fragment);
    while (box.childElementCount > most) box.firstElementChild.remove();
    if (follows) toEnd(box);
  }

  document.addEventListener("log", (event) => {
    const chunk = JSON.parse(event.detail.data);
    const box = document.querySelector("[data-log]");
    if (!box || box.dataset.log !== chunk.stream) return;
    const end = Number(box.dataset.end);
    const attempt = Number(box.dataset.attempt);
    if (attempt === chunk.attempt && chunk.end <= end) return;
    if (attempt !== chunk.attempt || chunk.offset !== end) {
      // another attempt, or something in between was left out
      document.dispatchEvent(new CustomEvent("atoll:again", { detail: document.getElementById("log") }));
      return;
    }
    document.querySelector("[data-nothing]")?.remove();
    append(box, chunk.text);
    box.dataset.end = chunk.end;
  });

  const begin = () => document.querySelectorAll(".log:not([data-begun])").forEach((box) => {
    box.dataset.begun = "";
    if (box.dataset.log) toEnd(box);
  });
  begin();
  new MutationObserver(begin).observe(document.getElementById("main"), { subtree: true, childList: true });
}
