// Buttons that copy: <button data-copy="ID of what is copied" hidden>. Without script they stay hidden.
"use strict";
{
  const reveal = () => document.querySelectorAll("button[data-copy][hidden]").forEach((button) => { button.hidden = false });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy)?.textContent ?? "";
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // browsers copy only where the page came by TLS, or from this machine: mark it, to be copied by hand
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "Marked";
    }
    setTimeout(() => { button.textContent = "Copy" }, 2000);
  });
  new MutationObserver(reveal).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["hidden"] });
  reveal();
}
