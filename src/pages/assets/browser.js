// What pages do beyond HTML, in the browser. Each page works without it.
// Invariant: it writes no HTML. It only reads attributes of our own pages, and sets texts and attributes.
"use strict";

// A button copies the text of the block beside it. The stylesheet shows it only once this script runs, also in parts that come later.
document.documentElement.classList.toggle("copies", navigator.clipboard !== undefined);

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-copy]") : null;
  if (button === null) return;
  const label = button.textContent;
  const show = (text) => {
    button.textContent = text;
    setTimeout(() => (button.textContent = label), 2_000);
  };
  navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent).then(
    () => show("Copied"),
    () => show("Select it by hand"),
  );
});

// A button that cannot be undone asks once more. Without script the server's own checks stand.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question !== undefined && !confirm(question)) event.preventDefault();
});

// A form is sent once: a second click while the answer is on its way sends nothing. An answer that is a file leaves the page as
// it is, so the form can be sent again after some seconds.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  const { target: form } = event;
  if (form.dataset.sent !== undefined) return event.preventDefault();
  if (form.method !== "post") return;
  form.dataset.sent = "";
  setTimeout(() => delete form.dataset.sent, 5_000);
});

// The browser shows a page from its memory when a person goes back: its forms can be sent again.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// An open menu closes with Escape and with a click elsewhere.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
