import { byteLength, bytes, plural, readVerdict, roomOfPath, socketAddress } from "./policy.mjs";
import { Connection } from "./connection.mjs";
import { History } from "./history.mjs";

// The room's page: ties connection, history and what a person types together.

/** How often the member count is asked for while somebody can see it. */
const ASK_EVERY_MS = 5_000;
/** The second time after joining: by then the gateways have told each other who has come. */
const ASK_AGAIN_MS = 2_500;
/** The first message after a quiet while often means a new member; all who hear it ask spread over this span. */
const ASK_SOON_MS = 1_000;
const ASK_TIMEOUT_MS = 5_000;

const at = (id) => document.getElementById(id);
const { origin, pathname } = location;
const address = socketAddress(location);

let room = roomOfPath(pathname);
let maxMessageBytes;
let state = { name: "connecting" };
// Kept by this page alone, for as long as it is open.
let token = "";
let onlyReads = false;

const textBox = at("text");
const history = new History({
  scroller: at("history"),
  lines: at("lines"),
  outgoing: at("outgoing"),
  empty: at("empty"),
  jump: at("jump"),
  said: at("messages-said"),
  resend: (text) => send(text),
});
const connection = new Connection({
  address,
  token: () => token,
  ask,
  context: () => ({ room, origin, maxMessageBytes, online: navigator.onLine }),
  onState: showState,
  onMessage: (data) => {
    history.received(data);
    askSoon();
  },
});

// === The room's facts: name, members, limit ===

/** Asks whether a handshake would be accepted; the verdict, or null where nobody answered. */
async function ask() {
  const question = `${pathname}?origin=${encodeURIComponent(origin)}`;
  try {
    const answer = await fetch(question, {
      headers: {
        Accept: "application/json",
        ...(token === "" ? {} : { Authorization: `Bearer ${token}` }),
      },
      cache: "no-store",
      signal: AbortSignal.timeout(ASK_TIMEOUT_MS),
    });
    const body = await answer.json().catch(() => null);
    const verdict = readVerdict(answer.status, answer.headers.get("Retry-After"), body);
    learn(verdict);
    return verdict;
  } catch {
    return null;
  }
}

function learn(verdict) {
  if (verdict.room) {
    showRoom(verdict.room);
    at("programs").hidden = !verdict.requireOrigin;
  }
  if (verdict.maxMessageBytes !== undefined && verdict.maxMessageBytes !== maxMessageBytes) {
    maxMessageBytes = verdict.maxMessageBytes;
    showCount();
  }
  if (verdict.access !== "") {
    onlyReads = verdict.access === "Read";
    letWrite(state.name !== "closed");
  }
  if (verdict.members !== undefined && state.name === "open") {
    at("members").hidden = false;
    at("members").textContent = plural(verdict.members, "member");
  }
}

function showRoom(name) {
  room = name;
  const slash = name.indexOf("/");
  at("namespace").textContent = name.slice(0, slash + 1);
  at("name").textContent = name.slice(slash + 1);
  history.title = `${name} · Hubbub`;
}

let askTimer;
function askAfter(wait) {
  clearTimeout(askTimer);
  askTimer = setTimeout(keepAsking, wait);
}
function keepAsking(next = ASK_EVERY_MS) {
  clearTimeout(askTimer);
  if (state.name !== "open" || document.hidden) return;
  ask().then(() => askAfter(next));
}
document.addEventListener("visibilitychange", () => keepAsking());

// In a busy room nothing is asked but what is asked anyway.
let heardAt = 0;
function askSoon() {
  const quiet = Date.now() - heardAt > ASK_EVERY_MS;
  heardAt = Date.now();
  if (quiet) askAfter(Math.random() * ASK_SOON_MS);
}

// === The state of the connection ===

const STATE_WORDS = { connecting: "Connecting", open: "Connected", closed: "Disconnected" };
let countdown;

function showState(next) {
  const previous = state;
  state = next;
  document.body.dataset.state = next.name;
  clearInterval(countdown);
  if (previous.name === "open") history.disconnected();
  if (next.name === "waiting") {
    countdown = setInterval(showCountdown, 250);
    showCountdown();
  } else {
    at("state").textContent = STATE_WORDS[next.name];
  }
  showBanner(next);
  if (next.name !== "open") at("members").hidden = true;
  // It told that there was no connection, or stands to be judged anew.
  if (next.name === "open" && tooLong() === 0) showProblem("");
  if (next.name === "open" && next.again) {
    history.note("Reconnected. What was said in between is not shown here.");
  }
  if (next.connection !== undefined) {
    // Of an attempt that was refused too. It stays in sight when the connection has ended: that is when somebody asks for it.
    at("connection").hidden = false;
    at("connection-name").textContent = next.connection;
  }
  say(next);
  keepAsking(ASK_AGAIN_MS);
}

function showBanner({ name, title, detail, token: wanted }) {
  // An attempt under way keeps the reason of the last one in sight, so that nothing flickers.
  if (name === "connecting") return;
  const shown = name === "waiting" || name === "closed";
  const button = at("now");
  const focus = document.activeElement;
  at("banner").hidden = !shown;
  at("token-form").hidden = !wanted;
  button.hidden = Boolean(wanted);
  letWrite(name !== "closed");
  if (!shown) {
    // Also when the page has just opened and nothing else was chosen: one may type at once.
    if (focus === button || (name === "open" && focus === document.body)) textBox.focus();
    return;
  }
  at("banner-title").textContent = title;
  at("banner-detail").textContent = detail;
  button.textContent = name === "closed" ? "Try again" : "Connect now";
  if (wanted) at("token").focus();
  else if (name === "closed" && at("composer").contains(focus)) button.focus();
}

// Where the page does not come back by itself there is nobody to write to; a text begun stays in sight.
function letWrite(isThere) {
  textBox.disabled = at("send").disabled = !isThere || onlyReads;
  const here = onlyReads ? "You may only read here" : "Write a message";
  textBox.placeholder = isThere ? here : "Not in the room";
}

function showCountdown() {
  const seconds = Math.max(0, Math.ceil((state.until - Date.now()) / 1_000));
  at("state").textContent = `Reconnecting in ${seconds} s`;
}

// Each change is said once, and without the countdown.
let said = "";
function say({ name, title, detail }) {
  if (name === "connecting") return;
  const words = name === "open" ? "Connected." : `${title}. ${detail}`;
  const more = name === "waiting" ? " Reconnecting by itself." : "";
  if (words === said) return;
  said = words;
  at("state-said").textContent = words + more;
}

at("now").addEventListener("click", () => connection.connectNow());
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  connection.connectNow();
});
window.addEventListener("offline", () => connection.offline());
window.addEventListener("online", () => connection.online());

// === Writing ===

function send(text) {
  if (!connection.send(text)) {
    showProblem("Not connected. Your text stays here until it can be sent.");
    return false;
  }
  history.sent(text);
  return true;
}

function tooLong() {
  const size = byteLength(textBox.value);
  return maxMessageBytes !== undefined && size > maxMessageBytes ? size - maxMessageBytes : 0;
}

function showProblem(words) {
  at("problem").textContent = words;
}

function showCount() {
  const size = byteLength(textBox.value);
  const limit = maxMessageBytes;
  at("count").textContent =
    limit === undefined
      ? bytes(size)
      : `${size.toLocaleString("en")} / ${bytes(limit)}`;
  at("count").classList.toggle("over", tooLong() > 0);
  if (tooLong() === 0) textBox.removeAttribute("aria-invalid");
}

textBox.addEventListener("input", () => {
  showProblem("");
  showCount();
});

textBox.addEventListener("keydown", (event) => {
  // Enter also ends the choice of an input method; that one is not ours.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("composer").requestSubmit();
});

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  textBox.focus();
  const text = textBox.value;
  if (text === "") return;
  const over = tooLong();
  if (over > 0) {
    textBox.setAttribute("aria-invalid", "true");
    showProblem(
      `Too long: this room takes ${bytes(maxMessageBytes)}. Shorten it by ${bytes(over)}.`,
    );
    return;
  }
  if (!send(text)) return;
  textBox.value = "";
  showProblem("");
  showCount();
});

at("address").textContent = address;
showRoom(room);
showCount();
connection.connect();
