// Who is asking, where the server wants to know: an API key or a token, kept in this tab alone until it is closed.
//
// 401 ──▶ askWho: the form ──▶ sessionStorage ──▶ withPass: the header of every request
//                                  └─▶ "pass": what was refused is asked again

import { byId } from "./dom.js";

const KEPT = "pass";

/** Headers with what a person has entered, if anything. */
export function withPass(headers) {
  const all = new Headers(headers);
  const pass = sessionStorage.getItem(KEPT);
  if (pass) all.set("Authorization", `Bearer ${pass}`);
  return all;
}

/** Shows the form, unless something else has been entered since a request with these headers was sent. */
export function askWho(headers) {
  if (withPass({}).get("Authorization") !== headers.get("Authorization")) return;
  sessionStorage.removeItem(KEPT);
  if (!byId("who").hidden) return;
  byId("who").hidden = false;
  byId("pass").focus();
}

/** Makes the form work. */
export function setUpWho() {
  byId("who").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEPT, byId("pass").value.trim());
    byId("who").reset();
    byId("who").hidden = true;
    document.dispatchEvent(new Event("pass"));
  });
}
