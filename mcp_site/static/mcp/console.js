// Pages that read themselves again: when the session has ended meanwhile, the answer is the sign-in page.
document.addEventListener("htmx:beforeSwap", (event) => {
  const address = new URL(event.detail.xhr.responseURL || window.location.href);
  if (address.pathname.endsWith("/login/")) {
    event.detail.shouldSwap = false;
    window.location.reload();
  }
});
