// Show each update of the page as long as somebody looks, and say so when the connection is lost.
"use strict";

const content = document.getElementById("content");
const state = document.getElementById("state");
let source = null;
let timer = null;
let isUpdating = false;
let isBehind = false;

function say(text) {
  if (state.textContent !== text) state.textContent = text;
  state.hidden = !text;
}

// What the reader has opened or focussed, which an update must not close.
function nameOf(element) {
  if (!element || !content.contains(element)) return null;
  return element.getAttribute("href") || element.textContent;
}

async function update() {
  if (isUpdating) {
    isBehind = true;
    return;
  }
  isUpdating = true;
  try {
    const response = await fetch("/content" + location.search, { cache: "no-store" });
    const text = await response.text();
    if (response.status === 403) return say(`${text} The server was started again.`);
    if (!response.ok) throw new Error(text);
    const open = new Set([...content.querySelectorAll("details[open] > summary")].map(nameOf));
    const focus = nameOf(document.activeElement);
    content.innerHTML = text;
    for (const summary of content.querySelectorAll("summary")) summary.parentElement.open = open.has(nameOf(summary));
    if (focus) [...content.querySelectorAll("a, summary")].find((each) => nameOf(each) === focus)?.focus({ preventScroll: true });
    say("");
  } catch (error) {
    say("The server does not answer; the page tries again. It shows an earlier state.");
  } finally {
    isUpdating = false;
  }
  if (isBehind) {
    isBehind = false;
    update();
  }
}

function connect() {
  clearTimeout(timer);
  if (source || document.hidden || !content.dataset.events) return;
  source = new EventSource(content.dataset.events);
  source.onmessage = update;
  source.onerror = () => {
    disconnect();
    timer = setTimeout(connect, 2000);
    update(); // says why the connection is lost
  };
}

function disconnect() {
  clearTimeout(timer);
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
connect();
