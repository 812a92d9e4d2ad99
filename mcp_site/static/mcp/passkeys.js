"use strict";

// The browser's half of WebAuthn. A form with `data-passkey` ("create" or "get") carries the options as JSON; what the
// browser makes of them goes back in the form's field "credential".

function decodeBytes(text) {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(window.atob(base64), (letter) => letter.charCodeAt(0));
}

function encodeBytes(buffer) {
  const letters = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join("");
  return window.btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function readOptions(form) {
  const options = JSON.parse(form.querySelector("#passkey-options").textContent).publicKey;
  options.challenge = decodeBytes(options.challenge);
  if (options.user) {
    options.user.id = decodeBytes(options.user.id);
  }
  for (const known of [...(options.excludeCredentials ?? []), ...(options.allowCredentials ?? [])]) {
    known.id = decodeBytes(known.id);
  }
  return options;
}

const PARTS = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];

function writeCredential(credential) {
  const response = {};
  for (const part of PARTS) {
    if (credential.response[part]) {
      response[part] = encodeBytes(credential.response[part]);
    }
  }
  return { id: credential.id, rawId: encodeBytes(credential.rawId), type: credential.type, response };
}

function complain(form, text) {
  const place = form.querySelector("[role=alert]");
  place.textContent = text;
  place.hidden = false;
}

async function perform(form) {
  if (!navigator.credentials || !window.PublicKeyCredential) {
    complain(form, "This browser has no passkeys here: they need TLS, or localhost.");
    return;
  }
  try {
    const publicKey = readOptions(form);
    const credential =
      form.dataset.passkey === "create"
        ? await navigator.credentials.create({ publicKey })
        : await navigator.credentials.get({ publicKey });
    form.elements.credential.value = JSON.stringify(writeCredential(credential));
    form.submit();
  } catch (error) {
    complain(form, `The browser gave no passkey (${error.name}). Try again.`);
  }
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    perform(form);
  });
}
