"use strict";

// Pages that read themselves again: when the session has ended meanwhile, the answer is the sign-in page.
document.addEventListener("htmx:beforeSwap", (event) => {
  const address = new URL(event.detail.xhr.responseURL || window.location.href);
  if (address.pathname.endsWith("/login/")) {
    event.detail.shouldSwap = false;
    window.location.reload();
  }
});

// What is put in a part's place keeps how far its boxes were scrolled.
const SCROLLED = ".mcp-json, .mcp-scroll, .mcp-chunk";
let scrolled = new Map();

function listScrolled(root) {
  return Array.from(document.getElementById(root)?.querySelectorAll(SCROLLED) ?? []);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const root = event.detail.target.id;
  scrolled = new Map(listScrolled(root).map((box) => [getPlace(box), [box.scrollLeft, box.scrollTop, isFollowed(box)]]));
});

document.addEventListener("htmx:afterSettle", (event) => {
  for (const box of listScrolled(event.detail.target.id)) {
    const [left, top, wasFollowed] = scrolled.get(getPlace(box)) ?? [0, 0, false];
    box.scrollTo(left, wasFollowed ? box.scrollHeight : top);
  }
});

// Which of its part's boxes it is; parts have names.
function getPlace(box) {
  const part = box.closest("[id]");
  return `${part.id}/${Array.from(part.querySelectorAll(SCROLLED)).indexOf(box)}`;
}

// Whether who looks wants to see what comes next: output that is streamed, as far as it was read.
function isFollowed(box) {
  return box.closest("#streamed") !== null && box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
}

// A page's actions are put in place anew only where they are others: a dialog may just be on its way to one of them.
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  if (listLinks(event.detail.fragment) === listLinks(event.detail.target)) {
    event.detail.shouldSwap = false;
  }
});

function listLinks(root) {
  return Array.from(root.querySelectorAll("a"), (link) => link.getAttribute("href")).join("\n");
}

// Pages that are told when to read themselves again: `data-live` is the address of a stream of server-sent events.
// A page that nobody sees is not told, as a browser opens few connections to a server.
const AGAIN_MS = 5000;

class Follower {
  constructor(element) {
    this.element = element;
    this.source = null;
    this.isOver = false;
    this.timer = null;
    document.addEventListener("visibilitychange", () => this.open());
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", () => this.open());
  }

  open() {
    window.clearTimeout(this.timer);
    if (this.isOver || document.hidden) {
      this.close();
    } else if (this.source === null) {
      this.source = new EventSource(this.element.dataset.live);
      this.source.addEventListener("changed", () => window.htmx.trigger(this.element, "live:changed"));
      this.source.addEventListener("over", () => this.end());
      this.source.addEventListener("signed-out", () => window.location.reload());
      this.source.addEventListener("error", () => this.retry());
    }
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  end() {
    this.isOver = true;
    this.close();
  }

  // A browser connects again by itself after a stream's end, not after a refusal.
  retry() {
    if (this.source?.readyState === EventSource.CLOSED) {
      this.close();
      this.timer = window.setTimeout(() => this.open(), AGAIN_MS);
    }
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-live]").forEach((element) => new Follower(element).open());
});

// Icons are words in a font of pictures: no part of what a control is called, unless it has no other name.
function hideIcons(root) {
  for (const icon of root.querySelectorAll(".material-symbols-outlined:not([aria-hidden])")) {
    const control = icon.closest("a, button");
    if (control === null || control.title || control.ariaLabel || control.textContent.trim() !== icon.textContent.trim()) {
      icon.setAttribute("aria-hidden", "true");
    }
  }
}

document.addEventListener("DOMContentLoaded", () => hideIcons(document));
document.addEventListener("htmx:load", (event) => hideIcons(event.detail.elt.parentElement ?? document));

// How long something has been going on, every second.
function describeSeconds(seconds) {
  if (seconds < 60) {
    return `${seconds} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

window.setInterval(() => {
  document.querySelectorAll("[data-since]").forEach((element) => {
    const seconds = Math.floor((Date.now() - Date.parse(element.dataset.since)) / 1000);
    element.textContent = describeSeconds(Math.max(0, seconds));
  });
}, 1000);
