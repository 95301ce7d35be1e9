// The page: pictures come in by four ways, each becomes a card, and the cards are answered a few at a time.
//
// drop, paste, choose, camera, example ──▶ Card ──Lanes──▶ server.js ──▶ the card shows it, #news tells it

import { setUpCamera } from "./camera.js";
import { Card } from "./card.js";
import { Lanes, byId } from "./dom.js";
import { ModelChoice } from "./models.js";
import { askExample } from "./server.js";
import { setUpWho } from "./who.js";

const AT_ONCE = 4; // browsers open 6 connections to a server
const TELL_EACH = 3; // more answers at once are told as a sum

setUpWho();
const lanes = new Lanes(AT_ONCE);
const cards = new Set();
const choice = new ModelChoice(() => answerAll([...cards]));
const known = choice.refresh();
let examples = 0;

function add(files) {
  const events = { onRemove: remove, onRetry: (card) => answerAll([card]) };
  const added = [...files].map((file) => new Card(file, events));
  if (!added.length) return;
  added.forEach((card) => cards.add(card));
  byId("cards").prepend(...added.map((card) => card.element));
  byId("results").hidden = false;
  answerAll(added);
}

async function answerAll(chosen) {
  chosen.forEach((card) => card.wait());
  await known;
  const answers = await Promise.all(chosen.map((card) => lanes.run(() => card.answer(choice))));
  const told = answers.filter(Boolean);
  if (told.length > TELL_EACH) {
    const failed = told.filter((answer) => answer.failed).length;
    tell(`${told.length} pictures: ${told.length - failed} answered, ${failed} failed`);
  } else if (told.length) {
    tell(told.map((answer) => answer.said).join("; "));
  }
  const version = told.findLast((answer) => answer.version)?.version;
  if (version) choice.noticeVersion(version);
}

const tell = (text) => (byId("news").textContent = text);

function remove(card) {
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  cards.delete(card);
  card.dispose();
  byId("results").hidden = cards.size === 0;
  (next?.querySelector(".remove") ?? byId("files")).focus(); // so that the keyboard does not start over
}

async function addExample() {
  try {
    add([await askExample(choice.wanted, examples)]);
    examples += 1;
  } catch (error) {
    byId("summary").textContent = `${error.message} ${error.detail}`;
    byId("summary").classList.add("amiss");
  }
}

function takeDrop(event) {
  event.preventDefault();
  const over = event.type === "dragenter" || event.type === "dragover";
  byId("drop").classList.toggle("over", over);
  if (event.type !== "drop") return;
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  else tell("That was no file. Drop pictures, or a picture from another page.");
}

byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
byId("example").addEventListener("click", addExample);
byId("clear").addEventListener("click", () => [...cards].reverse().forEach(remove));
document.addEventListener("paste", (event) => add(event.clipboardData.files));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) document.addEventListener(kind, takeDrop);
setUpCamera((picture) => add([picture]));
byId("curl").textContent = `curl -F file=@picture.png ${location.origin}/predict`;
