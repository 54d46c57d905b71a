// The forms work without this. With it, an answer that could not be kept is said on the page, and pressing again
// is enough; and the keys 1, 2 and 3 press the buttons.
for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const buttons = form.querySelectorAll("button"), status = form.querySelector("[role=status]");
    const body = new URLSearchParams(new FormData(form, event.submitter));
    for (const button of buttons) button.disabled = true; // a double click is one answer
    status.textContent = "";
    try {
      const reply = await fetch(form.action, { method: "POST", body });
      if (reply.ok) {
        location.assign(reply.url);
        return;
      }
      status.textContent = await reply.text();
    } catch {
      status.textContent = "No connection, so this was not kept. Please press again.";
    }
    for (const button of buttons) button.disabled = false;
  });
}
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`)?.click();
});
// A page that comes back by the browser's Back button has its buttons again.
addEventListener("pageshow", () => document.querySelectorAll("button").forEach((b) => (b.disabled = false)));
